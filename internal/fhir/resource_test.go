// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// reveal compares PHI in clear, in tests only.
var reveal = cmp.Transformer("reveal", func(p med.PHI) string { return p.Reveal() })

func TestPatient(t *testing.T) {
	t.Parallel()
	t.Run("every field is mapped", func(t *testing.T) {
		t.Parallel()
		raw := `{"resourceType":"Patient","id":"p1","name":[{"use":"usual","text":"Bee"},{"use":"official","text":"Dr. Bea M. Example","family":"Example","given":["Bea","M."]}],
		"identifier":[{"system":"x","value":"no type"},{"type":{"coding":[{"code":"MR"}]},"value":" M-7 "},{"type":{"coding":[{"code":"MR"}]},"value":"M-8"},{"type":{"coding":[{"code":"SS"}]},"value":"901-22-3333"}],
		"telecom":[{"system":"phone","use":"old","rank":1,"value":"1"},{"system":"phone","value":"2"},{"system":"phone","rank":12,"value":"3"},{"system":"phone","rank":2,"value":"4"},{"system":"email","value":"bea@example.org"}],
		"gender":"other","birthDate":"1990-11","deceasedDateTime":"2021-03-04T05:06:07.123-05:00",
		"address":[{"use":"work","city":"Worktown"},{"use":"home","line":["1 Main St","Apt 2"],"city":"Hometown","state":"MA","postalCode":"02101","country":"US","extension":[{"url":"geo","valueDecimal":42.1}]}]}`
		got, warnings, err := fhir.Patient([]byte(raw))
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		want := med.Patient{
			MRN: "M-7", SSN: "901-22-3333", DOB: "1990-11", Sex: "other", Phone: "4", Email: "bea@example.org", DeceasedAt: "2021-03-04T05:06:07.123-05:00",
			Name:        med.Name{Family: "Example", Given: []med.PHI{"Bea", "M."}, Text: "Dr. Bea M. Example"},
			Address:     med.Address{Line: []med.PHI{"1 Main St", "Apt 2"}, City: "Hometown", State: "MA", PostalCode: "02101", Country: "US"},
			Sensitivity: "normal", SourceID: "p1", Source: med.PHI(raw),
		}
		if diff := cmp.Diff(want, got, reveal); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("names are written as people write them", func(t *testing.T) {
		t.Parallel()
		for name, want := range map[string]string{
			`[{"family":"Ó'Neil","given":["Zoë"]}]`:                           "Zoë Ó'Neil",
			`[{"use":"old","text":"Old"},{"use":"usual","given":["U"]}]`:      "U",
			`[{"use":"maiden","text":"First"},{"use":"old","text":"Second"}]`: "First",
			`{"text":"no list"}`: "no list",
			`[{"use":"official","family":"\u0041b\/\"c\\","given":["\ud83d\ude00"]}]`: "😀 Ab/\"c\\",
			`[]`: "", `null`: "", `7`: "",
		} {
			p, _, err := fhir.Patient([]byte(`{"resourceType":"Patient","name":` + name + `}`))
			if err != nil || p.Name.Text.Reveal() != want {
				t.Errorf("%s: got %q, %v; want %q", name, p.Name.Text.Reveal(), err, want)
			}
		}
	})
	t.Run("social security numbers are nine digits or nothing", func(t *testing.T) {
		t.Parallel()
		for in, want := range map[string]string{
			"900-11-2222": "900-11-2222", "900112222": "900-11-2222", " 900-11-2222 ": "900-11-2222",
			"***-**-2222": "", "90011222": "", "9001122223": "", "900-112-222": "", "９００112222": "", "": "",
		} {
			p, warnings, err := fhir.Patient([]byte(`{"resourceType":"Patient","name":{"text":"x"},"birthDate":"1990","identifier":[{"type":{"coding":[{"code":"MR"}]},"value":"1"},{"system":"http://hl7.org/fhir/sid/us-ssn","value":"` + in + `"}]}`))
			if err != nil || p.SSN.Reveal() != want {
				t.Errorf("%q: got %q, %v", in, p.SSN.Reveal(), err)
			}
			if (want == "") != (len(warnings) == 1) {
				t.Errorf("%q: warnings %v", in, warnings)
			}
		}
	})
	t.Run("death may be known without its time", func(t *testing.T) {
		t.Parallel()
		for in, want := range map[string]string{`"deceasedBoolean":true`: "true", `"deceasedBoolean":false`: "", `"deceasedDateTime":"2020"`: "2020", `"x":1`: ""} {
			p, _, err := fhir.Patient([]byte(`{"resourceType":"Patient",` + in + `}`))
			if err != nil || p.DeceasedAt.Reveal() != want {
				t.Errorf("%s: got %q, %v", in, p.DeceasedAt.Reveal(), err)
			}
		}
	})
	for name, in := range map[string]string{
		"a masked birth date":                    `"birthDate":"****-**-15"`,
		"a birth date that never was":            `"birthDate":"2021-02-29"`,
		"a birth date with time":                 `"birthDate":"2021-02-28T00:00:00Z"`,
		"a birth date that is a number":          `"birthDate":1980`,
		"an unknown gender code":                 `"gender":"F"`,
		"a gender of two codes":                  `"gender":"male female"`,
		"a false time of death":                  `"deceasedDateTime":"yesterday"`,
		"a name that turns around":               "\"name\":[{\"text\":\"Ann \u202Eelpmaxe\"}]",
		"a name with a control":                  `"name":[{"family":"Ex\u001bample"}]`,
		"a street with a line break":             `"address":[{"line":["1 Main\nSt"]}]`,
		"a masked element":                       `"_birthDate":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}`,
		"a redacted patient":                     `"meta":{"security":[{"system":"x","code":"REDACTED"}]}`,
		"a pseudonymised patient":                `"meta":{"security":[{"code":"PSEUDED"}]}`,
		"a partly shown number, as we export it": `"identifier":[{"_value":{"extension":[{"url":"x","valueString":"***-**-6789"},{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}}]`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, _, err := fhir.Patient([]byte(`{"resourceType":"Patient",` + in + `}`))
			var r *fhir.Refusal
			if !errors.As(err, &r) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	note := base64.StdEncoding.EncodeToString([]byte("Line one\nüber"))
	quantity := func(q string) med.Record { return med.Record{Value: med.Value{Quantity: med.PHI(q)}} }
	text := func(s string) med.Record { return med.Record{Value: med.Value{Text: med.PHI(s)}} }
	tests := []struct {
		name, in string
		want     med.Record // Value, Note, Author, Start, End, Status, Codes, Kind: those that are set
	}{
		{"digits stay as written", `"Observation","valueQuantity":{"value":5.40,"unit":"mmol/L"}`, quantity("5.40 mmol/L")},
		{"an exponent stays as written", `"Observation","valueQuantity":{"value":-1.50E+2,"code":"K"}`, quantity("-1.50E+2 K")},
		{"a comparator stays", `"Observation","valueQuantity":{"comparator":"<","value":3}`, quantity("<3")},
		{
			"a coded value", `"Observation","valueCodeableConcept":{"coding":[{"system":"s","code":"c","display":"d"}],"text":"t"}`,
			med.Record{Value: med.Value{Text: "t", Code: &med.Code{System: "s", Code: "c", Display: "d"}}},
		},
		{"a coded value of text only", `"Observation","valueCodeableConcept":{"text":"t"}`, text("t")},
		{"a boolean value", `"Observation","valueBoolean":false`, text("false")},
		{"a range", `"Observation","valueRange":{"low":{"value":1},"high":{"value":2,"unit":"m"}}`, text("1 to 2 m")},
		{
			"components", `"Observation","component":[{"code":{"text":"Systolic"},"valueQuantity":{"value":120,"unit":"mmHg"}},{"code":{"coding":[{"display":"Diastolic"}]},"valueQuantity":{"value":80,"unit":"mmHg"}},{"code":{"text":"Arm"}}]`,
			text("Systolic: 120 mmHg; Diastolic: 80 mmHg; Arm: no value"),
		},
		{
			"a performer", `"Observation","performer":[{"reference":"Practitioner?identifier=a|b","display":"Dr. X"}],"status":"final"`,
			med.Record{Author: "Dr. X (Practitioner?identifier=a|b)", Status: "final", Kind: med.KindObservation},
		},
		{
			"a period", `"Procedure","performedPeriod":{"start":"2020-01-02T03:04:05.678+01:00","end":"2020-01-03"},"performer":[{"actor":{"identifier":{"system":"npi","value":"7"}}}]`,
			med.Record{Start: "2020-01-02T03:04:05.678+01:00", End: "2020-01-03", Author: "npi|7", Kind: med.KindProcedure},
		},
		{
			"a condition that ended", `"Condition","onsetDateTime":"2001","abatementDateTime":"2002-03","note":[{"text":"a"},{"text":"b"}]`,
			med.Record{Start: "2001", End: "2002-03", Note: "a\n\nb", Kind: med.KindCondition},
		},
		{
			"an allergy refuted", `"AllergyIntolerance","clinicalStatus":{"coding":[{"code":"inactive"}]},"verificationStatus":{"coding":[{"code":"refuted"}]},"reaction":[{"manifestation":[{"text":"Hives"}]}]`,
			med.Record{Status: "refuted", Kind: med.KindAllergy, Value: med.Value{Text: "Hives"}},
		},
		{
			"a document", `"DocumentReference","date":"2020-01-01T00:00:00Z","content":[{"attachment":{"contentType":"text/plain; charset=utf-8","data":"` + note + `"}}],"author":[{"display":"Dr. X"}],"description":"About"`,
			med.Record{Start: "2020-01-01T00:00:00Z", Note: "Line one\nüber", Author: "Dr. X", Kind: med.KindDocument, Value: med.Value{Text: "About"}},
		},
		{
			"a report in Latin-1", `"DiagnosticReport","presentedForm":[{"contentType":"text/plain; charset=ISO-8859-1","data":"/GJlcg=="}],"conclusion":"fine"`,
			med.Record{Note: "über", Kind: med.KindReport, Value: med.Value{Text: "fine"}},
		},
		{
			"a medication with dosage", `"MedicationRequest","authoredOn":"2020","dosageInstruction":[{"text":"one daily"},{"doseAndRate":[{"doseQuantity":{"value":2,"unit":"mg"}}]}],"medicationCodeableConcept":{"coding":[{"system":"rx","code":"1","display":"A"}],"text":"A"}`,
			med.Record{Kind: med.KindMedication, Start: "2020", Value: med.Value{Text: "one daily; 2 mg"}, Codes: []med.Code{{System: "rx", Code: "1", Display: "A"}}},
		},
		{
			"a contained medication", `"MedicationStatement","medicationReference":{"reference":"#m"},"contained":[{"resourceType":"Medication","id":"m","code":{"coding":[{"code":"9"}],"text":"B"}}]`,
			med.Record{Kind: med.KindMedication, Codes: []med.Code{{Code: "9"}, {Display: "B"}}},
		},
		{"a medication by reference", `"MedicationDispense","medicationReference":{"reference":"urn:uuid:x","display":"C"}`, med.Record{Codes: []med.Code{{Display: "C"}}}},
		{"an administration", `"MedicationAdministration","effectivePeriod":{"end":"2020"},"dosage":{"dose":{"value":1,"unit":"g"}}`, med.Record{End: "2020", Value: med.Value{Text: "1 g"}}},
		{
			"an immunization", `"Immunization","occurrenceDateTime":"2020-02","vaccineCode":{"coding":[{"code":"140"}]},"doseQuantity":{"value":0.50,"unit":"mL"}`,
			med.Record{Kind: med.KindImmunization, Start: "2020-02", Value: med.Value{Quantity: "0.50 mL"}},
		},
		{
			"an encounter", `"Encounter","class":{"system":"v3","code":"AMB"},"type":[{"text":"Visit"}],"participant":[{},{"individual":{"display":"Dr. Y"}}],"period":{"start":"2020"}`,
			med.Record{Kind: med.KindEncounter, Author: "Dr. Y", Start: "2020", Codes: []med.Code{{Display: "Visit"}, {System: "v3", Code: "AMB"}}},
		},
		{"a plan", `"CarePlan","title":"Diabetes","description":"less sugar","category":[{"text":"plan"}]`, med.Record{Kind: med.KindCareplan, Value: med.Value{Text: "Diabetes: less sugar"}}},
		{"a claim", `"Claim","total":{"value":129.10,"currency":"USD"},"created":"2020"`, med.Record{Kind: med.KindClaim, Start: "2020", Value: med.Value{Quantity: "129.10 USD"}}},
		{"a benefit", `"ExplanationOfBenefit","payment":{"amount":{"value":1.0,"currency":"USD"}},"total":[{"amount":{"value":9}}]`, med.Record{Kind: med.KindClaim, Value: med.Value{Quantity: "1.0 USD"}}},
		{"a coverage", `"Coverage","payor":[{"display":"Payer"}]`, med.Record{Kind: med.KindClaim, Author: "Payer"}},
		{"an unknown type", `"Starship","status":"warp"`, med.Record{Kind: med.KindOther}},
		{"a display that turns around is replaced", `"Observation","valueString":"a\u202eb"`, text("a\uFFFDb")},
		{"an impossible date is left to the source", `"Observation","effectiveDateTime":"2020-13-01","valueString":"x"`, text("x")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw := `{"resourceType":` + tt.in + `,"id":"r1"}`
			got, _, err := fhir.Record([]byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			if got.Source.Reveal() != raw || got.Sensitivity != med.SensitivityNormal || got.Patient != "" {
				t.Error("source, sensitivity or patient")
			}
			onlySet(&got, tt.want)
			if diff := cmp.Diff(tt.want, got, reveal); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for name, in := range map[string]string{
		"a patient":                   `"Patient"`,
		"a status of two words":       `"Observation","status":"final amended"`,
		"a status that is no code":    `"Observation","status":7`,
		"a wrong verification status": `"Condition","verificationStatus":{"coding":[{"code":"sure"}]}`,
		"a masked contained resource": `"Observation","contained":[{"meta":{"tag":[{"code":"SUBSETTED"}]}}]`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			if _, _, err := fhir.Record([]byte(`{"resourceType":` + in + `}`)); err == nil {
				t.Error("got no error")
			}
		})
	}
}

// onlySet empties what the test does not speak of. It always speaks of dates,
// value, note and author.
func onlySet(got *med.Record, want med.Record) {
	got.ID, got.Type, got.Source, got.Sensitivity = "", "", "", ""
	if want.Kind == "" {
		got.Kind = ""
	}
	if want.Codes == nil {
		got.Codes = nil
	}
	if want.Status == "" {
		got.Status = ""
	}
}

func TestActiveConditions(t *testing.T) {
	t.Parallel()
	body := func(clinical, verification, category string) string {
		s := `{"resourceType":"Condition","clinicalStatus":{"coding":[{"code":"` + clinical + `"}]},"verificationStatus":{"coding":[{"code":"` + verification + `"}]}`
		if category != "" {
			s += `,"category":[{"coding":[{"code":"` + category + `"}]}]`
		}
		return s + "}"
	}
	for _, tt := range []struct {
		clinical, verification, category string
		want                             bool
	}{
		{"active", "confirmed", "", true},
		{"active", "confirmed", "problem-list-item", true},
		{"recurrence", "provisional", "", true},
		{"relapse", "unconfirmed", "problem-list-item", true},
		{"active", "confirmed", "encounter-diagnosis", false},
		{"active", "refuted", "", false},
		{"active", "entered-in-error", "", false},
		{"resolved", "confirmed", "", false},
		{"inactive", "confirmed", "problem-list-item", false},
		{"remission", "confirmed", "", false},
	} {
		r, _, err := fhir.Record([]byte(body(tt.clinical, tt.verification, tt.category)))
		if err != nil || r.Active != tt.want {
			t.Errorf("%+v: got %v, %v", tt, r.Active, err)
		}
	}
	encounter := `,"category":[{"coding":[{"code":"encounter-diagnosis"}]}]`
	t.Run("an encounter's diagnosis is not the patient's", func(t *testing.T) {
		t.Parallel()
		b, err := read(bundle(post(annURL, annPatient), post("", condition("a", annURL, activeFlu+encounter))))
		if err != nil || b.Patient.Diagnosis.Reveal() != "" {
			t.Errorf("got %q, %v", b.Patient.Diagnosis.Reveal(), err)
		}
	})
}

func TestDiagnosis(t *testing.T) {
	t.Parallel()
	active := func(onset, display string) med.Record {
		return med.Record{Kind: med.KindCondition, Active: true, Start: med.PHI(onset), Codes: []med.Code{{Code: "1", Display: med.PHI(display)}}}
	}
	over := active("2022", "Over")
	over.Active = false
	records := []med.Record{
		active("2001-05", "Asthma"), active("2020-01-01T00:00:00Z", "Diabetes"), active("", "Unknown onset"), over,
		active("2020-01-01", "Anaemia"), active("2019", "Diabetes"), active("2019-12-31T23:00:00-05:00", "Late"),
		{Kind: med.KindObservation, Active: true, Codes: []med.Code{{Display: "no condition"}}},
	}
	want := "Late; Anaemia; Diabetes; Asthma; Unknown onset"
	for range 2 {
		if got := fhir.Diagnosis(records).Reveal(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		slices.Reverse(records)
	}
	t.Run("a concept's own text goes before its codings' displays", func(t *testing.T) {
		t.Parallel()
		r := active("2020", "Coded")
		r.Codes = append(r.Codes, med.Code{Display: "Spoken"})
		if got := fhir.Diagnosis([]med.Record{r}).Reveal(); got != "Spoken" {
			t.Errorf("got %q", got)
		}
	})
}

func TestSensitivity(t *testing.T) {
	t.Parallel()
	const confidentiality, actCode = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "http://terminology.hl7.org/CodeSystem/v3-ActCode"
	for _, tt := range []struct {
		system, code string
		want         med.Sensitivity
	}{
		{confidentiality, "N", med.SensitivityNormal},
		{confidentiality, "L", med.SensitivityNormal},
		{confidentiality, "M", med.SensitivityNormal},
		{confidentiality, "U", med.SensitivityNormal},
		{confidentiality, "R", med.SensitivityRestricted},
		{confidentiality, "V", med.SensitivityRestricted},
		{confidentiality, "Q", med.SensitivityRestricted},
		{confidentiality, "", med.SensitivityRestricted},
		{"urn:oid:2.16.840.1.113883.5.25", "N", med.SensitivityNormal},
		{actCode, "HIV", med.SensitivityRestricted},
		{actCode, "ETH", med.SensitivityRestricted},
		{actCode, "NEWLABEL", med.SensitivityRestricted},
		{actCode, "PSYTHPN", med.SensitivityPsychotherapy},
		{"http://terminology.hl7.org/CodeSystem/v3-ActReason", "TREAT", med.SensitivityNormal},
		{"http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "PATRPT", med.SensitivityNormal},
		{"", "N", med.SensitivityRestricted},
		{"urn:ours", "secret", med.SensitivityRestricted},
	} {
		raw := `{"resourceType":"Goal","meta":{"security":[{"system":"` + tt.system + `","code":"` + tt.code + `"}]}}`
		r, _, err := fhir.Record([]byte(raw))
		if err != nil || r.Sensitivity != tt.want {
			t.Errorf("%s|%s: got %s, %v; want %s", tt.system, tt.code, r.Sensitivity, err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		raw  string
		want med.Sensitivity
	}{
		"a document's":                  {`"resourceType":"DocumentReference","securityLabel":[{"coding":[{"system":"` + confidentiality + `","code":"N"},{"system":"` + confidentiality + `","code":"R"}]}]`, med.SensitivityRestricted},
		"a document's, normal":          {`"resourceType":"DocumentReference","securityLabel":[{"coding":[{"system":"` + confidentiality + `","code":"N"}]}]`, med.SensitivityNormal},
		"a document's, in words":        {`"resourceType":"DocumentReference","securityLabel":[{"text":"for the psychiatrist only"}]`, med.SensitivityRestricted},
		"a psychotherapy document's":    {`"resourceType":"DocumentReference","securityLabel":[{"coding":[{"system":"` + actCode + `","code":"PSYTHPN"}]}]`, med.SensitivityPsychotherapy},
		"a composition's":               {`"resourceType":"Composition","confidentiality":"V"`, med.SensitivityRestricted},
		"a composition's, normal":       {`"resourceType":"Composition","confidentiality":"N"`, med.SensitivityNormal},
		"of what it contains":           {`"resourceType":"Goal","contained":[{"resourceType":"Condition","meta":{"security":[{"system":"` + confidentiality + `","code":"R"}]}}]`, med.SensitivityRestricted},
		"of what it bundles":            {`"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Condition","meta":{"security":[{"system":"` + confidentiality + `","code":"R"}]}}}]`, med.SensitivityRestricted},
		"of a document it bundles":      {`"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Composition","confidentiality":"R"}}]`, med.SensitivityRestricted},
		"no label, but a tag elsewhere": {`"resourceType":"Goal","meta":{"tag":[{"code":"R"}]}`, med.SensitivityNormal},
	} {
		r, _, err := fhir.Record([]byte(`{` + tt.raw + `}`))
		if err != nil || r.Sensitivity != tt.want {
			t.Errorf("a label %s: got %s, %v; want %s", name, r.Sensitivity, err, tt.want)
		}
	}
	t.Run("the highest label wins", func(t *testing.T) {
		t.Parallel()
		raw := `{"resourceType":"Goal","meta":{"security":[{"system":"` + actCode + `","code":"PSYTHPN"},{"system":"` + confidentiality + `","code":"R"},{"system":"` + confidentiality + `","code":"N"}]}}`
		if r, _, err := fhir.Record([]byte(raw)); err != nil || r.Sensitivity != med.SensitivityPsychotherapy {
			t.Errorf("got %s, %v", r.Sensitivity, err)
		}
	})
}

func TestInsurance(t *testing.T) {
	t.Parallel()
	eob := func(when, payer string) string {
		return `{"resourceType":"ExplanationOfBenefit","id":"e` + when + `","billablePeriod":{"start":"` + when + `"},"contained":[{"resourceType":"Coverage","status":"active","payor":[{"display":"` + payer + `"}]}]}`
	}
	claim := `{"resourceType":"Claim","id":"c","created":"2024","insurance":[{"coverage":{"display":"Claimed"}}]}`
	coverage := `{"resourceType":"Coverage","id":"v","status":"active","period":{"start":"2001"},"identifier":[{"type":{"coding":[{"code":"MB"}]},"value":"MB-9"}],"payor":[{"reference":"Organization/o"}]}`
	old := `{"resourceType":"Coverage","id":"w","status":"cancelled","period":{"start":"2020"},"payor":[{"display":"Old"}]}`
	org := `{"resourceType":"Organization","id":"o","name":"Payer Inc"}`
	for name, tt := range map[string]struct {
		in            []string
		payer, member string
	}{
		"nothing":                           {nil, "", ""},
		"a claim, where there is no other":  {[]string{claim}, "Claimed", ""},
		"the newest benefit before a claim": {[]string{claim, eob("2010", "A"), eob("2012", "B"), eob("2011", "C")}, "B", ""},
		"an active coverage before all":     {[]string{eob("2022", "A"), org, old, coverage}, "Payer Inc", "MB-9"},
		"the payer may come last":           {[]string{coverage, org}, "Payer Inc", "MB-9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var raws [][]byte
			for _, s := range tt.in {
				raws = append(raws, []byte(s))
			}
			got := fhir.Insurance(raws)
			if got.Payer.Reveal() != tt.payer || got.MemberID.Reveal() != tt.member {
				t.Errorf("got %q %q", got.Payer.Reveal(), got.MemberID.Reveal())
			}
		})
	}
}
