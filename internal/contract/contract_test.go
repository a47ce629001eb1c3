// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// TestContract sends every request that the file documents to a whole system
// and holds each answer against the file: each operation as its exercise asks,
// with each optional parameter, by everybody there is, and in every way that
// should end in a problem. Each problem that an operation documents must come up,
// and none that it does not.
func TestContract(t *testing.T) {
	t.Parallel()
	seen := &provoked{}
	t.Run("served and refused", func(t *testing.T) {
		w := newWorld(t)
		for _, op := range w.spec.operations {
			t.Run(op.ID, func(t *testing.T) {
				w.serves(t, op)
				w.variants(t, op)
				w.refuses(t, op, seen)
			})
		}
		t.Run("too many bad tokens", func(t *testing.T) { w.floods(t, seen) })
	})
	t.Run("without the trail", func(t *testing.T) {
		w := newWorld(t)
		asked := w.goodOnes(t)
		super := w.DB.Super(t)
		medtest.Exec(t, super, `revoke insert on audit.event from medirecord_trail, medirecord_app`)
		w.fails(t, asked, "audit-unavailable", seen)
	})
	t.Run("without the database", func(t *testing.T) {
		w := newWorld(t)
		asked := w.goodOnes(t)
		super := w.DB.Super(t)
		medtest.Exec(t, super, `alter database `+w.DB.Clinical+` connection limit 0`)
		medtest.Exec(t, super, `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'medirecord_app' and datname = current_database()`)
		w.fails(t, asked, "database-unavailable", seen)
	})
	t.Run("without the keys", func(t *testing.T) {
		w := newWorld(t, medtest.Options{KeyCache: time.Millisecond})
		asked := w.goodOnes(t)
		for _, r := range asked {
			if r.op.parameter("query", "cursor") != nil {
				r.query["limit"] = "1" // so that there is a cursor to seal
			}
		}
		if err := os.Rename(w.Keeper, w.Keeper+".away"); err != nil {
			t.Fatal(err)
		}
		w.fails(t, asked, "keys-unavailable", seen)
	})
	t.Run("before anything is sealed", func(t *testing.T) {
		w := newWorld(t)
		op := w.operation(t, "read-audit-checkpoint")
		seen.note(op, w.expect(t, &request{op: op, method: op.method, token: w.tokens["officer"]}))
	})
	if !t.Failed() && len(seen.by) > 0 && flag.Lookup("test.run").Value.String() == "" { // all of it was run
		seen.complete(t, readSpec(t))
	}
}

// provoked are the problems that came up, by operation and slug.
type provoked struct{ by map[string]bool }

func (p *provoked) note(op *operation, a *answer) {
	if p.by == nil {
		p.by = map[string]bool{}
	}
	p.by[op.ID+" "+a.slug()] = true
}

func (p *provoked) complete(t *testing.T, s *spec) {
	t.Helper()
	for _, op := range s.operations {
		for _, slug := range op.allProblems() {
			reason := exercises()[op.ID].never[slug]
			switch {
			case slug == med.Internal.Slug: // a fault of ours: TestEveryKindIsAProblem has one
			case p.by[op.ID+" "+slug] && reason != "":
				t.Errorf("%s gives %s, and its exercise says that it never can", op.ID, slug)
			case !p.by[op.ID+" "+slug] && reason == "":
				t.Errorf("%s documents %s, and nothing provoked it: take it out of the operation's errors, or say how in its exercise "+
					"(provoke), or why not (never)", op.ID, slug)
			}
		}
	}
	for id := range exercises() {
		if !slices.ContainsFunc(s.operations, func(op *operation) bool { return op.ID == id }) {
			t.Errorf("the exercise %s is for no operation", id)
		}
	}
}

// expect sends the request and reports an answer that is not as documented.
func (w *world) expect(t testing.TB, r *request) *answer {
	t.Helper()
	a := w.send(t, r)
	for _, wrong := range w.spec.check(r.op, a) {
		t.Errorf("%s\ngot %d %s\n%s", r, a.status, a.body, wrong)
	}
	return a
}

