// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/medirecord/medirecord/internal/medtest"
)

// count is how many patients there are.
func (w *clinic) count(t *testing.T) (n int) {
	t.Helper()
	medtest.Scan(t, w.DB.Super(t), []any{&n}, `select count(*) from medirecord.patient`)
	return n
}

func TestARequestWithAKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	const body, same, another = `{"name":{"family":"Once"},"phone":"5550100"}`, ` { "phone" : "5550100", "name":{ "family":"Once"}}`, `{"name":{"family":"Twice"},"phone":"5550100"}`
	post := func(tok, body, key string) medtest.Answer {
		return w.Post(t, tok, patients, body, "Idempotency-Key", key)
	}
	first := post(w.clinician, body, "k1")
	id := bodyOf(t, first, 201).Data["id"].(string)

	again := post(w.clinician, same, "k1")
	if got := bodyOf(t, again, 201); got.Data["id"] != id || again.Header.Get("Location") != first.Header.Get("Location") || again.Header.Get("ETag") != first.Header.Get("ETag") {
		t.Errorf("got %v", got.Data)
	}
	e := entry(t, w.System, again.Header.Get("Audit-Event-Id"))
	if e.Action != "create" || e.Resource != "patient/"+id || e.Detail.Reason != "made_before" {
		t.Errorf("got the entry %+v", e.Detail)
	}
	var reads int
	medtest.Scan(t, w.DB.Super(t), []any{&reads}, `select count(*) from audit.event where parent_id = $1 and action = 'read' and patient_id = $2`, again.Header.Get("Audit-Event-Id"), id)
	if reads != 1 || w.count(t) != 2 {
		t.Errorf("got %d readings and %d patients", reads, w.count(t))
	}
	refusal(t, post(w.clinician, another, "k1"), 409, "key_reused")

	t.Run("the answer is what there is now", func(t *testing.T) {
		a := w.Do(t, http.MethodPatch, w.clinician, patients+"/"+id, `{"phone":"5550101"}`, "If-Match", first.Header.Get("ETag"))
		bodyOf(t, a, 200)
		if got := bodyOf(t, post(w.clinician, body, "k1"), 201); got.Data["phone"] != "5550101" {
			t.Errorf("got %v", got.Data)
		}
	})
	t.Run("for nobody else", func(t *testing.T) {
		before := w.count(t)
		for name, tok := range map[string]string{
			"another person":               w.admin,
			"the same in another practice": w.Token(t, medtest.Claims{"sub": "the-clinician", "roles": []string{"clinician"}, "practice_id": "south"}),
		} {
			if got := bodyOf(t, post(tok, body, "k1"), 201); got.Data["id"] == id {
				t.Errorf("%s got what somebody else made", name)
			}
		}
		if w.count(t) != before+2 {
			t.Errorf("got %d patients, want %d", w.count(t), before+2)
		}
	})
	t.Run("not for who lost the right", func(t *testing.T) {
		demoted := w.Token(t, medtest.Claims{"sub": "the-clinician", "roles": []string{"nurse"}, "practice_id": "north"})
		refusal(t, post(demoted, body, "k1"), 403, "forbidden")
	})
	t.Run("many at once make one", func(t *testing.T) {
		before := w.count(t)
		ids := make([]medtest.Answer, 8)
		var group sync.WaitGroup
		for i := range ids {
			group.Go(func() { ids[i] = post(w.clinician, body, "k2") })
		}
		group.Wait()
		for _, a := range ids {
			if got := bodyOf(t, a, 201); got.Data["id"] != bodyOf(t, ids[0], 201).Data["id"] {
				t.Errorf("got %v", got.Data["id"])
			}
		}
		if w.count(t) != before+1 {
			t.Errorf("got %d patients more", w.count(t)-before)
		}
	})
	t.Run("a day later it is a new one", func(t *testing.T) {
		medtest.Exec(t, w.DB.Super(t), `update medirecord.idempotency set created_at = now() - interval '25 hours'`)
		if got := bodyOf(t, post(w.clinician, another, "k1"), 201); got.Data["id"] == id {
			t.Error("got the old one")
		}
	})
	for _, key := range []string{"with space", "tab\tin", string(make([]byte, 0)) + "é", longKey()} {
		a := post(w.clinician, body, key)
		refusal(t, a, 422, "invalid")
	}
	t.Run("what is deleted is not shown by its key", func(t *testing.T) {
		made := post(w.admin, body, "k3")
		gone := bodyOf(t, made, 201).Data["id"].(string)
		if a := w.Do(t, http.MethodDelete, w.admin, patients+"/"+gone, "", "If-Match", made.Header.Get("ETag")); a.Status != 204 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		both := w.Token(t, medtest.Claims{"sub": "the-admin", "roles": []string{"clinician"}, "practice_id": "north"})
		refusal(t, post(both, body, "k3"), 404, "not_found")
	})
}

func longKey() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = 'k'
	}
	return string(b)
}
