// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

const patients = "/api/v1/patients"

const carol = `{"mrn":"MRN-77","name":{"family":"Jones","given":["Carol"]},"ssn":"987-65-4321","dob":"1971-02-03","sex":"female",
	"address":{"line":["1 Elm Street"],"city":"Springfield","state":"IL"},"phone":"+1 555 0177","email":"carol@example.org",
	"insurance":{"payer":"County Health","member_id":"CH-7788"},"diagnosis":"Essential hypertension"}`

// ofCarol are her texts, which must be found nowhere in trail or log.
var ofCarol = []med.PHI{"Carol", "987-65-4321", "1971-02-03", "1 Elm Street", "555 0177", "carol@example.org", "CH-7788", "Essential hypertension"}

// full is a patient of the versioned face.
type full struct {
	Data map[string]any `json:"data"`
	Meta struct {
		Event string `json:"audit_event_id"`
		View  struct{ Masked, Hidden []string }
	} `json:"meta"`
}

func bodyOf(t *testing.T, a medtest.Answer, status int) full {
	t.Helper()
	var out full
	if a.Status != status {
		t.Fatalf("got %d %s, want %d", a.Status, a.Body, status)
	}
	noError(t, json.Unmarshal([]byte(a.Body), &out))
	if out.Meta.Event == "" || out.Meta.Event != a.Header.Get("Audit-Event-Id") {
		t.Errorf("the body names the entry %q, the header %q", out.Meta.Event, a.Header.Get("Audit-Event-Id"))
	}
	return out
}

// clinic is a system with a person of each role, and Carol, made through the door.
type clinic struct {
	*medtest.System
	nurse, clinician, admin string
	carol                   med.PatientID
	tag                     string // of the clinician's view
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	s := medtest.New(t)
	s.Secret(ofCarol...)
	w := &clinic{System: s, nurse: s.Of(t, med.RoleNurse, medtest.North), clinician: s.Of(t, med.RoleClinician, medtest.North), admin: s.Of(t, med.RoleAdmin, medtest.North)}
	a := s.Post(t, w.clinician, patients, carol)
	w.carol, w.tag = med.PatientID(bodyOf(t, a, 201).Data["id"].(string)), a.Header.Get("ETag")
	return w
}

func (w *clinic) at() string { return patients + "/" + string(w.carol) }

func (w *clinic) get(t *testing.T, tok string) (full, string) {
	t.Helper()
	a := w.Get(t, tok, w.at())
	return bodyOf(t, a, 200), a.Header.Get("ETag")
}

func (w *clinic) patch(t *testing.T, tok, tag, body string) medtest.Answer {
	t.Helper()
	return w.Do(t, http.MethodPatch, tok, w.at(), body, "If-Match", tag)
}

func refusal(t *testing.T, a medtest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Body, `"code":"`+code+`"`) {
		t.Errorf("got %d %s, want %d with the code %s", a.Status, a.Body, status, code)
	}
	for _, p := range ofCarol {
		if strings.Contains(a.Body, p.Reveal()) {
			t.Errorf("the problem %s holds PHI", code)
		}
	}
}