// patiently is expect on a machine that may be slow: what is worth a retry is
// tried again.
func (w *world) patiently(t testing.TB, r *request) *answer {
	t.Helper()
	a := w.expect(t, r)
	for try := 0; try < 5 && a.status == http.StatusServiceUnavailable; try++ {
		a = w.expect(t, r)
	}
	return a
}

// surely sends a request that makes what a test needs: on a machine that may be
// slow what is worth a retry is tried again.
func (w *world) surely(t testing.TB, r *request) *answer {
	t.Helper()
	a := w.send(t, r)
	for try := 0; try < 5 && a.slow(); try++ {
		a = w.send(t, r)
	}
	return a
}

// slow reports whether the answer is that something did not answer in time.
func (a *answer) slow() bool {
	return a.status == http.StatusServiceUnavailable || a.status == http.StatusUnauthorized && strings.Contains(a.body, "sidecar_unavailable")
}

func (w *world) serves(t *testing.T, op *operation) {
	t.Helper()
	r := w.good(t, op)
	if a := w.patiently(t, r); a.status/100 != 2 {
		t.Fatalf("%s\ngot %d %s, want it served", r, a.status, a.body)
	}
}

// variants are the operation with each optional parameter, and a body in each
// of the examples of the file.
func (w *world) variants(t *testing.T, op *operation) {
	t.Helper()
	for _, p := range op.Parameters {
		if p.Required || p.In == "path" || slices.Contains(exercises()[op.ID].alone, p.Name) {
			continue
		}
		values := p.Schema.Enum
		if len(values) == 0 {
			values = []any{w.spec.sample(p.Schema, false)}
			if p.Example != nil {
				values = []any{p.Example}
			}
		}
		for _, value := range values {
			r := w.good(t, op)
			if p.Name == "cursor" || strings.HasPrefix(p.Name, "If-") {
				continue // theirs are made by the API
			}
			map[string]map[string]string{"query": r.query, "header": r.header}[p.In][p.Name] = fmt.Sprint(value)
			if a := w.patiently(t, r); a.status/100 != 2 {
				t.Errorf("%s\ngot %d %s, want it served with %s", r, a.status, a.body, p.Name)
			}
		}
	}
	if op.Body == nil {
		return
	}
	for kind, m := range op.Body.Content {
		for name, example := range m.Examples {
			r := w.good(t, op)
			r.kind, r.body = kind, marshal(t, example.Value)
			if a := w.patiently(t, r); a.status/100 != 2 {
				t.Errorf("%s\ngot %d %s, want the example %s served", r, a.status, a.body, name)
			}
		}
	}
}

// refuses asks in every way that should be refused.
func (w *world) refuses(t *testing.T, op *operation, seen *provoked) {
	t.Helper()
	for _, who := range slices.Sorted(maps.Keys(w.tokens)) {
		r := w.good(t, op)
		r.token = w.tokens[who]
		seen.note(op, w.expect(t, r))
		for _, nowhere := range []string{"a resource that is not there", "a part that is not there", "a patient that is not there", "another patient's"} {
			r := w.good(t, op)
			r.token = w.tokens[who]
			if twists[nowhere](w, r) {
				seen.note(op, w.expect(t, r))
			}
		}
	}
	for name, twist := range twists {
		r := w.good(t, op)
		if !twist(w, r) {
			continue
		}
		a := w.expect(t, r)
		if a.status/100 == 2 {
			t.Errorf("%s\n%s: got %d %s, want it refused", r, name, a.status, a.body)
		}
		seen.note(op, a)
	}
	for slug, provoke := range exercises()[op.ID].provoke {
		r := w.good(t, op)
		provoke(t, w, r)
		a := w.expect(t, r)
		if a.slug() != slug {
			t.Errorf("%s\ngot %d %s, want %s", r, a.status, a.body, slug)
		}
		seen.note(op, a)
	}
}

