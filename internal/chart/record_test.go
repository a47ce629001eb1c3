// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

func obs(id, start string) med.Record {
	return med.Record{
		ID: med.RecordID(id), Kind: med.KindObservation, Type: "Observation", Status: "final", Start: med.PHI(start), Note: "note-" + med.PHI(id), Author: "Dr. Grey",
		Codes: []med.Code{{System: "http://loinc.org", Code: "4548-4", Display: "Hemoglobin A1c"}}, Value: med.Value{Quantity: "5.4 %"},
		Source: `{"resourceType":"Observation"}`, Sensitivity: med.SensitivityNormal,
	}
}

func of(r med.Record, kind med.Kind, s med.Sensitivity) med.Record {
	r.Kind, r.Sensitivity = kind, s
	return r
}

// listOf lists a page's records.
func listOf(p *med.RecordPage) string {
	var out []string
	for _, r := range p.Records {
		out = append(out, string(r.ID))
	}
	return strings.Join(out, " ")
}

// uuids: the importer keeps ids that are UUIDs as they are.
const (
	r1 = "00000000-0000-4000-8000-000000000001"
	r2 = "00000000-0000-4000-8000-000000000002"
	r3 = "00000000-0000-4000-8000-000000000003"
	r4 = "00000000-0000-4000-8000-000000000004"
	r5 = "00000000-0000-4000-8000-000000000005"
	r6 = "00000000-0000-4000-8000-000000000006"
	r7 = "00000000-0000-4000-8000-000000000007"
)

