// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

// aRecord is a record as a clinician sees it.
func aRecord() *med.RecordView {
	return &med.RecordView{
		Record: med.Record{
			ID: "rec-1", Patient: "p-001", Kind: med.KindObservation, Status: "final", Start: "2026-03-01", Author: "dr-1", Note: "fasting",
			Codes: []med.Code{{System: "http://loinc.org", Code: "4548-4", Display: "Hemoglobin A1c"}}, Value: med.Value{Quantity: "5.4 %"},
			Source: `{"resourceType":"Observation","id":"rec-1"}`, Sensitivity: med.SensitivityNormal, Version: 3,
		},
		View: med.View{"kind": med.Reveal, "code": med.Reveal, "status": med.Reveal, "effective": med.Reveal, "value": med.Reveal, "note": med.Reveal, "author": med.Reveal, "sensitivity": med.Reveal, "source": med.Reveal},
		Tag:  "dGFn", Event: eventID,
	}
}

func TestRecordsOverHTTP(t *testing.T) {
	t.Parallel()
	const records, one = "/api/v1/patients/p-001/records", "/api/v1/patients/p-001/records/rec-1"
	url := newHouse(t).start(t)
	t.Run("a record has its shape, its tag and its source as it came", func(t *testing.T) {
		t.Parallel()
		a := ask(t, http.MethodGet, url+one)
		for _, want := range []string{
			`"kind":"observation"`, `"code":[{"system":"http://loinc.org","code":"4548-4","display":"Hemoglobin A1c"}]`, `"effective":{"start":"2026-03-01"}`,
			`"value":{"quantity":"5.4 %"}`, `"source":{"resourceType":"Observation","id":"rec-1"}`, `"version":3`, `"view":{"masked":[],"hidden":[]}`,
		} {
			if !strings.Contains(a.body, want) {
				t.Errorf("got %s, want %s in it", a.body, want)
			}
		}
		if a.header.Get("ETag") != `"dGFn"` || strings.Contains(a.body, "integrity") {
			t.Errorf("got the ETag %s of %s", a.header.Get("ETag"), a.body)
		}
	})
	t.Run("a list asks as it was told", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		a := ask(t, http.MethodGet, h.start(t)+records+"?kind=observation&from=2026-01-01&to=2026-12-31&limit=7")
		if a.status != http.StatusOK || !strings.Contains(a.body, `"page":{"limit":7,"next":"further"}`) {
			t.Errorf("got %d %s", a.status, a.body)
		}
		if q := h.chart.recordAsk; q.Kind != med.KindObservation || q.From.Reveal() != "2026-01-01" || q.To.Reveal() != "2026-12-31" || h.chart.recordPage.Limit != 7 {
			t.Errorf("the chart was asked for %s, %d", q.Kind, h.chart.recordPage.Limit)
		}
	})
	for _, path := range []string{records + "?kind=surgery", records + "?from=yesterday", records + "?limit=0", records + "?unknown=1", records + "/" + strings.Repeat("x", 65), records + "/a%2Fb"} {
		if a := ask(t, http.MethodGet, url+path); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
	}
}
