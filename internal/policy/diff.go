// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/medirecord/medirecord/internal/med"
)

// Change is what another policy file changes for one role and one action.
type Change struct {
	Wider    bool // it lets somebody see or do more
	Role     med.Role
	Action   string // read patient
	What     string // may, see ssn, write phone, page, rows
	From, To string
	When     []string // each a list of conditions; "always" is all of them
}

func (c Change) String() string {
	word := either(c.Wider, "WIDER", "narrower")
	if c.What == whatPage || c.What == whatRows {
		word = "changed"
	}
	return fmt.Sprintf("%-8s  %s, %s: %s: %s → %s (%s)", word, c.Role, c.Action, c.What, c.From, c.To, strings.Join(c.When, "; or "))
}

const (
	whatMay  = "may"
	whatPage = "page"
	whatRows = "rows"
)

// Diff asks both policies everything that each role alone can ask, and returns
// the answers that differ, what widens first. The compiled rules win over both.
// It takes seconds. What a caller of several roles gets is the widest of what
// the roles get alone, unless a file says otherwise; Diff does not try that.
func Diff(ctx context.Context, old, changed *Engine) ([]Change, error) {
	var all []Change
	for _, role := range roleWords {
		for number := 1; number < len(questions); number++ {
			some, err := diffQuestion(ctx, old, changed, rolesOf([]med.Role{role}), uint8(number)) //nolint:gosec // a short list
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	slices.SortStableFunc(all, func(a, b Change) int {
		return cmp.Compare(a.rank(), b.rank())
	})
	return all, nil
}

// eachField names every field once: a patient and a record share some names.
var eachField = slices.Compact(slices.Sorted(slices.Values(everyField)))

func (c Change) rank() int {
	switch {
	case c.What == whatPage || c.What == whatRows:
		return 2
	case c.Wider:
		return 0
	}
	return 1
}

// diffQuestion compares the answers to one question of one role, and puts
// together those that differ in the same way.
func diffQuestion(ctx context.Context, old, changed *Engine, role roleSet, number uint8) ([]Change, error) {
	whole := space(role, number)
	before, err := old.answers(ctx, whole)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", old.name, err)
	}
	after, err := changed.answers(ctx, whole)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", changed.name, err)
	}
	q := &questions[number]
	type cell struct {
		what, from, to string
		wider          bool
	}
	where := map[cell][]facts{}
	var order []cell
	for i, f := range whole {
		fields := map[string][]string{} // the difference -> the fields that have it
		note := func(what, from, to string, wider bool) {
			c := cell{what, from, to, wider}
			if where[c] == nil {
				order = append(order, c)
			}
			where[c] = append(where[c], f)
		}
		compare(&before[i], &after[i], note, fields)
		for _, key := range slices.Sorted(maps.Keys(fields)) {
			part := strings.Split(key, "\x00")
			note(part[0]+" "+strings.Join(fields[key], ", "), part[1], part[2], part[3] == "wider")
		}
	}
	var out []Change
	for _, c := range order {
		out = append(out, Change{
			Wider: c.wider, Role: role.list()[0], Action: q.action + " " + q.resource,
			What: c.what, From: c.from, To: c.to, When: tell(where[c], whole),
		})
	}
	return out, nil
}

// compare notes how two answers differ. What is not allowed any more shows and
// writes nothing, and is said in one line; what becomes allowed is said field
// by field.
func compare(a, b *med.Decision, note func(what, from, to string, wider bool), fields map[string][]string) {
	if a.Allow != b.Allow {
		note(whatMay, mayOf(a), mayOf(b), b.Allow)
	}
	if !b.Allow {
		return
	}
	add := func(what, from, to string, wider bool, f med.Field) {
		key := strings.Join([]string{what, from, to, either(wider, "wider", "")}, "\x00")
		fields[key] = append(fields[key], string(f))
	}
	for _, f := range eachField {
		if from, to := a.View[f], b.View[f]; from != to {
			add("see", from.String(), to.String(), to > from, f)
		}
		if from, to := a.Write[f], b.Write[f]; from != to {
			add("write", either(from, "yes", "no"), either(to, "yes", "no"), to, f)
		}
	}
	if !a.Allow {
		return
	}
	if from, to := strings.Join(a.Notify, ", "), strings.Join(b.Notify, ", "); from != to {
		note(whatPage, cmp.Or(from, "nobody"), cmp.Or(to, "nobody"), false)
	}
	if a.MaxRows != b.MaxRows {
		note(whatRows, fmt.Sprint(a.MaxRows), fmt.Sprint(b.MaxRows), false)
	}
}

func mayOf(d *med.Decision) string {
	return either(d.Allow, "yes", "no ("+d.Reason+")")
}

// answers decides all questions, as they would be decided in force.
func (e *Engine) answers(ctx context.Context, questions []facts) ([]med.Decision, error) {
	const workers = 4
	out, errs := make([]med.Decision, len(questions)), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(questions) && errs[w] == nil; i += workers {
				out[i], errs[w] = e.ruled(ctx, questions[i])
			}
		})
	}
	wg.Wait()
	return out, cmp.Or(errs...)
}

// ruled is what the file says, and a denial where a compiled rule forbids it.
func (e *Engine) ruled(ctx context.Context, f facts) (med.Decision, error) {
	d, err := e.evaluate(ctx, f)
	if err != nil {
		return med.Decision{}, fmt.Errorf("asked about %s: %w", f, err)
	}
	if _, bad := broken(f, &d); bad {
		return med.Decision{Reason: reasonInvariant}, nil
	}
	return d, nil
}

// DiffFiles compares the policies at two paths, as Read finds them. Neither
// need be good: it says what would change if both were in force.
func DiffFiles(ctx context.Context, old, changed string) ([]Change, error) {
	a, err := compileAt(ctx, old)
	if err != nil {
		return nil, err
	}
	b, err := compileAt(ctx, changed)
	if err != nil {
		return nil, err
	}
	return Diff(ctx, a, b)
}

func compileAt(ctx context.Context, path string) (*Engine, error) {
	t, err := readPath(path)
	if err != nil {
		return nil, err
	}
	return compile(ctx, Source{Name: t.name, Rego: t.rego, Base: t.base})
}
