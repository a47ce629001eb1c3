// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bundles are FHIR bundles of invented people, and what of them must be found
// nowhere.
type bundles struct {
	dev     string   // folder: three good ones and a bad one
	good    string   // folder: three others
	bad     string   // folder: two that are refused
	public  []string // folder of the public data, when it is here
	ids     []string // of the patients of dev, then of good
	secrets map[string]bool
	// published are the texts of the public data. PostgreSQL itself has some of
	// these words.
	published map[string]bool
}

const publicData = "../../../shared/data/dev"

func writeBundles(t *testing.T) *bundles {
	t.Helper()
	root := t.TempDir()
	b := &bundles{
		dev: filepath.Join(root, "dev"), good: filepath.Join(root, "good"), bad: filepath.Join(root, "bad"), secrets: map[string]bool{}, published: map[string]bool{},
	}
	for n := 1; n <= 6; n++ {
		dir := b.dev
		if n > 3 {
			dir = b.good
		}
		text := b.person(t, n)
		if n == 2 {
			writeGzip(t, filepath.Join(dir, fmt.Sprintf("%d.json.gz", n)), text)
		} else {
			write(t, filepath.Join(dir, fmt.Sprintf("%d.json", n)), text)
		}
	}
	// Refused: a record of somebody else's; and no JSON from the middle on.
	stranger := strings.Replace(string(b.person(t, 7)), "Patient/"+b.ids[6], "Patient/a-stranger", 1)
	write(t, filepath.Join(b.dev, "9.json"), []byte(stranger))
	write(t, filepath.Join(b.bad, "7.json"), []byte(stranger))
	half := b.person(t, 8)
	write(t, filepath.Join(b.bad, "8.json"), half[:len(half)/2])
	b.ids = b.ids[:6]
	if !testing.Short() {
		b.takePublic(t)
	}
	return b
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeGzip(t *testing.T, path string, text []byte) {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, z.Bytes())
}

// secret notes a value and returns it.
func (b *bundles) secret(v string) string {
	b.secrets[v] = true
	return v
}

var (
	families = []string{"Ævarsdóttir", "Quistgaard", "Brzęczyszczykiewicz", "O'Shaughnessy-Vane", "Nwachukwu", "Xylander", "Yardımcıoğlu", "Zschokke"}
	givens   = []string{"Þórunn", "Theophania", "Grzegorz", "Siobhán", "Ngozika", "Leocadia", "Gülizar", "Balthasar"}
)

