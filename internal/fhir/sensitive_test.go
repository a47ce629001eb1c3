// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

func TestSensitivityOfACode(t *testing.T) {
	t.Parallel()
	const icd, icdOID, snomed, loinc, rxnorm = "http://hl7.org/fhir/sid/icd-10-cm", "urn:oid:2.16.840.1.113883.6.90", "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
	for _, tc := range []struct {
		system, code string
		want         med.Sensitivity
	}{
		{icd, "B20", med.SensitivityRestricted},
		{icd, "b20", med.SensitivityRestricted},
		{icd, " F11.20 ", med.SensitivityRestricted},
		{icd, "F1120", med.SensitivityRestricted}, // without its dot
		{icdOID, "F32.9", med.SensitivityRestricted},
		{icd + "/", "Z21", med.SensitivityRestricted},
		{icd, "F17.210", med.SensitivityNormal}, // nicotine
		{icd, "F03.90", med.SensitivityNormal},  // dementia
		{icd, "E11.9", med.SensitivityNormal},
		{icd, "B2", med.SensitivityNormal}, // shorter than what is listed
		{icd, "Z20.828", med.SensitivityNormal},
		{icd, "Z20.2", med.SensitivityRestricted},
		{icd, "B97.35", med.SensitivityRestricted}, // HIV 2 as the cause of another disease
		{icd, "B97.34", med.SensitivityNormal},     // HTLV
		{icd, "Z83.0", med.SensitivityRestricted},
		{icd, "T43.621A", med.SensitivityRestricted}, // amphetamines
		{icd, "T43.011A", med.SensitivityNormal},
		{icd, "Z81.1", med.SensitivityRestricted},
		{icd, "Z81.2", med.SensitivityNormal}, // tobacco
		{icd, "Z91.52", med.SensitivityRestricted},
		{icd, "R45.88", med.SensitivityRestricted},
		{icd, "F10", med.SensitivityRestricted},
		{icd, "F19.99", med.SensitivityRestricted},
		{snomed, "86406008", med.SensitivityRestricted},
		{"https://snomed.info/sct/", "86406008", med.SensitivityRestricted},
		{snomed + "|http://snomed.info/sct/731000124108", "86406008", med.SensitivityRestricted},
		{"HTTPS://hl7.org/fhir/sid/icd-10-cm|2026", "B20", med.SensitivityRestricted},
		{snomed, "864060081", med.SensitivityNormal}, // only ICD-10 is read by its beginning
		{loinc, "44261-6", med.SensitivityRestricted},
		{loinc, "4548-4", med.SensitivityNormal},
		{rxnorm, "6813", med.SensitivityRestricted},
		{rxnorm, "161", med.SensitivityNormal},
		{"", "B20", med.SensitivityRestricted},
		{"", "86406008", med.SensitivityRestricted},
		{"", "", med.SensitivityNormal},
		{"https://codes.example/local", "B20", med.SensitivityNormal},
	} {
		if got := fhir.SensitivityOf(tc.system, tc.code); got != tc.want {
			t.Errorf("%s of %q: got %s, want %s", tc.code, tc.system, got, tc.want)
		}
	}
}

// A list that nobody can check is a rumour: each says where it comes from, and
// each code has the form of its system.
func TestListsOfSensitiveCodesAreCitedAndWellFormed(t *testing.T) {
	t.Parallel()
	forms := map[string]*regexp.Regexp{
		"icd-10": regexp.MustCompile(`^[A-Z][0-9][0-9A]?(\.[0-9A-Z]{1,4})?$`), "snomed": regexp.MustCompile(`^[0-9]{6,18}$`),
		"loinc": regexp.MustCompile(`^[0-9]{1,7}-[0-9]$`), "rxnorm": regexp.MustCompile(`^[0-9]{1,8}$`),
	}
	files, _ := filepath.Glob("sensitive/*.tsv")
	if len(files) < 7 {
		t.Fatalf("got %d lists", len(files))
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		cited, seen := false, map[string]bool{}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			line := lines.Text()
			cited = cited || strings.HasPrefix(line, "# Source: ") && len(line) > 20
			if strings.HasPrefix(line, "#") {
				continue
			}
			system, code, _ := strings.Cut(line, "\t")
			if forms[system] == nil || !forms[system].MatchString(code) || system == "loinc" && !loincCheck(code) || system == "snomed" && !verhoeff(code) {
				t.Errorf("%s: %q is no code of its system", name, line)
			}
			if seen[line] {
				t.Errorf("%s: %q twice", name, line)
			}
			seen[line] = true
		}
		if err := f.Close(); err != nil || !cited || len(seen) == 0 {
			t.Errorf("%s: cited %v, %d codes, %v", name, cited, len(seen), err)
		}
	}
}

