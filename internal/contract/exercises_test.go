// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// exercise is how an operation is asked so that it serves. What is not told is
// made from the file: its examples, and the patient alice for {id}.
type exercise struct {
	as string // whose token of the world; a role of North
	// in gives path parameters, headers and query parameters by name, made anew
	// for each request.
	in func(t testing.TB, w *world) map[string]string
	// body is the body, where one of the examples' values will not do.
	body func(t testing.TB, w *world) any
	// alone: its optional parameters hold only together with others.
	alone []string
	// provoke makes of a good request one that ends in the problem, where no
	// general way leads there.
	provoke map[string]func(t testing.TB, w *world, r *request)
	// never says why a problem that the operation documents cannot be provoked
	// from outside.
	never map[string]string
	// opens: it opens to its caller what they do not else see, and says so to an
	// officer. Who may see what is not asked of it, nor after it.
	opens bool
}

// exercises are those of all operations, by id.
func exercises() map[string]exercise {
	return map[string]exercise{
		"read-patient":         {as: "clinician"},
		"read-patient-audit":   {as: "admin"},
		"list-accesses":        {as: "patient"},
		"list-audit-logs":      {as: "officer"},
		"list-user-audit-logs": {as: "officer", in: func(testing.TB, *world) map[string]string { return map[string]string{"userId": "the-clinician"} }},
		"read-audit-checkpoint": {as: "officer", in: func(t testing.TB, w *world) map[string]string {
			w.sealed(t)
			return nil
		}},
		"prove-audit-entry": {as: "officer", in: func(t testing.TB, w *world) map[string]string {
			return map[string]string{"eventId": w.sealed(t)}
		}},
		"prove-accesses": {as: "patient", in: func(t testing.TB, w *world) map[string]string {
			w.sealed(t)
			return nil
		}},
		"read-accounting":  {as: "patient"},
		"print-accounting": {as: "patient"},
		"create-patient": {
			as: "clinician", body: func(testing.TB, *world) any { return newPatient() },
			in: keyed,
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) {
				w.send(t, r)
				other := newPatient()
				other["phone"] = "+1 555 0199"
				r.body = marshal(t, other)
			}},
		},
		"get-patient":     {as: "clinician"},
		"list-patients":   {as: "nurse"},
		"search-patients": {as: "clinician", body: func(testing.TB, *world) any { return map[string]any{"family": "Smith", "dob": "1985-06-15"} }},
		"update-patient": {
			as: "clinician", in: func(t testing.TB, w *world) map[string]string { return w.lastSeen(t, "clinician", "") },
			body:    func(testing.TB, *world) any { return map[string]any{"phone": "+1 555 0101"} },
			provoke: map[string]func(testing.TB, *world, *request){"stale": stale, "precondition-required": unconditional},
		},
		"delete-patient": {
			as: "admin", in: func(t testing.TB, w *world) map[string]string { return w.lastSeen(t, "admin", w.another(t)) },
			provoke: map[string]func(testing.TB, *world, *request){"stale": stale, "precondition-required": unconditional},
		},
		"restore-patient": {
			as: "admin", in: func(t testing.TB, w *world) map[string]string {
				gone := w.lastSeen(t, "admin", w.another(t))
				r := &request{
					op: w.operation(t, "delete-patient"), method: "DELETE", token: w.tokens["admin"],
					path: map[string]string{"id": gone["id"]}, header: map[string]string{"If-Match": gone["If-Match"]},
				}
				if a := w.surely(t, r); a.status != 204 {
					t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
				}
				return map[string]string{"id": gone["id"]}
			},
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) { w.send(t, r) }},
		},
		"list-records": {as: "clinician"},
		"create-record": {
			as: "clinician", body: func(testing.TB, *world) any { return newRecord() },
			in: keyed,
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) {
				w.send(t, r)
				other := newRecord()
				other["note"] = "another"
				r.body = marshal(t, other)
			}},
		},
		"get-record":           {as: "clinician", in: func(t testing.TB, w *world) map[string]string { return w.record(t, false) }},
		"list-record-versions": {as: "clinician", in: func(t testing.TB, w *world) map[string]string { return w.record(t, false) }},
		"update-record": {
			as: "clinician", in: func(t testing.TB, w *world) map[string]string { return w.record(t, true) },
			body:    func(testing.TB, *world) any { return map[string]any{"note": "changed"} },
			provoke: map[string]func(testing.TB, *world, *request){"stale": stale, "precondition-required": unconditional, "conflict": inError},
		},
		"delete-record": {
			as: "clinician", in: func(t testing.TB, w *world) map[string]string { return w.record(t, true) },
			provoke: map[string]func(testing.TB, *world, *request){"stale": stale, "precondition-required": unconditional, "conflict": inError},
		},
		"record-disclosure": {
			as: "clinician", body: func(testing.TB, *world) any { return disclosed() }, in: keyed,
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) {
				w.send(t, r)
				other := disclosed()
				other["description"] = "Another report"
				r.body = marshal(t, other)
			}},
		},
		"add-appointment":   {as: "nurse", body: func(_ testing.TB, w *world) any { return treated(w) }, in: keyed, provoke: treatedTwice()},
		"add-assignment":    {as: "admin", body: func(_ testing.TB, w *world) any { return treated(w) }, in: keyed, provoke: treatedTwice()},
		"list-appointments": {as: "clinician", in: listed("add-appointment")},
		"list-assignments":  {as: "clinician", in: listed("add-assignment")},
		"end-appointment":   {as: "nurse", in: ended("add-appointment")},
		"end-assignment":    {as: "nurse", in: ended("add-assignment")},
		"amend-disclosure": {
			as: "admin",
			in: func(t testing.TB, w *world) map[string]string {
				return map[string]string{"disclosure": w.disclosure(t)}
			},
			body: func(testing.TB, *world) any { return map[string]any{"correction": disclosed()} },
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) {
				r.body = []byte(`{"entered_in_error":true}`)
				w.send(t, r)
			}},
		},
		"open-break-glass": {
			as: "clinician", opens: true, body: func(testing.TB, *world) any { return emergency(alice) },
			provoke: map[string]func(testing.TB, *world, *request){"not-found": func(t testing.TB, _ *world, r *request) {
				r.body = marshal(t, emergency("p-nobody"))
			}},
		},
		"lookup-patients": {
			as: "clinician", opens: true,
			body: func(_ testing.TB, w *world) any {
				who := w.people[alice]
				return map[string]any{"family": who.Name.Family.Reveal(), "dob": who.DOB.Reveal(), "reason_code": "patient_unconscious", "reason": "Unconscious after a fall, no papers"}
			},
		},
		"list-break-glass": {as: "officer", in: func(t testing.TB, w *world) map[string]string {
			w.grant(t) // so that there is a reason to open
			return nil
		}},
		"read-break-glass": {as: "officer", in: func(t testing.TB, w *world) map[string]string {
			return map[string]string{"grant": w.grant(t)}
		}},
		"end-break-glass": {
			as: "officer", in: func(t testing.TB, w *world) map[string]string { return map[string]string{"grant": w.grant(t)} },
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) { w.send(t, r) }},
		},
		"review-break-glass": {
			as: "officer", in: func(t testing.TB, w *world) map[string]string { return map[string]string{"grant": w.grant(t)} },
			body: func(testing.TB, *world) any {
				return map[string]any{"verdict": "justified", "note": "Admitted by ambulance, no relative reachable"}
			},
			provoke: map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) { w.send(t, r) }},
		},
	}
}

