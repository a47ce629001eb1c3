// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// Invented people; social security numbers of 9xx are never issued.
const (
	annID      = "0b7a1f0e-6c3a-4c58-9d0e-000000000001"
	annURL     = "urn:uuid:" + annID
	annPatient = `{"resourceType":"Patient","id":"` + annID + `","identifier":[
	 {"type":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"MR"}]},"system":"urn:x:mrn","value":"M-1"},
	 {"system":"http://hl7.org/fhir/sid/us-ssn","value":"900112222"}],
	 "name":[{"use":"maiden","family":"Old","given":["Ann"]},{"use":"official","family":"Example","given":["Ann","B."]}],
	 "gender":"female","birthDate":"1980-02-03"}`
)

func post(url, resource string) string {
	typ := resource[len(`{"resourceType":"`):]
	typ = typ[:strings.IndexByte(typ, '"')]
	full := ""
	if url != "" {
		full = fmt.Sprintf(`"fullUrl":%q,`, url)
	}
	return fmt.Sprintf(`{%s"resource":%s,"request":{"method":"POST","url":%q}}`, full, resource, typ)
}

func bundle(entries ...string) string {
	return `{"resourceType":"Bundle","type":"transaction","entry":[` + strings.Join(entries, ",") + `]}`
}

func condition(id, subject, rest string) string {
	return fmt.Sprintf(`{"resourceType":"Condition","id":%q,"subject":{"reference":%q}%s}`, id, subject, rest)
}

const activeFlu = `,"clinicalStatus":{"coding":[{"code":"active"}]},"verificationStatus":{"coding":[{"code":"confirmed"}]},
 "code":{"coding":[{"system":"http://snomed.info/sct","code":"6142004","display":"Influenza"}],"text":"Influenza"},"onsetDateTime":"2020-01-02"`

func read(s string) (*fhir.Bundle, error) {
	return fhir.ReadBundle(strings.NewReader(s), fhir.Limits{})
}

func TestBundleIsTaken(t *testing.T) {
	t.Parallel()
	ann := post(annURL, annPatient)
	flu := post("urn:uuid:c1", condition("c1", annURL, activeFlu))
	for name, in := range map[string]string{
		"in the usual order":               bundle(ann, flu),
		"with the patient last":            bundle(flu, ann),
		"with type after the entries":      `{"entry":[` + ann + `,` + flu + `],"type":"transaction","resourceType":"Bundle"}`,
		"with a byte order mark":           "\xEF\xBB\xBF" + bundle(ann, flu),
		"with space around":                "\n " + bundle(ann, flu) + " \n",
		"as a collection without requests": `{"resourceType":"Bundle","type":"collection","entry":[{"resource":` + annPatient + `},{"resource":` + condition("c1", "Patient/"+annID, activeFlu) + `}]}`,
		"with properties nobody asked for": `{"resourceType":"Bundle","id":"b","total":-1.5e3,"x":{"a":[null,true,"]}\""]},"type":"transaction","entry":[` + ann + `,` + flu + `]}`,
		"with a versioned subject":         bundle(ann, post("", condition("c1", "Patient/"+annID+"/_history/3", activeFlu))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
				b, err := fhir.ReadBundle(r, fhir.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if len(b.Records) != 1 || b.Records[0].ID != "Condition.c1" || !b.Records[0].Active {
					t.Errorf("got %d records, want the condition, active", len(b.Records))
				}
				if got := b.Patient.Diagnosis.Reveal(); got != "Influenza" {
					t.Errorf("got diagnosis %q", got)
				}
				if b.Patient.SourceID.Reveal() != annID {
					t.Error("the source id is not the resource's")
				}
			}
		})
	}
}

