// SPDX-License-Identifier: Apache-2.0

package med

// Show says how much of a field a caller sees. The zero value hides it.
type Show uint8

// From least to most.
const (
	Hide Show = iota
	Mask
	Reveal
)

// ParseShow reads the policy's word for it; an unknown word hides.
func ParseShow(s string) Show {
	switch s {
	case "reveal":
		return Reveal
	case "mask":
		return Mask
	}
	return Hide
}

func (s Show) String() string {
	switch s {
	case Reveal:
		return "reveal"
	case Mask:
		return "mask"
	default:
		return "hide"
	}
}

// Field names a field of a patient or a record, as the policy file does.
type Field string

// The fields of a patient that a policy speaks of. id, practice_id, version
// and the times are seen by everybody who may read at all.
const (
	FieldMRN         Field = "mrn"
	FieldName        Field = "name"
	FieldSSN         Field = "ssn"
	FieldDOB         Field = "dob"
	FieldSex         Field = "sex"
	FieldAddress     Field = "address"
	FieldPhone       Field = "phone"
	FieldEmail       Field = "email"
	FieldInsurance   Field = "insurance"
	FieldDiagnosis   Field = "diagnosis"
	FieldDeceasedAt  Field = "deceased_at"
	FieldSensitivity Field = "sensitivity"
)

// PatientFields lists the fields of a patient in the order of the tables.
var PatientFields = []Field{
	FieldMRN, FieldName, FieldSSN, FieldDOB, FieldSex, FieldAddress, FieldPhone, FieldEmail,
	FieldInsurance, FieldDiagnosis, FieldDeceasedAt, FieldSensitivity,
}

// The fields of a record that a policy speaks of, besides sensitivity.
const (
	FieldKind      Field = "kind"
	FieldCode      Field = "code"
	FieldStatus    Field = "status"
	FieldEffective Field = "effective"
	FieldValue     Field = "value"
	FieldNote      Field = "note"
	FieldAuthor    Field = "author"
	FieldSource    Field = "source"
)

// RecordFields lists the fields of a record in the order of the tables.
var RecordFields = []Field{
	FieldKind, FieldCode, FieldStatus, FieldEffective, FieldValue, FieldNote, FieldAuthor, FieldSensitivity, FieldSource,
}

// View says for each field how much a caller sees; a missing field is hidden.
// A view is shared between requests and must not be changed.
type View map[Field]Show

// Relation is how a caller stands to a patient.
type Relation string

// The relations of the policy. More will come (unit, proxy).
const (
	RelationSelf          Relation = "self"
	RelationSamePractice  Relation = "same_practice"
	RelationOtherPractice Relation = "other_practice"
)

// RelationTreating is RelationSamePractice of somebody who treats the patient.
// It is none that a policy names: a ruling has a decision for it only where the
// policy makes a difference, and the database says who treats.
const RelationTreating Relation = "treating"

// Relations lists them, narrowest first.
var Relations = []Relation{RelationSelf, RelationSamePractice, RelationOtherPractice}

// Decision is what the policy says about one relation.
type Decision struct {
	Allow   bool
	Reason  string // a reason code
	View    View
	Write   map[Field]bool
	Notify  []string
	MaxRows int // 0: no limit
}

// Ruling is the sidecar's answer to "may they": a decision for each relation
// the caller could have, and the signed context with which the database
// settles which one it is. Without a context, all are denied. What it says,
// Decisions, Records and Reads, is shared by all calls that were told the same:
// nobody may change it.
type Ruling struct {
	Decisions map[Relation]Decision
	Context   string // signed; goes to PostgreSQL as it is
	Nonce     string // of the context, for the trail
	MAC       string // of the entry that the context is used under, for the trail
	Grant     *Grant
	Revision  string // of the policy
	// Strict: the context opens rows only against a ticket, an entry of the
	// trail that was committed before.
	Strict bool
	// Records is, of an action on records, what may be done to which of them.
	// Decisions then says only whether there is any.
	Records map[Relation]*RecordTable
	// Reads is which of them may be read: Records, of reading. What may not be
	// read is not there, whatever the action.
	Reads map[Relation]*RecordTable
}
