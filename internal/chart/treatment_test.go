// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// ward is a system under hospital.rego, with two nurses and a clinician.
type ward struct {
	*medtest.System
	alice                   med.PatientID
	nosy, friend, clinician string
}

func newWard(t *testing.T) *ward {
	t.Helper()
	s := medtest.New(t, medtest.Options{Policy: "builtin:hospital"})
	as := func(subject, role string) string {
		return s.Token(t, medtest.Claims{"sub": subject, "roles": []string{role}, "practice_id": string(medtest.North)})
	}
	return &ward{s, s.Patient(t, medtest.North, medtest.Alice()), as("nosy", "nurse"), as("friend", "nurse"), as("doc", "clinician")}
}

// add says that somebody of the staff has to do with alice, from now for an hour.
func (w *ward) add(t *testing.T, tok, kind, subject string) string {
	t.Helper()
	now := time.Now().UTC()
	body := fmt.Sprintf(`{"patient_id":%q,"subject":%q,"from":%q,"to":%q}`, w.alice, subject, now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
	a := w.Post(t, tok, "/api/v1/"+kind, body)
	if a.Status != http.StatusCreated {
		t.Fatalf("adding: got %d %s", a.Status, a.Body)
	}
	var out struct{ Data struct{ ID string } }
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil {
		t.Fatal(err)
	}
	return out.Data.ID
}

// sees reads alice and reports whether the diagnosis was shown; who she is must
// be, whatever else is. It returns the entry.
func (w *ward) sees(t *testing.T, tok, name string, all bool, header ...string) medtest.TrailRow {
	t.Helper()
	a := w.Get(t, tok, "/patients/"+string(w.alice), header...)
	if a.Status != 200 || !strings.Contains(a.Body, "Alice") || !strings.Contains(a.Body, "1985-06-15") {
		t.Errorf("%s: got %d %s, want at least who she is", name, a.Status, a.Body)
	}
	if got := strings.Contains(a.Body, "Essential hypertension"); got != all {
		t.Errorf("%s: the diagnosis is shown: %v, want %v", name, got, all)
	}
	return entry(t, w.System, a.Header.Get("Audit-Event-Id"))
}

func TestAHospitalShowsWhoSomebodyIsUntilThereIsAReason(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	e := w.sees(t, w.nosy, "a nurse of the house", false)
	if e.Detail.Reason != "identity_only" || e.Detail.AccessReason != "" {
		t.Errorf("the entry: got %+v", e.Detail)
	}
	e = w.sees(t, w.nosy, "with a coded reason", true, "X-Access-Reason", "on_call_cover")
	if e.Detail.AccessReason != "on_call_cover" {
		t.Errorf("the entry: got %+v, want the reason in it", e.Detail)
	}
	w.sees(t, w.nosy, "once more without", false)
	if a := w.Get(t, w.nosy, "/patients/"+string(w.alice), "X-Access-Reason", "curious"); a.Status != http.StatusUnprocessableEntity && a.Status != http.StatusBadRequest {
		t.Errorf("a reason that is no code: got %d %s", a.Status, a.Body)
	}

	// She makes herself one of those who treat: it is kept, and opens nothing.
	id := w.add(t, w.nosy, "assignments", "nosy")
	w.sees(t, w.nosy, "assigned by herself", false)
	a := w.Get(t, w.friend, "/api/v1/assignments?patient_id="+string(w.alice))
	if !strings.Contains(a.Body, id) || !strings.Contains(a.Body, `"self_written":true`) {
		t.Errorf("her own word is not marked: %s", a.Body)
	}

	id = w.add(t, w.friend, "assignments", "nosy")
	w.sees(t, w.nosy, "assigned by somebody else", true)
	w.sees(t, w.friend, "who assigned her", false)
	if a := w.Delete(t, w.clinician, "/api/v1/assignments/"+id+"?patient_id="+string(w.alice)); a.Status != 200 {
		t.Fatalf("ending: got %d %s", a.Status, a.Body)
	}
	w.sees(t, w.nosy, "whose assignment has ended", false)
	if a := w.Delete(t, w.clinician, "/api/v1/assignments/"+id+"?patient_id="+string(w.alice)); a.Status != http.StatusNotFound {
		t.Errorf("ending it twice: got %d %s", a.Status, a.Body)
	}

	w.add(t, w.friend, "appointments", "doc")
	w.sees(t, w.clinician, "with an appointment", true)
	if a := w.Get(t, w.clinician, "/api/v1/appointments"); !strings.Contains(a.Body, string(w.alice)) {
		t.Errorf("their own list: got %s", a.Body)
	}
	if a := w.Get(t, w.nosy, "/api/v1/appointments"); a.Status != 200 || strings.Contains(a.Body, string(w.alice)) {
		t.Errorf("somebody else's own list: got %d %s", a.Status, a.Body)
	}
}

func TestTheOrdinaryPolicyDoesNotAskWhoTreats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.Caller(t, w.clinician)
	v, err := w.Chart.ReadPatient(t.Context(), c, w.alice)
	noError(t, err)
	if v.Diagnosis == "" {
		t.Error("a clinician who treats nobody sees no diagnosis")
	}
}

func TestRelationsAreWrittenListedAndEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.Caller(t, w.clinician)
	now := time.Now()
	at := func(hours int) med.Treatment {
		from := now.Add(time.Duration(hours) * time.Hour)
		return med.Treatment{Kind: med.TreatmentAppointment, Patient: w.alice, Subject: "the-nurse", From: from, To: from.Add(time.Hour)}
	}
	var ids []med.TreatmentID
	for hours := range 5 {
		made, err := w.Chart.AddTreatment(t.Context(), c, at(hours), med.Once{})
		noError(t, err)
		ids = append(ids, made.ID)
		e := entry(t, w.System, string(made.Event))
		if e.Action != "add_appointment" || e.Resource != "appointment/"+string(made.ID) || e.Patient != string(w.alice) || e.Outcome != "success" {
			t.Errorf("the entry: got %+v", e)
		}
	}
	again := at(0)
	again.ID = ids[0]
	if _, err := w.Chart.AddTreatment(t.Context(), c, again, med.Once{}); med.CodeOf(err) != "written_before" {
		t.Errorf("under an id that is taken: got %v", err)
	}

	var got []med.TreatmentID
	for q := (med.TreatmentQuery{Kind: med.TreatmentAppointment, Patient: w.alice, Page: med.Page{Limit: 2}}); ; {
		p, err := w.Chart.Treatments(t.Context(), c, q)
		noError(t, err)
		for _, x := range p.Treatments {
			got = append(got, x.ID)
		}
		if p.Next == "" {
			break
		}
		q.Page.Cursor = p.Next
	}
	if len(got) != 5 || got[0] != ids[4] || got[4] != ids[0] {
		t.Errorf("got %v, want %v from the end", got, ids)
	}

	for name, bad := range map[string]func(*med.Treatment){
		"nobody":            func(x *med.Treatment) { x.Subject = "" },
		"a line break":      func(x *med.Treatment) { x.Subject = "a\nb" },
		"long ago":          func(x *med.Treatment) { x.From = now.Add(-25 * time.Hour); x.To = now },
		"far away":          func(x *med.Treatment) { x.From = now.AddDate(3, 0, 0); x.To = x.From },
		"ends before":       func(x *med.Treatment) { x.To = x.From.Add(-time.Second) },
		"too long":          func(x *med.Treatment) { x.To = x.From.Add(25 * time.Hour) },
		"for ever":          func(x *med.Treatment) { x.Kind = med.TreatmentAssignment; x.To = x.From.AddDate(2, 0, 0) },
		"an encounter":      func(x *med.Treatment) { x.Kind = med.TreatmentEncounter },
		"an id that is not": func(x *med.Treatment) { x.ID = "1" },
	} {
		x := at(0)
		bad(&x)
		if _, err := w.Chart.AddTreatment(t.Context(), c, x, med.Once{}); med.KindOf(err) != med.Invalid {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	for name, tc := range map[string]struct {
		tok     string
		patient med.PatientID
		want    *med.ErrorKind
	}{
		"another practice's patient":             {w.clinician, w.bob, med.Forbidden},
		"nobody":                                 {w.clinician, "nobody", med.NotFound},
		"a patient about themselves":             {w.herself, w.alice, med.Forbidden},
		"a patient about another":                {w.herself, w.bob, med.Forbidden},
		"an officer":                             {w.officer, w.alice, med.Forbidden},
		"a clinician about their own record":     {w.Token(t, medtest.Claims{"sub": "c", "roles": []string{"clinician"}, "practice_id": "north", "patient_id": string(w.alice)}), w.alice, med.Forbidden},
		"a clinician who shows no second factor": {w.Token(t, medtest.Claims{"sub": "c", "roles": []string{"clinician"}, "practice_id": "north", "mfa_verified": nil}), w.alice, med.MFARequired},
	} {
		who := w.Caller(t, tc.tok)
		x := at(0)
		x.Patient = tc.patient
		if _, err := w.Chart.AddTreatment(t.Context(), who, x, med.Once{}); med.KindOf(err) != tc.want {
			t.Errorf("%s adds: got %v, want %v", name, err, tc.want.Slug)
		}
		if _, err := w.Chart.Treatments(t.Context(), who, med.TreatmentQuery{Kind: x.Kind, Patient: tc.patient}); med.KindOf(err) != tc.want {
			t.Errorf("%s lists: got %v, want %v", name, err, tc.want.Slug)
		}
		if _, err := w.Chart.EndTreatment(t.Context(), who, x.Kind, tc.patient, ids[0]); med.KindOf(err) != tc.want {
			t.Errorf("%s ends: got %v, want %v", name, err, tc.want.Slug)
		}
	}
}

func TestAnImportSaysWhoTreatsOnceItIsTrusted(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	now := time.Now()
	b := bundle("visits", medtest.Alice())
	b.Source = "ehr"
	b.Treatments = []med.SourceTreatment{
		{Origin: "Encounter/1 npi|1", Kind: med.TreatmentEncounter, Practitioner: "npi|1", From: now.Add(-time.Hour), To: now},
		{Origin: "Encounter/1 npi|1", Kind: med.TreatmentEncounter, Practitioner: "npi|1", From: now.Add(-time.Hour), To: now}, // twice in one visit
		{Origin: "CareTeam/1 npi|2", Kind: med.TreatmentCareTeam, Practitioner: "npi|2", From: now.AddDate(-1, 0, 0), Open: true},
	}
	door, desk := w.Door(t, "import"), w.Door(t, "operator")
	hand := func(b chart.Bundle) {
		t.Helper()
		done, err := door.Import(t.Context(), chart.Importer("test"), medtest.North, b)
		noError(t, err)
		w.alice = done.Patient
	}
	hand(b)
	op := chart.Operator("test")
	doc := chart.StaffMember{Source: "ehr", Practitioner: "npi|1", Issuer: w.Caller(t, w.clinician).Issuer, Subject: "doc"}
	w.sees(t, w.clinician, "nobody trusts the source", false)
	noError(t, desk.TrustSource(t.Context(), op, medtest.North, "ehr", true))
	w.sees(t, w.clinician, "nobody knows who that is", false)
	noError(t, desk.EnrollStaff(t.Context(), op, medtest.North, doc))
	w.sees(t, w.clinician, "they had a visit", true)
	w.sees(t, w.nosy, "somebody else", false)
	for name, err := range map[string]error{
		"trusted twice":  desk.TrustSource(t.Context(), op, medtest.North, "ehr", true),
		"enrolled twice": desk.EnrollStaff(t.Context(), op, medtest.North, doc),
	} {
		if med.KindOf(err) != med.Conflict {
			t.Errorf("%s: got %v, want Conflict", name, err)
		}
	}
	if err := w.Chart.TrustSource(t.Context(), op, medtest.North, "other", true); err == nil {
		t.Error("the API's own door trusted a source")
	}
	sources, err := desk.TrustedSources(t.Context(), op, medtest.North)
	noError(t, err)
	staff, err := desk.EnrolledStaff(t.Context(), op, medtest.North)
	noError(t, err)
	if len(sources) != 1 || sources[0].Name != "ehr" || len(staff) != 1 || staff[0].Practitioner != doc.Practitioner || staff[0].Subject != doc.Subject {
		t.Errorf("got %v and %v", sources, staff)
	}
	for name, list := range map[string]func(*chart.Service, med.PracticeID) (int, error){
		"sources": func(d *chart.Service, p med.PracticeID) (int, error) {
			l, err := d.TrustedSources(t.Context(), op, p)
			return len(l), err
		},
		"staff": func(d *chart.Service, p med.PracticeID) (int, error) {
			l, err := d.EnrolledStaff(t.Context(), op, p)
			return len(l), err
		},
	} {
		if n, err := list(desk, medtest.South); n != 0 || err != nil {
			t.Errorf("%s of another practice: got %d, %v", name, n, err)
		}
		if n, err := list(w.Chart, medtest.North); n != 0 || err == nil {
			t.Errorf("the API's own door listed %d %s", n, name)
		}
		if n := count(t, w.DB.Super(t), "audit.event where action = $1 and outcome = 'success'", "list_"+name); n != 2 {
			t.Errorf("%d entries of lists of %s, want two", n, name)
		}
	}
	if err := desk.TrustSource(t.Context(), op, medtest.North, "api", true); med.KindOf(err) != med.Invalid {
		t.Errorf("what people write, as a source: got %v", err)
	}

	noError(t, desk.DismissStaff(t.Context(), op, medtest.North, doc))
	w.sees(t, w.clinician, "dismissed", false)
	doc.Practitioner = "npi|2"
	noError(t, desk.EnrollStaff(t.Context(), op, medtest.North, doc))
	w.sees(t, w.clinician, "of the care team", true)
	noError(t, desk.TrustSource(t.Context(), op, medtest.North, "ehr", false))
	w.sees(t, w.clinician, "the source is trusted no more", false)
	noError(t, desk.TrustSource(t.Context(), op, medtest.North, "ehr", true))

	// The source takes it back.
	newer := b
	newer.Hash[0]++
	newer.Treatments = []med.SourceTreatment{{Origin: "CareTeam/1 npi|2", Kind: med.TreatmentCareTeam, Practitioner: "npi|2", Void: true}}
	hand(newer)
	w.sees(t, w.clinician, "whom the source took off the team", false)
}

// A list and a search show of each patient what a read of them would: who they
// are, until there is a reason; all that the role opens, of those whom the caller
// treats. Nobody is blocked, and each patient shown has their entry.
func TestAHospitalsListsAndSearchesAreAsItsReads(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	zoe := w.Patient(t, medtest.North, med.Patient{
		Name: med.Name{Family: "Zimmer", Given: []med.PHI{"Zoe"}, Text: "Zoe Zimmer"}, SSN: "987-65-4321", DOB: "1971-02-03", MRN: "MRN-000077",
		Phone: "555-010-0077", Insurance: med.Insurance{Payer: "Evergreen Mutual", MemberID: "M10000077"}, Diagnosis: "Migraine without aura",
	})
	search := func(tok, body string, header ...string) medtest.Answer {
		return w.Post(t, tok, patients+"/search", body, header...)
	}
	// parts are the reasons for which each patient of an answer was shown.
	parts := func(a medtest.Answer) map[string]string {
		t.Helper()
		out := map[string]string{}
		for _, e := range w.TrailRows(t) {
			if e.Parent == a.Header.Get("Audit-Event-Id") && e.Action == "search" {
				if e.Outcome != "success" {
					t.Errorf("got the entry %+v", e)
				}
				out[e.Patient] = e.Detail.Reason
			}
		}
		return out
	}
	w.add(t, w.friend, "appointments", "doc") // with alice

	t.Run("a list", func(t *testing.T) {
		for _, tok := range []string{w.nosy, w.clinician} {
			items, _ := rowsOf(t, w.Get(t, tok, patients))
			if len(items) != 2 {
				t.Errorf("got %v, want both with their names", items)
			}
			for _, i := range items {
				if i["name"] == nil || i["diagnosis"] != nil || i["phone"] != nil {
					t.Errorf("got %v", i)
				}
			}
		}
		if got := parts(w.Get(t, w.clinician, patients)); got[string(zoe)] != "identity_only" || got[string(w.alice)] == "identity_only" || got[string(w.alice)] == "" {
			t.Errorf("got the reasons %v", got)
		}
		if got := parts(w.Get(t, w.clinician, patients, "X-Access-Reason", "on_call_cover")); len(got) != 2 || got[string(zoe)] == "identity_only" {
			t.Errorf("with a reason: got the reasons %v", got)
		}
	})
	t.Run("a search by who somebody is", func(t *testing.T) {
		a := search(w.nosy, `{"family":"Zimmer","dob":"1971-02-03"}`)
		if items, _ := rowsOf(t, a); len(items) != 1 || items[0]["id"] != string(zoe) || items[0]["dob"] != "1971-02-03" {
			t.Errorf("got %v", items)
		}
		if got := parts(a); got[string(zoe)] != "identity_only" {
			t.Errorf("got the reasons %v", got)
		}
		if items, _ := rowsOf(t, search(w.nosy, `{"mrn":"MRN-000077"}`)); len(items) != 1 {
			t.Errorf("by the house's own number: got %v", items)
		}
	})
	t.Run("a search by what a reason opens", func(t *testing.T) {
		for _, body := range []string{`{"ssn":"987-65-4321"}`, `{"member_id":"M10000077"}`, `{"phone":"555-010-0077"}`} {
			refusal(t, search(w.clinician, body), 403, "reason_required")
			a := search(w.clinician, body, "X-Access-Reason", "emergency_treatment")
			if items, _ := rowsOf(t, a); len(items) != 1 || items[0]["id"] != string(zoe) {
				t.Errorf("%s: got %v", body, items)
			}
			if e := entry(t, w.System, a.Header.Get("Audit-Event-Id")); e.Detail.AccessReason != "emergency_treatment" {
				t.Errorf("the entry: got %+v, want the reason in it", e.Detail)
			}
		}
		// A reason opens what the role opens, and no more.
		refusal(t, search(w.nosy, `{"ssn":"987-65-4321"}`, "X-Access-Reason", "emergency_treatment"), 403, "field_not_searchable")
	})
	t.Run("the list of a chart is closed, and opened, as the chart is", func(t *testing.T) {
		records := patients + "/" + string(zoe) + "/records"
		refusal(t, w.Get(t, w.clinician, records), 403, "reason_required")
		rowsOf(t, w.Get(t, w.clinician, records, "X-Access-Reason", "on_call_cover"))
		rowsOf(t, w.Get(t, w.clinician, patients+"/"+string(w.alice)+"/records"))
	})
}
