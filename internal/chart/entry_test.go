// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// Every call leaves one primary entry, whatever came of it, and the entry says
// what the answer was.
func TestTheEntryOfEveryOutcome(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	of := func(role med.Role, practice med.PracticeID) string { return s.Of(t, role, practice) }
	noMFA := s.Token(t, medtest.Claims{"sub": "the-admin", "roles": []string{"admin"}, "practice_id": "north", "mfa_verified": nil})
	both := s.Token(t, medtest.Claims{"sub": "both", "roles": []string{"nurse", "admin"}, "practice_id": "north"})
	self := s.Token(t, medtest.Claims{"sub": "nurse-alice", "roles": []string{"nurse", "patient"}, "practice_id": "north", "patient_id": string(alice)})
	f := func(names ...med.Field) []med.Field { return names }
	const name, ssn, dob, diagnosis = med.FieldName, med.FieldSSN, med.FieldDOB, med.FieldDiagnosis
	none := "" // no context was minted

	for _, tc := range []struct {
		name, token, path, glass string
		status                   int
		outcome, code, why       string
		practice                 string // of the patient
		context                  string
		clear, masked, hidden    []med.Field
	}{
		{"a clinician", of(med.RoleClinician, "north"), path(alice), "", 200, "success", "", "permitted", "north", "yes", f(name, ssn, dob, diagnosis), nil, nil},
		{"an admin", of(med.RoleAdmin, "north"), path(alice), "", 200, "success", "", "permitted", "north", "yes", f(name, ssn, dob, diagnosis), nil, nil},
		{"a nurse", of(med.RoleNurse, "north"), path(alice), "", 200, "success", "", "permitted", "north", "yes", f(name, dob, diagnosis), nil, f(ssn)},
		{"a nurse and admin sees the widest", both, path(alice), "", 200, "success", "", "permitted", "north", "yes", f(name, ssn, dob, diagnosis), nil, nil},
		{"the patient", s.PatientOf(t, alice, "north"), path(alice), "", 200, "success", "", "own_record", "north", "yes", f(name), f(ssn, dob), f(diagnosis)},
		{"a nurse who is the patient sees as the patient", self, path(alice), "", 200, "success", "", "own_record", "north", "yes", f(name), f(ssn, dob), f(diagnosis)},
		{"the patient, whose token is of another practice", s.PatientOf(t, alice, "south"), path(alice), "", 200, "success", "", "own_record", "north", "yes", f(name), f(ssn, dob), f(diagnosis)},
		{"a clinician of another practice", of(med.RoleClinician, "south"), path(alice), "", 403, "denied", "other_practice", "other_practice", "north", "yes", nil, nil, nil},
		{"an admin of another practice", of(med.RoleAdmin, "south"), path(alice), "", 403, "denied", "other_practice", "other_practice", "north", "yes", nil, nil, nil},
		{"another patient", s.PatientOf(t, "p-other", "north"), path(alice), "", 403, "denied", "not_self", "not_self", "", "yes", nil, nil, nil},
		{"another patient, about nobody", s.PatientOf(t, "p-other", "north"), "/patients/nobody", "", 403, "denied", "not_self", "not_self", "", "yes", nil, nil, nil},
		{"an officer", of(med.RoleOfficer, "north"), path(alice), "", 403, "denied", "forbidden", "role", "", "yes", nil, nil, nil},
		{"an officer, about nobody", of(med.RoleOfficer, "north"), "/patients/nobody", "", 403, "denied", "forbidden", "role", "", "yes", nil, nil, nil},
		{"without a second factor", noMFA, path(alice), "", 403, "denied", "mfa_required", "mfa_required", "", none, nil, nil, nil},
		{"nobody's id", of(med.RoleClinician, "north"), "/patients/nobody", "", 404, "failure", "not_found", "permitted", "", "yes", nil, nil, nil},
		{"break-glass without a reason", er(t, s), path(alice), "", 403, "denied", "break_glass_reason_required", "", "", none, nil, nil, nil},
		{"break-glass with a poor one", er(t, s), path(alice), "help", 422, "failure", "invalid", "", "", none, nil, nil, nil},
		{"break-glass, about nobody", er(t, s), "/patients/nobody", reason, 404, "failure", "not_found", "", "", "yes", nil, nil, nil},
		{"break-glass", er(t, s), path(alice), reason, 200, "success", "", "break_glass", "north", "yes", f(name, ssn, dob, diagnosis), nil, nil},
		{"a reason without the role means nothing", of(med.RoleClinician, "south"), path(alice), reason, 403, "denied", "other_practice", "other_practice", "north", "yes", nil, nil, nil},
		{"the trail, read by an admin", of(med.RoleAdmin, "north"), path(alice) + "/audit", "", 200, "success", "", "permitted", "north", "yes", nil, nil, nil},
		{"the trail, of another practice", of(med.RoleAdmin, "south"), path(alice) + "/audit", "", 403, "denied", "other_practice", "other_practice", "north", "yes", nil, nil, nil},
		{"the trail, of nobody", of(med.RoleAdmin, "south"), "/patients/never-asked-for/audit", "", 404, "failure", "not_found", "permitted", "", "yes", nil, nil, nil},
		{"the trail, read by a nurse", of(med.RoleNurse, "north"), path(alice) + "/audit", "", 403, "denied", "forbidden", "", "", none, nil, nil, nil},
		{"the trail, read by an officer", of(med.RoleOfficer, "north"), path(alice) + "/audit", "", 403, "denied", "forbidden", "", "", none, nil, nil, nil},
		{"the trail, read by the patient", s.PatientOf(t, alice, "north"), path(alice) + "/audit", "", 403, "denied", "forbidden", "", "", none, nil, nil, nil},
		{"the trail, without a second factor", noMFA, path(alice) + "/audit", "", 403, "denied", "mfa_required", "mfa_required", "", none, nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			header := []string{
				"X-Purpose-Of-Use", "TREAT", "User-Agent", "test/1", "Origin", "https://desk.example", "X-Request-Id", "theirs",
				"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			}
			if tc.glass != "" {
				header = append(header, "X-Break-Glass-Reason", tc.glass)
			}
			got := s.Get(t, tc.token, tc.path, header...)
			if got.Status != tc.status {
				t.Fatalf("got %d %s, want %d", got.Status, got.Body, tc.status)
			}
			if tc.code != "" && !strings.Contains(got.Body, `"code":"`+tc.code+`"`) {
				t.Errorf("got %s, want the code %s", got.Body, tc.code)
			}
			e := entryOf(t, s, got)
			action := map[bool]string{false: "read", true: "read_audit"}[strings.HasSuffix(tc.path, "/audit")]
			id := strings.TrimSuffix(strings.TrimPrefix(tc.path, "/patients/"), "/audit")
			if e.Parent != "" || e.Action != action || e.Resource != "patient/"+id || e.Patient != id {
				t.Errorf("got the action %s of %s (patient %s, parent %q), want %s of %s", e.Action, e.Resource, e.Patient, e.Parent, action, id)
			}
			if e.Outcome != tc.outcome || e.Code != tc.code || e.Detail.Reason != tc.why || e.PatientPractice != tc.practice {
				t.Errorf("got %s (%s) because %q, of practice %q; want %s (%s) because %q, of %q",
					e.Outcome, e.Code, e.Detail.Reason, e.PatientPractice, tc.outcome, tc.code, tc.why, tc.practice)
			}
			if d := cmp.Diff([][]med.Field{e.Detail.Clear, e.Detail.Masked, e.Detail.Hidden}, [][]med.Field{tc.clear, tc.masked, tc.hidden}); d != "" {
				t.Error("clear, masked, hidden (-got +want)\n" + d)
			}
			c := s.Caller(t, tc.token)
			if e.Actor != c.Subject || e.Detail.Session != c.Session || e.Detail.TokenID != c.TokenID || e.Detail.MFA == "" || !cmp.Equal(e.Detail.Roles, c.Roles) {
				t.Errorf("who: got %s %+v", e.Actor, e.Detail)
			}
			if e.Detail.Purpose != "TREAT" || e.Detail.UserAgent != "test/1" || e.Detail.Origin != "https://desk.example" || e.Detail.ClientID != "theirs" ||
				e.Detail.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || e.Detail.IP != "127.0.0.1" || e.Detail.RequestID != got.Header.Get("X-Request-Id") {
				t.Errorf("where from: got %+v", e.Detail)
			}
			var nonce, mac *string
			medtest.Scan(t, s.DB.Super(t), []any{&nonce, &mac}, `select ctx_nonce, ctx_mac from audit.event where event_id = $1`, e.ID)
			minted := nonce != nil && mac != nil && len(*nonce) >= 16 && entryMAC.MatchString(*mac)
			if minted != (tc.context == "yes") || !minted && (nonce != nil || mac != nil) {
				t.Errorf("the context's nonce and MAC: got %v, want minted %v", minted, tc.context == "yes")
			}
			if asked := tc.why != "" || minted; asked && e.Detail.Revision != medtest.Policy(t).Revision() {
				t.Errorf("policy revision: got %q", e.Detail.Revision)
			}
			if tried := tc.why == "break_glass" || tc.name == "break-glass, about nobody"; e.BreakGlass != tried {
				t.Errorf("break-glass: got %v", e.BreakGlass)
			}
			if d := time.Since(e.OccurredAt); d < 0 || d > time.Minute {
				t.Errorf("occurred %s ago", d)
			}
			var n int
			medtest.Scan(t, s.DB.Super(t), []any{&n}, `select count(*) from audit.event where detail::jsonb ->> 'request_id' = $1 and parent_id is null`, got.Header.Get("X-Request-Id"))
			if n != 1 {
				t.Errorf("%d primary entries for one request", n)
			}
		})
	}
}