func TestBundleIsRefused(t *testing.T) {
	t.Parallel()
	ann := post(annURL, annPatient)
	flu := func(subject string) string { return post("", condition("c1", subject, activeFlu)) }
	good := bundle(ann, flu(annURL))
	tests := []struct{ name, in, want string }{
		{"empty", "", "bundle: JSON ends too early"},
		{"an array", "[]", "bundle: the JSON is not an object"},
		{"another resource", annPatient, "bundle: resourceType is not Bundle"},
		{"no resourceType", `{"type":"collection"}`, "bundle: resourceType is missing"},
		{"a searchset", `{"resourceType":"Bundle","type":"searchset"}`, "bundle: type is neither"},
		{"a batch, said last", `{"resourceType":"Bundle","entry":[` + ann + `],"type":"batch"}`, "bundle: type is neither"},
		{"no type", `{"resourceType":"Bundle","entry":[` + ann + `]}`, "bundle: type is missing"},
		{"type twice", `{"resourceType":"Bundle","type":"transaction","type":"transaction"}`, "bundle: duplicate property"},
		{"entry twice", `{"resourceType":"Bundle","entry":[],"entry":[]}`, "bundle: duplicate property"},
		{"cut off", good[:len(good)-2], "entry 2: JSON ends too early"},
		{"cut off within an entry", good[:300], "entry 0: JSON ends too early"},
		{"trailing text", good + "x", "bundle: more after the end"},
		{"a second bundle", good + good, "bundle: more after the end"},
		{"no comma between entries", bundle(ann + flu(annURL)), "entry 1: malformed JSON"},
		{"a comma too many", bundle(ann, flu(annURL)) + ",", "bundle: more after"},
		{"entry is no array", `{"resourceType":"Bundle","type":"collection","entry":{}}`, "bundle: malformed JSON"},
		{"an entry that is no object", bundle(ann, "7"), "entry 1: the entry is not an object"},
		{"no resource", bundle(ann, `{"fullUrl":"urn:uuid:x"}`), "entry 1: no resource"},
		{"invalid UTF-8", bundle(ann, strings.Replace(flu(annURL), "Influenza", "Infl\xff", 1)), "entry 1: invalid UTF-8"},
		{"NUL", bundle(ann, strings.Replace(flu(annURL), "Influenza", `Infl\u0000`, 1)), "entry 1: NUL in a string"},
		{"raw NUL", bundle(ann, strings.Replace(flu(annURL), "Influenza", "Infl\x00", 1)), "entry 1: raw control"},
		{"half a surrogate", bundle(ann, strings.Replace(flu(annURL), "Influenza", `\ud83d.`, 1)), "entry 1: half a surrogate"},
		{"a property twice", bundle(ann, strings.Replace(flu(annURL), `"id":"c1"`, `"id":"c1","id":"c2"`, 1)), "entry 1: duplicate property"},
		{"a property twice, once escaped", bundle(ann, strings.Replace(flu(annURL), `"id":"c1"`, `"id":"c1","\u0069d":"c2"`, 1)), "entry 1: property name"},
		{"too deep", bundle(ann, strings.Replace(flu(annURL), `"id"`, `"x":`+strings.Repeat("[", 80)+strings.Repeat("]", 80)+`,"id"`, 1)), "entry 1: JSON nested"},
		{"no patient", bundle(flu(annURL)), "bundle: no patient"},
		{"two patients", bundle(ann, post("", strings.Replace(annPatient, annID, "other", 1))), "entry 1: a second patient"},
		{"the same resource twice", bundle(ann, flu(annURL), flu(annURL)), "entry 2: a resource with this type"},
		{"a fullUrl twice", bundle(ann, post(annURL, condition("c", annURL, ""))), "entry 1: a resource with this type"},
		{"another subject", bundle(ann, flu("urn:uuid:other")), "entry 1: the resource is about another subject"},
		{"another relative subject", bundle(ann, flu("Patient/other")), "entry 1: the resource is about another subject"},
		{"a group as subject", bundle(ann, flu("Group/"+annID)), "entry 1: the resource is about another subject"},
		{"another subject before the patient", bundle(flu("Patient/other"), ann), "entry 0: the resource is about another subject"},
		{"a conditional subject", bundle(ann, flu("Patient?identifier=a|b")), "entry 1: the subject is a conditional reference"},
		{"an absolute subject", bundle(ann, flu("https://elsewhere.example/Patient/"+annID)), "entry 1: the subject is an absolute URL"},
		{"a contained subject", bundle(ann, flu("#p")), "entry 1: the subject is a contained resource"},
		{"a logical subject", bundle(ann, post("", `{"resourceType":"Observation","id":"o","subject":{"identifier":{"value":"9"}}}`)), "entry 1: the subject is not a literal"},
		{"a missing subject", bundle(ann, post("", `{"resourceType":"Observation","id":"o"}`)), "entry 1: the resource names no patient"},
		{"one of two subjects another", bundle(ann, post("", `{"resourceType":"Account","id":"o","subject":[{"reference":"`+annURL+`"},{"reference":"Patient/x"}]}`)), "entry 1: the resource is about another"},
		{"a delete", bundle(ann, `{"resource":`+condition("c", annURL, "")+`,"request":{"method":"DELETE","url":"Condition/c"}}`), "entry 1: request method"},
		{"a request for another type", bundle(ann, `{"resource":`+condition("c", annURL, "")+`,"request":{"method":"POST","url":"Patient"}}`), "entry 1: request url"},
		{"a put over another id", bundle(ann, `{"resource":`+condition("c", annURL, "")+`,"request":{"method":"PUT","url":"Condition/d"}}`), "entry 1: request url"},
		{"a transaction without request", bundle(ann, `{"resource":`+condition("c", annURL, "")+`}`), "entry 1: a transaction's entry needs a request"},
		{"a status outside the binding", bundle(ann, post("", `{"resourceType":"Observation","id":"o","status":"fine","subject":{"reference":"`+annURL+`"}}`)), "entry 1: status is not one"},
		{"a masked resource", bundle(ann, post("", condition("c", annURL, `,"meta":{"security":[{"code":"MASKED"}]}`))), "entry 1: the resource is masked"},
		{"a subset by tag", bundle(ann, post("", condition("c", annURL, `,"meta":{"tag":[{"code":"SUBSETTED"}]}`))), "entry 1: the resource is masked"},
		{"a masked value", bundle(ann, post("", `{"resourceType":"Observation","id":"o","status":"final","subject":{"reference":"`+annURL+`"},"dataAbsentReason":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/data-absent-reason","code":"m\u0061sked"}]}}`)), "entry 1: the resource is masked"},
		{"a redacted bundle", `{"entry":[` + ann + `],"resourceType":"Bundle","type":"transaction","meta":{"security":[{"code":"redacted"}]}}`, "bundle: the resource is masked"},
		{"a resource type that is none", bundle(ann, `{"resource":{"resourceType":"a/../b"},"request":{"method":"POST","url":"a/../b"}}`), "entry 1: resourceType"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := read(tt.in)
			var r *fhir.Refusal
			if !errors.As(err, &r) || !strings.HasPrefix(strings.TrimPrefix(err.Error(), "bundle: "), strings.TrimPrefix(tt.want, "bundle: ")) {
				t.Errorf("got %v, want a refusal %q", err, tt.want)
			}
		})
	}
}

