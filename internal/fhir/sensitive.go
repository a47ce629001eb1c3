// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"embed"
	"strings"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// The lists of codes that are sensitive whoever wrote them, one file for each
// category, each with where it comes from.
//
//go:embed sensitive/*.tsv
var sensitiveLists embed.FS

// systems names the code systems of the lists: by URL, or by OID. ICD-10-CM is
// read like ICD-10, of which it has the sensitive blocks.
var systems = map[string]string{
	"http://hl7.org/fhir/sid/icd-10-cm":           "icd-10",
	"http://hl7.org/fhir/sid/icd-10":              "icd-10",
	"urn:oid:2.16.840.1.113883.6.90":              "icd-10",
	"urn:oid:2.16.840.1.113883.6.3":               "icd-10",
	"http://snomed.info/sct":                      "snomed",
	"urn:oid:2.16.840.1.113883.6.96":              "snomed",
	"http://loinc.org":                            "loinc",
	"urn:oid:2.16.840.1.113883.6.1":               "loinc",
	"http://www.nlm.nih.gov/research/umls/rxnorm": "rxnorm",
	"urn:oid:2.16.840.1.113883.6.88":              "rxnorm",
}

// sensitiveCodes are all listed codes, as system and code.
var sensitiveCodes = sync.OnceValue(func() map[[2]string]bool {
	out := map[[2]string]bool{}
	files, _ := sensitiveLists.ReadDir("sensitive") // embedded: it is there
	for _, f := range files {
		text, _ := sensitiveLists.ReadFile("sensitive/" + f.Name())
		for line := range strings.Lines(string(text)) {
			if system, code, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && !strings.HasPrefix(line, "#") {
				out[[2]string{system, normalCode(system, code)}] = true
			}
		}
	}
	return out
})

// SensitivityOf returns restricted when the code is on a list of sensitive ones,
// else normal. A code without a system is looked for in each.
func SensitivityOf(system, code string) med.Sensitivity {
	system, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(system)), "|") // some sources name the version
	system = strings.TrimSuffix(system, "/")
	if rest, ok := strings.CutPrefix(system, "https:"); ok {
		system = "http:" + rest
	}
	name, known := systems[system]
	switch {
	case code == "" || system != "" && !known:
		return med.SensitivityNormal
	case known && listed(name, code):
		return med.SensitivityRestricted
	case system == "" && (listed("icd-10", code) || listed("snomed", code) || listed("loinc", code)):
		return med.SensitivityRestricted
	}
	return med.SensitivityNormal
}

func listed(system, code string) bool {
	code = normalCode(system, code)
	if system != "icd-10" {
		return sensitiveCodes()[[2]string{system, code}]
	}
	for n := min(len(code), 7); n >= 2; n-- {
		if sensitiveCodes()[[2]string{system, code[:n]}] {
			return true
		}
	}
	return false
}

// normalCode is how a code is compared: ICD-10 is written with and without its
// dot.
func normalCode(system, code string) string {
	code = strings.ToUpper(strings.TrimSpace(code))
	if system == "icd-10" {
		code = strings.ReplaceAll(code, ".", "")
	}
	return code
}

// listed returns restricted when any coding in v is on a list: in contained
// resources, components and reasons as well. What is told of one part of a
// resource is told of all of it.
func (v val) listed() med.Sensitivity {
	if v.d == nil {
		return med.SensitivityNormal
	}
	for i, end := v.i, v.node().next; i < end; i++ {
		if v.d.nodes[i].kind != jsonObject {
			continue
		}
		coding := val{v.d, i}
		if code := coding.get("code"); code.kind() == jsonString {
			if s := SensitivityOf(coding.get("system").str(), code.str()); s != med.SensitivityNormal {
				return s
			}
		}
	}
	return med.SensitivityNormal
}

// Instant reads a FHIR date or dateTime as the moment at which what it names
// begins, in UTC unless it says otherwise. It reports false for what is none.
func Instant(s string) (time.Time, bool) { return instant(s) }

// Sensitivity is how closed what a record says in codes makes it, whoever wrote
// it: its codes, and its value where that is one.
func Sensitivity(r *med.Record) med.Sensitivity {
	most := med.SensitivityNormal
	for _, c := range r.Codes {
		most = med.Strictest(most, SensitivityOf(c.System.Reveal(), c.Code.Reveal()))
	}
	if c := r.Value.Code; c != nil {
		most = med.Strictest(most, SensitivityOf(c.System.Reveal(), c.Code.Reveal()))
	}
	return most
}

// OnProblemList says whether a condition that is written here, and so has no
// category, is one the patient has, by its clinical status.
func OnProblemList(k med.Kind, status med.PHI) bool {
	return k == med.KindCondition && oneOf(status.Reveal(), "active recurrence relapse")
}
