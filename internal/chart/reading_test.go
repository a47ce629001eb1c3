// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// A page of the trail and of accesses, as clients read them.
type trailPage struct {
	Data []struct {
		ID         string    `json:"id"`
		Parent     string    `json:"parent_id"`
		OccurredAt time.Time `json:"occurred_at"`
		RecordedAt time.Time `json:"recorded_at"`
		Actor      struct {
			Issuer   string   `json:"issuer"`
			Subject  string   `json:"subject"`
			Roles    []string `json:"roles"`
			Practice string   `json:"practice_id"`
			Session  string   `json:"session"`
			MFA      string   `json:"mfa"`
		} `json:"actor"`
		Action   string `json:"action"`
		Resource struct {
			Type    string `json:"type"`
			ID      string `json:"id"`
			Patient string `json:"patient_id"`
		} `json:"resource"`
		Fields     struct{ Clear, Masked, Hidden []string } `json:"fields"`
		Outcome    string                                   `json:"outcome"`
		Code       string                                   `json:"code"`
		Purpose    string                                   `json:"purpose"`
		BreakGlass *struct {
			Grant      string `json:"grant_id"`
			ReasonCode string `json:"reason_code"`
			Reason     string `json:"reason"`
		} `json:"break_glass"`
		Origin struct {
			IP        string `json:"ip"`
			UserAgent string `json:"user_agent"`
			Origin    string `json:"origin"`
			RequestID string `json:"request_id"`
			TraceID   string `json:"trace_id"`
		} `json:"origin"`
		Revision string `json:"policy_revision"`
	} `json:"data"`
	Meta struct {
		Request string `json:"request_id"`
		Event   string `json:"audit_event_id"`
	} `json:"meta"`
	Page struct {
		Limit int    `json:"limit"`
		Next  string `json:"next"`
	} `json:"page"`
}

type accessesPage struct {
	Data []struct {
		OccurredAt time.Time `json:"occurred_at"`
		Who        string    `json:"who"`
		Role       string    `json:"role"`
		Practice   string    `json:"practice"`
		What       string    `json:"what"`
		Fields     []string  `json:"fields"`
		BreakGlass bool      `json:"break_glass"`
		Event      string    `json:"audit_event_id"`
	} `json:"data"`
	Page struct {
		Limit int    `json:"limit"`
		Next  string `json:"next"`
	} `json:"page"`
}

// parsed reads an answer that must be a 200.
func parsed[T any](t *testing.T, a medtest.Answer) T {
	t.Helper()
	var out T
	if a.Status != 200 {
		t.Fatalf("got %d %s, want 200", a.Status, a.Body)
	}
	noError(t, json.Unmarshal([]byte(a.Body), &out))
	return out
}

func ids(p trailPage) (out []string) {
	for _, e := range p.Data {
		out = append(out, e.ID)
	}
	return out
}

const logs = "/api/v1/audit/logs"

func accesses(id med.PatientID) string { return "/api/v1/patients/" + string(id) + "/accesses" }

func problem(t *testing.T, what string, got medtest.Answer, status int, code string) {
	t.Helper()
	if got.Status != status || !strings.Contains(got.Body, `"code":"`+code+`"`) {
		t.Errorf("%s: got %d %s, want %d %s", what, got.Status, got.Body, status, code)
	}
}