func TestAPatientIsCreatedReadChangedDeletedAndRestored(t *testing.T) {
	t.Parallel()
	w := newClinic(t)

	read, tag := w.get(t, w.clinician)
	if tag != w.tag || !strings.HasPrefix(tag, `"`) {
		t.Errorf("got the ETag %s, want %s as the creation said", tag, w.tag)
	}
	if !med.IsUUID(string(w.carol)) || w.carol[14] != '7' {
		t.Errorf("got the id %s, want a UUID version 7", w.carol)
	}
	want := map[string]any{"family": "Jones", "given": []any{"Carol"}, "text": "Carol Jones"}
	if d := cmp.Diff(read.Data["name"], any(want)); d != "" {
		t.Error(d)
	}
	e := entry(t, w.System, read.Meta.Event)
	if e.Action != "read" || len(e.Detail.Clear) != len(med.PatientFields) {
		t.Errorf("got the entry %s of %v", e.Action, e.Detail.Clear)
	}

	a := w.patch(t, w.clinician, tag, `{"phone":null,"address":{"city":"Shelbyville","state":null},"name":{"given":["Carol","Ann"]},"diagnosis":"None known"}`)
	changed := bodyOf(t, a, 200)
	if changed.Data["phone"] != nil || changed.Data["ssn"] != "987-65-4321" || changed.Data["version"] != 2.0 {
		t.Errorf("got %v", changed.Data)
	}
	if d := cmp.Diff(changed.Data["address"], any(map[string]any{"line": []any{"1 Elm Street"}, "city": "Shelbyville"})); d != "" {
		t.Error(d)
	}
	if changed.Data["name"].(map[string]any)["text"] != "Carol Ann Jones" {
		t.Errorf("got the name %v", changed.Data["name"])
	}
	e = entry(t, w.System, changed.Meta.Event)
	if d := cmp.Diff(e.Detail.Changed, []med.Field{"address", "diagnosis", "name", "phone"}); e.Action != "update" || d != "" {
		t.Errorf("the entry of %s: %s", e.Action, d)
	}
	again, tag := w.get(t, w.clinician)
	if d := cmp.Diff(again.Data, changed.Data); d != "" || tag != a.Header.Get("ETag") || tag == w.tag {
		t.Errorf("reads other than it was answered, under %s: %s", tag, d)
	}

	t.Run("a stale change changes nothing", func(t *testing.T) {
		refusal(t, w.patch(t, w.clinician, w.tag, `{"phone":"555"}`), 412, "stale")
		refusal(t, w.Do(t, http.MethodPatch, w.clinician, w.at(), `{"phone":"555"}`), 428, "precondition_required")
		refusal(t, w.Do(t, http.MethodDelete, w.admin, w.at(), ""), 428, "precondition_required")
		for _, tag := range []string{"*", `W/"x"`, `"a", "b"`, "bare", `""`} {
			refusal(t, w.patch(t, w.clinician, tag, `{"phone":"555"}`), 422, "invalid")
		}
		if now, _ := w.get(t, w.clinician); now.Data["version"] != 2.0 {
			t.Errorf("got the version %v", now.Data["version"])
		}
	})

	refusal(t, w.Do(t, http.MethodDelete, w.clinician, w.at(), "", "If-Match", tag), 403, "forbidden")
	refusal(t, w.Do(t, http.MethodDelete, w.admin, w.at(), "", "If-Match", w.tag), 412, "stale")
	refusal(t, w.Do(t, http.MethodPost, w.admin, w.at()+"/restore", ""), 409, "not_deleted")
	_, tag = w.get(t, w.admin)
	if a := w.Do(t, http.MethodDelete, w.admin, w.at(), "", "If-Match", tag); a.Status != 204 || a.Body != "" || a.Header.Get("Audit-Event-Id") == "" {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	refusal(t, w.Get(t, w.clinician, w.at()), 404, "not_found")
	refusal(t, w.Get(t, er(t, w.System), w.at(), "X-Break-Glass-Reason", reason), 404, "not_found")
	refusal(t, w.patch(t, w.admin, tag, `{"phone":"555"}`), 404, "not_found")
	refusal(t, w.Do(t, http.MethodDelete, w.admin, w.at(), "", "If-Match", tag), 404, "not_found")
	refusal(t, w.Get(t, w.Of(t, med.RoleAdmin, medtest.South), w.at()), 404, "not_found")
	if gone, _ := w.get(t, w.admin); gone.Data["deleted"] != true {
		t.Errorf("an admin sees %v", gone.Data)
	}
	refusal(t, w.Do(t, http.MethodPost, w.clinician, w.at()+"/restore", ""), 403, "forbidden")
	back := bodyOf(t, w.Do(t, http.MethodPost, w.admin, w.at()+"/restore", ""), 200)
	if back.Data["deleted"] != nil || back.Data["version"] != 4.0 || back.Data["ssn"] != "987-65-4321" {
		t.Errorf("got %v", back.Data)
	}

	t.Run("not after thirty days", func(t *testing.T) {
		_, tag := w.get(t, w.admin)
		w.Do(t, http.MethodDelete, w.admin, w.at(), "", "If-Match", tag)
		medtest.Exec(t, w.DB.Super(t), `update medirecord.patient set deleted_at = now() - interval '31 days' where id = $1`, string(w.carol))
		refusal(t, w.Do(t, http.MethodPost, w.admin, w.at()+"/restore", ""), 409, "window_over")
	})
}

func TestWhoMayWriteWhat(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	patient := w.PatientOf(t, w.carol, medtest.North)
	before, tag := w.get(t, w.admin)
	_, nurses := w.get(t, w.nurse)
	_, patients := w.get(t, patient)
	for name, c := range map[string]struct {
		tok, tag, body string
		status         int
		code           string
	}{
		"a nurse may not write an SSN, whatever it is": {w.nurse, nurses, `{"ssn":"987-65-4321"}`, 403, "field_not_writable"},
		"nor another":                                {w.nurse, nurses, `{"ssn":"111-11-1111"}`, 403, "field_not_writable"},
		"nor take one away":                          {w.nurse, nurses, `{"ssn":null,"phone":"555"}`, 403, "field_not_writable"},
		"nor a diagnosis that she sees":              {w.nurse, nurses, `{"diagnosis":"Fine"}`, 403, "field_not_writable"},
		"a clinician may not write an SSN":           {w.clinician, w.tag, `{"ssn":"111-11-1111"}`, 403, "field_not_writable"},
		"nor an MRN":                                 {w.clinician, w.tag, `{"mrn":"1"}`, 403, "field_not_writable"},
		"an admin may not send a mask back":          {w.admin, tag, `{"ssn":"***-**-4321"}`, 422, "masked_value"},
		"nor one of a date":                          {w.admin, tag, `{"dob":"****-**-03"}`, 422, "masked_value"},
		"nor one of a part of a date":                {w.admin, tag, `{"dob":"****-**-**"}`, 422, "masked_value"},
		"nor one inside of a name":                   {w.admin, tag, `{"name":{"text":"***"}}`, 422, "masked_value"},
		"a patient may not write their own record":   {patient, patients, `{"phone":"555"}`, 403, "forbidden"},
		"an officer may not":                         {w.Of(t, med.RoleOfficer, medtest.North), tag, `{"phone":"555"}`, 403, "forbidden"},
		"a nurse of another practice may not":        {w.Of(t, med.RoleNurse, medtest.South), nurses, `{"phone":"555"}`, 403, "other_practice"},
		"a clinician whose own record it is may not": {w.Token(t, medtest.Claims{"sub": "carol", "roles": []string{"clinician"}, "practice_id": "north", "patient_id": string(w.carol)}), w.tag, `{"phone":"555"}`, 403, "forbidden"},
		"a name is not taken away":                   {w.admin, tag, `{"name":null}`, 422, "invalid"},
		"a date that never was":                      {w.admin, tag, `{"dob":"1971-02-30"}`, 422, "invalid"},
		"a birth that is to come":                    {w.admin, tag, `{"dob":"2999-01-01"}`, 422, "invalid"},
		"a death that is to come":                    {w.admin, tag, `{"deceased_at":"2999-01-01T00:00:00Z"}`, 422, "invalid"},
		"an SSN of another form":                     {w.admin, tag, `{"ssn":"987654321"}`, 422, "invalid"},
		"an empty text":                              {w.admin, tag, `{"phone":""}`, 422, "invalid"},
		"a blank one":                                {w.admin, tag, `{"phone":"  "}`, 422, "invalid"},
		"an unknown field":                           {w.admin, tag, `{"practice_id":"south"}`, 422, "invalid"},
		"an unknown part":                            {w.admin, tag, `{"address":{"planet":"Mars"}}`, 422, "invalid"},
		"another type":                               {w.admin, tag, `{"phone":5}`, 422, "invalid"},
		"a list":                                     {w.admin, tag, `[]`, 422, "invalid"},
		"null":                                       {w.admin, tag, `null`, 422, "invalid"},
		"nothing":                                    {w.admin, tag, `{}`, 422, "invalid"},
		"a field twice":                              {w.admin, tag, `{"phone":"1","phone":"2"}`, 422, "invalid"},
		"control characters":                         {w.admin, tag, `{"phone":"555\u0000"}`, 422, "invalid"},
		"text that turns its direction":              {w.admin, tag, `{"name":{"text":"\u202elorac"}}`, 422, "invalid"},
	} {
		t.Run(name, func(t *testing.T) { refusal(t, w.patch(t, c.tok, c.tag, c.body), c.status, c.code) })
	}
	after, _ := w.get(t, w.admin)
	if d := cmp.Diff(after.Data, before.Data); d != "" {
		t.Errorf("something was changed: %s", d)
	}
}

func TestAChangeByWhoSeesLessChangesWhatTheySee(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	read, tag := w.get(t, w.nurse)
	if read.Data["ssn"] != nil || read.Data["version"] != nil || read.Data["updated_at"] != nil || !slices.Contains(read.Meta.View.Hidden, "ssn") {
		t.Fatalf("a nurse sees %v, %v", read.Data, read.Meta.View)
	}
	_, admins := w.get(t, w.admin)
	bodyOf(t, w.patch(t, w.admin, admins, `{"ssn":"111-22-3333","insurance":{"member_id":"XX-1"}}`), 200)

	now, same := w.get(t, w.nurse)
	if d := cmp.Diff(now.Data, read.Data); d != "" || same != tag {
		t.Errorf("a nurse can tell that what is hidden from her was changed: %s, %s and %s", d, tag, same)
	}
	bodyOf(t, w.patch(t, w.nurse, tag, `{"phone":"+1 555 9999"}`), 200)
	all, _ := w.get(t, w.admin)
	if all.Data["ssn"] != "111-22-3333" || all.Data["phone"] != "+1 555 9999" || all.Data["insurance"].(map[string]any)["payer"] != "County Health" {
		t.Errorf("got %v", all.Data)
	}
	refusal(t, w.patch(t, w.nurse, tag, `{"phone":"+1 555 1111"}`), 412, "stale")

	t.Run("what is masked away is not told by the patient's ETag", func(t *testing.T) {
		tok := w.PatientOf(t, w.carol, medtest.North)
		before, tag := w.get(t, tok)
		_, admins := w.get(t, w.admin)
		bodyOf(t, w.patch(t, w.admin, admins, `{"ssn":"999-88-3333","dob":"1999-12-03","diagnosis":"Something else"}`), 200)
		after, same := w.get(t, tok)
		if d := cmp.Diff(after.Data, before.Data); d != "" || tag != same {
			t.Errorf("a patient can tell: %s, %s and %s", d, tag, same)
		}
	})
}

// A name has a written form of its own, or that of its parts.
func TestANameKeepsItsWrittenForm(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	_, tag := w.get(t, w.admin)
	for _, step := range []struct{ patch, want string }{
		{`{"name":{"family":"Okafor","given":["Ada"],"text":"Dr. Ada Okafor"}}`, "Dr. Ada Okafor"},
		{`{"name":{}}`, "Dr. Ada Okafor"},
		{`{"phone":"5550100","address":{}}`, "Dr. Ada Okafor"},
		{`{"name":{"given":["Ada","Grace"]}}`, "Ada Grace Okafor"},
		{`{"name":{"text":"A. G. Okafor"}}`, "A. G. Okafor"},
		{`{"name":{"text":null}}`, "Ada Grace Okafor"},
		{`{"name":{"given":null}}`, "Okafor"},
	} {
		a := w.patch(t, w.admin, tag, step.patch)
		got := bodyOf(t, a, 200).Data["name"].(map[string]any)["text"]
		if tag = a.Header.Get("ETag"); got != step.want {
			t.Errorf("%s: got %v, want %s", step.patch, got, step.want)
		}
	}
}

func TestIndexesFollowAChange(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	tags := func() map[string]string {
		t.Helper()
		rows, err := w.DB.Super(t).Query(t.Context(), `select field, encode(tag, 'hex') from medirecord.blind_index where patient_id = $1`, string(w.carol))
		noError(t, err)
		out := map[string]string{}
		for rows.Next() {
			var field, tag string
			noError(t, rows.Scan(&field, &tag))
			out[field] = tag
		}
		return out
	}
	before := tags()
	if len(before) != 6 {
		t.Fatalf("got %v", before)
	}
	_, tag := w.get(t, w.admin)
	bodyOf(t, w.patch(t, w.admin, tag, `{"phone":null,"dob":"1972-02-03","email":"CAROL@example.org"}`), 200)
	after := tags()
	if _, there := after["phone"]; there || after["family_dob"] == before["family_dob"] || after["email"] != before["email"] || after["ssn"] != before["ssn"] {
		t.Errorf("got %v after %v", after, before)
	}
}

func TestWhoMayCreate(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	for name, c := range map[string]struct {
		tok, body string
		status    int
		code      string
	}{
		"a nurse":             {w.nurse, carol, 403, "forbidden"},
		"an officer":          {w.Of(t, med.RoleOfficer, medtest.North), carol, 403, "forbidden"},
		"a patient":           {w.PatientOf(t, w.carol, medtest.North), carol, 403, "forbidden"},
		"without MFA":         {w.Token(t, medtest.Claims{"sub": "c", "roles": []string{"clinician"}, "practice_id": "north", "mfa_verified": nil, "amr": nil}), carol, 403, "mfa_required"},
		"without a name":      {w.clinician, `{"phone":"555"}`, 422, "invalid"},
		"with an id":          {w.clinician, `{"id":"mine","name":{"family":"X"}}`, 422, "invalid"},
		"with a practice":     {w.clinician, `{"practice_id":"south","name":{"family":"X"}}`, 422, "invalid"},
		"with a mask":         {w.clinician, `{"ssn":"***-**-1234","name":{"family":"X"}}`, 422, "masked_value"},
		"with many givens":    {w.clinician, `{"name":{"given":["a","b","c","d","e","f","g","h","i"]}}`, 422, "invalid"},
		"with SQL for a name": {w.clinician, `{"name":{"family":"'; drop table medirecord.patient; --"},"sex":"'"}`, 422, "invalid"},
	} {
		t.Run(name, func(t *testing.T) { refusal(t, w.Post(t, c.tok, patients, c.body), c.status, c.code) })
	}
	var n int
	medtest.Scan(t, w.DB.Super(t), []any{&n}, `select count(*) from medirecord.patient`)
	if n != 1 {
		t.Errorf("got %d patients, want 1", n)
	}
}
