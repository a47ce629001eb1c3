// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"strings"

	"github.com/medirecord/medirecord/internal/med"
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
	for _, p := range []struct {
		who    string
		id     med.PatientID
		south  bool
		values med.Patient
	}{{"patient", w.alice, false, w.people[w.alice]}, {"bob", w.bob, false, w.people[w.bob]}, {"carol", w.carol, true, w.people[w.carol]}} {
		for _, f := range []struct {
			name, readers, self string
			value               med.PHI
		}{
			{"name", "nurse clinician admin", p.who, p.values.Name.Text},
			{"dob", "nurse clinician admin", "", p.values.DOB},
			{"ssn", "clinician admin", "", p.values.SSN},
			{"diagnosis", "nurse clinician admin", "", p.values.Diagnosis},
			{"mrn", "nurse clinician admin", p.who, p.values.MRN},
			{"phone", "nurse clinician admin", p.who, p.values.Phone},
			{"email", "nurse clinician admin", p.who, p.values.Email},
			{"member id", "clinician admin", p.who, p.values.Insurance.MemberID},
		} {
			out = append(out, secret{p.who + "'s " + f.name, f.value.Reveal(), f.readers, p.id, p.south, f.self})
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
	case role == "break_glass" || r.header["X-Break-Glass-Reason"] != "":
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
