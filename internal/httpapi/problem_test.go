// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func wantProblem(t *testing.T, got reply, want string) {
	t.Helper()
	if got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
	if ct := got.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type: %q", ct)
	}
	if !strings.Contains(want, fmt.Sprintf(`"status":%d,`, got.status)) {
		t.Errorf("status %d is not that of the problem", got.status)
	}
	if cc := got.header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control: %q", cc)
	}
}

func TestTheGuidesProblemsWordForWord(t *testing.T) {
	t.Parallel()
	const tail = `"instance":"urn:uuid:` + requestID + `",`
	tests := map[string]struct {
		err  error
		want string
	}{
		"401": {
			med.Unauthorized.New(""),
			`{"type":"https://medirecord.example/errors/unauthorized","title":"Unauthorized","status":401,"detail":"Valid JWT required. Sidecar validation failed.",` + tail + `"code":"unauthorized","hipaa_category":"authentication"}`,
		},
		"401 without a sidecar": {
			med.Unauthorized.New("").Coded("sidecar_unavailable"),
			`{"type":"https://medirecord.example/errors/unauthorized","title":"Unauthorized","status":401,"detail":"Valid JWT required. Sidecar validation failed.",` + tail + `"code":"sidecar_unavailable","hipaa_category":"authentication"}`,
		},
		"403 reason": {
			med.BreakGlassReasonRequired.New(""),
			`{"type":"https://medirecord.example/errors/break-glass-reason-required","title":"Forbidden","status":403,"detail":"Break-glass access requires X-Break-Glass-Reason header.",` + tail + `"code":"break_glass_reason_required","hipaa_category":"emergency_access"}`,
		},
		"403 practice": {
			med.Forbidden.New("Patient record belongs to a different practice."),
			`{"type":"https://medirecord.example/errors/forbidden","title":"Forbidden","status":403,"detail":"Patient record belongs to a different practice.",` + tail + `"code":"forbidden","hipaa_category":"access_control"}`,
		},
		"403 own": {
			med.Forbidden.New("Patients may only access their own records."),
			`{"type":"https://medirecord.example/errors/forbidden","title":"Forbidden","status":403,"detail":"Patients may only access their own records.",` + tail + `"code":"forbidden","hipaa_category":"access_control"}`,
		},
		"404": {
			med.NotFound.New(""),
			`{"type":"https://medirecord.example/errors/not-found","title":"Not Found","status":404,"detail":"No such resource.",` + tail + `"code":"not_found","hipaa_category":"none"}`,
		},
		"an error without a kind is a reference and nothing else": {
			errors.New("pq: Alice Smith 123-45-6789"),
			`{"type":"https://medirecord.example/errors/internal","title":"Internal Server Error","status":500,"detail":"Something went wrong here. Nothing was disclosed. Quote the reference.",` + tail + `"code":"internal","hipaa_category":"none"}`,
		},
		"an internal error keeps its words and fields to itself": {
			med.Internal.New("Alice Smith").Coded("alice").With(med.FieldError{Pointer: "/alice"}).Caused(errors.New("Alice Smith")),
			`{"type":"https://medirecord.example/errors/internal","title":"Internal Server Error","status":500,"detail":"Something went wrong here. Nothing was disclosed. Quote the reference.",` + tail + `"code":"internal","hipaa_category":"none"}`,
		},
		"fields say where and why": {
			med.Invalid.New("").With(med.FieldError{Pointer: "X-Break-Glass-Reason", Reason: "10 to 500 characters"}),
			`{"type":"https://medirecord.example/errors/invalid","title":"Unprocessable Content","status":422,"detail":"The request is not valid.",` + tail + `"code":"invalid","hipaa_category":"integrity","errors":[{"pointer":"X-Break-Glass-Reason","reason":"10 to 500 characters"}]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			byChart, byAuth := newHouse(t), newHouse(t)
			byChart.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
				return nil, test.err
			}
			byAuth.auth.err = test.err
			for _, h := range []*house{byChart, byAuth} {
				got := ask(t, "GET", h.start(t)+"/patients/p-001")
				wantProblem(t, got, test.want)
				if want := got.status == 401; (got.header.Get("WWW-Authenticate") == "Bearer") != want {
					t.Errorf("WWW-Authenticate: %q", got.header.Get("WWW-Authenticate"))
				}
				if strings.Contains(h.log.String(), "Alice") {
					t.Error("the log holds the error's text: " + h.log.String())
				}
			}
			if n := byAuth.chart.times(); n != 0 {
				t.Errorf("the chart was asked %d times without a caller", n)
			}
		})
	}
}

func TestEveryKindIsAProblem(t *testing.T) {
	t.Parallel()
	for _, k := range med.ErrorKinds {
		t.Run(k.Slug, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
				e := k.New("")
				e.RetryAfter = 1500 * time.Millisecond
				return nil, fmt.Errorf("reading p-001: %w", med.WithEvent(e, eventID))
			}
			got := ask(t, "GET", h.start(t)+"/patients/p-001")
			wantProblem(t, got, fmt.Sprintf(`{"type":"https://medirecord.example/errors/%s","title":%q,"status":%d,"detail":%q,"instance":"urn:uuid:%s","code":%q,"hipaa_category":%q}`,
				k.Slug, k.Title, k.Status, k.Detail, requestID, strings.ReplaceAll(k.Slug, "-", "_"), k.Category))
			if got.header.Get("Audit-Event-Id") != eventID {
				t.Error("the refusal does not name its audit entry")
			}
			if want := map[bool]string{true: "2"}[k != med.Internal]; got.header.Get("Retry-After") != want {
				t.Errorf("Retry-After: got %q, want %q", got.header.Get("Retry-After"), want)
			}
			if med.Categories[k.Category] == "" && k.Category != "none" {
				t.Errorf("category %q has no rule", k.Category)
			}
		})
	}
}

func TestFailuresAreLoggedWithWhatMayBeKnown(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t) + "/patients/p-001"
	h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
		return nil, med.DatabaseUnavailable.Because(errors.New("reading patient p-001: connection refused"))
	}
	ask(t, "GET", url)
	if !strings.Contains(h.log.String(), "reading patient p-001: connection refused") {
		t.Error("the cause of a known kind is not logged: " + h.log.String())
	}
	h.chart.read = func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
		return nil, med.WithEvent(fmt.Errorf("wrapped: %w", errors.New("Alice Smith")), eventID)
	}
	ask(t, "GET", url)
	if log := h.log.String(); strings.Contains(log, "Alice") || !strings.Contains(log, "*fmt.wrapError < *errors.errorString") {
		t.Error("want the types of an unforeseen error, not its text: " + log)
	}
}

// A code that a program could meet is in the table, of the kind it comes with.
func TestEveryCodeIsInTheTable(t *testing.T) {
	t.Parallel()
	known := map[string]*med.ErrorKind{}
	for _, c := range med.ErrorCodes {
		known[c.Code] = c.Kind
	}
	given := regexp.MustCompile(`(?m)(?:(?:med\.)?(\w+)\.(?:New|Because)\(.*|^\s*".*)\)\.Coded\("(\w+)"\)`)
	found := 0
	err := filepath.WalkDir(filepath.Join("..", "..", "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range given.FindAllStringSubmatch(string(src), -1) {
			found++
			if m[1] != "Internal" && m[1] != "Unavailable" && (known[m[2]] == nil || m[1] != "" && !strings.EqualFold(m[1], strings.ReplaceAll(known[m[2]].Slug, "-", ""))) {
				t.Errorf("%s gives the code %s of %s: add it to med.ErrorCodes, then run go test ./internal/httpapi -update", path, m[2], m[1])
			}
		}
		return err
	})
	if err != nil || found < 15 {
		t.Errorf("found %d codes: %v", found, err)
	}
}
