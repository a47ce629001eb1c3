// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

var update = flag.Bool("update", false, "write policy/cases/table_*.yaml anew, from what the policy answers")

// cell is the question of a cell of the tables: a role at its best, in one
// relation, about one kind. Its fields are the columns.
func cell(role med.Role, number int, relation med.Relation, kind med.Kind) Input {
	q := &questions[number]
	in := Input{Subject: Subject{Roles: []med.Role{role}, MFA: med.MFAFresh}, Action: q.action}
	in.Subject.Grant = q.grant && role == med.RoleBreakGlass && relation != med.RelationSelf
	in.Resource = Resource{Type: q.resource, Kind: kind, Relation: relation, Sensitivity: med.SensitivityNormal, State: StateLive, Authorship: AuthorshipOther}
	switch {
	case q.action == "restore":
		in.Resource.State = StateDeleted
	case q.resource == "record" && q.action == "delete", q.resource == "break_glass" && q.authorship && !q.secondPerson:
		in.Resource.Authorship = AuthorshipOwnRecent
	}
	return in
}

// kindsOf lists the kinds that a question can be about: none but for records
// and exports.
func kindsOf(q *question) []med.Kind {
	switch {
	case q.resource == "record":
		return med.Kinds
	case q.kind:
		return kindWords
	}
	return []med.Kind{""}
}

// Every cell of the policy's own vocabulary (role, relation, action, kind, and
// in it every field) has a case that says exactly what it is.
func TestEveryCellHasACase(t *testing.T) {
	t.Parallel()
	src := defaultSource(t)
	if *update {
		writeTables(t, compiled(t, src))
		t.Skip("written: run again")
	}
	covered := map[facts]bool{}
	for i := range src.Cases {
		c := &src.Cases[i]
		if c.Expect.Reason != "" && (c.Expect.Exact || !c.Expect.Allow) { // what is denied shows nothing
			covered[c.Input.normal()] = true
		}
	}
	missing, n := []string{}, 0
	for _, role := range roleWords {
		for number := 1; number < len(questions); number++ {
			for _, relation := range med.Relations {
				for _, kind := range kindsOf(&questions[number]) {
					n++
					in := cell(role, number, relation, kind)
					if f := in.normal(); !covered[f] {
						missing = append(missing, f.String())
					}
				}
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d cells have no exact case; the first: %s\nadd it to policy/cases/table_*.yaml, or run go test ./internal/policy -run EveryCell -update and read what it wrote",
			len(missing), n, missing[0])
	}
	if n < 3000 {
		t.Errorf("only %d cells were found", n)
	}
}

// What the file permits is in the vocabulary: no permission can hide from the
// tables behind a word that nobody asks.
func TestThePermissionsAreInTheVocabulary(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"permits", "may_write", "kinds"} {
		out, err := compiled(t, defaultSource(t)).Evaluate(t.Context(), "data.medirecord."+table, nil)
		if err != nil {
			t.Fatal(err)
		}
		for resource, actions := range out.(map[string]any) {
			for action, roles := range actions.(map[string]any) {
				if questionOf(resource, action) == 0 {
					t.Errorf("%s names %s %s, which nobody can ask", table, action, resource)
				}
				for role := range roles.(map[string]any) {
					if !slices.Contains(roleWords, med.Role(role)) {
						t.Errorf("%s of %s %s names the role %q, which nobody has", table, action, resource, role)
					}
				}
			}
		}
	}
}

// A case that is exact fails for whatever it does not name.
func TestAnExactCaseLooksAtEverything(t *testing.T) {
	t.Parallel()
	const text = `title: A nurse
cases:
  - {roles: [nurse], mfa: fresh, action: [read, search], resource: patient, sensitivity: normal, relation: [same_practice, other_practice], expect: {allow: true, exact: true, reveal: [name]}}
`
	cases, err := parseCases("x.yaml", []byte(text))
	if err != nil || len(cases) != 4 {
		t.Fatalf("%d cases, error %v", len(cases), err)
	}
	failures := compiled(t, defaultSource(t)).RunCases(t.Context(), cases)
	if len(failures) != 4 {
		t.Fatalf("%d failures, want 4", len(failures))
	}
	for i, want := range []string{"dob is reveal, expected hide", "allow is false", "max_rows is 200, expected 0", "allow is false"} {
		if got := failures[i].String(); !strings.Contains(got, want) || !strings.Contains(got, "nurse, mfa fresh, ") {
			t.Errorf("got %s, want one about %q", got, want)
		}
	}
	d := med.Decision{Allow: true, View: med.View{"ssn": med.Mask}, Write: map[med.Field]bool{"ssn": true}, Notify: []string{"officer"}, MaxRows: 3}
	if got := (&Expect{Allow: true, Exact: true}).diff(&d); len(got) != 4 {
		t.Errorf("an exact case of nothing finds only %q", got)
	}
}

