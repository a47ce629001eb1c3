// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

func mayRecord(tok, action string) *pb.Question {
	return &pb.Question{Ask: &pb.Question_May{May: &pb.May{Token: tok, Action: action, ResourceType: "record", PatientId: "p-001"}}}
}

// allowedTo says whether the ruling allows a sort of record in one relation.
func allowedTo(r *pb.Ruling, rel med.Relation, k med.Kind, s med.Sensitivity, a med.Authorship) *pb.Decision {
	cell, _ := med.RecordCell(k, s, a)
	for _, g := range saidOf(r).GetRecords() {
		for _, c := range g.GetCells() {
			if g.GetRelation() == string(rel) && int(c) == cell {
				return g.GetDecision()
			}
		}
	}
	return nil
}

func TestARulingOnRecordsDecidesEachSort(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	const (
		same, self          = med.RelationSamePractice, med.RelationSelf
		normal, restricted  = med.SensitivityNormal, med.SensitivityRestricted
		therapy             = med.SensitivityPsychotherapy
		other, own, ownSoon = med.AuthorshipOther, med.AuthorshipOwn, med.AuthorshipOwnRecent
	)
	for _, tc := range []struct {
		role   med.Role
		action string
		rel    med.Relation
		kind   med.Kind
		s      med.Sensitivity
		a      med.Authorship
		want   bool
	}{
		{med.RolePatient, "read", self, med.KindObservation, normal, other, true},
		{med.RolePatient, "read", self, med.KindObservation, restricted, other, true},
		{med.RolePatient, "read", self, med.KindCondition, normal, other, false},
		{med.RolePatient, "read", self, med.KindObservation, therapy, other, false},
		{med.RolePatient, "read", same, med.KindObservation, normal, other, false},
		{med.RoleNurse, "read", same, med.KindCondition, normal, other, true},
		{med.RoleNurse, "read", same, med.KindCondition, restricted, own, false},
		{med.RoleNurse, "read", same, med.KindClaim, normal, other, false},
		{med.RoleNurse, "create", same, med.KindObservation, normal, own, true},
		{med.RoleNurse, "create", same, med.KindCondition, normal, own, false},
		{med.RoleNurse, "delete", same, med.KindObservation, normal, ownSoon, true},
		{med.RoleNurse, "delete", same, med.KindObservation, normal, own, false},
		{med.RoleClinician, "read", same, med.KindDocument, therapy, own, true},
		{med.RoleClinician, "read", same, med.KindDocument, therapy, other, false},
		{med.RoleClinician, "read", self, med.KindDocument, therapy, own, false},
		{med.RoleClinician, "update", same, med.KindClaim, restricted, other, true},
		{med.RoleClinician, "delete", same, med.KindClaim, normal, other, false},
		{med.RoleAdmin, "delete", same, med.KindClaim, restricted, other, true},
		{med.RoleAdmin, "create", same, med.KindClaim, normal, other, false},
		{med.RoleOfficer, "read", same, med.KindObservation, normal, other, false},
	} {
		r := w.one(t, mayRecord(w.of(t, tc.role), tc.action)).GetRuling()
		d := allowedTo(r, tc.rel, tc.kind, tc.s, tc.a)
		if d.GetAllow() != tc.want {
			t.Errorf("%s, %s of %s %s %s, %s: got %v, want %v", tc.role, tc.action, tc.kind, tc.s, tc.a, tc.rel, d.GetAllow(), tc.want)
		}
		if tc.want && !saidOf(r).GetDecisions()[string(tc.rel)].GetAllow() {
			t.Errorf("%s, %s: the relation as a whole is denied", tc.role, tc.action)
		}
	}
}

func TestARulingOnRecordsIsRememberedAndSmall(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.of(t, med.RoleClinician)
	first, second := w.one(t, mayRecord(tok, "read")).GetRuling(), w.one(t, mayRecord(tok, "read")).GetRuling()
	if len(saidOf(first).GetRecords()) == 0 || len(saidOf(first).GetRecords()) != len(saidOf(second).GetRecords()) {
		t.Fatalf("got %d and %d groups", len(saidOf(first).GetRecords()), len(saidOf(second).GetRecords()))
	}
	if n := proto.Size(&pb.Said{Records: saidOf(first).GetRecords()}); n > 1024 {
		t.Errorf("what the policy says of a clinician's reads takes %d bytes on the wire", n)
	}
	if len(saidOf(w.one(t, may(tok, "p-001")).GetRuling()).GetRecords()) > 0 {
		t.Error("a ruling on a patient speaks of records")
	}
	if c := contextOf(t, w, first); c.Action != "record.read" || c.Patient != "p-001" {
		t.Errorf("got the context %+v", c)
	}
}

// saidOf takes apart what a ruling says.
func saidOf(r *pb.Ruling) *pb.Said {
	var out pb.Said
	if err := proto.Unmarshal(r.GetSaid(), &out); err != nil {
		panic(err)
	}
	return &out
}
