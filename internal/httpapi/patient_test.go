// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/medirecord/medirecord/internal/med"
)

func TestReadPatient(t *testing.T) {
	t.Parallel()
	patientView := med.View{med.FieldName: med.Reveal, med.FieldSSN: med.Mask, med.FieldDOB: med.Mask}
	tests := map[string]struct {
		view func(*med.PatientView)
		want string
	}{
		"a clinician sees the guide's six keys in its order": {
			func(*med.PatientView) {},
			`{"id":"p-001","name":"Alice Smith","ssn":"123-45-6789","dob":"1985-06-15","diagnosis":"Type 2 diabetes","practice_id":"practice-1"}`,
		},
		"a patient sees masks, and an empty diagnosis": {
			func(v *med.PatientView) {
				v.View, v.SSN, v.DOB, v.Diagnosis = patientView, "***-**-6789", "****-**-15", ""
			},
			`{"id":"p-001","name":"Alice Smith","ssn":"***-**-6789","dob":"****-**-15","diagnosis":"","practice_id":"practice-1"}`,
		},
		"a hidden field stays empty even if the chart left its value in": {
			func(v *med.PatientView) { v.View = med.View{med.FieldName: med.Reveal} },
			`{"id":"p-001","name":"Alice Smith","ssn":"","dob":"","diagnosis":"","practice_id":"practice-1"}`,
		},
		"without a view nothing is shown": {
			func(v *med.PatientView) { v.View = nil },
			`{"id":"p-001","name":"","ssn":"","dob":"","diagnosis":"","practice_id":"practice-1"}`,
		},
		"markup and quotes are data": {
			func(v *med.PatientView) { v.Name.Text = "<script>\"\xff" },
			`{"id":"p-001","name":"\u003cscript\u003e\"\ufffd","ssn":"123-45-6789","dob":"1985-06-15","diagnosis":"Type 2 diabetes","practice_id":"practice-1"}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.chart.read = func(_ context.Context, _ med.Caller, id med.PatientID, want ...med.Field) (*med.PatientView, error) {
				if id != "p-001" {
					t.Errorf("the chart was asked for %q", id)
				}
				// No field is asked for that is not shown: it would be opened, and audited as seen.
				if d := cmp.Diff(want, []med.Field{med.FieldName, med.FieldSSN, med.FieldDOB, med.FieldDiagnosis}); d != "" {
					t.Error("fields asked for (-got +want)\n" + d)
				}
				v := alice()
				test.view(v)
				return v, nil
			}
			got := ask(t, "GET", h.start(t)+"/patients/p-001")
			if got.status != 200 || got.body != test.want {
				t.Errorf("got %d %s\nwant 200 %s", got.status, got.body, test.want)
			}
			headers := map[string]string{
				"Content-Type": "application/json", "Audit-Event-Id": eventID, "Etag": `"seven"`, "X-Request-Id": requestID, "Cache-Control": "no-store",
			}
			for k, want := range headers {
				if got := got.header.Get(k); got != want {
					t.Errorf("%s: got %q, want %q", k, got, want)
				}
			}
		})
	}
}

func TestNoAnswerWithoutItsAuditEntry(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
		v := alice()
		v.Event = ""
		return v, nil
	}
	h.chart.log = func(context.Context, med.Caller, med.PatientID, int) ([]med.AccessEvent, med.EventID, error) {
		return []med.AccessEvent{{Actor: "dr-1"}}, "", nil
	}
	url := h.start(t)
	for _, path := range []string{"/patients/p-001", "/patients/p-001/audit"} {
		got := ask(t, "GET", url+path)
		wantProblem(t, got, `{"type":"https://medirecord.example/errors/audit-unavailable","title":"Service Unavailable","status":503,`+
			`"detail":"The audit trail cannot be written. Nothing was disclosed.","instance":"urn:uuid:`+requestID+`","code":"audit_unavailable","hipaa_category":"audit_controls"}`)
		if got.header.Get("ETag") != "" {
			t.Error("the version left without an audit entry")
		}
	}
}

func TestReadAudit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var asked atomic.Int64 // the limit the chart was asked for
	h.chart.log = func(_ context.Context, _ med.Caller, _ med.PatientID, limit int) ([]med.AccessEvent, med.EventID, error) {
		asked.Store(int64(limit))
		zone := time.FixedZone("east", 3600)
		return []med.AccessEvent{
			{
				ID: "e-2", Timestamp: time.Date(2026, 3, 1, 9, 30, 0, 123999999, zone), Actor: "er-1", Action: "break_glass", Resource: "patient/p-001",
				Outcome: "access_granted", Reason: "Patient in ER, consent unreachable", BreakGlass: true, Clear: []med.Field{med.FieldName, med.FieldSSN},
			},
			{
				ID: "e-1", Timestamp: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), Actor: "p-001", Action: "read", Resource: "patient/p-001", Outcome: "success",
				Clear: []med.Field{med.FieldName}, Masked: []med.Field{med.FieldSSN, med.FieldDOB}, Hidden: []med.Field{med.FieldDiagnosis},
			},
		}, eventID, nil
	}
	url := h.start(t) + "/patients/p-001/audit"

	got := ask(t, "GET", url)
	want := `[{"timestamp":"2026-03-01T08:30:00.123Z","actor":"er-1","action":"break_glass","resource":"patient/p-001","outcome":"access_granted",` +
		`"reason":"Patient in ER, consent unreachable","break_glass":true,"id":"e-2","fields":{"clear":["name","ssn"],"masked":[],"hidden":[]}},` +
		`{"timestamp":"2026-03-01T08:00:00.000Z","actor":"p-001","action":"read","resource":"patient/p-001","outcome":"success","id":"e-1",` +
		`"fields":{"clear":["name"],"masked":["ssn","dob"],"hidden":["diagnosis"]}}]`
	if got.status != 200 || got.body != want {
		t.Errorf("got %d %s\nwant 200 %s", got.status, got.body, want)
	}
	if got.header.Get("Audit-Event-Id") != eventID || got.header.Get("ETag") != "" {
		t.Errorf("headers: %v", got.header)
	}
	if n := asked.Load(); n != 50 {
		t.Errorf("without a limit: got %d, want 50", n)
	}
	for query, limit := range map[string]int64{"?limit=1": 1, "?limit=200": 200} {
		if got := ask(t, "GET", url+query); got.status != 200 {
			t.Errorf("%s: got %d", query, got.status)
		}
		if n := asked.Load(); n != limit {
			t.Errorf("%s: got %d", query, n)
		}
	}
}

func TestAnEmptyAccessLogIsAnEmptyList(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if got := ask(t, "GET", h.start(t)+"/patients/p-001/audit"); got.status != 200 || got.body != "[]" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestWhatTheCallerSaysOfTheRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	// What a token could have claimed for itself must not survive.
	h.auth.callers["clinician"] = med.Caller{Subject: "dr-1", Purpose: "ETREAT", Emergent: true, Emergency: "stale"}
	url := h.start(t) + "/patients/p-001"

	ask(t, "GET", url)
	if c := h.chart.last(t); c.Purpose != "" || c.Emergent || c.Emergency != "" {
		t.Errorf("nothing was said, yet: %q %v", c.Purpose, c.Emergent)
	}
	ask(t, "GET", url, "X-Break-Glass-Reason", "Patient in ER, consent unreachable", "X-Purpose-Of-Use", "ETREAT",
		"User-Agent", "curl \xff", "X-Request-Id", "theirs", "Origin", "https://a.example",
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	c := h.chart.last(t)
	want := med.Origin{
		IP: "127.0.0.1", UserAgent: "curl \xff", Origin: "https://a.example", RequestID: requestID, ClientID: "theirs",
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
	}
	if d := cmp.Diff(c.Origin, want); d != "" {
		t.Error("origin (-got +want)\n" + d)
	}
	if !c.Emergent || c.Emergency.Reveal() != "Patient in ER, consent unreachable" || c.Purpose != "ETREAT" {
		t.Errorf("got %v %q", c.Emergent, c.Purpose)
	}
	ask(t, "GET", url, "X-Break-Glass-Reason", "")
	if c := h.chart.last(t); !c.Emergent || c.Emergency != "" {
		t.Error("a blank reason is there, and blank")
	}
}
