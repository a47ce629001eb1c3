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

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// TestNonInterference makes pairs of systems that differ only in what a role may
// not see: other values, other lengths, none at all, records and patients that
// are not there, or not any more. Somebody of the role then walks every operation
// of the file, in every way these tests know, with filters on what they may not
// see; they break the glass, and look across practices. All answers, headers and
// order included, must be the same to the byte, but for the ids, times and seals
// that no two systems share. So must be what the system did for each of them:
// the time that an answer takes tells no more than the answer.
func TestNonInterference(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if os.Getenv("CI") != "" {
		seed = 1 // a red run is one that can be run again
	}
	if v := os.Getenv(fuzzSeed); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", fuzzSeed, seed)
	for i, role := range []string{"patient", "nurse", "clinician", "officer", "admin", "break_glass"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			chance := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // chance, not secrecy
			one := everybody().unconscious()
			other := one.but(role, chance)
			first, second := newWalker(t, role, one, other), newWalker(t, role, other, one)
			switch role { // who reads no trail learns nothing of a change to what they cannot see
			case "nurse":
				second.changeHidden(t)
				fallthrough
			case "clinician", "break_glass":
				second.gone = second.deleted(t, ghost)
				first.deleted(t, "Somebody-Else") // how long the log is, is theirs to know
			}
			a, b := first.walk(t, one, other), second.walk(t, one, other)
			if len(a) != len(b) {
				t.Fatalf("%d and %d answers", len(a), len(b))
			}
			differ := 0
			for i := range a {
				if a[i].told == b[i].told && a[i].asLong(b[i]) {
					continue
				}
				if differ++; differ <= 5 {
					t.Errorf("the answers to a %s differ by what they may not see:\n%s\n%s", role, a[i], b[i])
				}
			}
			t.Logf("%d answers", len(a))
		})
	}
}

// walker is somebody of the role in one world of a pair.
type walker struct {
	*world
	role    string
	effort  *medtest.Effort
	normal  *normal
	gone    []string // ids: of patients who were deleted in the one world, and of nobody in the other
	persons int
	notes   []note
}

// note is what somebody was told, and what the system did for it.
type note struct {
	op, why, told string
	took          map[string]int
}

func (n note) String() string {
	var did strings.Builder
	for _, what := range slices.Sorted(maps.Keys(n.took)) {
		fmt.Fprintf(&did, "\n  %d × %s", n.took[what], what)
	}
	return n.told + did.String()
}

// asLong reports whether the system did the same for both. Who changes a record by
// its id that they do not see, has the database find one row more than where there
// is none: whoever knows that id has seen the record.
func (n note) asLong(other note) bool {
	a, b := maps.Clone(n.took), maps.Clone(other.took)
	if (n.op == "update-record" || n.op == "delete-record") && strings.HasPrefix(n.why, "record") && (a["rows"]-b["rows"])*(a["rows"]-b["rows"]) == 1 {
		a["rows"] = b["rows"]
	}
	return maps.Equal(a, b)
}

// ghost is the family name of who is deleted in one world of a pair only.
const ghost = "Ghost"

func newWalker(t *testing.T, role string, mine, other cast) *walker {
	t.Helper()
	e := &medtest.Effort{}
	w := &walker{
		world: newWorldOf(t, mine, medtest.Options{Effort: e, KeyCache: time.Hour}), role: role, effort: e,
		normal: &normal{ids: map[string]string{}}, gone: []string{med.NewUUID(time.Now()), med.NewUUID(time.Now())},
	}
	w.deleted(t, "Warm") // whatever is remembered from such a call is so in both worlds
	return w
}

