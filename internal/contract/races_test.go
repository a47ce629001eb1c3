// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// TestRaces has many callers do at once what only one of them can, over HTTP:
// whoever is first, one wins, the others are told, and nothing is lost.
func TestRaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, race := range map[string]func(*testing.T){
		"changes of one version":             w.changeOneVersion,
		"a change and a deletion":            w.changeAndDelete,
		"a change and a restoration":         w.changeAndRestore,
		"changes of one record":              w.changeOneRecord,
		"one idempotency key, one body":      w.oneKeyOneBody,
		"one idempotency key, other bodies":  w.oneKeyOtherBodies,
		"the end of a grant, and its reader": w.endAndRead,
	} {
		t.Run(name, race)
	}
}

// many is how many race.
const many = 6

// at sends all requests at once, and counts the answers by status.
func (w *world) at(t *testing.T, requests ...*request) ([]*answer, map[int]int) {
	t.Helper()
	answers := make([]*answer, len(requests))
	start := make(chan struct{})
	var group sync.WaitGroup
	for i, r := range requests {
		group.Go(func() {
			<-start
			answers[i] = w.expect(t, r)
		})
	}
	close(start)
	group.Wait()
	count := map[int]int{}
	for _, a := range answers {
		count[a.status]++
	}
	return answers, count
}

// to is a request to a patient, or to a record of theirs.
func (w *world) to(t *testing.T, id, as, patient, tag string, body any) *request {
	t.Helper()
	op := w.operation(t, id)
	r := &request{op: op, method: op.method, token: w.tokens[as], path: map[string]string{"id": patient}, header: map[string]string{}}
	if tag != "" {
		r.header["If-Match"] = tag
	}
	if body != nil {
		r.kind, _ = op.body()
		r.body = marshal(t, body)
	}
	return r
}

func want(t *testing.T, what string, got, wanted map[int]int) {
	t.Helper()
	if !maps.Equal(got, wanted) {
		t.Errorf("%s: answers by status %v, want %v", what, got, wanted)
	}
}

func (w *world) changeOneVersion(t *testing.T) {
	id := w.another(t)
	tag := w.lastSeen(t, "clinician", id)["If-Match"]
	var changes []*request
	for i := range many {
		changes = append(changes, w.to(t, "update-patient", "clinician", id, tag, map[string]any{"phone": fmt.Sprintf("+1 555 02%02d", i)}))
	}
	answers, count := w.at(t, changes...)
	want(t, "changes of one version", count, map[int]int{200: 1, 412: many - 1})
	now := w.surely(t, w.to(t, "get-patient", "clinician", id, "", nil))
	won := slices.IndexFunc(answers, func(a *answer) bool { return a.status == http.StatusOK })
	if won >= 0 && now.data(t)["phone"] != fmt.Sprintf("+1 555 02%02d", won) {
		t.Errorf("change %d was served, and the patient has %v", won, now.data(t)["phone"])
	}
}

func (w *world) changeAndDelete(t *testing.T) {
	for range 3 {
		id := w.another(t)
		answers, _ := w.at(t,
			w.to(t, "update-patient", "clinician", id, w.lastSeen(t, "clinician", id)["If-Match"], map[string]any{"phone": "+1 555 0301"}),
			w.to(t, "delete-patient", "admin", id, w.lastSeen(t, "admin", id)["If-Match"], nil),
		)
		changed, deleted := answers[0].status, answers[1].status
		if !(changed == 200 && deleted == 412 || (changed == 404 || changed == 412 || changed == 403) && deleted == 204) {
			t.Errorf("a change was answered with %d and a deletion of the same version with %d", changed, deleted)
		}
	}
}

func (w *world) changeAndRestore(t *testing.T) {
	id := w.another(t)
	tag := w.lastSeen(t, "clinician", id)["If-Match"]
	gone := w.to(t, "delete-patient", "admin", id, w.lastSeen(t, "admin", id)["If-Match"], nil)
	if a := w.surely(t, gone); a.status != http.StatusNoContent {
		t.Fatalf("%s\ngot %d %s", gone, a.status, a.body)
	}
	all := []*request{w.to(t, "update-patient", "clinician", id, tag, map[string]any{"phone": "+1 555 0401"})}
	for range many {
		all = append(all, w.to(t, "restore-patient", "admin", id, "", nil))
	}
	answers, count := w.at(t, all...)
	// 403 when the row was not there yet and its practice was known again: refused, and the next one is told.
	if changed := answers[0].status; changed != 404 && changed != 412 && changed != 403 {
		t.Errorf("a change of the version before the deletion was answered with %d", changed)
	}
	count[answers[0].status]--
	if count[200] != 1 || count[409] != many-1 {
		t.Errorf("restorations at once were answered with %v", count)
	}
}

