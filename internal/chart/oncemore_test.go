// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// Appointments, assignments, records and disclosures are made once with a key, as
// patients are.
func TestWhatIsSaidOfAPatientIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	super := w.DB.Super(t)
	disclosures := "/api/v1/patients/" + string(w.alice) + "/disclosures"
	hour := func(subject string) string {
		from := time.Now().UTC().Truncate(time.Hour)
		return fmt.Sprintf(`{"patient_id":"%s","subject":"%s","from":"%s","to":"%s"}`, w.alice, subject, from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339))
	}
	told := func(what string) string {
		return `{"recipient":{"name":"Health Department of Zug"},"basis":"public_health","purpose":"Notifiable disease","description":"` + what + `","disclosed_on":"` + today().Plus(-1).Reveal() + `"}`
	}
	noted := func(what string) string {
		return `{"kind":"observation","code":[{"system":"http://loinc.org","code":"4548-4"}],"status":"final","note":"` + what + `"}`
	}
	for _, tc := range []struct {
		name, tok, path, body, other, rows, action, part string
	}{
		{"an appointment", w.clinician, "/api/v1/appointments", hour("the-nurse"), hour("another"), "medirecord.treatment where kind = 'appointment'", "add_appointment", "list_appointments"},
		{"an assignment", w.clinician, "/api/v1/assignments", hour("the-nurse"), hour("another"), "medirecord.treatment where kind = 'assignment'", "add_assignment", "list_assignments"},
		{
			"a record", w.clinician, "/api/v1/patients/" + string(w.alice) + "/records", noted("Fasting."), noted("After lunch."),
			"medirecord.record r join audit.event e on e.event_id = r.event_id and e.action = 'create'", "create", "read",
		},
		{"a disclosure", w.clinician, disclosures, told("Stool culture"), told("Throat swab"), "medirecord.disclosure", "disclose", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			post := func(tok, body, key string) medtest.Answer {
				return w.Post(t, tok, tc.path, body, "Idempotency-Key", key)
			}
			first := post(tc.tok, tc.body, "k1")
			id := bodyOf(t, first, 201).Data["id"]
			for range 2 {
				again := post(tc.tok, " "+tc.body, "k1")
				if got := bodyOf(t, again, 201).Data; got["id"] != id || again.Header.Get("Location") != first.Header.Get("Location") || got["version"] != bodyOf(t, first, 201).Data["version"] {
					t.Errorf("got %v, want %v", got, id)
				}
				e := entry(t, w.System, again.Header.Get("Audit-Event-Id"))
				if e.Action != tc.action || e.Outcome != "success" || e.Detail.Reason != "made_before" {
					t.Errorf("got the entry %+v", e)
				}
				if tc.part != "" && count(t, super, "audit.event where parent_id::text = $1 and action = $2 and patient_id = $3", again.Header.Get("Audit-Event-Id"), tc.part, string(w.alice)) != 1 {
					t.Error("what was read anew has no entry")
				}
			}
			refusal(t, post(tc.tok, tc.other, "k1"), 409, "key_reused")
			refusal(t, post(w.Of(t, med.RoleClinician, medtest.South), tc.body, "k1"), 403, "other_practice")
			refusal(t, post(w.herself, tc.body, "k1"), 403, "forbidden")
			if n := count(t, super, tc.rows); n != 1 {
				t.Errorf("%d were made, want one", n)
			}
			if got := bodyOf(t, post(w.Token(t, medtest.Claims{"sub": "somebody-else", "roles": []string{"clinician"}, "practice_id": "north"}), tc.body, "k1"), 201); got.Data["id"] == id {
				t.Error("somebody else got it")
			}
			many := make([]medtest.Answer, 6)
			var group sync.WaitGroup
			for i := range many {
				group.Go(func() { many[i] = post(tc.tok, tc.body, "k2") })
			}
			group.Wait()
			for _, a := range many {
				if got := bodyOf(t, a, 201); got.Data["id"] != bodyOf(t, many[0], 201).Data["id"] {
					t.Errorf("many at once: got %v", got.Data["id"])
				}
			}
			if n := count(t, super, tc.rows); n != 3 {
				t.Errorf("%d were made, want three", n)
			}
		})
	}

	t.Run("an ended appointment is shown as it is now", func(t *testing.T) {
		body := hour("the-nurse")
		id := bodyOf(t, w.Post(t, w.clinician, "/api/v1/appointments", body, "Idempotency-Key", "k3"), 201).Data["id"].(string)
		if a := w.Do(t, http.MethodDelete, w.clinician, "/api/v1/appointments/"+id+"?patient_id="+string(w.alice), ""); a.Status != 200 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		if got := bodyOf(t, w.Post(t, w.clinician, "/api/v1/appointments", body, "Idempotency-Key", "k3"), 201).Data; got["id"] != id || got["ended_at"] == nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("who recorded a disclosure does not learn that it was amended", func(t *testing.T) {
		body := told("Blood count")
		first := w.Post(t, w.clinician, disclosures, body, "Idempotency-Key", "k4")
		id := bodyOf(t, first, 201).Data["id"].(string)
		if a := w.Post(t, w.officer, disclosures+"/"+id+"/amendments", `{"entered_in_error":true}`); a.Status != 201 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		if got := bodyOf(t, w.Post(t, w.clinician, disclosures, body, "Idempotency-Key", "k4"), 201).Data; got["version"] != 1.0 {
			t.Errorf("got %v", got)
		}
	})
}
