// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

const lookupPath = "/api/v1/patients/lookup"

func lookupBody(family, dob, code, why string) string {
	return fmt.Sprintf(`{"family":%q,"dob":%q,"reason_code":%q,"reason":%q}`, family, dob, code, why)
}

var aliceAsked = lookupBody("SMITH ", "1985-06-15", "patient_unconscious", reason)

// lookedUp lists the ids that a lookup found.
func lookedUp(t *testing.T, a medtest.Answer) (ids []string, many bool) {
	t.Helper()
	var e struct {
		Data struct {
			Candidates []map[string]any
			TooMany    bool `json:"too_many"`
		}
	}
	if err := json.Unmarshal([]byte(a.Body), &e); err != nil || a.Status != 200 {
		t.Fatalf("got %d %s, want candidates", a.Status, a.Body)
	}
	for _, c := range e.Data.Candidates {
		ids = append(ids, c["id"].(string))
		if len(c) != 3 || c["dob"] != "1985-06-15" || c["name"].(map[string]any)["family"] != "Smith" {
			t.Errorf("a candidate is %v, want id, name and birth date", c)
		}
	}
	return ids, e.Data.TooMany
}

// another is Alice once more, under a number of hers.
func another(n int) med.Patient {
	p := medtest.Alice()
	p.SourceID = med.PHI(fmt.Sprint("source-", n))
	return p
}

func TestALookupAcrossPractices(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Secret(reason)
	north, south := s.Patient(t, medtest.North, medtest.Alice()), s.Patient(t, medtest.South, another(1))
	bob := another(2)
	bob.Name.Family, bob.Name.Text = "Jones", "Bob Jones"
	s.Patient(t, medtest.North, bob)
	super := s.DB.Super(t)
	dr := visitor(t, s)

	got := s.Post(t, dr, lookupPath, aliceAsked)
	ids, many := lookedUp(t, got)
	if len(ids) != 2 || many || !strings.Contains(fmt.Sprint(ids), string(north)) || !strings.Contains(fmt.Sprint(ids), string(south)) {
		t.Errorf("found %v (many: %v), want %s and %s", ids, many, north, south)
	}
	for _, hidden := range []string{"123-45-6789", "hypertension", "555-010", "north", "M10000001"} {
		if strings.Contains(got.Body, hidden) {
			t.Errorf("the answer holds %q", hidden)
		}
	}
	call := entryOf(t, s, got)
	if call.Action != "lookup" || !call.BreakGlass || call.Patient != "" || call.Detail.BreakGlass.ReasonCode != "patient_unconscious" || len(call.Detail.BreakGlass.Sealed) == 0 {
		t.Errorf("its entry: %+v", call)
	}
	for _, e := range s.TrailRows(t) {
		if e.Parent != call.ID || e.Action != "lookup" {
			continue
		}
		if e.Outcome != "success" || !e.BreakGlass || e.PatientPractice == "" || len(e.Detail.Clear) != 2 || len(e.Detail.BreakGlass.Sealed) == 0 {
			t.Errorf("the entry of a candidate: %+v", e)
		}
	}
	if n := count(t, super, "audit.event where parent_id = $1 and action = 'lookup' and outcome = 'success' and patient_id = any($2)", call.ID, ids); n != 2 {
		t.Errorf("%d entries of candidates, want 2", n)
	}
	if n := count(t, super, "audit.event where parent_id = $1 and action = 'break_glass_lookup' and outcome = 'access_granted'", call.ID); n != 1 {
		t.Errorf("%d entries of the question, want 1", n)
	}
	// The pages: one to the asker's practice, one for each patient to theirs.
	if n := count(t, super, "medirecord.outbox where topic = 'break_glass' and event_id = $1 and (practice_id, patient_id) in (('south', '*'), ('north', $2), ('south', $3))", call.ID, string(north), string(south)); n != 3 {
		t.Errorf("%d pages, want 3", n)
	}

	// Each practice's officer reads the reason of what is about theirs.
	for practice, of := range map[med.PracticeID]string{medtest.North: "patient=" + string(north), medtest.South: "actor=dr-south"} {
		a := s.Get(t, s.Of(t, med.RoleOfficer, practice), "/api/v1/audit/logs?"+of)
		if a.Status != 200 || !strings.Contains(a.Body, reason) {
			t.Errorf("the officer of %s reads no reason: %d", practice, a.Status)
		}
	}
	// What was found opens nothing: that takes a grant.
	undisclosed(t, s.Get(t, dr, path(north)), 403, "other_practice")
	grantIn(t, s.Post(t, dr, glassPath, openBody(north, "patient_unconscious", reason)), 201)
	shown(t, s.Get(t, dr, path(north)))

	// Nobody, and more than three.
	if ids, many := lookedUp(t, s.Post(t, dr, lookupPath, lookupBody("Nobody", "1985-06-15", "other", reason))); len(ids) != 0 || many {
		t.Errorf("found %v, %v", ids, many)
	}
	s.Patient(t, medtest.North, another(3))
	if ids, many := lookedUp(t, s.Post(t, dr, lookupPath, aliceAsked)); len(ids) != 3 || many {
		t.Errorf("of three found %v, %v", ids, many)
	}
	s.Patient(t, medtest.North, another(4))
	before := count(t, super, "medirecord.outbox where patient_id <> '*'")
	if ids, many := lookedUp(t, s.Post(t, dr, lookupPath, aliceAsked)); len(ids) != 0 || !many {
		t.Errorf("of four found %v, %v", ids, many)
	}
	if now := count(t, super, "medirecord.outbox where patient_id <> '*'"); now != before {
		t.Errorf("%d pages for patients of whom nothing was told", now-before)
	}
	// The deleted are not found.
	medtest.Exec(t, super, `update medirecord.patient set deleted_at = now() where id <> $1`, string(south))
	if ids, _ := lookedUp(t, s.Post(t, er(t, s), lookupPath, aliceAsked, "X-Break-Glass-Reason", reason)); len(ids) != 1 || ids[0] != string(south) {
		t.Errorf("the role break_glass, without a practice, found %v", ids)
	}
	if n := count(t, super, "medirecord.outbox where practice_id = 'unknown' and patient_id = '*'"); n != 1 {
		t.Errorf("%d pages for who has no practice", n)
	}
}

