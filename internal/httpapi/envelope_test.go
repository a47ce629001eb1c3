// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

// thing is what the versioned face answers with in these tests.
type thing struct {
	ID string `json:"id"`
}

type thingsInput struct {
	PageInput
	Kind string `query:"kind"`
}

// thingRoutes adds a list and a thing to a room.
func thingRoutes(t *testing.T, h *house, ask func(p med.Page)) {
	t.Helper()
	handle(h.Server, &h.router, operation{id: "list-things", path: "/api/v1/things", tag: "patients", errors: readErrors},
		func(_ context.Context, _ med.Caller, in *thingsInput) (*answer[[]thing], error) {
			ask(in.page())
			if in.Kind == "none" {
				return paged[thing](eventID, nil, in.page(), ""), nil
			}
			return paged(eventID, []thing{{"a"}, {"b"}}, in.page(), "further"), nil
		})
	handle(h.Server, &h.router, operation{id: "read-thing", path: "/api/v1/things/{id}", tag: "patients", errors: readErrors},
		func(_ context.Context, _ med.Caller, in *patientInput) (*answer[thing], error) {
			a := answered(eventID, thing{in.ID})
			sighted(&a.Body, med.View{med.FieldSSN: med.Mask}, []med.Field{med.FieldSSN})
			return a, nil
		})
	handle(h.Server, &h.router, operation{id: "create-thing", method: http.MethodPost, path: "/api/v1/things", tag: "patients", status: http.StatusCreated, errors: readErrors},
		func(_ context.Context, _ med.Caller, in *struct{ Body thing }) (*created[thing], error) {
			return made(eventID, in.Body, "/api/v1/things/"+in.Body.ID), nil
		})
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var asked med.Page
	thingRoutes(t, h, func(p med.Page) { asked = p })
	url := h.start(t)
	tests := map[string]struct {
		path string
		want string
		page med.Page
	}{
		"a list has a page and where to go on": {
			"/api/v1/things?limit=2&cursor=before",
			`{"data":[{"id":"a"},{"id":"b"}],"meta":{"request_id":"` + requestID + `","audit_event_id":"` + eventID + `"},"page":{"limit":2,"next":"further"}}`,
			med.Page{Limit: 2, Cursor: "before"},
		},
		"a list has 50 items a page unless asked, and the last page no next": {
			"/api/v1/things?kind=none",
			`{"data":[],"meta":{"request_id":"` + requestID + `","audit_event_id":"` + eventID + `"},"page":{"limit":50}}`,
			med.Page{Limit: 50},
		},
		"one thing has no page, and says what is masked": {
			"/api/v1/things/x",
			`{"data":{"id":"x"},"meta":{"request_id":"` + requestID + `","audit_event_id":"` + eventID + `","view":{"masked":["ssn"],"hidden":[]}}}`,
			med.Page{},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			asked = med.Page{}
			got := ask(t, http.MethodGet, url+test.path)
			if got.status != http.StatusOK || strings.TrimSpace(got.body) != test.want {
				t.Errorf("got %d %s\nwant %s", got.status, got.body, test.want)
			}
			if asked != test.page {
				t.Errorf("page asked for %+v, want %+v", asked, test.page)
			}
			if got.header.Get(headerEvent) != eventID {
				t.Errorf("the header names entry %q", got.header.Get(headerEvent))
			}
		})
	}
	for _, path := range []string{
		"?limit=0", "?limit=201", "?limit=-1", "?limit=x", "?limit=9999999999999999999", "?cursor=", "?cursor=" + strings.Repeat("a", 1025), "?limit=1&limit=2", "?offset=1",
	} {
		if got := ask(t, http.MethodGet, url+"/api/v1/things"+path); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %d, want 422", path, got.status)
		}
	}
	got := askAs(t, "clinician", http.MethodPost, url+"/api/v1/things", strings.NewReader(`{"id":"n"}`), "Content-Type", "application/json")
	if got.status != http.StatusCreated || got.header.Get("Location") != "/api/v1/things/n" || got.header.Get(headerEvent) != eventID ||
		!strings.Contains(got.body, `"data":{"id":"n"}`) || !strings.Contains(got.body, requestID) {
		t.Errorf("created: got %d %v %s", got.status, got.header, got.body)
	}
}