func TestBundleLimits(t *testing.T) {
	t.Parallel()
	ann := post(annURL, annPatient)
	big := post("", condition("c", annURL, `,"note":[{"text":"`+strings.Repeat("x", 3000)+`"}]`))
	for name, l := range map[string]fhir.Limits{"entry": {Entry: 2000}, "entries": {Entries: 1}, "total": {Total: 2000}} {
		t.Run("more than the limit for "+name+" is refused", func(t *testing.T) {
			t.Parallel()
			if _, err := fhir.ReadBundle(strings.NewReader(bundle(ann, big)), l); !errors.Is(err, fhir.ErrTooLarge) {
				t.Errorf("got %v, want too large", err)
			}
		})
	}
	t.Run("a broken reader's error comes through", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("broken")
		r := io.MultiReader(strings.NewReader(bundle(ann)[:200]), iotest.ErrReader(broken))
		if _, err := fhir.ReadBundle(r, fhir.Limits{}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBundleReader(t *testing.T) {
	t.Parallel()
	t.Run("gives entries byte for byte, then EOF, and stays there", func(t *testing.T) {
		t.Parallel()
		spaced := `{ "resourceType" : "Organization",` + "\n\t" + `"id":"o", "x" : 1.50 }`
		b := fhir.NewBundleReader(strings.NewReader(`{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:o","resource": `+spaced+` }]}`), fhir.Limits{})
		e, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Raw) != spaced || e.Type != "Organization" || e.ID != "o" || e.FullURL != "urn:uuid:o" || e.Index != 0 {
			t.Errorf("got %+v", e)
		}
		for range 2 {
			if _, err := b.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want EOF", err)
			}
		}
	})
	t.Run("a bundle of any size takes the memory of one entry", func(t *testing.T) {
		t.Parallel()
		entry := `{"resource":` + condition("c", annURL, activeFlu+`,"note":[{"text":"`+strings.Repeat("x", 10_000)+`"}]`) + `},`
		const n = 4_000 // 40 MB
		r := io.MultiReader(strings.NewReader(`{"resourceType":"Bundle","type":"collection","entry":[`),
			&repeat{text: entry, n: n}, strings.NewReader(`{"resource":{"resourceType":"Organization"}}]}`))
		b := fhir.NewBundleReader(r, fhir.Limits{})
		var before, after runtime.MemStats
		seen := 0
		for {
			_, err := b.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 100 {
				runtime.GC()
				runtime.ReadMemStats(&before)
			}
			if seen == n {
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
		}
		if seen != n+1 {
			t.Errorf("got %d entries, want %d", seen, n+1)
		}
		// Other tests run beside this one; 40 MB held would still show.
		if after.HeapAlloc > before.HeapAlloc+25<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, after.HeapAlloc)
		}
	})
}

