// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// TestTenantIsolation shows to people of South everything that people of North
// were given: the resources of every operation, cursors, entity tags, idempotency
// keys, grants, entries. It opens nothing, changes nothing, and tells nothing.
// What an emergency opens across practices, it opens to who asked, and no more.
func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := &fuzz{world: w, super: w.DB.Super(t)}
	north := w.secrets()
	north = slices.DeleteFunc(north, func(s secret) bool { return s.south })
	south := []string{"carol"}
	for _, role := range roles {
		south = append(south, string(role)+" of South")
	}
	// apart reports an answer to South that is not as if North were not there.
	apart := func(t *testing.T, what, who string, r *request) *answer {
		t.Helper()
		f.state = f.fingerprint(t)
		before := f.state
		a := w.expect(t, r)
		all := a.body + " " + a.header.Get("Location") + " " + a.header.Get("ETag")
		for _, s := range north {
			if strings.Contains(all, s.text) {
				t.Errorf("%s: %s\n%s is told %s", what, r, who, s.name)
			}
		}
		if a.status/100 == 2 && strings.Contains(all, `"practice_id":"north"`) {
			t.Errorf("%s: %s\n%s is told of North: %s", what, r, who, a.body)
		}
		if a.status >= 400 && r.header["X-Break-Glass-Reason"] == "" {
			if after := f.fingerprint(t); !maps.Equal(before, after) {
				t.Errorf("%s: %s\n%s was refused, and changed something", what, r, who)
			}
		}
		return a
	}
	for _, op := range w.spec.operations {
		if exercises()[op.ID].opens {
			continue
		}
		t.Run(op.ID, func(t *testing.T) {
			for _, who := range south {
				// What is North's, after North has just had it: whatever is remembered is warm.
				r := w.good(t, op)
				served := w.send(t, r)
				r.token = w.tokens[who]
				a := apart(t, "the same request", who, r)
				if len(r.path) > 0 && r.path["userId"] == "" && a.status/100 == 2 {
					t.Errorf("%s\n%s is served what is North's: %d %s", r, who, a.status, a.body)
				}
				if op.parameter("query", "cursor") != nil {
					w.shownCursor(t, op, who, apart)
				}
				if tag := served.header.Get("ETag"); tag != "" && r.path["id"] != "" {
					r := w.good(t, op)
					r.token, r.header["If-None-Match"] = w.tokens[who], tag
					if a := apart(t, "an entity tag", who, r); a.status < 400 {
						t.Errorf("%s\n%s learns from North's entity tag: %d", r, who, a.status)
					}
				}
			}
		})
	}
	t.Run("queries of the trail", func(t *testing.T) {
		for _, query := range []map[string]string{{"patient": string(alice)}, {"actor": "the-break_glass"}, {"break_glass": "true"}, {"action": "read"}, {}} {
			r := w.good(t, w.operation(t, "list-audit-logs"))
			r.token, r.query = w.tokens["officer of South"], query
			a := apart(t, "a query", "officer of South", r)
			var rows struct {
				Data []struct {
					Actor struct {
						Practice string `json:"practice_id"`
					}
					Resource struct {
						Patient string `json:"patient_id"`
					}
				}
			}
			if err := json.Unmarshal([]byte(a.body), &rows); err != nil {
				t.Fatal(err)
			}
			for _, row := range rows.Data {
				if row.Actor.Practice != string(medtest.South) && row.Resource.Patient != string(carol) {
					t.Errorf("%v: the trail of South tells of %s and %s", query, row.Actor.Practice, row.Resource.Patient)
				}
			}
		}
	})
	t.Run("idempotency keys", func(t *testing.T) { w.sharedKeys(t) })
	t.Run("grants", func(t *testing.T) { w.grantsApart(t, north) })
	t.Run("lookups", func(t *testing.T) { w.lookupsApart(t, north) })
	t.Run("cursors of other lists", func(t *testing.T) { w.strayCursors(t) })
}

