// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// sampleDir is the shared sample data beside the repository.
func sampleDir(tb testing.TB, sub string) string {
	tb.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "data", sub)
	if _, err := os.Stat(dir); err != nil {
		tb.Skip("the shared sample data is not here")
	}
	return dir
}

func samples(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(sampleDir(tb, "dev"), "*.json.gz"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no sample bundles: %v", err)
	}
	return files
}

// unpack reads with the standard library, so that it judges our own reader.
func unpack(tb testing.TB, file string) []byte {
	tb.Helper()
	packed, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// The counts of data/README.md.
var sampleCounts = map[string]int{
	"Observation": 19745, "Claim": 4914, "Encounter": 4158, "ExplanationOfBenefit": 4158, "Immunization": 2550,
	"DiagnosticReport": 2295, "Procedure": 2222, "DocumentReference": 1275, "MedicationRequest": 756, "Condition": 722,
	"CarePlan": 268, "Organization": 164, "Practitioner": 164, "Goal": 158, "Patient": 120, "AllergyIntolerance": 62,
	"ImagingStudy": 45, "Provenance": 24, "CareTeam": 14, "Device": 2,
}

func TestSampleBundles(t *testing.T) {
	t.Parallel()
	files := samples(t)
	var mu sync.Mutex
	counts, warnings, diagnosed := map[string]int{}, map[string]int{}, 0
	// The group ends when its parallel tests have.
	t.Run("files", func(t *testing.T) {
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				t.Parallel()
				b := readSample(t, file)
				compareBundle(t, unpack(t, file), b)
				mu.Lock()
				defer mu.Unlock()
				for typ, n := range b.Counts {
					counts[typ] += n
				}
				for _, w := range b.Warnings {
					warnings[w.Type+"."+w.Element+": "+w.Reason]++
				}
				if b.Patient.Diagnosis != "" {
					diagnosed++
				}
			})
		}
	})
	if diff := cmp.Diff(sampleCounts, counts); diff != "" {
		t.Errorf("counts per type (-want +got):\n%s", diff)
	}
	// 21 patients have no current condition, and 23 have theirs as encounter
	// diagnoses only, which are not the patient's own list.
	if diagnosed != 76 {
		t.Errorf("%d patients with a diagnosis, want 76", diagnosed)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
}

func readSample(t *testing.T, file string) *fhir.Bundle {
	t.Helper()
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := fhir.ReadBundle(fhir.Gunzip(bytes.NewReader(packed), 0), fhir.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type object = map[string]any

// compareBundle reads the bundle a second time, in the plainest way.
func compareBundle(t *testing.T, raw []byte, b *fhir.Bundle) {
	t.Helper()
	var bundle struct {
		Entry []struct{ Resource json.RawMessage }
	}
	if err := json.Unmarshal(raw, &bundle); err != nil {
		t.Fatal(err)
	}
	i := 0
	for n, e := range bundle.Entry {
		var res object
		d := json.NewDecoder(bytes.NewReader(e.Resource))
		d.UseNumber()
		if err := d.Decode(&res); err != nil {
			t.Fatal(err)
		}
		if res["resourceType"] == "Patient" {
			comparePatient(t, e.Resource, res, b.Patient)
			continue
		}
		r := b.Records[i]
		i++
		if r.Source.Reveal() != string(e.Resource) {
			t.Errorf("entry %d is not kept byte for byte", n)
		}
		if string(r.ID) != res["id"] || r.Type != res["resourceType"] {
			t.Errorf("entry %d has another id or type", n)
		}
		compareRecord(t, n, res, r)
	}
	if i != len(b.Records) {
		t.Errorf("%d records, want %d", len(b.Records), i)
	}
}

func comparePatient(t *testing.T, raw []byte, res object, p med.Patient) {
	t.Helper()
	want := map[string]string{"id": res["id"].(string), "dob": res["birthDate"].(string), "sex": res["gender"].(string)}
	for _, x := range res["identifier"].([]any) {
		id := x.(object)
		typ, _ := id["type"].(object)
		if typ == nil {
			continue
		}
		switch typ["coding"].([]any)[0].(object)["code"] {
		case "SS":
			want["ssn"] = id["value"].(string)
		case "MR":
			want["mrn"] = id["value"].(string)
		}
	}
	for _, x := range res["name"].([]any) {
		if n := x.(object); n["use"] == "official" {
			given := []string{}
			for _, g := range n["given"].([]any) {
				given = append(given, g.(string))
			}
			want["name"] = strings.Join(append(given, n["family"].(string)), " ")
			want["family"] = n["family"].(string)
		}
	}
	want["phone"] = res["telecom"].([]any)[0].(object)["value"].(string)
	want["city"] = res["address"].([]any)[0].(object)["city"].(string)
	want["died"], _ = res["deceasedDateTime"].(string)
	want["source"] = string(raw)
	got := map[string]string{
		"id": p.SourceID.Reveal(), "dob": p.DOB.Reveal(), "sex": p.Sex.Reveal(), "ssn": p.SSN.Reveal(), "mrn": p.MRN.Reveal(),
		"name": p.Name.Text.Reveal(), "family": p.Name.Family.Reveal(), "phone": p.Phone.Reveal(),
		"city": p.Address.City.Reveal(), "died": p.DeceasedAt.Reveal(), "source": p.Source.Reveal(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("patient (-want +got):\n%s", diff)
	}
	if p.Insurance.Payer == "" {
		t.Error("no payer")
	}
	if p.Sensitivity.Reveal() != "normal" || string(p.ID) != res["id"] || p.Practice != "" {
		t.Error("sensitivity, id or practice")
	}
}

// compareRecord asks of every sample record what its type must have.
func compareRecord(t *testing.T, n int, res object, r med.Record) {
	t.Helper()
	if r.Kind == med.KindOther {
		if fhir.KindOf(r.Type) != med.KindOther {
			t.Errorf("entry %d has kind other", n)
		}
		return
	}
	for _, element := range []string{"code", "vaccineCode", "medicationCodeableConcept"} {
		c, ok := res[element].(object)
		if !ok {
			continue
		}
		for i, x := range c["coding"].([]any) {
			if got := r.Codes[i]; got.Code.Reveal() != x.(object)["code"] || got.System.Reveal() != x.(object)["system"] {
				t.Errorf("entry %d, coding %d differs", n, i)
			}
		}
	}
	if len(r.Codes) == 0 || r.Start == "" || r.Status == "" {
		t.Errorf("entry %d lacks codes, start or status", n)
	}
	if q, ok := res["valueQuantity"].(object); ok {
		unit, ok := q["unit"].(string)
		if !ok {
			unit, _ = q["code"].(string)
		}
		if want := strings.TrimSpace(q["value"].(json.Number).String() + " " + unit); r.Value.Quantity.Reveal() != want {
			t.Errorf("entry %d, quantity", n)
		}
	}
	if r.Type == "DocumentReference" && r.Note == "" {
		t.Errorf("entry %d, no note", n)
	}
}

func BenchmarkReadBundle(b *testing.B) {
	var raws [][]byte
	size := 0
	for _, file := range samples(b)[:20] {
		raw := unpack(b, file)
		raws, size = append(raws, raw), size+len(raw)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, raw := range raws {
			if _, err := fhir.ReadBundle(bytes.NewReader(raw), fhir.Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