func TestEachRoleReadsTheRecordsThatThereAreForIt(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"),
		obs(r1, "2026-03-01"), of(obs(r2, "2026-02"), med.KindCondition, med.SensitivityNormal), of(obs(r3, "2026-01-31T10:00:00Z"), med.KindObservation, med.SensitivityRestricted),
		of(obs(r4, "2025"), med.KindClaim, med.SensitivityNormal), of(obs(r5, ""), med.KindMedication, med.SensitivityNormal),
		of(obs(r6, "2026-04-01"), med.KindDocument, med.SensitivityPsychotherapy))
	all := strings.Join([]string{r1, r2, r3, r4, r5}, " ")
	for _, tc := range []struct{ name, tok, want string }{
		{"a clinician", s.Of(t, med.RoleClinician, medtest.North), all},
		{"an admin", s.Of(t, med.RoleAdmin, medtest.North), all},
		{"a nurse", s.Of(t, med.RoleNurse, medtest.North), strings.Join([]string{r1, r2, r5}, " ")},
		{"the patient", s.PatientOf(t, ann, medtest.North), strings.Join([]string{r1, r3, r5}, " ")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := s.Caller(t, tc.tok)
			page, err := s.Chart.ReadRecords(t.Context(), c, ann, med.RecordAsk{}, med.Page{})
			noError(t, err)
			if got := listOf(page); got != tc.want || page.Suspect || page.Next != "" {
				t.Errorf("got %s, next %q, suspect %v, want %s", got, page.Next, page.Suspect, tc.want)
			}
			var walked []string
			for p := (med.Page{Limit: 1}); ; {
				page, err := s.Chart.ReadRecords(t.Context(), c, ann, med.RecordAsk{}, p)
				noError(t, err)
				walked = append(walked, listOf(page))
				if p.Cursor = page.Next; p.Cursor == "" {
					break
				}
			}
			if got := strings.Join(walked, " "); got != tc.want {
				t.Errorf("one at a time: got %s, want %s", got, tc.want)
			}
			for _, id := range []med.RecordID{r1, r2, r3, r4, r5, r6, r7} {
				v, err := s.Chart.ReadRecord(t.Context(), c, ann, id)
				if strings.Contains(tc.want, string(id)) != (err == nil) || err != nil && med.KindOf(err) != med.NotFound {
					t.Errorf("%s: got %v", id, err)
				}
				if err == nil && (v.Note.Reveal() != "note-"+string(id) || v.Author != "Dr. Grey" || (v.Source == "") != (tc.name == "the patient") || (v.Version == 0) != (tc.name == "the patient")) {
					t.Errorf("%s: got note %q, source %q, version %d", id, v.Note.Reveal(), v.Source.Reveal(), v.Version)
				}
				if _, err := s.Chart.ReadVersions(t.Context(), c, ann, id); strings.Contains(tc.want, string(id)) != (err == nil) {
					t.Errorf("versions of %s: got %v", id, err)
				}
			}
		})
	}
	t.Run("by kind and day", func(t *testing.T) {
		t.Parallel()
		day := func(s string) med.Day { d, _ := med.ParseDay(s); return d }
		c := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
		for _, tc := range []struct {
			ask  med.RecordAsk
			want string
		}{
			{med.RecordAsk{Kind: med.KindObservation}, r1 + " " + r3},
			{med.RecordAsk{From: day("2026-01-31"), To: day("2026-02-01")}, r2 + " " + r3},
			{med.RecordAsk{From: day("2026-03-01")}, r1},
			{med.RecordAsk{To: day("2025-01-01")}, r4},
			{med.RecordAsk{Kind: med.KindDocument}, ""},
		} {
			page, err := s.Chart.ReadRecords(t.Context(), c, ann, tc.ask, med.Page{})
			noError(t, err)
			if listOf(page) != tc.want {
				t.Errorf("%s %s-%s: got %s, want %s", tc.ask.Kind, tc.ask.From.Reveal(), tc.ask.To.Reveal(), listOf(page), tc.want)
			}
		}
	})
	t.Run("nobody else", func(t *testing.T) {
		t.Parallel()
		for name, tok := range map[string]string{
			"a clinician of another practice": s.Of(t, med.RoleClinician, medtest.South), "an officer": s.Of(t, med.RoleOfficer, medtest.North),
			"another patient": s.PatientOf(t, "p-other", medtest.North),
		} {
			if _, err := s.Chart.ReadRecords(t.Context(), s.Caller(t, tok), ann, med.RecordAsk{}, med.Page{}); med.KindOf(err) != med.Forbidden {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

func patch(fields ...string) med.Patch {
	out := med.Patch{}
	for i := 0; i < len(fields); i += 2 {
		out[med.Field(fields[i])] = med.PHI(fields[i+1])
	}
	return out
}

const a1c = `[{"system":"http://loinc.org","code":"4548-4","display":"Hemoglobin A1c"}]`

func TestRecordsAreWrittenInVersions(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"))
	nurse := s.Caller(t, s.Of(t, med.RoleNurse, medtest.North))
	doctor := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	admin := s.Caller(t, s.Of(t, med.RoleAdmin, medtest.North))
	self := s.Caller(t, s.PatientOf(t, ann, medtest.North))
	made, err := s.Chart.CreateRecord(t.Context(), nurse, ann, patch("kind", `"observation"`, "code", a1c, "value", `{"quantity":"5.4 %"}`, "note", `"fasting"`, "effective", `{"start":"2026-03-01"}`), med.Once{})
	noError(t, err)
	if made.Version != 1 || made.Author != med.PHI(nurse.Subject) || made.Value.Quantity != "5.4 %" || made.Note != "fasting" || made.Suspect {
		t.Fatalf("got version %d", made.Version)
	}
	next, err := s.Chart.UpdateRecord(t.Context(), doctor, ann, made.ID, made.Tag, patch("value", `{"text":"high"}`, "note", `null`))
	noError(t, err)
	if next.Version != 2 || next.Value.Quantity != "" || next.Value.Text != "high" || next.Note != "" || next.Author != med.PHI(nurse.Subject) || next.Start != "2026-03-01" {
		t.Errorf("got %d, %q, %q", next.Version, next.Value.Text.Reveal(), next.Note.Reveal())
	}
	if _, err := s.Chart.UpdateRecord(t.Context(), doctor, ann, made.ID, made.Tag, patch("note", `"x"`)); med.KindOf(err) != med.Stale {
		t.Errorf("by an old tag: got %v", err)
	}
	versions, err := s.Chart.ReadVersions(t.Context(), doctor, ann, made.ID)
	noError(t, err)
	if len(versions.Records) != 2 || versions.Records[1].Note != "fasting" || versions.Records[1].Version != 1 || versions.Suspect {
		t.Errorf("got %d versions", len(versions.Records))
	}
	if _, err := s.Chart.DeleteRecord(t.Context(), doctor, ann, made.ID, next.Tag); med.KindOf(err) != med.Forbidden {
		t.Errorf("another's record: got %v", err)
	}
	if _, err := s.Chart.DeleteRecord(t.Context(), self, ann, made.ID, next.Tag); med.KindOf(err) != med.Forbidden {
		t.Errorf("the patient: got %v", err)
	}
	_, err = s.Chart.DeleteRecord(t.Context(), nurse, ann, made.ID, next.Tag)
	noError(t, err)
	page, err := s.Chart.ReadRecords(t.Context(), doctor, ann, med.RecordAsk{}, med.Page{})
	noError(t, err)
	if len(page.Records) != 0 {
		t.Errorf("still in the list: %s", listOf(page))
	}
	gone, err := s.Chart.ReadRecord(t.Context(), doctor, ann, made.ID)
	noError(t, err)
	if !gone.InError || gone.Version != 3 || gone.Value.Text != "high" {
		t.Errorf("got %+v", gone.InError)
	}
	if _, err := s.Chart.UpdateRecord(t.Context(), doctor, ann, made.ID, gone.Tag, patch("note", `"x"`)); med.KindOf(err) != med.Conflict {
		t.Errorf("after that: got %v", err)
	}
	if versions, _ = s.Chart.ReadVersions(t.Context(), admin, ann, made.ID); len(versions.Records) != 3 {
		t.Errorf("got %d versions, want 3", len(versions.Records))
	}
	for name, tc := range map[string]struct {
		who   med.Caller
		patch med.Patch
		want  *med.ErrorKind
	}{
		"a nurse's condition":           {nurse, patch("kind", `"condition"`, "code", a1c), med.Forbidden},
		"a nurse's sensitive":           {nurse, patch("kind", `"observation"`, "code", `[{"system":"http://loinc.org","code":"56888-1"}]`), med.Forbidden},
		"an admin's":                    {admin, patch("kind", `"observation"`, "code", a1c), med.Forbidden},
		"the patient's":                 {self, patch("kind", `"observation"`, "code", a1c), med.Forbidden},
		"an author of one's own choice": {doctor, patch("kind", `"observation"`, "code", a1c, "author", `"somebody"`), med.Invalid},
		"no kind":                       {doctor, patch("code", a1c), med.Invalid},
		"nothing in it":                 {doctor, patch("kind", `"observation"`), med.Invalid},
		"two values":                    {doctor, patch("kind", `"observation"`, "code", a1c, "value", `{"text":"a","quantity":"1"}`), med.Invalid},
		"no date":                       {doctor, patch("kind", `"observation"`, "code", a1c, "effective", `{"start":"soon"}`), med.Invalid},
		"ends before it starts":         {doctor, patch("kind", `"observation"`, "code", a1c, "effective", `{"start":"2026-02-02","end":"2026-02-01"}`), med.Invalid},
	} {
		if _, err := s.Chart.CreateRecord(t.Context(), tc.who, ann, tc.patch, med.Once{}); med.KindOf(err) != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want.Slug)
		}
	}
}

// A value is patched as RFC 7386 has it; of its three forms it has one.
func TestAValueIsMerged(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"))
	doctor := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	v, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"observation"`, "value", `{"code":{"system":"http://loinc.org","code":"1-8","display":"Low"}}`, "effective", `{"start":"2026-03-01","end":"2026-03-02"}`), med.Once{})
	noError(t, err)
	for _, step := range []struct {
		patch med.Patch
		want  string // of the value; "" for a patch that is refused
	}{
		{patch("value", `{"code":{"display":"Very low"}}`), "http://loinc.org 1-8 Very low"},
		{patch("value", `{"code":{"system":null}}`), " 1-8 Very low"},
		{patch("value", `{}`), " 1-8 Very low"},
		{patch("value", `{"code":null}`), ""},
		{patch("value", `{"code":null,"text":"low"}`), "low"},
		{patch("value", `{"quantity":"5 %"}`), "5 %"},
		{patch("value", `{"quantity":"6 %","text":"high"}`), ""},
		{patch("value", `{"text":null}`), "5 %"},
		{patch("value", `{"code":{"display":"Normal"}}`), "  Normal"},
		{patch("effective", `{"end":null}`), "  Normal"},
		{patch("value", `null`), ""}, // nothing would be left
		{patch("value", `null`, "note", `""`), ""},
		{patch("value", `null`, "note", `"as it was"`), "-"},
		{patch("note", `null`), ""},
		{patch("note", `null`, "code", a1c), "-"},
		{patch("code", `[]`), ""},
	} {
		next, err := s.Chart.UpdateRecord(t.Context(), doctor, ann, v.ID, v.Tag, step.patch)
		if step.want == "" {
			if med.KindOf(err) != med.Invalid {
				t.Errorf("%v: got %v, want it refused", step.patch, err)
			}
			continue
		}
		noError(t, err)
		v = next
		got := v.Value.Quantity.Reveal() + v.Value.Text.Reveal()
		if c := v.Value.Code; c != nil {
			got = c.System.Reveal() + " " + c.Code.Reveal() + " " + c.Display.Reveal()
		}
		if got != strings.TrimPrefix(step.want, "-") {
			t.Errorf("%v: got %q, want %q", step.patch.Fields(), got, step.want)
		}
	}
	if v.Start != "2026-03-01" || v.End != "" {
		t.Errorf("got %s to %s", v.Start.Reveal(), v.End.Reveal())
	}
	if _, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"observation"`, "note", `""`), med.Once{}); med.KindOf(err) != med.Invalid {
		t.Errorf("an empty record: got %v", err)
	}
}

