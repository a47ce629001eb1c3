// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
)

const glassPath = "/api/v1/break-glass"

// grantBody is a grant as the API tells of it.
type grantBody struct {
	ID         string `json:"id"`
	Patient    string `json:"patient_id"`
	ReasonCode string `json:"reason_code"`
	Reason     string `json:"reason"`
	EndedAt    string `json:"ended_at"`
	Review     struct{ State, By, Verdict, Note string }
}

// openBody asks for a grant.
func openBody(patient med.PatientID, code, why string) string {
	return fmt.Sprintf(`{"patient_id":%q,"reason_code":%q,"reason":%q}`, patient, code, why)
}

func grantIn(t *testing.T, a medtest.Answer, status int) grantBody {
	t.Helper()
	var e struct{ Data grantBody }
	if err := json.Unmarshal([]byte(a.Body), &e); err != nil || a.Status != status {
		t.Fatalf("got %d %s, want %d", a.Status, a.Body, status)
	}
	return e.Data
}

func grantsIn(t *testing.T, a medtest.Answer) (ids []string) {
	t.Helper()
	var e struct{ Data []grantBody }
	if err := json.Unmarshal([]byte(a.Body), &e); err != nil || a.Status != 200 {
		t.Fatalf("got %d %s, want a list", a.Status, a.Body)
	}
	for _, g := range e.Data {
		ids = append(ids, g.ID)
	}
	return ids
}

// visitor is a clinician of South, in a session of their own.
func visitor(t *testing.T, s *medtest.System, more ...medtest.Claims) string {
	t.Helper()
	c := medtest.Claims{"sub": "dr-south", "sid": "south-session", "roles": []string{"clinician"}, "practice_id": "south"}
	for _, m := range more {
		for k, v := range m {
			c[k] = v
		}
	}
	return s.Token(t, c)
}