func TestWhoLooksAcrossPractices(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	header := []string{"X-Break-Glass-Reason", reason}
	stale := s.Token(t, medtest.Claims{"sub": "er-2", "sid": "x", "roles": []string{"break_glass"}, "auth_time": time.Now().Add(-9 * time.Hour).Unix()})
	for _, tc := range []struct {
		name, tok, body string
		status          int
		code            string
		header          []string
	}{
		{"a second factor of six minutes ago", visitor(t, s, medtest.Claims{"auth_time": time.Now().Add(-6 * time.Minute).Unix()}), aliceAsked, 403, "mfa_required", nil},
		{"no second factor", visitor(t, s, medtest.Claims{"mfa_verified": nil}), aliceAsked, 403, "mfa_required", nil},
		{"the role without the header", er(t, s), aliceAsked, 403, "break_glass_reason_required", nil},
		{"the role without a second factor", s.Token(t, medtest.Claims{"sub": "er-3", "sid": "x", "roles": []string{"break_glass"}, "mfa_verified": nil}), aliceAsked, 403, "mfa_required", header},
		{"the role, nine hours after the login", stale, aliceAsked, 403, "mfa_required", header},
		{"a nurse", s.Of(t, med.RoleNurse, medtest.South), aliceAsked, 403, "forbidden", nil},
		{"an admin", s.Of(t, med.RoleAdmin, medtest.South), aliceAsked, 403, "forbidden", nil},
		{"an officer", s.Of(t, med.RoleOfficer, medtest.South), aliceAsked, 403, "forbidden", nil},
		{"a patient", s.PatientOf(t, alice, medtest.North), aliceAsked, 403, "", nil},
		{"no reason", visitor(t, s), lookupBody("Smith", "1985-06-15", "other", " "), 422, "invalid", nil},
		{"a short reason", visitor(t, s), lookupBody("Smith", "1985-06-15", "other", "because"), 422, "invalid", nil},
		{"a code that is none", visitor(t, s), lookupBody("Smith", "1985-06-15", "curious", reason), 422, "invalid", nil},
		{"half a birth date", visitor(t, s), lookupBody("Smith", "1985-06", "other", reason), 422, "invalid", nil},
		{"no name", visitor(t, s), lookupBody(" ", "1985-06-15", "other", reason), 422, "invalid", nil},
		{"a wildcard", visitor(t, s), lookupBody("%", "1985-06-15", "other", reason), 422, "invalid", nil},
	} {
		got := s.Post(t, tc.tok, lookupPath, tc.body, tc.header...)
		if tc.code == "" {
			tc.code = strings.Split(strings.SplitN(got.Body, `"code":"`, 2)[1], `"`)[0]
		}
		t.Log(tc.name)
		undisclosed(t, got, tc.status, tc.code)
	}
	super := s.DB.Super(t)
	if n := count(t, super, "medirecord.lookup") + count(t, super, "medirecord.outbox"); n != 0 {
		t.Errorf("%d questions and pages of refused lookups", n)
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		if got := s.Do(t, method, visitor(t, s), lookupPath, ""); got.Status != 405 {
			t.Errorf("%s: %d", method, got.Status)
		}
	}
	// One's own record is a patient's to see, and not found by a clinician.
	self := visitor(t, s, medtest.Claims{"patient_id": string(alice), "roles": []string{"clinician", "patient"}})
	if ids, many := lookedUp(t, s.Post(t, self, lookupPath, aliceAsked)); len(ids) != 0 || many {
		t.Errorf("found themself: %v", ids)
	}
}

