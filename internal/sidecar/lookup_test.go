// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// looking asks to look across practices, or, with a lookup and a patient, to
// open one whom it found.
func looking(tok, code, lookup, patient string) *pb.Question {
	return &pb.Question{Ask: &pb.Question_May{May: &pb.May{
		Token: tok, Action: "lookup", ResourceType: "break_glass", PatientId: patient, GrantId: lookup, Emergency: &pb.Emergency{ReasonCode: code},
	}}}
}

func TestALookup(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.token(t, claims{"sub": "dr-1", "sid": "s-1", "roles": []string{"clinician"}})
	r := w.one(t, looking(tok, "other", "", "")).GetRuling()
	c := contextOf(t, w, r)
	lookup := r.GetGrant().GetId()
	if c.Action != "break_glass.lookup" || c.Patient != "" || !med.IsUUID(c.Grant) || c.Grant != lookup || c.Session != "s-1" || c.Strict {
		t.Errorf("the question: %+v", c)
	}
	refused := func(what string, q *pb.Question, code string) {
		t.Helper()
		if a := w.one(t, q); a.GetRefusal().GetCode() != code {
			t.Errorf("%s: got %v, want %s", what, a, code)
		}
	}
	refused("a code that is none", looking(tok, "curious", "", ""), "invalid")
	refused("no code", &pb.Question{Ask: &pb.Question_May{May: &pb.May{Token: tok, Action: "lookup", ResourceType: "break_glass"}}}, "invalid")
	refused("a patient without a lookup", looking(tok, "other", "", "p-001"), "denied")
	refused("a lookup without a patient", looking(tok, "other", lookup, ""), "denied")
	refused("a lookup of nobody", looking(tok, "other", med.NewUUID(time.Now()), "p-001"), "denied")
	refused("another session's", looking(w.token(t, claims{"sub": "dr-1", "sid": "s-2", "roles": []string{"clinician"}}), "other", lookup, "p-001"), "denied")
	refused("another person's", looking(w.token(t, claims{"sub": "dr-2", "sid": "s-1", "roles": []string{"clinician"}}), "other", lookup, "p-001"), "denied")
	for _, p := range []string{"p-001", "p-002", "p-003", "p-001"} {
		r := w.one(t, looking(tok, "other", lookup, p)).GetRuling()
		if c := contextOf(t, w, r); c.Patient != p || c.Grant != lookup || !c.Strict || !r.GetStrict() {
			t.Errorf("one found: %+v", c)
		}
	}
	refused("a fourth", looking(tok, "other", lookup, "p-004"), "denied")
	if r := w.one(t, looking(w.of(t, med.RoleNurse), "other", "", "")).GetRuling(); r == nil || r.GetContext() != "" {
		t.Errorf("a nurse: got %v, want a no", r)
	}
}

func TestLookupsAreCounted(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	next := func(n int) *pb.Answer {
		return w.one(t, looking(w.token(t, claims{"sub": "dr-1", "sid": fmt.Sprint("s-", n), "roles": []string{"clinician"}}), "other", "", ""))
	}
	for n := range 20 {
		if a := next(n); a.GetRuling().GetContext() == "" {
			t.Fatalf("lookup %d: got %v", n+1, a)
		}
	}
	if a := next(20); a.GetRefusal().GetCode() != "rate_limited" {
		t.Errorf("one more: got %v", a)
	}
	w.clock.advance(61 * time.Minute)
	if a := next(21); a.GetRuling().GetContext() == "" {
		t.Errorf("an hour later: got %v", a)
	}
}

// Whoever reads, ends or reviews grants has no context that names a patient.
func TestGrantsAreLookedAfterWithoutAPatient(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for _, action := range []string{"read", "end", "review"} {
		ask := func(patient string) *pb.Answer {
			return w.one(t, &pb.Question{Ask: &pb.Question_May{May: &pb.May{
				Token: w.of(t, med.RoleOfficer), Action: action, ResourceType: "break_glass", GrantId: med.NewUUID(time.Now()), PatientId: patient,
			}}})
		}
		if c := contextOf(t, w, ask("").GetRuling()); c.Patient != "" || c.Grant == "" {
			t.Errorf("%s: %+v", action, c)
		}
		if a := ask("p-001"); a.GetRefusal().GetCode() != "invalid" {
			t.Errorf("%s, with a patient: got %v, want a no", action, a)
		}
	}
}