var entryMAC = regexp.MustCompile(`^e1\.test1\.[0-9]+\.(patient|audit)\.read\.[0-9a-f]{64}$`)

// A field that is not asked for is neither opened nor said to have been seen.
func TestOnlyWantedFieldsAreOpened(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	c := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	v, err := s.Chart.ReadPatient(t.Context(), c, alice, med.FieldName, med.FieldSSN)
	noError(t, err)
	if v.Name.Text != "Alice Smith" || v.SSN != "123-45-6789" || v.DOB != "" || v.Diagnosis != "" || v.MRN != "" {
		t.Error("got other fields than those wanted")
	}
	if e := entry(t, s, string(v.Event)); !cmp.Equal(e.Detail.Clear, []med.Field{med.FieldName, med.FieldSSN}) || e.Detail.Hidden != nil {
		t.Errorf("entry: %+v", e.Detail)
	}
	v, err = s.Chart.ReadPatient(t.Context(), c, alice)
	noError(t, err)
	if e := entry(t, s, string(v.Event)); len(e.Detail.Clear) != len(med.PatientFields) {
		t.Errorf("all fields: got %v", e.Detail.Clear)
	}
}

func TestADoorWithoutAPartDoesNotOpen(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	whole := chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: s.Keys, Trail: s.Trail}
	for name, without := range map[string]func(*chart.Config){
		"gate": func(c *chart.Config) { c.Gate = nil }, "database": func(c *chart.Config) { c.DB = nil },
		"keys": func(c *chart.Config) { c.Keys = nil }, "trail": func(c *chart.Config) { c.Trail = nil },
	} {
		cfg := whole
		without(&cfg)
		if d, err := chart.New(cfg); err == nil || d != nil {
			t.Errorf("opened without the %s", name)
		}
	}
	if _, err := chart.New(whole); err != nil {
		t.Error(err)
	}
}