func TestPsychotherapyNotesReachTheirAuthor(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"))
	author, other := s.Caller(t, s.Token(t, medtest.Claims{"sub": "dr-a", "roles": []string{"clinician"}, "practice_id": "north"})), s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	made, err := s.Chart.CreateRecord(t.Context(), author, ann, patch("kind", `"document"`, "note", `"they said"`, "sensitivity", `"psychotherapy"`), med.Once{})
	noError(t, err)
	if v, err := s.Chart.ReadRecord(t.Context(), author, ann, made.ID); err != nil || v.Note != "they said" {
		t.Errorf("the author: got %v", err)
	}
	for name, c := range map[string]med.Caller{"a colleague": other, "an admin": s.Caller(t, s.Of(t, med.RoleAdmin, medtest.North)), "the patient": s.Caller(t, s.PatientOf(t, ann, medtest.North))} {
		if _, err := s.Chart.ReadRecord(t.Context(), c, ann, made.ID); med.KindOf(err) != med.NotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Chart.UpdateRecord(t.Context(), other, ann, made.ID, made.Tag, patch("note", `"x"`)); med.KindOf(err) != med.NotFound {
		t.Errorf("a colleague's change: got %v", err)
	}
}

// What its author closed opens by their word and nobody else's; anybody may close.
func TestAMarkIsItsAuthors(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"))
	author, other := s.Caller(t, s.Token(t, medtest.Claims{"sub": "dr-a", "roles": []string{"clinician"}, "practice_id": "north"})), s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	made, err := s.Chart.CreateRecord(t.Context(), author, ann, patch("kind", `"observation"`, "note", `"they said"`), med.Once{})
	noError(t, err)
	tag := made.Tag
	for _, step := range []struct {
		name       string
		who        med.Caller
		says, want med.Sensitivity
	}{
		{"a colleague closes", other, "restricted", med.SensitivityRestricted},
		{"and cannot open", other, "normal", med.SensitivityRestricted},
		{"the author opens", author, "normal", med.SensitivityNormal},
		{"the author closes", author, "restricted", med.SensitivityRestricted},
		{"a colleague cannot open", other, "normal", med.SensitivityRestricted},
		{"nor by taking the mark away", other, "", med.SensitivityRestricted},
	} {
		says := `"` + string(step.says) + `"`
		if step.says == "" {
			says = `null`
		}
		v, err := s.Chart.UpdateRecord(t.Context(), step.who, ann, made.ID, tag, patch("sensitivity", says))
		noError(t, err)
		if tag = v.Tag; v.Sensitivity != step.want {
			t.Errorf("%s: got %s, want %s", step.name, v.Sensitivity, step.want)
		}
	}
	if _, err := s.Chart.ReadRecord(t.Context(), s.Caller(t, s.Of(t, med.RoleNurse, medtest.North)), ann, made.ID); med.KindOf(err) != med.NotFound {
		t.Errorf("a nurse: got %v", err)
	}
}

// What a record is as closed as: its value as well as its codes; of an imported
// one also what its source said, which nobody takes back.
func TestWhatClosesARecord(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"), of(obs(r1, "2026-01-01"), med.KindObservation, med.SensitivityRestricted))
	doctor, nurse := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North)), s.Caller(t, s.Of(t, med.RoleNurse, medtest.North))
	closed := func(name string, v *med.RecordView, err error) {
		t.Helper()
		noError(t, err)
		if v.Sensitivity != med.SensitivityRestricted {
			t.Errorf("%s: got %s", name, v.Sensitivity)
		}
		if _, err := s.Chart.ReadRecord(t.Context(), nurse, ann, v.ID); med.KindOf(err) != med.NotFound {
			t.Errorf("%s: a nurse got %v", name, err)
		}
	}
	v, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"observation"`, "value", `{"code":{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"B20"}}`), med.Once{})
	closed("by its value", v, err)
	v, err = s.Chart.ReadRecord(t.Context(), doctor, ann, r1)
	closed("by its source", v, err)
	for _, p := range []med.Patch{patch("sensitivity", `"normal"`), patch("sensitivity", `null`), patch("code", a1c), patch("code", `null`, "value", `null`)} {
		v, err = s.Chart.UpdateRecord(t.Context(), doctor, ann, r1, v.Tag, p)
		closed("by its source, after a change", v, err)
	}
}

// The diagnosis line follows the conditions, and tells nothing of sensitive ones;
// who does not see it does not see that it moved.
func TestTheDiagnosisFollowsTheConditions(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"))
	doctor, self := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North)), s.Caller(t, s.PatientOf(t, ann, medtest.North))
	line := func() string {
		t.Helper()
		v, err := s.Chart.ReadPatient(t.Context(), doctor, ann)
		noError(t, err)
		if v.Suspect {
			t.Error("suspect")
		}
		return v.Diagnosis.Reveal()
	}
	before, err := s.Chart.ReadPatient(t.Context(), self, ann)
	noError(t, err)
	condition := func(name, code string) *med.RecordView {
		t.Helper()
		v, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"condition"`, "status", `"active"`,
			"code", `[{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"`+code+`","display":"`+name+`"}]`), med.Once{})
		noError(t, err)
		return v
	}
	asthma := condition("Asthma", "J45.909")
	if got := line(); got != "Asthma" {
		t.Errorf("got %q", got)
	}
	condition("HIV disease", "B20")
	condition("Gout", "M10.9")
	if got := line(); got != "Asthma; Gout" {
		t.Errorf("got %q", got)
	}
	_, err = s.Chart.UpdateRecord(t.Context(), doctor, ann, asthma.ID, asthma.Tag, patch("status", `"resolved"`))
	noError(t, err)
	if got := line(); got != "Gout" {
		t.Errorf("got %q", got)
	}
	tophi := condition("Tophi", "M1A.9")
	if got := line(); got != "Gout; Tophi" {
		t.Errorf("got %q", got)
	}
	_, err = s.Chart.DeleteRecord(t.Context(), doctor, ann, tophi.ID, tophi.Tag)
	noError(t, err)
	if got := line(); got != "Gout" {
		t.Errorf("after one was entered in error: got %q", got)
	}
	after, err := s.Chart.ReadPatient(t.Context(), self, ann)
	noError(t, err)
	if after.Tag != before.Tag || after.Version != 0 || !after.UpdatedAt.IsZero() {
		t.Error("the patient sees that something changed which is hidden from them")
	}
}

