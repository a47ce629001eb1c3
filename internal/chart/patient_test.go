// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

func TestMain(m *testing.M) { medtest.Main(m) }

func TestReadPatient(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	for _, tc := range []struct {
		name, token string
		want        map[med.Field]med.PHI
	}{
		{"a clinician sees all", s.Of(t, med.RoleClinician, medtest.North), map[med.Field]med.PHI{"ssn": "123-45-6789", "dob": "1985-06-15", "diagnosis": "Essential hypertension"}},
		{"a nurse sees no SSN and no insurance", s.Of(t, med.RoleNurse, medtest.North), map[med.Field]med.PHI{"ssn": "", "dob": "1985-06-15", "diagnosis": "Essential hypertension"}},
		{"the patient sees masks and no diagnosis", s.PatientOf(t, alice, medtest.North), map[med.Field]med.PHI{"ssn": "***-**-6789", "dob": "****-**-15", "diagnosis": ""}},
		{"an admin with MFA sees all", s.Of(t, med.RoleAdmin, medtest.North), map[med.Field]med.PHI{"ssn": "123-45-6789", "dob": "1985-06-15", "diagnosis": "Essential hypertension"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.Caller(t, tc.token)
			got, err := s.Chart.ReadPatient(t.Context(), c, alice)
			if err != nil {
				t.Fatal(err)
			}
			for f, v := range map[med.Field]med.PHI{"ssn": got.SSN, "dob": got.DOB, "diagnosis": got.Diagnosis} {
				if v != tc.want[f] {
					t.Errorf("%s: got %q, want %q", f, v.Reveal(), tc.want[f].Reveal())
				}
			}
		})
	}
}