func TestAGrantFromItsOpeningToItsReview(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Secret(reason, "Ambulance report seen, fine")
	alice := s.Patient(t, medtest.North, medtest.Alice())
	other := medtest.Alice()
	other.SourceID = "another"
	bob := s.Patient(t, medtest.North, other)
	super := s.DB.Super(t)
	dr, officer := visitor(t, s), s.Of(t, med.RoleOfficer, medtest.North)

	undisclosed(t, s.Get(t, dr, path(alice)), 403, "other_practice")
	opened := s.Post(t, dr, glassPath, openBody(alice, "patient_unconscious", reason))
	g := grantIn(t, opened, 201)
	if g.Patient != string(alice) || g.ReasonCode != "patient_unconscious" || g.Review.State != "due" || opened.Header.Get("Location") != glassPath+"/"+g.ID {
		t.Errorf("opened: got %+v", g)
	}
	if e := entryOf(t, s, opened); !e.BreakGlass || e.Action != "open_break_glass" || e.Patient != string(alice) || e.PatientPractice != "north" {
		t.Errorf("its entry: %+v", e)
	}
	if again := grantIn(t, s.Post(t, dr, glassPath, openBody(alice, "patient_unconscious", reason)), 201); again.ID != g.ID {
		t.Errorf("asked again: got %s, want the same grant", again.ID)
	}

	// It opens that patient to that session, with every field, and nothing else.
	read := s.Get(t, dr, path(alice))
	shown(t, read)
	if e := entryOf(t, s, read); !e.BreakGlass || e.Detail.Reason != "break_glass" || e.Detail.BreakGlass.Grant != g.ID || e.Detail.BreakGlass.ReasonCode != "patient_unconscious" {
		t.Errorf("the read's entry: %+v", e)
	}
	undisclosed(t, s.Get(t, dr, path(bob)), 403, "other_practice")
	for name, c := range map[string]medtest.Claims{
		"another session": {"sid": "elsewhere"}, "another person": {"sub": "dr-other"}, "no second factor": {"mfa_verified": nil},
	} {
		if got := s.Get(t, visitor(t, s, c), path(alice)); got.Status != 403 {
			t.Errorf("%s reads: %d %s", name, got.Status, got.Body)
		}
	}
	for _, p := range []string{path(alice) + "/audit", "/api/v1/patients/" + string(alice) + "/accesses", "/api/v1/patients/" + string(alice) + "/disclosures"} {
		if got := s.Get(t, dr, p); got.Status != 403 {
			t.Errorf("%s under a grant: %d %s", p, got.Status, got.Body)
		}
	}

	// Who sees it, and who its reason.
	if own := grantIn(t, s.Get(t, dr, glassPath+"/"+g.ID), 200); own.Reason != "" {
		t.Error("the opener of another practice needs a key of this one to read a reason")
	}
	if seen := grantIn(t, s.Get(t, officer, glassPath+"/"+g.ID), 200); seen.Reason != reason {
		t.Errorf("the officer reads %q", seen.Reason)
	}
	for name, tok := range map[string]string{
		"the officer": officer, "the admin": s.Of(t, med.RoleAdmin, medtest.North), "the opener": dr, "the opener, elsewhere": visitor(t, s, medtest.Claims{"sid": "x"}),
	} {
		if ids := grantsIn(t, s.Get(t, tok, glassPath)); len(ids) != 1 || ids[0] != g.ID {
			t.Errorf("%s lists %v", name, ids)
		}
	}
	for name, tok := range map[string]string{
		"another practice's officer": s.Of(t, med.RoleOfficer, medtest.South), "another practice's admin": s.Of(t, med.RoleAdmin, medtest.South),
		"a clinician of the practice": s.Of(t, med.RoleClinician, medtest.North), "a clinician with the opener's name and more": visitor(t, s, medtest.Claims{"sub": "dr-south2"}),
	} {
		if ids := grantsIn(t, s.Get(t, tok, glassPath)); len(ids) != 0 {
			t.Errorf("%s lists %v", name, ids)
		}
		if got := s.Get(t, tok, glassPath+"/"+g.ID); got.Status != 404 {
			t.Errorf("%s reads it: %d", name, got.Status)
		}
		if got := s.Delete(t, tok, glassPath+"/"+g.ID); got.Status != 404 {
			t.Errorf("%s ends it: %d", name, got.Status)
		}
	}
	if got := s.Get(t, s.PatientOf(t, alice, medtest.North), glassPath); got.Status != 403 {
		t.Errorf("a patient lists: %d", got.Status)
	}

	// Its end, and what a new one takes.
	ended := s.Delete(t, dr, glassPath+"/"+g.ID)
	if over := grantIn(t, ended, 200); over.EndedAt == "" {
		t.Errorf("ended: %+v", over)
	}
	if got := s.Delete(t, dr, glassPath+"/"+g.ID); got.Status != 409 || !strings.Contains(got.Body, `"code":"grant_over"`) {
		t.Errorf("ended twice: %d %s", got.Status, got.Body)
	}
	undisclosed(t, s.Get(t, dr, path(alice)), 403, "other_practice")
	if n := count(t, super, "audit.event where action = 'break_glass_end' and patient_id = $1 and patient_practice = 'north' and parent_id = $2", string(alice), ended.Header.Get("Audit-Event-Id")); n != 1 {
		t.Errorf("%d entries of its end, want one, below the call that ended it", n)
	}
	next := grantIn(t, s.Post(t, dr, glassPath, openBody(alice, "other", reason)), 201)
	if next.ID == g.ID {
		t.Error("a grant that was ended is open again")
	}
	shown(t, s.Get(t, dr, path(alice)))

	// Its review, once, by somebody else.
	review := glassPath + "/" + g.ID + "/review"
	body := `{"verdict":"justified","note":"Ambulance report seen, fine"}`
	for name, tok := range map[string]string{"the opener": dr, "a clinician": s.Of(t, med.RoleClinician, medtest.North), "the patient": s.PatientOf(t, alice, medtest.North)} {
		if got := s.Post(t, tok, review, body); got.Status != 403 {
			t.Errorf("%s reviews: %d %s", name, got.Status, got.Body)
		}
	}
	if got := s.Post(t, s.Of(t, med.RoleOfficer, medtest.South), review, body); got.Status != 404 {
		t.Errorf("another practice's officer reviews: %d %s", got.Status, got.Body)
	}
	if got := s.Post(t, officer, review, `{"verdict":"justified","note":"short"}`); got.Status != 422 || !strings.Contains(got.Body, "/note") {
		t.Errorf("a note that says nothing: %d %s", got.Status, got.Body)
	}
	done := grantIn(t, s.Post(t, officer, review, body), 201)
	if done.Review.State != "done" || done.Review.Verdict != "justified" || done.Review.By != "the-officer" || done.Review.Note != "Ambulance report seen, fine" {
		t.Errorf("reviewed: %+v", done)
	}
	if got := s.Post(t, s.Of(t, med.RoleAdmin, medtest.North), review, body); got.Status != 409 || !strings.Contains(got.Body, `"code":"reviewed_before"`) {
		t.Errorf("reviewed twice: %d %s", got.Status, got.Body)
	}
	if own := grantIn(t, s.Get(t, dr, glassPath+"/"+g.ID), 200); own.Review.Verdict != "justified" || own.Review.Note != "" {
		t.Errorf("the opener reads of the review: %+v", own.Review)
	}
	for state, want := range map[string]string{"open": next.ID, "due": next.ID} {
		if ids := grantsIn(t, s.Get(t, officer, glassPath+"?state="+state)); len(ids) != 1 || ids[0] != want {
			t.Errorf("%s: got %v", state, ids)
		}
	}
	if ids := grantsIn(t, s.Get(t, officer, glassPath+"?state=overdue")); len(ids) != 0 {
		t.Errorf("overdue: got %v", ids)
	}
}