// Two patients who differ only in what a patient does not see of themselves
// give the same answer, byte for byte, headers too. So do two that exist and
// one that does not, to who may not know.
func TestHiddenValuesDoNotInterfere(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	twin := func(n string, change func(*med.Patient)) med.PatientID {
		p := medtest.Alice()
		p.SourceID = med.PHI("source-" + n)
		change(&p)
		return s.Patient(t, medtest.North, p)
	}
	alice := twin("0", func(*med.Patient) {})
	others := map[string]med.PatientID{
		"a long diagnosis":       twin("1", func(p *med.Patient) { p.Diagnosis = med.PHI(strings.Repeat("Malignant neoplasm. ", 400)) }),
		"no diagnosis":           twin("2", func(p *med.Patient) { p.Diagnosis = "" }),
		"restricted":             twin("3", func(p *med.Patient) { p.Sensitivity = "restricted" }),
		"another number":         twin("4", func(p *med.Patient) { p.SSN = "987-65-6789" }),
		"another year and month": twin("5", func(p *med.Patient) { p.DOB = "2001-12-15" }),
		"what this face hides": twin("6", func(p *med.Patient) {
			p.MRN, p.Phone, p.Email, p.Insurance, p.Sex = "MRN-999", "", "", med.Insurance{}, "other"
			p.Address = med.Address{City: "Springfield"}
		}),
		"a chart beside": s.Patient(t, medtest.North, func() med.Patient { p := medtest.Alice(); p.SourceID = "source-7"; return p }(), observation(rid(1), "5.4")),
	}
	want := s.Get(t, s.PatientOf(t, alice, medtest.North), path(alice))
	if want.Status != 200 || !strings.Contains(want.Body, `"ssn":"***-**-6789","dob":"****-**-15","diagnosis":""`) {
		t.Fatalf("got %d %s", want.Status, want.Body)
	}
	for name, id := range others {
		if got := s.Get(t, s.PatientOf(t, id, medtest.North), path(id)); normal(got, id) != normal(want, alice) {
			t.Errorf("%s tells:\n%s\nwant\n%s", name, normal(got, id), normal(want, alice))
		}
	}
	nurse := s.Of(t, med.RoleNurse, medtest.North)
	if a, b := s.Get(t, nurse, path(alice)), s.Get(t, nurse, path(others["another number"])); normal(a, alice) != normal(b, others["another number"]) {
		t.Error("a nurse can tell two numbers apart")
	}
	if a, b := s.Get(t, nurse, path(alice)), s.Get(t, nurse, path(others["a long diagnosis"])); normal(a, alice) == normal(b, others["a long diagnosis"]) {
		t.Error("the comparison cannot fail: a nurse sees the diagnosis")
	}

	for name, tok := range map[string]string{
		"another patient": s.PatientOf(t, "p-other", medtest.North), "an officer": s.Of(t, med.RoleOfficer, medtest.North), "break-glass without a reason": er(t, s),
	} {
		there, away := s.Get(t, tok, path(alice)), s.Get(t, tok, "/patients/nobody-at-all")
		if there.Status != 403 || normal(there, alice) != normal(away, "nobody-at-all") {
			t.Errorf("%s can tell who is a patient:\n%s\n%s", name, normal(there, alice), normal(away, "nobody-at-all"))
		}
	}
}
