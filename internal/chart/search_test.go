// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// rowsOf are the items of a list, and what begins the next page.
func rowsOf(t *testing.T, a medtest.Answer) (items []map[string]any, next string) {
	t.Helper()
	var out struct {
		Data []map[string]any
		Page struct{ Next string }
	}
	if a.Status != 200 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	noError(t, json.Unmarshal([]byte(a.Body), &out))
	return out.Data, out.Page.Next
}

func idsOf(items []map[string]any) []string {
	out := []string{}
	for _, i := range items {
		out = append(out, i["id"].(string))
	}
	return out
}

func TestSearch(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	id := string(w.carol)
	other := bodyOf(t, w.Post(t, w.clinician, patients, `{"name":{"family":"Jones"},"dob":"1971-02-04","phone":"+1 555 0178"}`), 201).Data["id"].(string)
	south := w.Of(t, med.RoleClinician, medtest.South)
	bodyOf(t, w.Post(t, south, patients, carol), 201)
	search := func(tok, body string) medtest.Answer { return w.Post(t, tok, patients+"/search", body) }

	for name, c := range map[string]struct {
		tok, body string
		want      []string
	}{
		"by MRN":                          {w.nurse, `{"mrn":"mrn 77"}`, []string{id}},
		"by SSN, whatever stands between": {w.clinician, `{"ssn":"987 65 4321"}`, []string{id}},
		"by phone, as people write it":    {w.nurse, `{"phone":"1 (555) 01-77"}`, []string{id}},
		"by e-mail in another case":       {w.nurse, `{"email":"CAROL@Example.org"}`, []string{id}},
		"by the insurance's number":       {w.admin, `{"member_id":"ch7788"}`, []string{id}},
		"by family name and birth date":   {w.nurse, `{"family":"JONES","dob":"1971-02-03"}`, []string{id}},
		"by another birth date":           {w.nurse, `{"family":"Jones","dob":"1971-02-04"}`, []string{other}},
		"of nobody":                       {w.nurse, `{"mrn":"MRN-78"}`, []string{}},
		"of a number that nobody has":     {w.clinician, `{"ssn":"987-65-4322"}`, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			a := search(c.tok, c.body)
			items, next := rowsOf(t, a)
			if d := cmp.Diff(idsOf(items), c.want); d != "" || next != "" || strings.Contains(a.Body, "total") {
				t.Errorf("%s in %s", d, a.Body)
			}
			// Each patient shown has an entry of their own; the primary says by what.
			primary := entry(t, w.System, a.Header.Get("Audit-Event-Id"))
			if primary.Action != "search" || len(primary.Detail.Searched) == 0 || primary.Patient != "" {
				t.Errorf("got the entry %+v", primary.Detail)
			}
			var n int
			medtest.Scan(t, w.DB.Super(t), []any{&n}, `select count(*) from audit.event where parent_id = $1 and outcome = 'success' and patient_id = any($2)`, a.Header.Get("Audit-Event-Id"), c.want)
			if n != len(c.want) {
				t.Errorf("got %d entries of patients shown, want %d", n, len(c.want))
			}
		})
	}

	t.Run("by what is hidden, the same whatever it is", func(t *testing.T) {
		said := map[string]bool{}
		for _, body := range []string{`{"ssn":"987-65-4321"}`, `{"ssn":"987-65-4322"}`, `{"member_id":"CH-7788"}`, `{"member_id":"x"}`, `{"ssn":"?"}`} {
			a := search(w.nurse, body)
			refusal(t, a, 403, "field_not_searchable")
			var p map[string]any
			noError(t, json.Unmarshal([]byte(a.Body), &p))
			delete(p, "instance")
			said[fmt.Sprint(p)] = true
		}
		if len(said) != 1 {
			t.Errorf("got %d different answers", len(said))
		}
	})
	for name, c := range map[string]struct {
		tok, body string
		status    int
		code      string
	}{
		"nothing":             {w.nurse, `{}`, 422, "invalid"},
		"two things":          {w.nurse, `{"mrn":"1","phone":"5550177"}`, 422, "invalid"},
		"a family name alone": {w.nurse, `{"family":"Jones"}`, 422, "invalid"},
		"a birth date alone":  {w.nurse, `{"dob":"1971-02-03"}`, 422, "invalid"},
		"a part of a date":    {w.nurse, `{"family":"Jones","dob":"1971"}`, 422, "invalid"},
		"a part of a number":  {w.clinician, `{"ssn":"4321"}`, 422, "invalid"},
		"a diagnosis":         {w.clinician, `{"diagnosis":"Essential hypertension"}`, 422, "invalid"},
		"an officer":          {w.Of(t, med.RoleOfficer, medtest.North), `{"mrn":"MRN-77"}`, 403, "forbidden"},
		"a patient":           {w.PatientOf(t, w.carol, medtest.North), `{"mrn":"MRN-77"}`, 403, "forbidden"},
	} {
		t.Run(name+" finds nobody", func(t *testing.T) { refusal(t, search(c.tok, c.body), c.status, c.code) })
	}
	refusal(t, w.Post(t, er(t, w.System), patients+"/search", `{"mrn":"MRN-77"}`, "X-Break-Glass-Reason", reason), 403, "forbidden")

	t.Run("whoever finds themselves finds them as the patient they are", func(t *testing.T) {
		self := w.Token(t, medtest.Claims{"sub": "carol", "roles": []string{"clinician"}, "practice_id": "north", "patient_id": id})
		if items, _ := rowsOf(t, search(self, `{"ssn":"987-65-4321"}`)); len(items) != 0 {
			t.Errorf("found by digits that are masked: %v", items)
		}
		if items, _ := rowsOf(t, search(self, `{"mrn":"MRN-77"}`)); len(items) != 1 || items[0]["dob"] != "****-**-03" {
			t.Errorf("got %v", items)
		}
	})
	t.Run("a tag that somebody planted finds nobody", func(t *testing.T) {
		medtest.Exec(t, w.DB.Super(t), `insert into medirecord.blind_index select practice_id, field, tag, $2, key_version from medirecord.blind_index where patient_id = $1 and field = 'mrn'`, id, other)
		if items, _ := rowsOf(t, search(w.nurse, `{"mrn":"MRN-77"}`)); !slices.Equal(idsOf(items), []string{id}) {
			t.Errorf("got %v", items)
		}
	})
	t.Run("a deleted patient is not found", func(t *testing.T) {
		_, tag := w.get(t, w.admin)
		w.Do(t, http.MethodDelete, w.admin, w.at(), "", "If-Match", tag)
		if items, _ := rowsOf(t, search(w.admin, `{"ssn":"987-65-4321"}`)); len(items) != 0 {
			t.Errorf("got %v", items)
		}
	})
}