// person returns a token of somebody new, in a session that others may name too.
func (w *world) person(t *testing.T, role string, practice med.PracticeID, session string) string {
	t.Helper()
	return w.Token(t, medtest.Claims{"sub": role + "-" + med.NewUUID(time.Now()), "roles": []string{role}, "practice_id": string(practice), "sid": session})
}

// grantsApart opens grants across the practices and has everybody else try them.
func (w *world) grantsApart(t *testing.T, north []secret) {
	open := w.operation(t, "open-break-glass")
	opened := func(token string, whom med.PatientID) string {
		t.Helper()
		r := w.good(t, open)
		r.token, r.body = token, marshal(t, emergency(whom))
		r.header["Idempotency-Key"] = "the same for everybody" // it has no such key: a grant is its session's
		a := w.expect(t, r)
		if a.status != http.StatusCreated {
			t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
		}
		for _, s := range north {
			if strings.Contains(a.body, s.text) {
				t.Errorf("who opens is told %s", s.name)
			}
		}
		for name := range a.data(t) {
			if !slices.Contains([]string{"id", "patient_id", "practice_id", "actor", "reason_code", "reason", "opened_at", "expires_at", "review"}, name) {
				t.Errorf("who opens is told %s", name)
			}
		}
		return a.data(t)["id"].(string)
	}
	sid := med.NewUUID(time.Now())
	of := medtest.Claims{"sub": "dr-south", "roles": []string{"clinician"}, "practice_id": string(medtest.South), "sid": sid}
	opener := w.Token(t, of)
	of["sid"] = med.NewUUID(time.Now())
	elsewhere := w.Token(t, of)
	across := opened(opener, alice) // by South, of North's
	reads := func(token string) int {
		t.Helper()
		status := 0
		for _, id := range []string{"get-patient", "read-patient", "list-records"} {
			r := w.good(t, w.operation(t, id))
			r.token = token
			a := w.expect(t, r)
			if status != 0 && a.status != status {
				t.Errorf("%s\ngot %d %s, and %d before", r, a.status, a.body, status)
			}
			status = a.status
		}
		return status
	}
	if got := reads(opener); got != http.StatusOK {
		t.Fatalf("who opened reads with %d", got)
	}
	for who, token := range map[string]string{
		"somebody else of their practice, in a session of the same name": w.person(t, "clinician", medtest.South, sid),
		"a nurse of their practice, in a session of the same name":       w.person(t, "nurse", medtest.South, sid),
		"themselves, in another session":                                 elsewhere,
		"somebody who holds the role, without a reason":                  w.person(t, "break_glass", medtest.South, sid),
	} {
		if got := reads(token); got != http.StatusForbidden {
			t.Errorf("%s reads under the grant: %d", who, got)
		}
	}
	// Whose grant it is to look at: the patient's practice's, and the opener's.
	within := opened(w.person(t, "clinician", medtest.North, sid), bob)
	southern := opened(w.person(t, "nurse", medtest.North, sid), carol)
	if within == across || southern == across {
		t.Error("one key opened one grant for two")
	}
	for _, try := range []struct{ grant, who string }{
		{across, "officer of South"},
		{across, "admin of South"},
		{across, "clinician of South"},
		{within, "officer of South"},
		{within, "admin of South"},
		{within, "nurse of South"},
		{southern, "officer"},
		{southern, "admin"},
		{southern, "clinician"},
	} {
		for _, id := range []string{"read-break-glass", "end-break-glass", "review-break-glass"} {
			var told []string
			for _, grant := range []string{try.grant, med.NewUUID(time.Now())} {
				r := w.good(t, w.operation(t, id))
				r.token, r.path["grant"] = w.tokens[try.who], grant
				a := w.expect(t, r)
				if a.status < 400 {
					t.Errorf("%s\n%s got %d %s", r, try.who, a.status, a.body)
				}
				told = append(told, idless(a))
			}
			if told[0] != told[1] {
				t.Errorf("%s learns of a grant of the other practice by %s:\n%s\n%s", try.who, id, told[0], told[1])
			}
		}
		r := w.good(t, w.operation(t, "list-break-glass"))
		r.token, r.query["limit"] = w.tokens[try.who], "200"
		if a := w.expect(t, r); strings.Contains(a.body, try.grant) {
			t.Errorf("%s lists %s", try.who, try.grant)
		}
	}
	if got := reads(opener); got != http.StatusOK {
		t.Errorf("after all that who opened reads with %d", got)
	}
}