func (w *world) changeOneRecord(t *testing.T) {
	in := w.record(t, true)
	var all []*request
	for i := range many {
		r := w.to(t, "update-record", "clinician", string(alice), in["If-Match"], map[string]any{"note": fmt.Sprintf("change %d", i)})
		r.path["record"] = in["record"]
		all = append(all, r)
	}
	r := w.to(t, "delete-record", "clinician", string(alice), in["If-Match"], nil)
	r.path["record"] = in["record"]
	answers, count := w.at(t, append(all, r)...)
	if served := count[200] + count[204]; served != 1 || count[412]+count[409] != many {
		t.Errorf("changes and a deletion of one version of a record were answered with %v", count)
	}
	versions := w.to(t, "list-record-versions", "clinician", string(alice), "", nil)
	versions.path["record"] = in["record"]
	if a := w.surely(t, versions); len(listOf(t, a)) != 2 {
		t.Errorf("the record has %d versions after one change (%v)\n%s", len(listOf(t, a)), answers[many].status, a.body)
	}
}

func (w *world) oneKeyOneBody(t *testing.T) {
	key := med.NewUUID(time.Now())
	var all []*request
	for range many {
		r := w.to(t, "create-patient", "clinician", "", "", newPatient())
		r.header["Idempotency-Key"] = key
		all = append(all, r)
	}
	answers, count := w.at(t, all...)
	want(t, "one key and one body", count, map[int]int{201: many})
	ids := map[any]bool{}
	for _, a := range answers {
		if a.status == http.StatusCreated {
			ids[a.data(t)["id"]] = true
		}
	}
	if len(ids) != 1 {
		t.Errorf("one key made %v", slices.Collect(maps.Keys(ids)))
	}
}

func (w *world) oneKeyOtherBodies(t *testing.T) {
	key := med.NewUUID(time.Now())
	var all []*request
	for i := range many {
		who := newPatient()
		who["phone"] = fmt.Sprintf("+1 555 05%02d", i)
		r := w.to(t, "create-patient", "clinician", "", "", who)
		r.header["Idempotency-Key"] = key
		all = append(all, r)
	}
	_, count := w.at(t, all...)
	want(t, "one key and other bodies", count, map[int]int{201: 1, 409: many - 1})
}

// endAndRead ends a grant while its session reads: each is served or refused, and
// none that begins after the end was answered is served.
func (w *world) endAndRead(t *testing.T) {
	opener := w.person(t, "clinician", "north", "a-session")
	open := w.to(t, "open-break-glass", "", "", "", emergency(carol))
	open.token = opener
	grant := w.surely(t, open).data(t)["id"].(string)
	end := w.to(t, "end-break-glass", "", "", "", nil)
	end.token, end.path = opener, map[string]string{"grant": grant}
	all := []*request{end}
	for range many {
		r := w.to(t, "get-patient", "", string(carol), "", nil)
		r.token = opener
		all = append(all, r)
	}
	if a := w.expect(t, all[1]); a.status != http.StatusOK {
		t.Fatalf("%s\ngot %d %s under a grant", all[1], a.status, a.body)
	}
	answers, _ := w.at(t, all...)
	if answers[0].status != http.StatusOK {
		t.Errorf("the end was answered with %d %s", answers[0].status, answers[0].body)
	}
	for _, a := range answers[1:] {
		if a.status != http.StatusOK && a.status != http.StatusForbidden {
			t.Errorf("a reader was answered with %d %s", a.status, a.body)
		}
	}
	_, count := w.at(t, all[1:]...)
	want(t, "after the end", count, map[int]int{403: many})
}

// listOf is the data of an answer that is a list.
func listOf(t *testing.T, a *answer) []any {
	t.Helper()
	var e struct {
		Data []any `json:"data"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("got %d %s: %v", a.status, a.body, err)
	}
	return e.Data
}
