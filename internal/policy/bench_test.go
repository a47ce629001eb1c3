// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

// BenchmarkDecide is one of the three numbers people quote.
func BenchmarkDecide(b *testing.B) {
	src, err := Embedded()
	if err != nil {
		b.Fatal(err)
	}
	e, err := compile(b.Context(), src)
	if err != nil {
		b.Fatal(err)
	}
	questions := []struct {
		name string
		in   Input
	}{
		{"one role", ask("read", "patient", med.RelationSamePractice, med.RoleNurse)},
		{"two roles", ask("read", "patient", med.RelationSamePractice, med.RoleNurse, med.RoleAdmin)},
		{"denied", ask("read", "patient", med.RelationOtherPractice, med.RoleNurse)},
	}
	for _, q := range questions {
		b.Run("hit/"+q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Decide(b.Context(), q.in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("miss/"+q.name, func(b *testing.B) {
			b.ReportAllocs()
			f := q.in.normal()
			for b.Loop() {
				if _, err := e.decide(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ask(action, resource string, relation med.Relation, roles ...med.Role) Input {
	return Input{
		Subject:  Subject{Roles: roles, MFA: med.MFADone},
		Action:   action,
		Resource: Resource{Type: resource, Relation: relation, Sensitivity: med.SensitivityNormal, Kind: med.KindObservation},
	}
}