// person is a bundle of one patient with records of several kinds.
func (b *bundles) person(t *testing.T, n int) []byte {
	t.Helper()
	id := fmt.Sprintf("zq-%08d", 71000000+n*7919)
	b.ids = append(b.ids, id)
	self := map[string]any{"reference": "Patient/" + id}
	family, given := b.secret(families[n-1]), b.secret(givens[n-1])
	date := func(day int) string { return b.secret(fmt.Sprintf("2017-0%d-%02dT1%d:2%d:37Z", n, day, n, n)) }
	note := b.secret(fmt.Sprintf("Patient %d tells of sleepless nights since the move; advised rest, to be seen again. ", n))
	code := func(system, code, display string) map[string]any {
		return map[string]any{"coding": []any{map[string]any{"system": system, "code": b.secret(code), "display": b.secret(display)}}, "text": display}
	}
	resources := []map[string]any{
		{
			"resourceType": "Patient", "id": id, "gender": "female", "birthDate": b.secret(fmt.Sprintf("1961-0%d-1%d", n, n)),
			"identifier": []any{
				map[string]any{"system": "http://hl7.org/fhir/sid/us-ssn", "value": b.secret(fmt.Sprintf("931-%02d-%04d", 40+n, 8100+n*13))},
				map[string]any{
					"type":   map[string]any{"coding": []any{map[string]any{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}}},
					"system": "urn:x:mrn", "value": b.secret(fmt.Sprintf("MRNX-%06d", 884422+n)),
				},
			},
			"name":    []any{map[string]any{"use": "official", "family": family, "given": []any{given}}},
			"telecom": []any{map[string]any{"system": "phone", "value": b.secret(fmt.Sprintf("555-7%02d-91%02d", 10+n, 60+n))}, map[string]any{"system": "email", "value": b.secret(fmt.Sprintf("somebody%d@mailbox.example", n))}},
			"address": []any{map[string]any{"line": []any{b.secret(fmt.Sprintf("%d Quillwright Terrace", 100+n))}, "city": b.secret("Ambleforthshire"), "state": "MA", "postalCode": "01234"}},
		},
		{
			"resourceType": "Condition", "id": fmt.Sprintf("c%d", n), "subject": self, "onsetDateTime": date(3),
			"clinicalStatus": map[string]any{"coding": []any{map[string]any{"code": "active"}}},
			"code":           code("http://snomed.info/sct", fmt.Sprintf("84114%03d", 7+n), fmt.Sprintf("Heart failure of kind %d", n)), "note": []any{map[string]any{"text": note}},
		},
		{
			"resourceType": "Observation", "id": fmt.Sprintf("o%d", n), "subject": self, "status": "final", "effectiveDateTime": date(4),
			"code": code("http://loinc.org", fmt.Sprintf("8302%d-2", n), fmt.Sprintf("Body height, way %d", n)), "valueString": b.secret(fmt.Sprintf("found to be %d ells", 30+n)),
		},
		{
			"resourceType": "MedicationRequest", "id": fmt.Sprintf("m%d", n), "subject": self, "status": "active", "intent": "order", "authoredOn": date(5),
			"medicationCodeableConcept": code("http://www.nlm.nih.gov/research/umls/rxnorm", fmt.Sprintf("31437%d", n), fmt.Sprintf("Simvastatin %d0 MG", n)),
		},
		{
			"resourceType": "DocumentReference", "id": fmt.Sprintf("d%d", n), "subject": self, "status": "current", "date": date(6),
			"type": code("http://loinc.org", fmt.Sprintf("3411%d-9", n), "Outpatient Note of old"),
			// Long and alike: what is not encrypted would be compressed somewhere.
			"content": []any{map[string]any{"attachment": map[string]any{"contentType": "text/plain", "data": base64.StdEncoding.EncodeToString([]byte(strings.Repeat(note, 200)))}}},
		},
	}
	var entries []any
	for _, r := range resources {
		entries = append(entries, map[string]any{"resource": r, "request": map[string]any{"method": "POST", "url": r["resourceType"]}})
	}
	text, err := json.Marshal(map[string]any{"resourceType": "Bundle", "type": "transaction", "entry": entries})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// takePublic takes the five smallest bundles of the public data, and their
// texts as secrets.
func (b *bundles) takePublic(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(publicData, "*-*.json.gz")) // none where the data is not
	size := func(f string) int64 {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	slices.SortFunc(files, func(x, y string) int { return int(size(x) - size(y)) })
	b.public = files[:min(5, len(files))]
	for i, f := range b.public {
		abs, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		b.public[i] = abs
		b.takeSecrets(t, f)
	}
}

// What of a public bundle is a secret: by the last name on the way to it.
var secretNames = map[string]bool{
	"family": true, "given": true, "birthDate": true, "line": true, "city": true, "code": true, "display": true, "text": true, "data": true,
	"effectiveDateTime": true, "onsetDateTime": true, "abatementDateTime": true, "authoredOn": true, "performedDateTime": true, "occurrenceDateTime": true,
	"recordedDate": true, "issued": true, "start": true, "end": true, "value": true, "created": true,
}

// plainWord is what is no secret by itself: active, completed, female.
var plainWord = regexp.MustCompile(`^[a-z]+(-[a-z]+)?$`)

func (b *bundles) takeSecrets(t *testing.T, file string) {
	t.Helper()
	raw, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	z, err := gzip.NewReader(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var whole struct {
		Entry []struct {
			Resource map[string]any `json:"resource"`
		} `json:"entry"`
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, e := range whole.Entry {
		if id, ok := e.Resource["id"].(string); ok {
			ids[id] = true // ids are in the clear, and some are repeated as values
		}
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				walk(k, inner)
			}
		case []any:
			for _, inner := range v {
				walk(name, inner)
			}
		case string:
			if secretNames[name] && len(v) >= shortest && len(v) <= 2000 && !ids[v] && !plainWord.MatchString(v) {
				b.published[v] = true
			}
		}
	}
	for _, e := range whole.Entry {
		walk("", e.Resource)
	}
}

func devImport(t *testing.T, s *devServer, b *bundles) {
	out := contents(t, s.out)
	if !strings.Contains(out, "3 patients imported, 0 unchanged, 1 failed") || !strings.Contains(out, "Failed: ") || !strings.Contains(out, "9.json: ") {
		t.Errorf("it reports\n%s", out)
	}
	var ids []string
	for _, p := range s.info.Patients {
		if p.Practice != north {
			t.Errorf("%s is of %s, want the first practice", p.ID, p.Practice)
		}
		ids = append(ids, p.ID)
	}
	if slices.Sort(ids); !slices.Equal(ids, b.ids[:3]) {
		t.Fatalf("got the patients %v, want %v", ids, b.ids[:3])
	}
	for i, id := range b.ids[:3] {
		got := s.get(t, s.info.Tokens["clinician"], "/patients/"+id)
		if got.status != 200 || got.field("name") != givens[i]+" "+families[i] || !strings.HasPrefix(got.field("ssn"), "931-") ||
			got.field("diagnosis") != fmt.Sprintf("Heart failure of kind %d", i+1) {
			t.Errorf("got %d %s", got.status, got.body)
		}
	}
	if got := s.get(t, s.info.Tokens["patient"], "/patients/"+s.info.Patients[0].ID); got.status != 200 {
		t.Errorf("the first patient gets %d of their own, want 200", got.status)
	}
}

func importing(t *testing.T, s *devServer, b *bundles) {
	state := func() string {
		conn := s.super(t, s.info.Database.Name)
		defer func() { _ = conn.Close(t.Context()) }()
		return row[string](t, conn, `select concat_ws(' ',
			(select concat_ws('/', count(*), sum(version), max(updated_at)) from medirecord.patient),
			(select concat_ws('/', count(*), sum(version), max(updated_at)) from medirecord.record),
			(select count(*) from medirecord.blind_index), (select count(*) from medirecord.intake))`)
	}
	import1 := func(paths ...string) said {
		return s.run(t, nil, append([]string{"import", "--practice", north, "--data", s.data}, paths...)...)
	}
	before := state()
	got := import1(b.good)
	if got.code != 0 || !strings.Contains(got.out, "3 patients imported, 0 unchanged, 0 failed: 15 resources") {
		t.Errorf("exits %d: %s%s", got.code, got.out, got.errs)
	}
	in := state()
	if in == before {
		t.Error("nothing is in")
	}
	for i, id := range b.ids[3:] {
		a := s.get(t, s.info.Tokens["clinician"], "/patients/"+id)
		if a.status != 200 || a.field("name") != givens[i+3]+" "+families[i+3] {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	if got := import1(b.good); got.code != 0 || !strings.Contains(got.out, "0 patients imported, 3 unchanged, 0 failed") {
		t.Errorf("the second time exits %d: %s%s", got.code, got.out, got.errs)
	}
	if now := state(); now != in {
		t.Errorf("a second import changed %s to %s", in, now)
	}
	bad := import1(b.bad)
	if bad.code != 1 || !strings.Contains(bad.out, "0 patients imported, 0 unchanged, 2 failed") || !regexp.MustCompile(`7\.json: entry \d+: `).MatchString(bad.out) || !strings.Contains(bad.out, "8.json: ") {
		t.Errorf("bad bundles exit %d: %s%s", bad.code, bad.out, bad.errs)
	}
	if now := state(); now != in {
		t.Errorf("bad bundles changed %s to %s", in, now)
	}
	for v := range b.secrets {
		if strings.Contains(bad.out+bad.errs, v) {
			t.Errorf("the report holds a value of %d characters", len(v))
		}
	}
	if got := import1(filepath.Join(b.good, "none.json")); got.code != 1 || !strings.Contains(got.errs, "nothing to import") {
		t.Errorf("nothing exits %d: %s", got.code, got.errs)
	}
	if got := s.run(t, nil, "import", "--practice", "practice-west", "--data", s.data, b.good); got.code != 1 || got.out == "" && got.errs == "" {
		t.Errorf("an unknown practice exits %d: %s%s", got.code, got.out, got.errs)
	}
	if now := state(); now != in {
		t.Errorf("an import into an unknown practice changed %s to %s", in, now)
	}
	if len(b.public) > 0 {
		if got := import1(b.public...); got.code != 0 || !strings.Contains(got.out, fmt.Sprintf("%d patients imported, 0 unchanged, 0 failed", len(b.public))) {
			t.Errorf("the public data exits %d: %s%s", got.code, got.out, got.errs)
		}
	}
	if left, _ := os.ReadDir(s.tmp()); len(left) > 0 {
		t.Errorf("imports leave %v", left)
	}
}