// Each thing that an entry is to say is recorded and shown.
func TestATrailRowSaysAll(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	nurse := s.Token(t, medtest.Claims{"sub": "nurse-1", "sid": "session-1", "roles": []string{"nurse"}, "practice_id": "north"})
	before := time.Now().Add(-time.Second)
	read := s.Get(t, nurse, path(alice), "User-Agent", "Chart/2.0", "Origin", "https://ward.example", "X-Purpose-Of-Use", "TREAT",
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	denied := s.Get(t, s.Of(t, med.RoleClinician, medtest.South), path(alice))
	glass := s.Get(t, er(t, s), path(alice), "X-Break-Glass-Reason", reason)
	own := s.Get(t, s.PatientOf(t, alice, medtest.North), path(alice))

	answer := s.Get(t, s.Of(t, med.RoleOfficer, medtest.North), logs+"?patient="+string(alice))
	p := parsed[trailPage](t, answer)
	if p.Meta.Event != answer.Header.Get("Audit-Event-Id") || p.Meta.Request != answer.Header.Get("X-Request-Id") || p.Page.Limit != 50 || p.Page.Next != "" {
		t.Errorf("meta %+v page %+v", p.Meta, p.Page)
	}
	if len(p.Data) != 7 { // import, read, denied, grant, its ticket, the read under both, the patient's own
		t.Fatalf("%d entries, want 7: %s", len(p.Data), answer.Body)
	}
	found := 0
	for i, e := range p.Data {
		if i > 0 && e.OccurredAt.After(p.Data[i-1].OccurredAt) {
			t.Errorf("entry %d is newer than the one before", i)
		}
		if e.OccurredAt.Nanosecond()%1e6 != 0 || e.OccurredAt.Before(before.Add(-time.Minute)) || e.RecordedAt.Before(e.OccurredAt.Add(-time.Second)) {
			t.Errorf("entry %s occurred %s, recorded %s", e.ID, e.OccurredAt, e.RecordedAt)
		}
		switch e.ID {
		case read.Header.Get("Audit-Event-Id"):
			found++
			got := fmt.Sprintf("%s %s %v %s %s %s | %s %v | %v %v %v | %s %q %s | %s %s %s %s %s | %v", e.Actor.Issuer, e.Actor.Subject, e.Actor.Roles, e.Actor.Practice,
				e.Actor.Session, e.Actor.MFA, e.Action, []string{e.Resource.Type, e.Resource.ID, e.Resource.Patient}, e.Fields.Clear, e.Fields.Masked, e.Fields.Hidden, e.Outcome, e.Code, e.Purpose,
				e.Origin.IP, e.Origin.UserAgent, e.Origin.Origin, e.Origin.RequestID, e.Origin.TraceID, e.BreakGlass)
			want := fmt.Sprintf("https://issuer.test.invalid nurse-1 [nurse] north session-1 fresh | read [patient %s %s] | [name dob diagnosis] [] [ssn] | success %q TREAT | "+
				"127.0.0.1 Chart/2.0 https://ward.example %s 4bf92f3577b34da6a3ce929d0e0e4736 | <nil>", alice, alice, "", read.Header.Get("X-Request-Id"))
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if e.Revision == "" {
				t.Error("the entry does not name the policy's revision")
			}
		case own.Header.Get("Audit-Event-Id"):
			found++
			if fmt.Sprint(e.Fields) != "{[name] [ssn dob] [diagnosis]}" || e.Actor.Subject != "patient-"+string(alice) {
				t.Errorf("the patient's own reading reads %+v", e)
			}
		case denied.Header.Get("Audit-Event-Id"):
			found++
			if e.Outcome != "denied" || e.Code != "other_practice" || e.Actor.Practice != "south" || len(e.Fields.Clear)+len(e.Fields.Masked) != 0 {
				t.Errorf("the denial reads %+v", e)
			}
		case glass.Header.Get("Audit-Event-Id"):
			found++
			if e.BreakGlass == nil || e.BreakGlass.Reason != reason || e.BreakGlass.ReasonCode != "other" || e.BreakGlass.Grant == "" {
				t.Errorf("the break-glass access reads %+v", e.BreakGlass)
			}
		}
		if e.Action == "break_glass" {
			found++
			if e.Parent != glass.Header.Get("Audit-Event-Id") || e.Outcome != "access_granted" {
				t.Errorf("the grant reads %+v", e)
			}
		}
	}
	if found != 5 {
		t.Errorf("%d of 5 entries are there", found)
	}
	// The reading is itself an entry, about the practice and the patient.
	reading := entryOf(t, s, answer)
	if reading.Action != "read_audit" || reading.Resource != "practice/north" || reading.Patient != string(alice) ||
		reading.Detail.Counts["entries"] != 7 || reading.Detail.Counts["patients"] != 1 {
		t.Errorf("the reading's entry %+v", reading)
	}
}

func TestWhoMayReadTheTrail(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	bob := s.Patient(t, medtest.South, med.Patient{Name: med.Name{Family: "Brown", Text: "Bob Brown"}, SSN: "987-65-4321", DOB: "1970-01-02"})
	noMFA := func(role string) string {
		return s.Token(t, medtest.Claims{"sub": "the-" + role, "roles": []string{role}, "practice_id": "north", "mfa_verified": nil})
	}
	both := s.Token(t, medtest.Claims{"sub": "x", "roles": []string{"officer", "admin"}, "practice_id": "north"})
	for _, at := range []string{logs, logs + "/the-clinician", logs + "?patient=" + string(alice), logs + "?actor=the-clinician"} {
		for name, tc := range map[string]struct {
			token, code string
			status      int
		}{
			"an admin":                     {s.Of(t, med.RoleAdmin, medtest.North), "", 200},
			"an officer":                   {s.Of(t, med.RoleOfficer, medtest.North), "", 200},
			"an officer without MFA":       {noMFA("officer"), "", 200}, // what is opened to them: see below
			"an admin without MFA":         {noMFA("admin"), "mfa_required", 403},
			"an officer who is admin":      {both, "unauthorized", 401},
			"a clinician":                  {s.Of(t, med.RoleClinician, medtest.North), "forbidden", 403},
			"a nurse":                      {s.Of(t, med.RoleNurse, medtest.North), "forbidden", 403},
			"a patient":                    {s.PatientOf(t, alice, medtest.North), "not_self", 403},
			"another patient":              {s.PatientOf(t, "p-none", medtest.North), "not_self", 403},
			"break-glass without a reason": {er(t, s), "break_glass_reason_required", 403},
			"nobody":                       {"", "unauthorized", 401},
		} {
			got := s.Get(t, tc.token, at)
			if tc.status == 200 {
				parsed[trailPage](t, got)
				continue
			}
			problem(t, name+" at "+at, got, tc.status, tc.code)
		}
	}
	problem(t, "break-glass with a reason", s.Get(t, er(t, s), logs, "X-Break-Glass-Reason", reason), 403, "forbidden")

	// The accesses: the patient's own, their practice's officer and admin.
	for name, tc := range map[string]struct {
		token, code string
		id          med.PatientID
		status      int
	}{
		"the patient": {s.PatientOf(t, alice, medtest.North), "", alice, 200},
		"the patient, by a token of another place": {s.PatientOf(t, alice, medtest.South), "", alice, 200},
		"an officer":                     {s.Of(t, med.RoleOfficer, medtest.North), "", alice, 200},
		"an admin":                       {s.Of(t, med.RoleAdmin, medtest.North), "", alice, 200},
		"an admin without MFA":           {noMFA("admin"), "mfa_required", alice, 403},
		"a clinician":                    {s.Of(t, med.RoleClinician, medtest.North), "forbidden", alice, 403},
		"a nurse":                        {s.Of(t, med.RoleNurse, medtest.North), "forbidden", alice, 403},
		"a nurse, of nobody":             {s.Of(t, med.RoleNurse, medtest.North), "forbidden", "p-none", 403},
		"an officer of another practice": {s.Of(t, med.RoleOfficer, medtest.South), "other_practice", alice, 403},
		"an admin of another practice":   {s.Of(t, med.RoleAdmin, medtest.South), "other_practice", alice, 403},
		"an officer, of nobody":          {s.Of(t, med.RoleOfficer, medtest.North), "not_found", "p-nobody", 404},
	} {
		got := s.Get(t, tc.token, accesses(tc.id))
		if tc.status == 200 {
			parsed[accessesPage](t, got)
			continue
		}
		problem(t, name, got, tc.status, tc.code)
	}
	// A patient learns nothing from another's id: the answers are the same.
	asAlice := s.PatientOf(t, alice, medtest.North)
	want := normal(s.Get(t, asAlice, accesses("p-none")), "p-none")
	for _, id := range []med.PatientID{bob, "p-other"} {
		got := s.Get(t, asAlice, accesses(id))
		problem(t, "another's accesses", got, 403, "not_self")
		if n := normal(got, id); n != want {
			t.Errorf("another's id answers\n%s\nnobody's\n%s", n, want)
		}
	}
}

// What a practice may know is what its people did and what others did to its
// patients, and no filter reaches further.
func TestATrailEndsAtThePractice(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	bob := s.Patient(t, medtest.South, med.Patient{Name: med.Name{Family: "Brown", Text: "Bob Brown"}, SSN: "987-65-4321", DOB: "1970-01-02"})
	visitor := s.Token(t, medtest.Claims{"sub": "visitor", "sid": "v", "roles": []string{"break_glass", "clinician"}, "practice_id": "south"})
	abroad := s.Get(t, visitor, path(alice), "X-Break-Glass-Reason", reason)
	shown(t, abroad)
	home := s.Get(t, s.Token(t, medtest.Claims{"sub": "dr-south", "roles": []string{"clinician"}, "practice_id": "south"}), path(bob))
	north, south := s.Of(t, med.RoleOfficer, medtest.North), s.Of(t, med.RoleOfficer, medtest.South)
	abroadID, homeID := abroad.Header.Get("Audit-Event-Id"), home.Header.Get("Audit-Event-Id")
	has := func(token, query, id string) *struct{ reason string } {
		t.Helper()
		for _, e := range parsed[trailPage](t, s.Get(t, token, logs+query)).Data {
			if e.ID == id {
				out := &struct{ reason string }{}
				if e.BreakGlass != nil {
					out.reason = e.BreakGlass.Reason
				}
				return out
			}
		}
		return nil
	}
	// Break-glass by south's clinician on north's patient: both officers see it, and
	// the reason, which is sealed under north's key, opens to north's.
	for _, q := range []string{"", "?break_glass=true", "?patient=" + string(alice), "?actor=visitor", "/visitor", "/visitor?action=read", "?outcome=success&break_glass=true"} {
		if e := has(north, q, abroadID); e == nil || e.reason != reason {
			t.Errorf("north's officer at %q: %+v", q, e)
		}
		if e := has(south, q, abroadID); e == nil || e.reason != "" {
			t.Errorf("south's officer at %q: %+v", q, e)
		}
	}
	noMFA := s.Token(t, medtest.Claims{"sub": "officer-2", "roles": []string{"officer"}, "practice_id": "north", "mfa_verified": nil})
	if e := has(noMFA, "?break_glass=true", abroadID); e == nil || e.reason != "" {
		t.Errorf("an officer without a second factor: %+v, want the entry and no reason", e)
	}
	// What south's people did at home is nothing to north, and asking for it
	// looks like asking for nobody.
	for _, q := range []string{"", "?actor=dr-south", "?patient=" + string(bob), "?action=read", "?outcome=success", "?break_glass=false", "/dr-south"} {
		if has(south, q, homeID) == nil {
			t.Errorf("south's officer does not see their own at %q", q)
		}
		if has(north, q, homeID) != nil {
			t.Errorf("north's officer sees south's entry at %q", q)
		}
	}
	if a, b := normal(s.Get(t, north, logs+"/dr-south")), normal(s.Get(t, north, logs+"/dr-nobody")); a != b {
		t.Errorf("a user of another practice answers\n%s\nnobody\n%s", a, b)
	}
	// A patient of another practice looks like nobody; all that is there is that
	// north's officer has asked before.
	fresh := s.Patient(t, medtest.South, med.Patient{Name: med.Name{Family: "Green", Text: "Gil Green"}, SSN: "987-65-1234", DOB: "1971-01-02"})
	s.Get(t, south, accesses(fresh))
	if a, b := normal(s.Get(t, north, logs+"?patient="+string(fresh)), fresh), normal(s.Get(t, north, logs+"?patient=p-nobody")); a != b {
		t.Errorf("a patient of another practice answers\n%s\nnobody\n%s", a, b)
	}
	// Wildcards and other people's SQL are names like any other.
	for _, name := range []string{"%", "_", "dr%", "*", "'", `"`, "dr-south' or '1'='1", `\`, "dr-south/..", "..", "%00", "dr-south\u202e"} {
		got := s.Get(t, north, logs+"/"+url.PathEscape(name))
		if got.Status == 200 && len(parsed[trailPage](t, got).Data) != 0 || got.Status != 200 && got.Status != 422 {
			t.Errorf("user %q: %d %s", name, got.Status, got.Body)
		}
		got = s.Get(t, north, logs+"?actor="+url.QueryEscape(name))
		if got.Status == 200 && len(parsed[trailPage](t, got).Data) != 0 || got.Status != 200 && got.Status != 422 {
			t.Errorf("actor %q: %d %s", name, got.Status, got.Body)
		}
	}
	for _, q := range []string{
		"?patient=%25", "?patient=a%20b", "?action=%25", "?action=READ", "?outcome=none", "?break_glass=yes", "?from=yesterday", "?from=2026-03-01",
		"?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", "?from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:00Z", "?practice=south", "?limit=201", "?limit=0",
		"?cursor=x", "?patient=p-001&patient=p-002",
	} {
		if got := s.Get(t, north, logs+q); got.Status != 422 {
			t.Errorf("%s: got %d %s, want 422", q, got.Status, got.Body)
		}
	}
	for q, want := range map[string]bool{
		"?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z": true, "?from=9999-01-01T00:00:00Z": false, "?to=0001-01-02T00:00:00Z": false,
		"?from=" + url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)): true,
		"?to=" + url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)):   false,
	} {
		if got := has(north, q, abroadID) != nil; got != want {
			t.Errorf("%s: entry there %t, want %t", q, got, want)
		}
	}
}

// Pages follow one another without a gap or a repeat, whatever is written
// meanwhile, and a cursor serves its own list and caller only.
func TestPagesOfTheTrail(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	bob := s.Patient(t, medtest.North, med.Patient{Name: med.Name{Family: "Brown", Text: "Bob Brown"}, SSN: "987-65-4321", DOB: "1970-01-02"})
	dr := s.Token(t, medtest.Claims{"sub": "dr-1", "roles": []string{"clinician"}, "practice_id": "north"})
	for range 7 {
		shown(t, s.Get(t, dr, path(alice)))
	}
	s.Get(t, dr, path("p-none"))
	officer, admin := s.Of(t, med.RoleOfficer, medtest.North), s.Of(t, med.RoleAdmin, medtest.North)
	self := s.PatientOf(t, alice, medtest.North)
	other := s.Token(t, medtest.Claims{"sub": "dr-2", "roles": []string{"clinician"}, "practice_id": "north"})
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for _, q := range []string{"/dr-1?", "?actor=dr-1&", "?actor=dr-1&patient=" + string(alice) + "&", "?action=read&outcome=success&to=" + now + "&", "/dr-1?outcome=failure&"} {
		whole := ids(parsed[trailPage](t, s.Get(t, officer, logs+q+"limit=200")))
		for _, limit := range []int{1, 2, 3, 7, 8} {
			var got []string
			next := ""
			for range 20 {
				at := fmt.Sprintf("%s%slimit=%d", logs, q, limit)
				if next != "" {
					at += "&cursor=" + next
				}
				p := parsed[trailPage](t, s.Get(t, officer, at))
				s.Get(t, other, path(bob)) // the trail grows meanwhile
				if got = append(got, ids(p)...); len(p.Data) > limit || p.Page.Limit != limit {
					t.Fatalf("a page of %d items, limit %d", len(p.Data), limit)
				}
				if next = p.Page.Next; next == "" {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(whole) {
				t.Errorf("%s by %d: got %d entries, want %d", q, limit, len(got), len(whole))
			}
		}
	}

	list := logs + "?limit=1"
	cursor := parsed[trailPage](t, s.Get(t, officer, list)).Page.Next
	mine := parsed[accessesPage](t, s.Get(t, self, accesses(alice)+"?limit=1")).Page.Next
	if cursor == "" || mine == "" {
		t.Fatal("no cursor")
	}
	flipped := cursor[:len(cursor)/2] + string(cursor[len(cursor)/2]^1) + cursor[len(cursor)/2+1:]
	for name, tc := range map[string]struct{ token, path, cursor string }{
		"another's":                    {admin, list, cursor},
		"another practice's":           {s.Of(t, med.RoleOfficer, medtest.South), list, cursor},
		"one of another route":         {officer, logs + "/dr-1?limit=1", cursor},
		"one of a list less filtered":  {officer, list + "&action=read", cursor},
		"one of another time":          {officer, list + "&from=2026-01-01T00:00:00Z", cursor},
		"a changed one":                {officer, list, flipped},
		"a short one":                  {officer, list, cursor[:20]},
		"nonsense":                     {officer, list, "AAAA"},
		"a version nobody has":         {officer, list, "AX____8" + cursor[7:]},
		"a patient's at the officer's": {officer, accesses(alice) + "?limit=1", mine},
		"one's own of another patient": {officer, accesses(bob) + "?limit=1", parsed[accessesPage](t, s.Get(t, officer, accesses(alice)+"?limit=1")).Page.Next},
		"the trail's at the accesses":  {officer, accesses(alice) + "?limit=1", cursor},
		"the accesses' at the trail":   {self, logs + "?limit=1", mine},
	} {
		got := s.Get(t, tc.token, tc.path+"&cursor="+tc.cursor)
		if name == "the accesses' at the trail" {
			problem(t, name, got, 403, "not_self")
			continue
		}
		problem(t, name, got, 422, "cursor_invalid")
		if e := entryOf(t, s, got); e.Outcome != "failure" || e.Code != "cursor_invalid" {
			t.Errorf("%s: entry %s %s", name, e.Outcome, e.Code)
		}
	}
	parsed[trailPage](t, s.Get(t, officer, logs+"?limit=3&cursor="+cursor)) // the limit may change
	parsed[accessesPage](t, s.Get(t, self, accesses(alice)+"?limit=1&cursor="+mine))
}

// A cursor needs no secret that replicas share but the keys they have: another
// replica, with caches and connections of its own, reads on.
func TestACursorHoldsOnEveryReplica(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Patient(t, medtest.North, medtest.Alice())
	officer := s.Of(t, med.RoleOfficer, medtest.North)
	s.Get(t, officer, logs)
	p := parsed[trailPage](t, s.Get(t, officer, logs+"?limit=1"))
	keeper, err := envelope.OpenFileKeeper(s.Keeper)
	noError(t, err)
	keys, err := keystore.Open(t.Context(), keystore.Config{URL: s.DB.KeysURL("keys"), Keeper: keeper, Deadline: medtest.Patience})
	noError(t, err)
	t.Cleanup(keys.Close)
	replica, err := chart.New(chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: keys, Trail: s.Trail})
	noError(t, err)
	got, err := replica.ReadTrail(t.Context(), s.Caller(t, officer), med.TrailQuery{Page: med.Page{Limit: 1, Cursor: p.Page.Next}})
	noError(t, err)
	if len(got.Entries) != 1 || string(got.Entries[0].ID) == p.Data[0].ID || got.Entries[0].OccurredAt.After(p.Data[0].OccurredAt) {
		t.Errorf("the replica reads on with %+v after %s", got.Entries, p.Data[0].ID)
	}
	// And half an hour later, whatever its clock says; but not after an hour.
	for ahead, want := range map[time.Duration]string{30 * time.Second: "", 61 * time.Minute: "cursor_invalid"} {
		replica, err := chart.New(chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: keys, Trail: s.Trail, Now: func() time.Time { return time.Now().Add(ahead) }})
		noError(t, err)
		_, err = replica.ReadTrail(t.Context(), s.Caller(t, officer), med.TrailQuery{Page: med.Page{Limit: 1, Cursor: p.Page.Next}})
		// An hour ahead of the database no entry is taken either: it is refused one way or the other.
		if (err == nil) != (want == "") {
			t.Errorf("%s ahead: %v", ahead, err)
		}
	}
}

// The patient's own view: all of it, in words they understand, and of other
// patients nothing.
func TestAccessesInThePatientsWords(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	of := func(sub string, role med.Role, practice string) string {
		return s.Token(t, medtest.Claims{"sub": sub, "roles": []string{string(role)}, "practice_id": practice})
	}
	self := s.PatientOf(t, alice, medtest.North)
	mallory := s.Token(t, medtest.Claims{"sub": "mallory", "roles": []string{"patient"}, "practice_id": "north", "patient_id": "p-mallory"})
	s.Get(t, of("dr-1", med.RoleClinician, "north"), path(alice))
	s.Get(t, of("nurse-1", med.RoleNurse, "north"), path(alice))
	s.Get(t, of("dr-south", med.RoleClinician, "south"), path(alice))
	s.Get(t, mallory, path(alice))
	s.Get(t, mallory, accesses(alice))
	s.Get(t, er(t, s), path(alice), "X-Break-Glass-Reason", reason)
	s.Get(t, of("admin-1", med.RoleAdmin, "north"), path(alice)+"/audit")
	s.Get(t, self, path(alice))
	first := s.Get(t, self, accesses(alice))
	answer := s.Get(t, self, accesses(alice))
	var got []string
	for _, a := range parsed[accessesPage](t, answer).Data {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%v|%t", a.Who, a.Role, a.Practice, a.What, a.Fields, a.BreakGlass))
	}
	want := []string{
		"You|patient|north|You looked at the list of who used your own record.|[]|false",
		"You|patient|north|You looked at your own record: name, social security number (partly hidden) and date of birth (partly hidden).|[name ssn dob]|false",
		"admin-1|admin|north|An administrator looked at the list of who used your record.|[]|false",
		"er-1|break_glass||Emergency staff announced a look at your record.|[]|true",
		"er-1|break_glass||Emergency staff opened your record in an emergency, which a privacy officer reviews.|[]|true",
		"er-1|break_glass||Emergency staff looked at your record in an emergency, which a privacy officer reviews: name, social security number, date of birth and diagnosis.|[name ssn dob diagnosis]|true",
		"Somebody who may not|patient||Somebody tried to look at the list of who used your record and was refused; nothing was shown.|[]|false",
		"Somebody who may not|patient||Somebody tried to look at your record and was refused; nothing was shown.|[]|false",
		"dr-south|clinician|south|A clinician tried to look at your record and was refused; nothing was shown.|[]|false",
		"nurse-1|nurse|north|A nurse looked at your record: name, date of birth and diagnosis.|[name dob diagnosis]|false",
		"dr-1|clinician|north|A clinician looked at your record: name, social security number, date of birth and diagnosis.|[name ssn dob diagnosis]|false",
		"MediRecord (import)|service||A program of ours added to your record from another system.|[]|false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, secret := range []string{"mallory", reason, "127.0.0.1"} {
		if strings.Contains(answer.Body, secret) {
			t.Errorf("the patient is told %q", secret)
		}
	}
	if e := entryOf(t, s, first); e.Action != "read_audit" || e.Patient != string(alice) || e.PatientPractice != "north" || e.Detail.Counts["entries"] != 11 {
		t.Errorf("the reading's entry %+v", e)
	}
	// Their practice's officer reads the same, with names, about the patient.
	officer := parsed[accessesPage](t, s.Get(t, s.Of(t, med.RoleOfficer, medtest.North), accesses(alice)))
	if len(officer.Data) < len(want) {
		t.Errorf("the officer sees %d accesses, the patient %d", len(officer.Data), len(want))
	}
	// Staff who are the patient read as the patient; a link makes one, too.
	staff := s.Token(t, medtest.Claims{"sub": "nurse-alice", "roles": []string{"nurse"}, "practice_id": "north", "patient_id": string(alice)})
	parsed[accessesPage](t, s.Get(t, staff, accesses(alice)))
	linked := s.Token(t, medtest.Claims{"sub": "alice-at-home", "roles": []string{"patient"}, "practice_id": "north", "patient_id": "p-elsewhere"})
	problem(t, "before the link", s.Get(t, linked, accesses(alice)), 403, "not_self")
	medtest.Exec(t, s.DB.Super(t), `insert into medirecord.patient_link (issuer, subject, patient_id, relation, author, source)
		values ('https://issuer.test.invalid', 'alice-at-home', $1, 'self', 'test', 'test')`, alice)
	parsed[accessesPage](t, s.Get(t, linked, accesses(alice)))
	// An admin or officer whose own record it is goes the patient's way.
	adminAlice := s.Token(t, medtest.Claims{"sub": "admin-alice", "roles": []string{"admin"}, "practice_id": "north", "patient_id": string(alice)})
	problem(t, "an admin about themselves, the guide's way", s.Get(t, adminAlice, path(alice)+"/audit"), 403, "own_record")
	problem(t, "an admin about themselves", s.Get(t, adminAlice, logs+"?patient="+string(alice)), 403, "own_record")
	for _, e := range parsed[trailPage](t, s.Get(t, adminAlice, logs+"?break_glass=true")).Data {
		if e.BreakGlass.Reason != "" {
			t.Error("an admin reads the reason of an access to their own record")
		}
	}
	for _, a := range parsed[accessesPage](t, s.Get(t, adminAlice, accesses(alice))).Data {
		if a.Who == "mallory" {
			t.Error("an admin reads their own accesses as an admin")
		}
	}
}

// A disclosure that an agency had suspended cannot be told from another by the
// patient's accesses, nor from the officer's work on either.
func TestAccessesDoNotTellOfASuspendedDisclosure(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	admin := s.Of(t, med.RoleAdmin, medtest.North)
	_, err := s.Chart.ReadAccounting(t.Context(), s.Caller(t, admin), alice, med.AccountingAsk{})
	noError(t, err)
	answer := s.Get(t, s.PatientOf(t, alice, medtest.North), accesses(alice))
	if p := parsed[accessesPage](t, answer); p.Data[0].What != "An administrator did paperwork on your record." {
		t.Errorf("got %q", p.Data[0].What)
	}
	if strings.Contains(answer.Body, "disclos") {
		t.Error("the patient reads of disclosures among their accesses")
	}
}