// repeat reads as text, n times over.
type repeat struct {
	text string
	n    int
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	c := copy(p, r.text[r.at:])
	if r.at += c; r.at == len(r.text) {
		r.at, r.n = 0, r.n-1
	}
	return c, nil
}

func TestRecordIDs(t *testing.T) {
	t.Parallel()
	const uuid = "3f0e1bb1-9d2c-4f7e-8a63-00000000aaaa"
	t.Run("an id is a function of the source's type and id", func(t *testing.T) {
		t.Parallel()
		for _, tt := range []struct {
			typ, id string
			want    med.RecordID
		}{
			{"Condition", uuid, uuid},
			{"Condition", "1", "Condition.1"},
			{"Observation", "1", "Observation.1"},
		} {
			if got := fhir.RecordID(tt.typ, tt.id, "{}"); got != tt.want {
				t.Errorf("RecordID(%s, %s) = %s, want %s", tt.typ, tt.id, got, tt.want)
			}
		}
		for _, id := range []string{"", "with space", "ä", strings.Repeat("x", 64)} {
			got := fhir.RecordID("Condition", id, "{}")
			if _, err := med.ParseRecordID(string(got)); err != nil || got != fhir.RecordID("Condition", id, "{}") {
				t.Errorf("RecordID for %q is %q: not legal or not stable", id, got)
			}
			if got == fhir.RecordID("Observation", id, "{ }") {
				t.Errorf("two types share an id for %q", id)
			}
		}
	})
	t.Run("types that share a UUID, and twins without id, are told apart", func(t *testing.T) {
		t.Parallel()
		org := post("", `{"resourceType":"Organization"}`)
		b, err := read(bundle(post(annURL, annPatient), post("", condition(uuid, annURL, "")), post("", `{"resourceType":"Goal","id":"`+uuid+`"}`), org, org))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[med.RecordID]bool{}
		for _, r := range b.Records {
			if _, err := med.ParseRecordID(string(r.ID)); err != nil || seen[r.ID] {
				t.Errorf("id %s is illegal or used twice", r.ID)
			}
			seen[r.ID] = true
		}
		if !seen["Condition."+uuid] || !seen["Goal."+uuid] {
			t.Errorf("got %v", seen)
		}
	})
}

func TestTellingIDs(t *testing.T) {
	t.Parallel()
	person := func(id string) string { return strings.Replace(annPatient, annID, id, 1) }
	for id, want := range map[string]med.PatientID{
		"p-001": "p-001", annID: annID,
		"900-11-2222": "", "ssn900112222": "", "ann.EXAMPLE": "", "x-1980-02-03": "",
	} {
		b, err := read(bundle(post("", person(id)), post("", condition("cond-"+id, "Patient/"+id, ""))))
		if err != nil {
			t.Fatal(err)
		}
		if b.Patient.ID != want || b.Patient.SourceID.Reveal() != id {
			t.Errorf("got patient id %q for %q", b.Patient.ID, id)
		}
		kept := b.Records[0].ID == med.RecordID("Condition.cond-"+id)
		if kept != (want != "") {
			t.Errorf("got record id %q for %q", b.Records[0].ID, id)
		}
	}
}

func TestLabelOfTheBundle(t *testing.T) {
	t.Parallel()
	ann, flu := post(annURL, annPatient), post("", condition("c1", annURL, activeFlu))
	labelled := `,"meta":{"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-Confidentiality","code":"R"}]}}`
	t.Run("restricts everything when no resource carries one", func(t *testing.T) {
		t.Parallel()
		in := bundle(ann, flu)
		b, err := read(in[:len(in)-1] + labelled)
		if err != nil {
			t.Fatal(err)
		}
		if b.Records[0].Sensitivity != med.SensitivityRestricted || b.Patient.Sensitivity.Reveal() != "restricted" {
			t.Error("not restricted")
		}
	})
	t.Run("leaves it to the resources when they carry theirs", func(t *testing.T) {
		t.Parallel()
		in := bundle(ann, flu, post("", condition("c2", annURL, labelled[:len(labelled)-1])))
		b, err := read(in[:len(in)-1] + labelled)
		if err != nil {
			t.Fatal(err)
		}
		if b.Records[0].Sensitivity != med.SensitivityNormal || b.Records[1].Sensitivity != med.SensitivityRestricted {
			t.Error("the resources' own labels do not stand")
		}
	})
}