func writeTables(t *testing.T, e *Engine) {
	t.Helper()
	for _, role := range roleWords {
		var b strings.Builder
		fmt.Fprintf(&b, "# Every action, relation and kind; what is not named is hidden and not writable.\n"+
			"# Asked of a caller with a fresh second factor, of break_glass with a grant.\n"+
			"title: \"%s: the whole table\"\ncases:\n", role)
		resource := ""
		for _, line := range tableOf(t, e, role) {
			if line.resource != resource {
				resource = line.resource
				fmt.Fprintf(&b, "  # %s\n", resource)
			}
			fmt.Fprintf(&b, "  - {roles: [%s], %s}\n", quoted(string(role)), line.text())
		}
		name := filepath.Join("../../policy/cases", "table_"+strings.TrimPrefix(string(role), "service:")+".yaml")
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func quoted(s string) string {
	if strings.Contains(s, ":") {
		return `"` + s + `"`
	}
	return s
}

type tableLine struct {
	resource, asked, expect   string
	actions, kinds, relations []string
}

func (l *tableLine) text() string {
	kinds := ""
	if len(l.kinds) > 0 && l.kinds[0] != "" {
		kinds = "kind: " + listOf(l.kinds, len(med.Kinds)) + ", "
	}
	return fmt.Sprintf("action: %s, resource: %s, %s%srelation: %s, expect: {%s}",
		listOf(l.actions, 0), l.resource, kinds, l.asked, listOf(l.relations, len(med.Relations)), l.expect)
}

func listOf(words []string, all int) string {
	switch len(words) {
	case all:
		return "every"
	case 1:
		return words[0]
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// tableOf puts together what differs in one list of words only: kinds first,
// then relations, then actions.
func tableOf(t *testing.T, e *Engine, role med.Role) []tableLine {
	t.Helper()
	var lines []tableLine
	join := func(same func(a, b *tableLine) bool, add func(a, b *tableLine)) {
		var out []tableLine
		for i := range lines {
			j := slices.IndexFunc(out, func(l tableLine) bool {
				return l.resource == lines[i].resource && l.asked == lines[i].asked && l.expect == lines[i].expect && same(&l, &lines[i])
			})
			if j < 0 {
				out = append(out, lines[i])
			} else {
				add(&out[j], &lines[i])
			}
		}
		lines = out
	}
	for number := 1; number < len(questions); number++ {
		q := &questions[number]
		for _, relation := range med.Relations {
			for _, kind := range kindsOf(q) {
				in := cell(role, number, relation, kind)
				f := in.normal()
				d, err := e.decide(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, tableLine{
					resource: q.resource, asked: askedOf(f, q), expect: expectOf(&d),
					actions: []string{q.action}, kinds: []string{string(kind)}, relations: []string{string(relation)},
				})
			}
		}
	}
	join(func(a, b *tableLine) bool {
		return slices.Equal(a.actions, b.actions) && slices.Equal(a.relations, b.relations) && a.kinds[0] != "" && b.kinds[0] != ""
	}, func(a, b *tableLine) { a.kinds = append(a.kinds, b.kinds...) })
	join(func(a, b *tableLine) bool {
		return slices.Equal(a.actions, b.actions) && slices.Equal(a.kinds, b.kinds)
	}, func(a, b *tableLine) { a.relations = append(a.relations, b.relations...) })
	join(func(a, b *tableLine) bool {
		return slices.Equal(a.relations, b.relations) && slices.Equal(a.kinds, b.kinds)
	}, func(a, b *tableLine) { a.actions = append(a.actions, b.actions...) })
	slices.SortStableFunc(lines, func(a, b tableLine) int {
		return slices.IndexFunc(questions, func(q question) bool { return q.resource == a.resource }) -
			slices.IndexFunc(questions, func(q question) bool { return q.resource == b.resource })
	})
	return lines
}

func askedOf(f facts, q *question) string {
	var b strings.Builder
	if f.mfa != mfaNone {
		fmt.Fprintf(&b, "mfa: %s, ", mfaWords[f.mfa])
	}
	if f.grant {
		b.WriteString("grant: true, ")
	}
	if q.sensitivity {
		fmt.Fprintf(&b, "sensitivity: %s, ", sensitivityWords[f.sensitivity])
	}
	if f.state == stateDeleted {
		b.WriteString("state: deleted, ")
	}
	if q.authorship {
		fmt.Fprintf(&b, "authorship: %s, ", authorshipWords[f.authorship])
	}
	return b.String()
}

func expectOf(d *med.Decision) string {
	if !d.Allow {
		return "allow: false, exact: true, reason: " + d.Reason
	}
	text := "allow: true, exact: true, reason: " + d.Reason
	list := func(name string, has func(med.Field) bool) {
		var some []string
		for _, f := range slices.Concat(med.PatientFields, med.RecordFields, []med.Field{FieldReason}) {
			if has(f) && !slices.Contains(some, string(f)) {
				some = append(some, string(f))
			}
		}
		if len(some) > 0 {
			text += fmt.Sprintf(", %s: [%s]", name, strings.Join(some, ", "))
		}
	}
	list("reveal", func(f med.Field) bool { return d.View[f] == med.Reveal })
	list("mask", func(f med.Field) bool { return d.View[f] == med.Mask })
	list("write", func(f med.Field) bool { return d.Write[f] })
	if len(d.Notify) > 0 {
		text += fmt.Sprintf(", notify: [%s]", strings.Join(d.Notify, ", "))
	}
	if d.MaxRows > 0 {
		text += fmt.Sprintf(", max_rows: %d", d.MaxRows)
	}
	return text
}
