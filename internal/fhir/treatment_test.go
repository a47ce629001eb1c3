// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/fhir"
)

func TestABundleTellsWhoTreats(t *testing.T) {
	t.Parallel()
	b, err := fhir.ReadBundle(strings.NewReader(`{"resourceType":"Bundle","type":"collection","entry":[
		{"resource":{"resourceType":"Patient","id":"p1"}},
		{"resource":{"resourceType":"Encounter","id":"e1","status":"finished","subject":{"reference":"Patient/p1"},"period":{"start":"2026-01-02T03:04:05Z","end":"2026-01-02"},
			"participant":[{"individual":{"reference":"Practitioner?identifier=npi|1"}},{"individual":{"reference":"RelatedPerson/r"}},{}]}},
		{"resource":{"resourceType":"Encounter","id":"e2","status":"cancelled","subject":{"reference":"Patient/p1"},"participant":[{"individual":{"reference":"Practitioner/7"}}]}},
		{"resource":{"resourceType":"Encounter","id":"e3","status":"finished","subject":{"reference":"Patient/p1"},"participant":[{"individual":{"reference":"Practitioner/undated"}}]}},
		{"resource":{"resourceType":"CareTeam","id":"c1","status":"active","subject":{"reference":"Patient/p1"},"period":{"start":"2026-01-01"},
			"participant":[{"member":{"reference":"Patient/p1"}},{"member":{"identifier":{"system":"s","value":"2"}}},{"member":{"reference":"Organization/o"}}]}},
		{"resource":{"resourceType":"CareTeam","id":"c2","status":"inactive","subject":{"reference":"Patient/p1"},"period":{"start":"2026-01-01"},"participant":[{"member":{"reference":"Practitioner/9"}}]}},
		{"resource":{"resourceType":"MedicationRequest","id":"m1","status":"active","intent":"order","subject":{"reference":"Patient/p1"},"authoredOn":"2026-02-03","requester":{"reference":"Practitioner/8"}}}
	]}`), fhir.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range b.Treatments {
		line := x.Origin + " " + string(x.Kind)
		switch {
		case x.Void:
			line += " void"
		case x.Open:
			line += " " + x.From.Format("2006-01-02") + "-"
		default:
			line += " " + x.From.Format("2006-01-02") + "-" + x.To.Format("2006-01-02")
		}
		got = append(got, line)
	}
	want := []string{
		"Encounter/e1 npi|1 encounter 2026-01-02-2026-01-02", "Encounter/e2 Practitioner/7 encounter void",
		"CareTeam/c1 s|2 care_team 2026-01-01-", "CareTeam/c2 Practitioner/9 care_team void", "MedicationRequest/m1 Practitioner/8 order 2026-02-03-2026-02-03",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