// twists make of a good request one that must be refused; they report false for
// one that they do not fit.
var twists = map[string]func(*world, *request) bool{
	"no token":         func(_ *world, r *request) bool { r.token = ""; return true },
	"a forged token":   func(w *world, r *request) bool { r.token, r.from = r.token+"x", w.stranger(); return true },
	"an unknown query": func(_ *world, r *request) bool { r.query["made_up"] = "1"; return true },
	"a resource that is not there": func(_ *world, r *request) bool {
		for _, name := range slices.Sorted(maps.Keys(r.path)) {
			if p := r.op.parameter("path", name); name != "userId" {
				r.path[name] = map[bool]string{true: med.NewUUID(time.Now()), false: "nobody-" + med.NewUUID(time.Now())}[p.Schema.Format == "uuid"]
				return true
			}
		}
		return false
	},
	"a part that is not there": func(_ *world, r *request) bool {
		for _, name := range slices.Sorted(maps.Keys(r.path)) {
			if p := r.op.parameter("path", name); name != "id" && p.Schema.Format == "uuid" {
				r.path[name] = med.NewUUID(time.Now())
				return true
			}
		}
		return false
	},
	"a patient that is not there": func(_ *world, r *request) bool {
		nobody := "nobody-" + med.NewUUID(time.Now())
		if r.query["patient_id"] != "" {
			r.query["patient_id"] = nobody
			return true
		}
		before := r.body
		r.body = bytes.Replace(r.body, []byte(`"patient_id":"`+string(alice)+`"`), []byte(`"patient_id":"`+nobody+`"`), 1)
		return !bytes.Equal(before, r.body)
	},
	"another patient's": func(w *world, r *request) bool {
		if len(r.path) < 2 || r.path["id"] == "" {
			return false
		}
		r.path["id"] = string(bob)
		return true
	},
	"a huge body": func(_ *world, r *request) bool {
		r.body = slices.Concat([]byte(`{"a":"`), bytes.Repeat([]byte("a"), 2<<20), []byte(`"}`))
		return true
	},
	"a huge body in chunks": func(_ *world, r *request) bool {
		r.body, r.bodyUnlength = slices.Concat([]byte(`{"a":"`), bytes.Repeat([]byte("a"), 2<<20), []byte(`"}`)), true
		return r.kind != ""
	},
	"a body of another kind": func(_ *world, r *request) bool {
		if r.kind == "" {
			return false
		}
		r.kind = "text/plain"
		return true
	},
	"half a body": func(_ *world, r *request) bool {
		if r.kind == "" {
			return false
		}
		r.body = r.body[:len(r.body)/2]
		return true
	},
	"an unknown property": func(_ *world, r *request) bool {
		if r.kind == "" {
			return false
		}
		r.body = bytes.Replace(r.body, []byte("{"), []byte(`{"made_up":1,`), 1)
		return true
	},
	"no precondition": func(_ *world, r *request) bool {
		_, there := r.header["If-Match"]
		delete(r.header, "If-Match")
		return there
	},
	"a stale precondition": func(_ *world, r *request) bool {
		_, there := r.header["If-Match"]
		r.header["If-Match"] = `"0000000000000000"`
		return there
	},
	"an emergency without a reason": func(w *world, r *request) bool {
		r.token, r.header["X-Break-Glass-Reason"] = w.tokens["break_glass"], " "
		return r.op.parameter("header", "X-Break-Glass-Reason") != nil
	},
}

// floods asks each operation with bad tokens until the address is told to wait.
func (w *world) floods(t *testing.T, seen *provoked) {
	t.Helper()
	from := w.stranger()
	for _, r := range w.goodOnes(t) {
		r.token, r.from = "not-a-token", from
		for range 200 {
			a := w.expect(t, r)
			if seen.note(r.op, a); a.slug() == med.RateLimited.Slug {
				if a.header.Get("Retry-After") == "" {
					t.Errorf("%s: no Retry-After", r.op.ID)
				}
				break
			}
		}
	}
}

// goodOnes are the requests of all exercises, to be sent later.
func (w *world) goodOnes(t *testing.T) []*request {
	t.Helper()
	var out []*request
	for _, op := range w.spec.operations {
		out = append(out, w.good(t, op))
	}
	return out
}

// fails sends them while something that they need is away.
func (w *world) fails(t *testing.T, asked []*request, slug string, seen *provoked) {
	t.Helper()
	for _, r := range asked {
		a := w.expect(t, r)
		seen.note(r.op, a)
		if documented := slices.Contains(r.op.allProblems(), slug); documented != (a.slug() == slug) {
			t.Errorf("%s\ngot %d %s; that %s can come is documented: %v", r, a.status, a.body, slug, documented)
		}
	}
}
