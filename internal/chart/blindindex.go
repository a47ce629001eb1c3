// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
)

// indexed says of which fields each blind index is made. Never of a clinical
// one: its tags could be told by how often they come.
var indexed = map[string][]med.Field{
	"mrn": {med.FieldMRN}, "ssn": {med.FieldSSN}, "phone": {med.FieldPhone}, "email": {med.FieldEmail},
	"member_id": {med.FieldInsurance}, "family_dob": {med.FieldName, med.FieldDOB},
}

// normals are the patient's values in the form that is indexed, by index; ""
// for one that must not be, or is not there.
func normals(p *med.Patient) map[string]string {
	out := map[string]string{"source_id": p.SourceID.Reveal()}
	for index := range indexed {
		out[index] = normalOf(index, p)
	}
	return out
}

func normalOf(index string, p *med.Patient) string {
	var normal string
	var ok bool
	switch index {
	case "mrn":
		normal, ok = envelope.NormalMRN(p.MRN.Reveal())
	case "ssn":
		normal, ok = envelope.NormalSSN(p.SSN.Reveal())
	case "phone":
		normal, ok = envelope.NormalPhone(p.Phone.Reveal())
	case "email":
		normal, ok = envelope.NormalEmail(p.Email.Reveal())
	case "member_id":
		normal, ok = envelope.NormalMemberID(p.Insurance.MemberID.Reveal())
	case "family_dob":
		normal, ok = envelope.NormalFamilyDOB(p.Name.Family.Reveal(), p.DOB.Reveal())
	}
	if !ok {
		return ""
	}
	return normal
}

// tagOf returns the tag of a normal value; nil for none.
func tagOf(key *envelope.IndexKey, index, normal string) ([]byte, error) {
	if normal == "" {
		return nil, nil
	}
	tag, err := key.Tag(index, normal)
	return tag[:], err
}

// affected lists the indexes that a change of the fields makes stale.
func affected(changed []med.Field) []string {
	var out []string
	for index, of := range indexed {
		if slices.ContainsFunc(of, func(f med.Field) bool { return slices.Contains(changed, f) }) {
			out = append(out, index)
		}
	}
	slices.Sort(out)
	return out
}