// deleted makes a patient of each practice, deletes them, and returns their ids.
func (w *walker) deleted(t *testing.T, family string) (ids []string) {
	t.Helper()
	for _, of := range []string{"", " of South"} {
		who := newPatient()
		who["name"] = map[string]any{"family": family}
		r := &request{op: w.operation(t, "create-patient"), method: http.MethodPost, token: w.tokens["clinician"+of], body: marshal(t, who)}
		id, _ := w.surely(t, r).data(t)["id"].(string)
		seen := w.lastSeen(t, "admin"+of, id)
		r = &request{
			op: w.operation(t, "delete-patient"), method: http.MethodDelete, token: w.tokens["admin"+of],
			path: map[string]string{"id": id}, header: map[string]string{"If-Match": seen["If-Match"]},
		}
		if a := w.surely(t, r); a.status != http.StatusNoContent {
			t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
		}
		ids = append(ids, id)
	}
	return ids
}

// walk asks for everything as the role does, and returns what it was told and
// what the system did for it, in order, without what no two systems share. Both
// worlds are asked the same: with the values of both casts.
func (w *walker) walk(t *testing.T, casts ...cast) []note {
	t.Helper()
	for _, op := range w.spec.operations {
		w.everyWay(t, op, casts)
	}
	w.lookups(t)
	w.underAGrant(t)
	// Last: refusals of who is not known are counted, and written when it suits.
	for _, op := range w.spec.operations {
		for _, name := range anonymous {
			if r := w.asks(t, op, casts[0]); twists[name](w.world, r) {
				w.note(name, r, w.surely(t, r), nil)
			}
		}
	}
	return w.notes
}

// anonymous are the twists after which nobody knows who asks.
var anonymous = []string{"no token", "a forged token"}

// asks is a good request of the role. What opens something to its caller is
// asked by somebody new each time: what they are shown later is another matter.
func (w *walker) asks(t *testing.T, op *operation, people cast) *request {
	t.Helper()
	r := w.good(t, op)
	r.token = w.tokens[w.role]
	if exercises()[op.ID].opens && w.role != "patient" {
		r.token = w.somebodyNew(t)
	}
	if op.ID == "lookup-patients" {
		r.body = lookedUp(t, people[alice])
	}
	if w.role == "break_glass" {
		r.header["X-Break-Glass-Reason"] = "Unconscious in the emergency room"
	}
	return r
}

// somebodyNew is of the walker's role too, in a session of their own.
func (w *walker) somebodyNew(t *testing.T) string {
	t.Helper()
	w.persons++
	return w.Token(t, medtest.Claims{"sub": fmt.Sprintf("%s-%d", w.role, w.persons), "roles": []string{w.role}, "practice_id": string(medtest.North)})
}

// ask sends the request and notes the answer, and what it took.
func (w *walker) ask(t *testing.T, why string, r *request) *answer {
	t.Helper()
	for try := 0; ; try++ {
		w.effort.Since()
		a := w.send(t, r)
		if took := w.effort.Since(); !a.slow() || try == 5 {
			w.note(why, r, a, took)
			return a
		}
	}
}

func (w *walker) note(why string, r *request, a *answer, took map[string]int) {
	w.notes = append(w.notes, note{r.op.ID, why, fmt.Sprintf("%s %s (%s) → %s", r.method, r.op.path, why, w.normal.answer(a)), took})
}

// everyWay asks for the operation in every way that these tests know.
func (w *walker) everyWay(t *testing.T, op *operation, casts []cast) {
	t.Helper()
	good := func() *request {
		t.Helper()
		return w.asks(t, op, casts[0])
	}
	w.ask(t, "as documented", good())
	r := good()
	r.header["X-Break-Glass-Reason"] = "A reason, of somebody without the role"
	w.ask(t, "with a reason", r)
	w.ofEverybody(t, good())
	if w.role == "admin" || w.role == "break_glass" { // who see nearly all: the other ways are those of the other roles
		return
	}
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name != "cursor" {
			for _, v := range append(p.Schema.Enum, w.spec.sample(p.Schema, false), "1") {
				r := good()
				r.query[p.Name] = fmt.Sprint(v)
				w.ask(t, fmt.Sprintf("%s=%v", p.Name, v), r)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(twists)) {
		if r := good(); !slices.Contains(anonymous, name) && twists[name](w.world, r) {
			w.ask(t, name, r)
		}
	}
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodOptions} {
		r := good()
		r.method, r.body, r.kind = method, nil, ""
		w.ask(t, method, r)
	}
	for _, c := range casts {
		for _, body := range hiddenBodies(t, w.world, op, w.role, c) {
			r := good()
			r.body = body
			w.ask(t, "with what is hidden", r)
		}
	}
}