// loincCheck verifies the check digit of a LOINC code (mod 10).
func loincCheck(code string) bool {
	digits, sum := code[:len(code)-2], 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			d *= 2
		}
		sum += d/10 + d%10
	}
	return byte('0'+(10-sum%10)%10) == code[len(code)-1]
}

// verhoeff verifies the check digit of a SNOMED CT identifier.
func verhoeff(code string) bool {
	d := [10]string{"0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043", "8765932104", "9876543210"}
	p := [8]string{"0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258"}
	c := 0
	for i := range len(code) {
		c = int(d[c][p[i%8][code[len(code)-1-i]-'0']-'0'] - '0')
	}
	return c == 0
}

// Whatever parts a resource is made of, it is as closed as the most closed of
// them, and a further part never opens it.
func TestAResourceIsAsClosedAsItsMostClosedPart(t *testing.T) {
	t.Parallel()
	label := func(code string) string {
		return `{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"` + code + `"}`
	}
	coding := func(code string) string {
		return `{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"` + code + `","display":"d"}`
	}
	parts := []struct {
		json string
		is   med.Sensitivity
	}{
		{coding("E11.9"), med.SensitivityNormal},
		{coding("F11.20"), med.SensitivityRestricted},
		{label("HIV"), med.SensitivityRestricted},
		{label("PSYTHPN"), med.SensitivityPsychotherapy},
	}
	r := rand.New(rand.NewPCG(4, 11))
	for range 2000 {
		var codes, reasons, components, labels, inner, innerCodes []string
		want := med.SensitivityNormal
		build := func() string {
			join := func(s []string) string { return strings.Join(s, ",") }
			return fmt.Sprintf(`{"resourceType":"Observation","status":"final","code":{"coding":[%s],"text":"t"},"note":[{"text":"n"}],`+
				`"component":[{"code":{"coding":[%s]}}],"interpretation":[{"coding":[%s]}],"meta":{"security":[%s]},`+
				`"contained":[{"resourceType":"Condition","id":"c","meta":{"security":[%s]},"code":{"coding":[%s]}}]}`,
				join(codes), join(components), join(reasons), join(labels), join(inner), join(innerCodes))
		}
		for range r.IntN(5) {
			p := parts[r.IntN(len(parts))]
			switch {
			case strings.Contains(p.json, "ActCode") && r.IntN(2) == 0:
				labels = append(labels, p.json)
			case strings.Contains(p.json, "ActCode"):
				inner = append(inner, p.json)
			default:
				at := []*[]string{&codes, &reasons, &components, &innerCodes}[r.IntN(4)]
				*at = append(*at, p.json)
			}
			want = med.Strictest(want, p.is)
			rec, _, err := fhir.Record([]byte(build()))
			if err != nil {
				t.Fatal(err)
			}
			if rec.Sensitivity != want {
				t.Fatalf("got %s, want %s of %s", rec.Sensitivity, want, build())
			}
		}
	}
}

func TestTheDiagnosisLineTellsNoSensitiveCondition(t *testing.T) {
	t.Parallel()
	of := func(name string, s med.Sensitivity) med.Record {
		return med.Record{Kind: med.KindCondition, Active: true, Sensitivity: s, Codes: []med.Code{{Display: med.PHI(name)}}}
	}
	got := fhir.Diagnosis([]med.Record{of("Asthma", med.SensitivityNormal), of("HIV", med.SensitivityRestricted), of("Note", med.SensitivityPsychotherapy)})
	if got.Reveal() != "Asthma" {
		t.Errorf("got %q, want Asthma", got.Reveal())
	}
}
