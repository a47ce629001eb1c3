// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestNonInterference makes pairs of systems that differ only in what a role may
// not see: other values, other lengths, none at all, records and patients that
// are not there. Somebody of the role then walks every operation of the file, in
// every way these tests know, with filters on what they may not see. All answers,
// headers and order included, must be the same to the byte, but for the ids,
// times and seals that no two systems share.
func TestNonInterference(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv(fuzzSeed); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", fuzzSeed, seed)
	for i, role := range []string{"patient", "nurse", "clinician", "officer"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			chance := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // chance, not secrecy
			one := everybody()
			other := one.but(role, chance)
			first, second := newWorldOf(t, one), newWorldOf(t, other)
			if role == "nurse" { // who reads no trail learns nothing of a change to what they cannot see
				second.changeHidden(t)
			}
			a, b := walk(t, first, role, one, other), walk(t, second, role, one, other)
			if len(a) != len(b) {
				t.Fatalf("%d and %d answers", len(a), len(b))
			}
			differ := 0
			for i := range a {
				if a[i] != b[i] && differ < 5 {
					differ++
					t.Errorf("the answers to a %s differ by what they may not see:\n%s\n%s", role, a[i], b[i])
				}
			}
			t.Logf("%d answers", len(a))
		})
	}
}

// walk asks for everything as the role does, and returns what it was told, in
// order, without what no two systems share.
func walk(t *testing.T, w *world, role string, one, other cast) []string {
	t.Helper()
	var told []string
	n := &normal{ids: map[string]string{}}
	ask := func(why string, r *request) {
		t.Helper()
		a := w.send(t, r)
		told = append(told, fmt.Sprintf("%s %s (%s) → %s", r.method, r.op.path, why, n.answer(a)))
	}
	for _, op := range w.spec.operations {
		if exercises()[op.ID].opens {
			continue
		}
		good := func() *request {
			r := w.good(t, op)
			r.token = w.tokens[role]
			return r
		}
		ask("as documented", good())
		for _, p := range op.Parameters {
			if p.In == "query" && p.Name != "cursor" {
				for _, v := range append(p.Schema.Enum, w.spec.sample(p.Schema, false), "1") {
					r := good()
					r.query[p.Name] = fmt.Sprint(v)
					ask(fmt.Sprintf("%s=%v", p.Name, v), r)
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(twists)) {
			if r := good(); twists[name](w, r) {
				ask(name, r)
			}
		}
		for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodOptions} {
			r := good()
			r.method, r.body, r.kind = method, nil, ""
			ask(method, r)
		}
		for _, id := range []string{string(alice), string(bob), string(carol), "p-nobody"} {
			if r := good(); r.path["id"] != "" {
				r.path["id"] = id
				ask("of "+id, r)
			}
		}
		for _, c := range []cast{one, other} {
			for _, body := range hiddenBodies(t, w, op, role, c) {
				r := good()
				r.body = body
				ask("with what is hidden", r)
			}
		}
	}
	return told
}

// changeHidden changes what a nurse does not see of alice.
func (w *world) changeHidden(t *testing.T) {
	t.Helper()
	for _, op := range w.spec.operations {
		if op.ID != "update-patient" {
			continue
		}
		r := w.good(t, op)
		r.token, r.body = w.tokens["clinician"], []byte(`{"insurance":{"payer":"Another payer","member_id":"M-ANOTHER"}}`)
		if a := w.send(t, r); a.status != http.StatusOK {
			t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
		}
	}
}

// hiddenBodies are bodies that name what the role may not see in clear.
func hiddenBodies(t *testing.T, w *world, op *operation, role string, c cast) [][]byte {
	t.Helper()
	kind, shape := op.body()
	if kind == "" {
		return nil
	}
	p := c[alice]
	values := map[string]any{
		"ssn": p.SSN.Reveal(), "dob": p.DOB.Reveal(), "diagnosis": p.Diagnosis.Reveal(), "member_id": p.Insurance.MemberID.Reveal(),
		"insurance": map[string]any{"payer": p.Insurance.Payer.Reveal(), "member_id": p.Insurance.MemberID.Reveal()},
		"family":    p.Name.Family.Reveal(), "mrn": p.MRN.Reveal(), "phone": p.Phone.Reveal(),
	}
	var out [][]byte
	for _, name := range hidden[role] {
		if w.spec.resolve(shape).Properties[name] == nil {
			continue
		}
		out = append(out, marshal(t, map[string]any{name: values[name]}), marshal(t, map[string]any{name: nil}))
		if name == "family" {
			out = append(out, marshal(t, map[string]any{"family": values["family"], "dob": values["dob"]}))
		}
	}
	return out
}

// normal takes out of answers what no two systems share. An id keeps its
// identity: the same one is the same again.
type normal struct{ ids map[string]string }

var (
	uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	seals = regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`)
)

func (n *normal) answer(a *answer) string {
	h := a.header.Clone()
	h.Del("Date")
	h.Del("Content-Length") // that of the body, as net/http sees to; times differ in it
	lines := []string{strconv.Itoa(a.status)}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lines = append(lines, name+": "+strings.Join(h[name], ", "))
	}
	return n.text(strings.Join(append(lines, a.body), "\n  "))
}

func (n *normal) text(s string) string {
	s = times.ReplaceAllString(s, "<time>")
	s = uuids.ReplaceAllStringFunc(s, func(id string) string {
		if strings.HasPrefix(id, "01900000-") {
			return id // of a record that the test made
		}
		if n.ids[id] == "" {
			n.ids[id] = fmt.Sprintf("<id %d>", len(n.ids))
		}
		return n.ids[id]
	})
	return seals.ReplaceAllStringFunc(s, func(seal string) string {
		if strings.Trim(seal, "A=") == "" { // in the patient map
			return fmt.Sprintf("<seal of %d>", len(seal))
		}
		hex, mixed := strings.Trim(seal, "0123456789abcdef") == "", strings.ToLower(seal) != seal
		if !hex && (!mixed || len(seal) < 32 && !strings.ContainsAny(seal, "0123456789")) {
			return seal // words
		}
		return fmt.Sprintf("<seal of %d>", len(seal))
	})
}