// ofEverybody asks the same of other patients, and of every record of two, be
// they there or not.
func (w *walker) ofEverybody(t *testing.T, good *request) {
	t.Helper()
	if good.path["id"] == "" {
		return
	}
	ask := func(why, name, id, record string) {
		t.Helper()
		r := *good
		r.path = maps.Clone(r.path)
		r.path["id"] = id
		if record != "" {
			r.path["record"] = record
		}
		w.ask(t, why+" "+name, &r)
	}
	for i, id := range append([]string{string(alice), string(bob), string(carol), string(dora), "p-nobody"}, w.gone...) {
		ask("of patient", strconv.Itoa(i), id, "")
	}
	for i := range 6 {
		if good.path["record"] != "" {
			ask("record", strconv.Itoa(i), string(alice), recordID(1, i))
			ask("record of dora", strconv.Itoa(i), string(dora), recordID(4, i))
		}
	}
}

// lookups look across practices for whoever is there, and for who is not.
func (w *walker) lookups(t *testing.T) {
	t.Helper()
	who := everybody().unconscious()
	ghosts := &person{}
	ghosts.Name.Family, ghosts.DOB = ghost, "1990-01-02" // as newPatient is made
	for _, name := range []string{"lookup-patients", "search-patients"} {
		for i, p := range []*person{who[dora], who[erin], who[quad], ghosts} {
			r := w.asks(t, w.operation(t, name), who)
			if name == "lookup-patients" {
				r.body = lookedUp(t, p)
			} else {
				r.body = marshal(t, map[string]any{"family": p.Name.Family.Reveal(), "dob": p.DOB.Reveal()})
			}
			a := w.ask(t, fmt.Sprintf("for person %d", i), r)
			if exercises()[name].as == w.role && a.status != http.StatusOK {
				t.Errorf("%s\ngot %d %s: nobody was looked for", r, a.status, a.body)
			}
		}
	}
}

func lookedUp(t *testing.T, p *person) []byte {
	t.Helper()
	return marshal(t, map[string]any{
		"family": p.Name.Family.Reveal(), "dob": p.DOB.Reveal(), "reason_code": "patient_unconscious", "reason": "Unconscious after a fall, no papers",
	})
}

// underAGrant breaks the glass for dora by name, reads what there is to read in
// that session, of her and of all others, and reads once more when it is ended.
func (w *walker) underAGrant(t *testing.T) {
	t.Helper()
	token := w.tokens[w.role]
	if w.role != "patient" {
		token = w.somebodyNew(t)
	}
	open := w.good(t, w.operation(t, "open-break-glass"))
	open.token, open.body = token, marshal(t, emergency(dora))
	opened := w.ask(t, "in an emergency", open)
	if w.role != "nurse" && w.role != "clinician" {
		return
	}
	if opened.status != http.StatusCreated {
		t.Fatalf("%s\ngot %d %s: nothing was opened", open, opened.status, opened.body)
	}
	reads := func(why string, ops ...string) {
		t.Helper()
		for _, op := range w.spec.operations {
			if len(ops) == 0 && op.method == http.MethodGet || slices.Contains(ops, op.ID) {
				r := w.good(t, op)
				r.token = token
				w.ask(t, why, r)
				w.ofEverybody(t, r)
			}
		}
	}
	reads("under a grant")
	reads("under a grant", "search-patients")
	end := w.good(t, w.operation(t, "end-break-glass"))
	end.token, end.path["grant"] = token, opened.data(t)["id"].(string)
	w.ask(t, "the grant", end)
	reads("after the grant", "read-patient", "list-records", "get-record")
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
		if a := w.surely(t, r); a.status != http.StatusOK {
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