var numbered = regexp.MustCompile(`<id \d+>`)

// idless is the answer without ids, times and seals.
func idless(a *answer) string {
	n := &normal{ids: map[string]string{}}
	return numbered.ReplaceAllString(n.answer(a), "<id>")
}

// lookupsApart looks for a patient of North: who may look is told the same in
// either practice, that is id, name and birth date, and nobody else anything.
func (w *world) lookupsApart(t *testing.T, north []secret) {
	op := w.operation(t, "lookup-patients")
	var told []string
	for _, role := range roles {
		for _, practice := range []med.PracticeID{medtest.North, medtest.South} {
			r := w.good(t, op)
			r.token = w.person(t, string(role), practice, med.NewUUID(time.Now()))
			if role == med.RoleBreakGlass {
				r.header["X-Break-Glass-Reason"] = "Unconscious in the emergency room"
			}
			a := w.expect(t, r)
			may := role == med.RoleClinician || role == med.RoleBreakGlass
			if may != (a.status == http.StatusOK) {
				t.Errorf("%s of %s got %d %s", role, practice, a.status, a.body)
			}
			for _, s := range north {
				known := strings.HasSuffix(s.name, "'s name") || strings.HasSuffix(s.name, "'s dob")
				if strings.Contains(a.body, s.text) && !(may && known && s.patient == alice) {
					t.Errorf("%s of %s is told %s", role, practice, s.name)
				}
			}
			if strings.Contains(a.body, "north") {
				t.Errorf("%s of %s is told a practice: %s", role, practice, a.body)
			}
			if may {
				told = append(told, idless(a))
			}
		}
	}
	for _, one := range told {
		if one != told[0] {
			t.Errorf("the answers to one lookup differ:\n%s\n%s", told[0], one)
		}
	}
}

// strayCursors takes the cursors that an admin was given for each list to every
// other list, of another patient or person too.
func (w *world) strayCursors(t *testing.T) {
	var lists []*request
	for _, op := range w.spec.operations {
		if op.parameter("query", "cursor") == nil {
			continue
		}
		r := w.good(t, op)
		r.query["limit"] = "1"
		lists = append(lists, r)
		for name, other := range map[string]string{"id": string(bob), "userId": "the-nurse", "patient_id": string(bob)} {
			stray := *r
			stray.path, stray.query = maps.Clone(r.path), maps.Clone(r.query)
			switch {
			case r.path[name] != "":
				stray.path[name] = other
			case r.query[name] != "":
				stray.query[name] = other
			default:
				continue
			}
			lists = append(lists, &stray)
		}
	}
	given := 0
	for i, from := range lists {
		from.token = w.tokens["admin"]
		var page struct{ Page struct{ Next string } }
		if err := json.Unmarshal([]byte(w.expect(t, from).body), &page); err != nil || page.Page.Next == "" {
			continue
		}
		given++
		for j, to := range lists {
			r := *to
			r.token, r.query = w.tokens["admin"], maps.Clone(to.query)
			r.query["cursor"] = page.Page.Next
			switch a := w.expect(t, &r); {
			case i == j && a.status != http.StatusOK:
				t.Errorf("%s\ngot %d %s with its own cursor", &r, a.status, a.body)
			case i != j && a.status/100 == 2:
				t.Errorf("%s\nis served with the cursor of %s: %s", &r, from, a.body)
			}
		}
	}
	if given < 5 {
		t.Errorf("an admin was given %d cursors: nothing is tried", given)
	}
}

