// SPDX-License-Identifier: Apache-2.0

package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// Invented people. The first is the guide's, with the guide's numbers; the
// others have SSNs from 900 up, which are never issued.
var (
	sampleFamilies = []string{
		"Almeida", "Brandt", "Castellano", "Dubois", "Eriksen", "Fujimoto", "Grabowski", "Hadžić", "Iwu", "Jankauskas",
		"Kaplan", "Lindqvist", "Moreau", "Nakagawa", "Okonkwo", "Petrov", "Quispe", "Rossi", "Sørensen", "Tanaka",
		"Ueda", "Varga", "Wójcik", "Ximénez", "Yılmaz", "Zieliński",
	}
	sampleGivens = []string{
		"Amara", "Björn", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Inês", "Jonas", "Kwame", "Lucía",
		"Mei", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Soren", "Thandi", "Ulla", "Viktor", "Wanda", "Yusuf", "Zoë",
	}
	sampleStreets    = []string{"Birch Lane", "Canal Street", "Dove Court", "Elm Avenue", "Foundry Road", "Harbour View", "Mill Close"}
	samplePayers     = []string{"Evergreen Mutual", "Harbor Health Plan", "Blue Heron Insurance"}
	sampleConditions = []struct{ code, text string }{
		{"59621000", "Essential hypertension"},
		{"44054006", "Type 2 diabetes mellitus"},
		{"195967001", "Asthma"},
		{"73430006", "Sleep apnea"},
		{"40055000", "Chronic sinusitis"},
		{"64859006", "Osteoporosis"},
		{"37796009", "Migraine"},
	}
)

// samplePatient returns the n-th sample patient, from 1, always the same.
func samplePatient(n int) chart.Bundle {
	r := rand.New(rand.NewPCG(0x6d656469, uint64(n))) //nolint:gosec // invented people need no secrecy
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	sex := []string{"female", "male"}[r.IntN(2)]
	given, family := pick(sampleGivens), sampleFamilies[n%len(sampleFamilies)]
	id := fmt.Sprintf("p-%03d", n)
	p := med.Patient{
		ID: med.PatientID(id), SourceID: med.PHI("sample-" + id),
		MRN:       med.PHI(fmt.Sprintf("MRN-%06d", 100000+n*37)),
		Name:      med.Name{Family: med.PHI(family), Given: []med.PHI{med.PHI(given)}, Text: med.PHI(given + " " + family)},
		SSN:       med.PHI(fmt.Sprintf("9%02d-%02d-%04d", n%100, 10+r.IntN(89), 1000+r.IntN(8999))),
		DOB:       med.PHI(fmt.Sprintf("%04d-%02d-%02d", 1935+r.IntN(80), 1+r.IntN(12), 1+r.IntN(28))),
		Sex:       med.PHI(sex),
		Address:   med.Address{Line: []med.PHI{med.PHI(fmt.Sprintf("%d %s", 1+r.IntN(400), pick(sampleStreets)))}, City: "Springfield", State: "MA", PostalCode: med.PHI(fmt.Sprintf("0%04d", 1000+r.IntN(1700))), Country: "US"},
		Phone:     med.PHI(fmt.Sprintf("555-%03d-%04d", 100+r.IntN(900), r.IntN(10000))),
		Email:     med.PHI(fmt.Sprintf("sample%03d@patients.example", n)),
		Insurance: med.Insurance{Payer: med.PHI(pick(samplePayers)), MemberID: med.PHI(fmt.Sprintf("M%08d", 10000000+r.IntN(89999999)))},
	}
	if n == 1 {
		p.Name = med.Name{Family: "Smith", Given: []med.PHI{"Alice"}, Text: "Alice Smith"}
		p.SSN, p.DOB, p.Sex, p.Email = "123-45-6789", "1985-06-15", "female", "alice.smith@patients.example"
	}
	var records []med.Record
	first := r.IntN(len(sampleConditions))
	for i := range 1 + r.IntN(2) {
		c := sampleConditions[(first+i)%len(sampleConditions)]
		if n == 1 {
			c = sampleConditions[i]
		}
		onset := fmt.Sprintf("%04d-%02d-%02d", 2012+r.IntN(12), 1+r.IntN(12), 1+r.IntN(28))
		records = append(records, sampleRecord(id, fmt.Sprintf("%s-condition-%d", id, i+1), "Condition", map[string]any{
			"clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", ""),
			"code":           concept("http://snomed.info/sct", c.code, c.text), "onsetDateTime": onset,
		}))
	}
	for i := range 2 {
		records = append(records, sampleRecord(id, fmt.Sprintf("%s-heart-rate-%d", id, i+1), "Observation", map[string]any{
			"status": "final", "code": concept("http://loinc.org", "8867-4", "Heart rate"),
			"effectiveDateTime": fmt.Sprintf("2026-%02d-%02dT09:%02d:00Z", 1+r.IntN(10), 1+r.IntN(28), r.IntN(60)),
			"valueQuantity":     map[string]any{"value": 58 + r.IntN(40), "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
		}))
	}
	p.Diagnosis = fhir.Diagnosis(records)
	return chart.Bundle{Patient: p, Records: records}
}

// sampleRecord makes a record as an import would: from a FHIR resource.
func sampleRecord(patient, id, kind string, body map[string]any) med.Record {
	body["resourceType"], body["id"] = kind, id
	body["subject"] = map[string]any{"reference": "Patient/" + patient}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) //nolint:forbidigo // constants only
	}
	r, _, err := fhir.Record(raw)
	if err != nil {
		panic(err) //nolint:forbidigo // constants only
	}
	return r
}

func concept(system, code, display string) map[string]any {
	c := map[string]any{"system": system, "code": code}
	if display != "" {
		c["display"] = display
	}
	return map[string]any{"coding": []any{c}}
}
