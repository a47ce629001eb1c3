// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"crypto/sha256"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
)

// bundle is a chart as an import brings it; the name is the file's.
func bundle(name string, p med.Patient, records ...med.Record) chart.Bundle {
	if p.SourceID == "" {
		p.SourceID = "urn:source:alice"
	}
	return chart.Bundle{Patient: p, Records: records, Hash: sha256.Sum256([]byte(name))}
}

func observation(id med.RecordID, value med.PHI) med.Record {
	return med.Record{
		ID: id, Kind: med.KindObservation, Type: "Observation", Status: "final", Sensitivity: med.SensitivityNormal,
		Value: med.Value{Quantity: value + " mmol/L"}, Source: `{"resourceType":"Observation","valueQuantity":"` + value + `"}`,
	}
}