// What a superuser does to the records of a chart is in the answer and an alarm.
func TestRecordsAreHeldAgainstTheManifest(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	allergy := of(obs(r2, "2026-02-01"), med.KindAllergy, med.SensitivityNormal)
	ann := s.Patient(t, medtest.North, withSource("source-a"), obs(r1, "2026-01-01"), allergy)
	doctor := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	old, err := s.Chart.ReadRecord(t.Context(), doctor, ann, r1)
	noError(t, err)
	medtest.Exec(t, super, `create table public.week as select * from medirecord.record`)
	medtest.Exec(t, super, `create table public.weekm as select * from medirecord.manifest`)
	_, err = s.Chart.UpdateRecord(t.Context(), doctor, ann, r1, old.Tag, patch("note", `"newer"`))
	noError(t, err)
	suspect := func(which med.RecordID) bool {
		t.Helper()
		page, err := s.Chart.ReadRecords(t.Context(), doctor, ann, med.RecordAsk{}, med.Page{})
		noError(t, err)
		v, err := s.Chart.ReadRecord(t.Context(), doctor, ann, which)
		noError(t, err)
		if v.Suspect != page.Suspect {
			t.Errorf("the list says %v, the record %v", page.Suspect, v.Suspect)
		}
		return page.Suspect
	}
	if suspect(r1) || strings.Contains(s.Log.String(), chartAlert) {
		t.Fatal("an untouched chart is in doubt")
	}
	medtest.Exec(t, super, `set session_replication_role = replica`)
	for _, tc := range []struct {
		name, sql string
		left      med.RecordID
	}{
		{"an allergy is deleted", `delete from medirecord.record where id = '` + r2 + `'`, r1},
		{"last week's row", `update medirecord.record r set (version, sealed) = (select w.version, w.sealed from public.week w where w.id = r.id) where id = '` + r1 + `'`, r1},
		{"all but the manifest is gone", `delete from medirecord.record where id in ('` + r2 + `')`, r1},
	} {
		t.Run(tc.name, func(t *testing.T) { // one after the other: they change the same rows
			medtest.Exec(t, super, `alter table medirecord.record disable trigger user`)
			medtest.Exec(t, super, `create table public.kept as select * from medirecord.record`)
			medtest.Exec(t, super, tc.sql)
			if !suspect(tc.left) {
				t.Error("it was not noticed")
			}
			if !strings.Contains(s.Log.String(), chartAlert) {
				t.Error("no alarm")
			}
			medtest.Exec(t, super, `delete from medirecord.record`)
			medtest.Exec(t, super, `insert into medirecord.record select * from public.kept`)
			medtest.Exec(t, super, `drop table public.kept`)
			if suspect(r1) {
				t.Fatal("not as before")
			}
		})
	}
	t.Run("a version that was is deleted", func(t *testing.T) {
		medtest.Exec(t, super, `alter table medirecord.record_version disable trigger user`)
		medtest.Exec(t, super, `delete from medirecord.record_version`)
		page, err := s.Chart.ReadVersions(t.Context(), doctor, ann, r1)
		noError(t, err)
		if !page.Suspect {
			t.Error("it was not noticed")
		}
	})
	t.Run("a change does not make it right", func(t *testing.T) {
		medtest.Exec(t, super, `delete from medirecord.record where id = '`+r2+`'`)
		_, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"observation"`, "code", a1c), med.Once{})
		noError(t, err)
		if !suspect(r1) {
			t.Error("forgotten")
		}
	})
}