// shownCursor shows a cursor that North was given to somebody of South, and to
// somebody else of North.
func (w *world) shownCursor(t *testing.T, op *operation, who string, apart func(*testing.T, string, string, *request) *answer) {
	t.Helper()
	r := w.good(t, op)
	r.query["limit"] = "1"
	first := w.send(t, r)
	var page struct{ Page struct{ Next string } }
	if err := json.Unmarshal([]byte(first.body), &page); err != nil || page.Page.Next == "" {
		return // a list that is short by now has no cursor; the contract's test walks pages
	}
	r.query["cursor"] = page.Page.Next
	r.token = w.tokens[who]
	if a := apart(t, "a cursor", who, r); a.status/100 == 2 {
		t.Errorf("%s\n%s goes on where North was: %s", r, who, a.body)
	}
	// The same practice, and another person; and the same person, of another question.
	r.token = w.Token(t, medtest.Claims{"sub": "another", "roles": []string{exercises()[op.ID].as}, "practice_id": string(medtest.North), "patient_id": string(alice)})
	if exercises()[op.ID].as != string(med.RolePatient) {
		if a := w.expect(t, r); a.status/100 == 2 {
			t.Errorf("%s\nsomebody else goes on with the cursor: %s", r, a.body)
		}
	}
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name != "cursor" && p.Name != "limit" {
			other := w.good(t, op)
			if other.query[p.Name] != "" {
				continue // it is this question
			}
			other.query["cursor"], other.query[p.Name] = page.Page.Next, w.sampleOf(p)
			if a := w.expect(t, other); a.status/100 == 2 {
				t.Errorf("%s\nthe cursor holds for another question: %s", other, a.body)
			}
		}
	}
}

func (w *world) sampleOf(p *parameter) string {
	if len(p.Schema.Enum) > 0 {
		return p.Schema.Enum[0].(string)
	}
	if s, ok := p.Example.(string); ok {
		return s
	}
	s, _ := w.spec.sample(p.Schema, false).(string)
	return s
}

// sharedKeys has both practices use one idempotency key: neither learns of the
// other's resource.
func (w *world) sharedKeys(t *testing.T) {
	t.Helper()
	tried := 0
	for _, op := range w.spec.operations {
		if op.parameter("header", "Idempotency-Key") == nil || op.method != http.MethodPost || len(op.parameterNames("path")) > 0 {
			continue // below a patient of one practice the other is refused anyway, as above
		}
		tried++
		key := "shared-" + op.ID
		as := exercises()[op.ID].as
		made := map[string]string{}
		for _, who := range []string{as, as + " of South", as} {
			r := w.good(t, op)
			r.token, r.header["Idempotency-Key"] = w.tokens[who], key
			if body := made["body"]; body == "" {
				made["body"] = string(r.body)
			} else {
				r.body = []byte(body)
			}
			a := w.expect(t, r)
			if who != as && a.status == http.StatusForbidden && strings.Contains(made["body"], `"patient_id"`) {
				continue // North's patient is named in the body: refused, key or not
			}
			id, _ := a.data(t)["id"].(string)
			switch {
			case who == as && made[who] != "" && made[who] != id:
				t.Errorf("%s: the key made %s, and then %s", op.ID, made[who], id)
			case who != as && id == made[as]:
				t.Errorf("%s: South is given North's %s", op.ID, id)
			}
			made[who] = id
		}
	}
	t.Logf("%d operations with a key", tried)
}

func (op *operation) parameterNames(in string) (names []string) {
	for _, p := range op.Parameters {
		if p.In == in {
			names = append(names, p.Name)
		}
	}
	return names
}
