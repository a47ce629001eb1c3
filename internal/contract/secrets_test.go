// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"strings"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// secret is a value of a patient that not everybody may see, and who may.
type secret struct {
	name, text string
	readers    string // roles of the patient's practice
	patient    med.PatientID
	south      bool
	self       string // the token of the patient, when they see it
}

// secrets are the values that the world's patients were made with: who sees
// which is the table of rules.md section 2.
func (w *world) secrets() []secret {
	var out []secret
	for id, who := range map[med.PatientID]string{alice: "patient", bob: "bob", carol: "carol"} {
		p := w.people[id]
		add := func(name, readers, self string, value med.PHI) {
			out = append(out, secret{who + "'s " + name, value.Reveal(), readers, id, p.practice == medtest.South, self})
		}
		add("name", "nurse clinician admin", who, p.Name.Text)
		add("dob", "nurse clinician admin", "", p.DOB)
		add("ssn", "clinician admin", "", p.SSN)
		add("diagnosis", "nurse clinician admin", "", p.Diagnosis)
		add("mrn", "nurse clinician admin", who, p.MRN)
		add("phone", "nurse clinician admin", who, p.Phone)
		add("email", "nurse clinician admin", who, p.Email)
		add("member id", "clinician admin", who, p.Insurance.MemberID)
		for _, r := range p.records {
			readers, self := "nurse clinician admin", ""
			switch {
			case r.Sensitivity == med.SensitivityPsychotherapy:
				readers = "" // its author, who is nobody here
			case r.Sensitivity == med.SensitivityRestricted || r.Kind == med.KindClaim:
				readers = "clinician admin"
			case r.Kind == med.KindObservation || r.Kind == med.KindMedication:
				self = who
			}
			add(string(r.Sensitivity)+" "+string(r.Kind), readers, self, r.Note)
		}
	}
	return out
}

// shown reports whether the bearer of the token may see it in an answer to the
// request.
func (s secret) shown(who string, r *request) bool {
	role, south := strings.CutSuffix(who, " of South")
	switch {
	case who == s.self:
		return true
	case s.readers == "":
		return false
	case r.op.ID == "lookup-patients" && (role == "clinician" || role == "break_glass"):
		// Whoever knows the family name and birth date is told both, of any practice.
		return strings.HasSuffix(s.name, "'s name") || strings.HasSuffix(s.name, "'s dob")
	case role == "break_glass":
		// An emergency opens a patient of any practice: the one that is named.
		return strings.Contains(r.target(), string(s.patient))
	}
	for _, reader := range strings.Fields(s.readers) {
		if role == reader && south == s.south {
			return true
		}
	}
	return false
}