func TestWhoOpensAGrant(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	good := openBody(alice, "on_call_cover", reason)
	old := medtest.Claims{"auth_time": time.Now().Add(-6 * time.Minute).Unix()}
	for _, tc := range []struct {
		name, tok, body string
		status          int
		code            string
	}{
		{"a second factor of six minutes ago", visitor(t, s, old), good, 403, "mfa_required"},
		{"no second factor", visitor(t, s, medtest.Claims{"mfa_verified": nil}), good, 403, "mfa_required"},
		{"the role of the header form", er(t, s), good, 403, "forbidden"},
		{"an admin", s.Of(t, med.RoleAdmin, medtest.South), good, 403, "forbidden"},
		{"an officer", s.Of(t, med.RoleOfficer, medtest.South), good, 403, "forbidden"},
		{"a patient", s.PatientOf(t, "p-x", medtest.South), good, 403, "forbidden"},
		{"their own record", visitor(t, s, medtest.Claims{"patient_id": string(alice), "roles": []string{"clinician", "patient"}}), good, 403, "forbidden"},
		{"a code that is none", visitor(t, s), openBody(alice, "curious", reason), 422, "invalid"},
		{"no reason", visitor(t, s), openBody(alice, "other", ""), 422, "invalid"},
		{"a short reason", visitor(t, s), openBody(alice, "other", "because"), 422, "invalid"},
		{"an id nobody has", visitor(t, s), openBody("nobody", "other", reason), 404, "not_found"},
		{"no id", visitor(t, s), openBody("a b", "other", reason), 422, "invalid"},
	} {
		got := s.Post(t, tc.tok, glassPath, tc.body)
		undisclosed(t, got, tc.status, tc.code)
	}
	if n := count(t, s.DB.Super(t), "medirecord.break_glass"); n != 0 {
		t.Errorf("%d grants", n)
	}
	if got := s.Post(t, s.Token(t, medtest.Claims{"sub": "nurse-south", "roles": []string{"nurse"}, "practice_id": "south", "sid": "n"}), glassPath, good); got.Status != 201 {
		t.Errorf("a nurse: %d %s", got.Status, got.Body)
	}
}

// A grant that the sidecar opened and nobody could write down costs nobody the
// reads that they have without it.
func TestAGrantThatWasNeverWrittenDown(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	dr := s.Token(t, medtest.Claims{"sub": "dr-north", "sid": "n", "roles": []string{"clinician"}, "practice_id": "north"})
	grantIn(t, s.Post(t, dr, glassPath, openBody(alice, "other", reason)), 201)
	medtest.Exec(t, super, `delete from medirecord.break_glass`)
	got := s.Get(t, dr, path(alice))
	shown(t, got)
	if e := entryOf(t, s, got); e.BreakGlass {
		t.Errorf("the entry stands on a grant that is not there: %+v", e)
	}
	if again := grantIn(t, s.Post(t, dr, glassPath, openBody(alice, "other", reason)), 201); again.ID == "" {
		t.Error("no grant")
	}
}

