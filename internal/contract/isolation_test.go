// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// TestTenantIsolation shows to people of South everything that people of North
// were given: the resources of every operation, cursors, entity tags, idempotency
// keys, grants, entries. It opens nothing, changes nothing, and tells nothing.
func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := &fuzz{world: w, super: w.DB.Super(t)}
	north := w.secrets()
	north = slices.DeleteFunc(north, func(s secret) bool { return s.south })
	south := []string{"carol"}
	for _, role := range roles {
		south = append(south, string(role)+" of South")
	}
	// apart reports an answer to South that is not as if North were not there.
	apart := func(t *testing.T, what, who string, r *request) *answer {
		t.Helper()
		f.state = f.fingerprint(t)
		before := f.state
		a := w.expect(t, r)
		all := a.body + " " + a.header.Get("Location") + " " + a.header.Get("ETag")
		for _, s := range north {
			if strings.Contains(all, s.text) {
				t.Errorf("%s: %s\n%s is told %s", what, r, who, s.name)
			}
		}
		if a.status/100 == 2 && strings.Contains(all, `"practice_id":"north"`) {
			t.Errorf("%s: %s\n%s is told of North: %s", what, r, who, a.body)
		}
		if a.status >= 400 && r.header["X-Break-Glass-Reason"] == "" {
			if after := f.fingerprint(t); !maps.Equal(before, after) {
				t.Errorf("%s: %s\n%s was refused, and changed something", what, r, who)
			}
		}
		return a
	}
	for _, op := range w.spec.operations {
		if exercises()[op.ID].opens {
			continue
		}
		t.Run(op.ID, func(t *testing.T) {
			for _, who := range south {
				// What is North's, after North has just had it: whatever is remembered is warm.
				r := w.good(t, op)
				served := w.send(t, r)
				r.token = w.tokens[who]
				a := apart(t, "the same request", who, r)
				if len(r.path) > 0 && r.path["userId"] == "" && a.status/100 == 2 {
					t.Errorf("%s\n%s is served what is North's: %d %s", r, who, a.status, a.body)
				}
				if op.parameter("query", "cursor") != nil {
					w.shownCursor(t, op, who, apart)
				}
				if tag := served.header.Get("ETag"); tag != "" && r.path["id"] != "" {
					r := w.good(t, op)
					r.token, r.header["If-None-Match"] = w.tokens[who], tag
					if a := apart(t, "an entity tag", who, r); a.status < 400 {
						t.Errorf("%s\n%s learns from North's entity tag: %d", r, who, a.status)
					}
				}
			}
		})
	}
	t.Run("queries of the trail", func(t *testing.T) {
		for _, query := range []map[string]string{{"patient": string(alice)}, {"actor": "the-break_glass"}, {"break_glass": "true"}, {"action": "read"}, {}} {
			r := w.good(t, w.operation(t, "list-audit-logs"))
			r.token, r.query = w.tokens["officer of South"], query
			a := apart(t, "a query", "officer of South", r)
			var rows struct {
				Data []struct {
					Actor struct {
						Practice string `json:"practice_id"`
					}
					Resource struct {
						Patient string `json:"patient_id"`
					}
				}
			}
			if err := json.Unmarshal([]byte(a.body), &rows); err != nil {
				t.Fatal(err)
			}
			for _, row := range rows.Data {
				if row.Actor.Practice != string(medtest.South) && row.Resource.Patient != string(carol) {
					t.Errorf("%v: the trail of South tells of %s and %s", query, row.Actor.Practice, row.Resource.Patient)
				}
			}
		}
	})
	t.Run("idempotency keys", func(t *testing.T) { w.sharedKeys(t) })
}

// shownCursor shows a cursor that North was given to somebody of South, and to
// somebody else of North.
func (w *world) shownCursor(t *testing.T, op *operation, who string, apart func(*testing.T, string, string, *request) *answer) {
	t.Helper()
	r := w.good(t, op)
	r.query["limit"] = "1"
	first := w.send(t, r)
	var page struct{ Page struct{ Next string } }
	if err := json.Unmarshal([]byte(first.body), &page); err != nil || page.Page.Next == "" {
		return // a list that is short by now has no cursor; the contract's test walks pages
	}
	r.query["cursor"] = page.Page.Next
	r.token = w.tokens[who]
	if a := apart(t, "a cursor", who, r); a.status/100 == 2 {
		t.Errorf("%s\n%s goes on where North was: %s", r, who, a.body)
	}
	// The same practice, and another person; and the same person, of another question.
	r.token = w.Token(t, medtest.Claims{"sub": "another", "roles": []string{exercises()[op.ID].as}, "practice_id": string(medtest.North), "patient_id": string(alice)})
	if exercises()[op.ID].as != string(med.RolePatient) {
		if a := w.expect(t, r); a.status/100 == 2 {
			t.Errorf("%s\nsomebody else goes on with the cursor: %s", r, a.body)
		}
	}
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name != "cursor" && p.Name != "limit" {
			other := w.good(t, op)
			if other.query[p.Name] != "" {
				continue // it is this question
			}
			other.query["cursor"], other.query[p.Name] = page.Page.Next, w.sampleOf(p)
			if a := w.expect(t, other); a.status/100 == 2 {
				t.Errorf("%s\nthe cursor holds for another question: %s", other, a.body)
			}
		}
	}
}

func (w *world) sampleOf(p *parameter) string {
	if len(p.Schema.Enum) > 0 {
		return p.Schema.Enum[0].(string)
	}
	if s, ok := p.Example.(string); ok {
		return s
	}
	s, _ := w.spec.sample(p.Schema, false).(string)
	return s
}

// sharedKeys has both practices use one idempotency key: neither learns of the
// other's resource.
func (w *world) sharedKeys(t *testing.T) {
	t.Helper()
	tried := 0
	for _, op := range w.spec.operations {
		if op.parameter("header", "Idempotency-Key") == nil || op.method != http.MethodPost || len(op.parameterNames("path")) > 0 {
			continue // below a patient of one practice the other is refused anyway, as above
		}
		tried++
		key := "shared-" + op.ID
		as := exercises()[op.ID].as
		made := map[string]string{}
		for _, who := range []string{as, as + " of South", as} {
			r := w.good(t, op)
			r.token, r.header["Idempotency-Key"] = w.tokens[who], key
			if body := made["body"]; body == "" {
				made["body"] = string(r.body)
			} else {
				r.body = []byte(body)
			}
			a := w.expect(t, r)
			if who != as && a.status == http.StatusForbidden && strings.Contains(made["body"], `"patient_id"`) {
				continue // North's patient is named in the body: refused, key or not
			}
			id, _ := a.data(t)["id"].(string)
			switch {
			case who == as && made[who] != "" && made[who] != id:
				t.Errorf("%s: the key made %s, and then %s", op.ID, made[who], id)
			case who != as && id == made[as]:
				t.Errorf("%s: South is given North's %s", op.ID, id)
			}
			made[who] = id
		}
	}
	t.Logf("%d operations with a key", tried)
}

func (op *operation) parameterNames(in string) (names []string) {
	for _, p := range op.Parameters {
		if p.In == in {
			names = append(names, p.Name)
		}
	}
	return names
}