// treated is an hour in which the clinician has to do with alice.
func treated(w *world) map[string]any {
	now := time.Now().UTC().Truncate(time.Second)
	return map[string]any{"patient_id": string(w.alice), "subject": "the-clinician", "from": now, "to": now.Add(time.Hour)}
}

// keyed is a key that nothing came with yet.
func keyed(testing.TB, *world) map[string]string {
	return map[string]string{"Idempotency-Key": med.NewUUID(time.Now())}
}

// treatedTwice sends what was sent once more, under the same id and another key.
func treatedTwice() map[string]func(testing.TB, *world, *request) {
	return map[string]func(testing.TB, *world, *request){"conflict": func(t testing.TB, w *world, r *request) {
		twice := treated(w)
		twice["id"] = med.NewUUID(time.Now())
		r.body = marshal(t, twice)
		w.send(t, r)
		r.header["Idempotency-Key"] = med.NewUUID(time.Now())
	}}
}

// ended names a relation that can be ended, made by the operation.
func ended(by string) func(testing.TB, *world) map[string]string {
	return func(t testing.TB, w *world) map[string]string {
		t.Helper()
		a := w.surely(t, w.good(t, w.operation(t, by)))
		return map[string]string{"id": a.data(t)["id"].(string), "patient_id": string(w.alice)}
	}
}

// listed makes two relations by the operation, so that a short page has a next.
func listed(by string) func(testing.TB, *world) map[string]string {
	return func(t testing.TB, w *world) map[string]string {
		t.Helper()
		ended(by)(t, w)
		ended(by)(t, w)
		return map[string]string{"patient_id": string(w.alice)}
	}
}

// emergency asks to break the glass for a patient.
func emergency(patient med.PatientID) map[string]any {
	return map[string]any{"patient_id": string(patient), "reason_code": "patient_unconscious", "reason": "Unconscious after a fall, allergies unknown"}
}

// grant is a new grant on alice, by somebody new: a person has but so many an hour.
func (w *world) grant(t testing.TB) string {
	t.Helper()
	r := w.good(t, w.operation(t, "open-break-glass"))
	r.token = w.Token(t, medtest.Claims{"sub": "dr-" + med.NewUUID(time.Now()), "roles": []string{"clinician"}, "practice_id": string(medtest.South)})
	return w.surely(t, r).data(t)["id"].(string)
}