func TestListOfPatients(t *testing.T) {
	t.Parallel()
	w := newClinic(t)
	want := []string{string(w.carol)}
	for i := range 4 {
		want = append(want, bodyOf(t, w.Post(t, w.clinician, patients, fmt.Sprintf(`{"name":{"family":"Listed","given":["N%d"]}}`, i)), 201).Data["id"].(string))
	}
	bodyOf(t, w.Post(t, w.Of(t, med.RoleClinician, medtest.South), patients, carol), 201)
	var got []string
	var cursors []string
	for next := ""; ; {
		path := patients + "?limit=2"
		if next != "" {
			path += "&cursor=" + next
		}
		a := w.Get(t, w.nurse, path)
		items, n := rowsOf(t, a)
		got = append(got, idsOf(items)...)
		for _, i := range items {
			if i["name"] == nil || i["ssn"] != nil {
				t.Errorf("got %v", i)
			}
		}
		if next = n; next == "" {
			break
		}
		cursors = append(cursors, next)
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("in the order in which they were made: %s", d)
	}
	for name, tok := range map[string]string{
		"another caller":               w.clinician,
		"the same of another practice": w.Token(t, medtest.Claims{"sub": "the-nurse", "roles": []string{"nurse"}, "practice_id": "south"}),
	} {
		t.Run("a cursor does not hold for "+name, func(t *testing.T) {
			refusal(t, w.Get(t, tok, patients+"?limit=2&cursor="+cursors[0]), 422, "cursor_invalid")
		})
	}
	refusal(t, w.Get(t, w.Of(t, med.RoleOfficer, medtest.North), patients), 403, "forbidden")
	refusal(t, w.Get(t, w.PatientOf(t, w.carol, medtest.North), patients), 403, "forbidden")
}