func TestTimeEndsGrantsAndEscalatesReviews(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	dr := visitor(t, s)
	opened := s.Post(t, dr, glassPath, openBody(alice, "other", reason))
	g := grantIn(t, opened, 201)
	db, err := postgres.Open(t.Context(), postgres.Config{URL: s.DB.URL("worker"), Conns: 2, Deadline: medtest.Patience})
	noError(t, err)
	t.Cleanup(db.Close)
	gate := s.OpenGate(t, s.Sidecar.Addrs()[0].String(), "worker")
	watch := func() {
		t.Helper()
		me := chart.Worker()
		ruling, err := gate.Serve(t.Context(), &me, "sweep", medtest.North)
		noError(t, err)
		noError(t, chart.GlassWatch{DB: db, Log: slog.New(slog.NewJSONHandler(s.Log, nil)), Now: time.Now}.Once(t.Context(), ruling, medtest.North))
	}
	entries := func(action string) int {
		t.Helper()
		return count(t, super, "audit.event where action = $1 and resource_id = $2 and patient_id = $3 and parent_id = $4 and actor_subject = 'service:worker'",
			action, g.ID, string(alice), opened.Header.Get("Audit-Event-Id"))
	}
	watch()
	if entries("break_glass_end") != 0 {
		t.Error("an open grant was ended")
	}
	medtest.Exec(t, super, `update medirecord.break_glass set opened_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'`)
	watch()
	watch()
	if n := entries("break_glass_end"); n != 1 {
		t.Errorf("%d ends of an expired grant, want one", n)
	}
	if over := grantIn(t, s.Get(t, dr, glassPath+"/"+g.ID), 200); over.EndedAt == "" || over.Review.State != "due" {
		t.Errorf("expired: %+v", over)
	}
	medtest.Exec(t, super, `update medirecord.break_glass set opened_at = now() - interval '25 hours', expires_at = now() - interval '24 hours'`)
	watch()
	watch()
	if n := entries("break_glass_overdue"); n != 1 {
		t.Errorf("%d escalations, want one", n)
	}
	if n := count(t, super, "medirecord.outbox where severity = 'P1' and reason_code = 'review_overdue' and practice_id = 'north'"); n != 1 {
		t.Errorf("%d pages, want one", n)
	}
	officer := s.Of(t, med.RoleOfficer, medtest.North)
	if ids := grantsIn(t, s.Get(t, officer, glassPath+"?state=overdue")); len(ids) != 1 {
		t.Errorf("overdue: %v", ids)
	}
	grantIn(t, s.Post(t, officer, glassPath+"/"+g.ID+"/review", `{"verdict":"not_justified","note":"Nobody knew the patient there"}`), 201)
	if ids := grantsIn(t, s.Get(t, officer, glassPath+"?state=overdue")); len(ids) != 0 {
		t.Errorf("overdue after the review: %v", ids)
	}
}

func TestGrantsInPages(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	dr, officer := visitor(t, s), s.Of(t, med.RoleOfficer, medtest.North)
	for i := range 5 {
		p := medtest.Alice()
		p.SourceID = med.PHI(fmt.Sprint("source-", i))
		grantIn(t, s.Post(t, dr, glassPath, openBody(s.Patient(t, medtest.North, p), "other", reason)), 201)
	}
	for name, tok := range map[string]string{"the officer": officer, "the opener": dr} {
		var all []string
		cursor := ""
		for range 4 {
			a := s.Get(t, tok, glassPath+"?limit=2"+cursor)
			all = append(all, grantsIn(t, a)...)
			var p struct{ Page struct{ Next string } }
			noError(t, json.Unmarshal([]byte(a.Body), &p))
			if p.Page.Next == "" {
				break
			}
			cursor = "&cursor=" + p.Page.Next
		}
		if len(all) != 5 || all[0] <= all[4] {
			t.Errorf("%s reads %v", name, all)
		}
	}
	var p struct{ Page struct{ Next string } }
	noError(t, json.Unmarshal([]byte(s.Get(t, officer, glassPath+"?limit=2").Body), &p))
	if got := s.Get(t, s.Of(t, med.RoleOfficer, medtest.South), glassPath+"?limit=2&cursor="+p.Page.Next); got.Status != http.StatusUnprocessableEntity {
		t.Errorf("another practice's cursor: %d %s", got.Status, got.Body)
	}
}

// Who goes on under a grant for somebody who was deleted meanwhile finds nobody,
// like everybody else; records are opened by a grant as the patient is.
func TestAGrantOfADeletedPatientOpensNobody(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Secret(reason)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	dr := visitor(t, s)
	grantIn(t, s.Post(t, dr, glassPath, openBody(alice, "patient_unconscious", reason)), 201)
	records := "/api/v1/patients/" + string(alice) + "/records"
	if got := s.Get(t, dr, records); got.Status != 200 || !entryOf(t, s, got).BreakGlass {
		t.Errorf("records under a grant: got %d %s", got.Status, got.Body)
	}
	medtest.Exec(t, s.DB.Super(t), `update medirecord.patient set deleted_at = now()`)
	for _, p := range []string{path(alice), records} {
		undisclosed(t, s.Get(t, dr, p), 404, "not_found")
	}
}