// disclosed is a disclosure that lacks nothing.
func disclosed() map[string]any {
	return map[string]any{
		"recipient": map[string]any{"name": "County Health Department"}, "basis": "public_health", "purpose": "Notifiable disease",
		"description": "Laboratory report", "disclosed_on": med.DayOf(time.Now()).Plus(-1).Reveal(),
	}
}

// newPatient is a patient as they are made.
func newPatient() map[string]any {
	return map[string]any{"name": map[string]any{"family": "Exercise", "given": []string{"New"}}, "dob": "1990-01-02"}
}

// newRecord is a record as they are made.
func newRecord() map[string]any {
	return map[string]any{
		"kind": "observation", "status": "final", "effective": map[string]any{"start": "2026-03-01"}, "value": map[string]any{"quantity": "5.4 %"},
		"code": []any{map[string]any{"system": "http://loinc.org", "code": "4548-4", "display": "Hemoglobin A1c"}},
	}
}

// record makes a record of alice, and names it and the state it is in.
func (w *world) record(t testing.TB, match bool) map[string]string {
	t.Helper()
	r := &request{op: w.operation(t, "create-record"), method: "POST", token: w.tokens["clinician"], path: map[string]string{"id": string(w.alice)}, body: marshal(t, newRecord()), header: map[string]string{}}
	a := w.surely(t, r)
	out := map[string]string{"record": a.data(t)["id"].(string)}
	if match {
		out["If-Match"] = a.header.Get("ETag")
	}
	return out
}

// inError marks the record of the request as entered in error, and sees it so.
func inError(t testing.TB, w *world, r *request) {
	d := &request{op: w.operation(t, "delete-record"), method: "DELETE", token: w.tokens["clinician"], path: r.path, header: map[string]string{"If-Match": r.header["If-Match"]}}
	if a := w.send(t, d); a.status != 204 {
		t.Fatalf("%s\ngot %d %s", d, a.status, a.body)
	}
	g := &request{op: w.operation(t, "get-record"), method: "GET", token: w.tokens["clinician"], path: r.path, header: map[string]string{}}
	r.header["If-Match"] = w.send(t, g).header.Get("ETag")
}

// another makes one more patient of North, and returns their id.
func (w *world) another(t testing.TB) string {
	t.Helper()
	r := &request{op: w.operation(t, "create-patient"), method: "POST", token: w.tokens["clinician"], body: marshal(t, newPatient()), header: map[string]string{}}
	return w.surely(t, r).data(t)["id"].(string)
}

// lastSeen names a patient, alice unless it says otherwise, and the state in
// which somebody sees them.
func (w *world) lastSeen(t testing.TB, who, id string) map[string]string {
	t.Helper()
	if id == "" {
		id = string(w.alice)
	}
	r := &request{op: w.operation(t, "get-patient"), method: "GET", token: w.tokens[who], path: map[string]string{"id": id}, header: map[string]string{}}
	a := w.surely(t, r)
	if a.status != 200 {
		t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
	}
	return map[string]string{"id": id, "If-Match": a.header.Get("ETag")}
}

func stale(_ testing.TB, _ *world, r *request) { r.header["If-Match"] = `"of-another-day"` }

func unconditional(_ testing.TB, _ *world, r *request) { delete(r.header, "If-Match") }

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sealed is an entry about alice that is sealed into the log: the same each time.
func (w *world) sealed(t testing.TB) string {
	t.Helper()
	if w.entry != "" {
		return w.entry
	}
	a := w.read(t, "clinician")
	w.log.Seal(t)
	w.entry = a.header.Get("Audit-Event-Id")
	return w.entry
}

// read reads alice, with headers as name, value pairs.
func (w *world) read(t testing.TB, who string, headers ...string) *answer {
	t.Helper()
	r := &request{op: w.operation(t, "read-patient"), method: "GET", token: w.tokens[who], path: map[string]string{"id": string(alice)}, header: map[string]string{}}
	for i := 0; i+1 < len(headers); i += 2 {
		r.header[headers[i]] = headers[i+1]
	}
	a := w.surely(t, r)
	if a.status != 200 {
		t.Fatalf("%s\ngot %d %s", r, a.status, a.body)
	}
	return a
}

// disclosure is one of alice that can be amended.
func (w *world) disclosure(t testing.TB) string {
	t.Helper()
	a := w.surely(t, w.good(t, w.operation(t, "record-disclosure")))
	return a.data(t)["id"].(string)
}

func (w *world) operation(t testing.TB, id string) *operation {
	t.Helper()
	for _, op := range w.spec.operations {
		if op.ID == id {
			return op
		}
	}
	t.Fatalf("the file has no operation %s", id)
	return nil
}

// data is the data of an answer of the versioned face.
func (a *answer) data(t testing.TB) map[string]any {
	t.Helper()
	var e struct {
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status/100 != 2 {
		t.Fatalf("got %d %s: %v", a.status, a.body, err)
	}
	return e.Data
}