func TestTwentyLookupsAnHour(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	for i := range 20 {
		if got := s.Post(t, visitor(t, s, medtest.Claims{"sid": fmt.Sprint("s-", i)}), lookupPath, aliceAsked); got.Status != 200 {
			t.Fatalf("lookup %d: %d %s", i+1, got.Status, got.Body)
		}
	}
	got := s.Post(t, visitor(t, s), lookupPath, aliceAsked)
	undisclosed(t, got, 429, "rate_limited")
	if got.Header.Get("Retry-After") == "" {
		t.Error("nobody says when")
	}
	if p1, p2 := count(t, super, "medirecord.outbox where patient_id = '*' and severity = 'P1'"), count(t, super, "medirecord.outbox where patient_id = '*' and severity = 'P2'"); p1 != 10 || p2 != 10 {
		t.Errorf("%d pages P1, %d P2, want ten each", p1, p2)
	}
	if ids, _ := lookedUp(t, s.Post(t, visitor(t, s, medtest.Claims{"sub": "dr-other"}), lookupPath, aliceAsked)); len(ids) != 1 {
		t.Errorf("somebody else found %v", ids)
	}
}

// What PostgreSQL cuts down still has the MAC of its row, opens to what was kept,
// and to nothing else.
func TestACutRowOpensWhatItKeeps(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	var whole, cut []byte
	medtest.Scan(t, super, []any{&whole, &cut}, `select sealed, medirecord.cut_row(sealed, array['name', 'dob']) from medirecord.patient where id = $1`, string(id))
	parts, err := envelope.ParseRow(whole)
	noError(t, err)
	kept, err := envelope.ParseRow(cut)
	noError(t, err)
	if kept.MAC() != parts.MAC() || fmt.Sprint(kept.Fields()) != fmt.Sprint(parts.Fields()) || len(cut) >= len(whole) {
		t.Errorf("cut from %d to %d bytes: %v, want the same row", len(whole), len(cut), kept.Fields())
	}
	key, err := s.Keys.Patient(t.Context(), medtest.Mint(t, token.Context{
		Issuer: "https://issuer.example", Subject: "dr", Roles: []string{"clinician"}, Practice: "north", Action: "patient.read", Patient: string(id), Session: "s",
	}, token.MaxContextTTL), envelope.DEKID{Practice: "north", Patient: id, Version: 1})
	noError(t, err)
	where := envelope.RowID{Practice: "north", Patient: id, Table: "patient", Record: string(id)}
	for _, f := range parts.Fields() {
		plain, err := key.OpenField(where, kept, f)
		if keeps := f == "name" || f == "dob"; keeps != (err == nil) || !keeps && plain != nil {
			t.Errorf("%s: opened %v, %v", f, plain != nil, err)
		}
	}
}
