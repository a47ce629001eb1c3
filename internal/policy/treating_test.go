// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

// Who treats a patient, and a reason given, count among the staff of the
// patient's practice only: they open no other practice and no own record.
func TestTreatingCountsInTheSamePracticeOnly(t *testing.T) {
	t.Parallel()
	for _, relation := range med.Relations {
		for i := range questions {
			q := &questions[i]
			in := ask(q.action, q.resource, relation, med.RoleNurse)
			in.Resource.Treating, in.Subject.ReasonGiven = true, true
			same := relation == med.RelationSamePractice
			if f := in.normal(); f.treating != (same && q.treating) || f.reason != (same && (q.treating || q.reason)) {
				t.Errorf("%s: treating %v and a reason %v", f, f.treating, f.reason)
			}
		}
	}
	in := ask("create", "record", med.RelationSamePractice, RoleImport)
	in.Resource.Treating = true
	if in.normal().treating {
		t.Error("a service treats a patient")
	}
}

func TestThePolicyIsToldWhoTreatsAndWhyOneAsks(t *testing.T) {
	t.Parallel()
	const file = `package medirecord

decision := {
	"allow": true, "reason_code": concat("_", [word | some word, true in said]),
	"fields": {}, "write": {}, "obligations": {"notify": [], "max_rows": 0},
}

said := {"asked": true, "treating": input.resource.treating, "with_reason": input.subject.reason_given}
`
	e := compiled(t, Source{Name: "said.rego", Rego: []byte(file)})
	question := map[string]any{
		"action": "read", "context": map[string]any{"roles": []string{"nurse"}, "mfa": "done", "reason_given": true},
		"resource": map[string]any{"type": "patient", "relation": "same_practice", "treating": true, "sensitivity": "normal"},
	}
	for _, treating := range []bool{false, true} {
		for _, reason := range []bool{false, true} {
			in := ask("read", "patient", med.RelationSamePractice, med.RoleNurse)
			in.Resource.Treating, in.Subject.ReasonGiven = treating, reason
			want := "asked"
			if treating {
				want += "_treating"
			}
			if reason {
				want += "_with_reason"
			}
			if d := mustDecide(t, e, in); d.Reason != want {
				t.Errorf("treating %v, reason %v: the policy saw %q, want %q", treating, reason, d.Reason, want)
			}
		}
	}
	got, err := e.Evaluate(t.Context(), "data.medirecord.reason_code", question)
	if err == nil {
		t.Errorf("got %v of a rule that is not there", got)
	}
	whole, err := e.Evaluate(t.Context(), "data.medirecord.decision", question)
	if err != nil || whole.(map[string]any)["reason_code"] != "asked_treating_with_reason" {
		t.Errorf("Evaluate says %v, error %v", whole, err)
	}
}
