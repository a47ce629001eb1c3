// SPDX-License-Identifier: Apache-2.0

package med

import "time"

// Kind is what a record is about.
type Kind string

// The kinds of record (FHIR resource types in brackets where they differ).
const (
	KindCondition    Kind = "condition"
	KindObservation  Kind = "observation"
	KindMedication   Kind = "medication" // MedicationRequest and its kin
	KindAllergy      Kind = "allergy"    // AllergyIntolerance
	KindImmunization Kind = "immunization"
	KindProcedure    Kind = "procedure"
	KindEncounter    Kind = "encounter"
	KindReport       Kind = "report"   // DiagnosticReport
	KindDocument     Kind = "document" // DocumentReference
	KindCareplan     Kind = "careplan"
	KindClaim        Kind = "claim" // Claim, ExplanationOfBenefit, Coverage
	KindOther        Kind = "other" // kept whole, not mapped
)

// Kinds lists every kind.
var Kinds = []Kind{
	KindCondition, KindObservation, KindMedication, KindAllergy, KindImmunization, KindProcedure,
	KindEncounter, KindReport, KindDocument, KindCareplan, KindClaim, KindOther,
}

// Sensitivity of a record: who beyond the treating roles may see it.
type Sensitivity string

// From open to closed. An unknown sensitivity is read as restricted.
const (
	SensitivityNormal        Sensitivity = "normal"
	SensitivityRestricted    Sensitivity = "restricted"
	SensitivityPsychotherapy Sensitivity = "psychotherapy"
)

// Sensitivities lists them, from open to closed.
var Sensitivities = []Sensitivity{SensitivityNormal, SensitivityRestricted, SensitivityPsychotherapy}

// Strictest returns the most closed of the sensitivities: of a record that has
// several parts, all of it is as closed as the most closed part. An unknown one
// counts as restricted, none as normal.
func Strictest(all ...Sensitivity) Sensitivity {
	most := 0
	for _, s := range all {
		most = max(most, s.rank())
	}
	return Sensitivities[most]
}

func (s Sensitivity) rank() int {
	switch s {
	case SensitivityNormal, "":
		return 0
	case SensitivityPsychotherapy:
		return 2
	default: // an unknown one is as closed as a restricted one
		return 1
	}
}

// Authorship says whether a record is the caller's own.
type Authorship string

// OwnRecent is the caller's own of the last 24 hours.
const (
	AuthorshipOther     Authorship = "other"
	AuthorshipOwn       Authorship = "own"
	AuthorshipOwnRecent Authorship = "own_recent"
)

// Authorships lists them.
var Authorships = []Authorship{AuthorshipOther, AuthorshipOwn, AuthorshipOwnRecent}

// Record is one health record in clear.
type Record struct {
	ID          RecordID
	Patient     PatientID
	Kind        Kind
	Type        string // FHIR resource type it came from
	Codes       []Code
	Status      PHI
	Start, End  PHI // FHIR dateTime, as precise as the source
	Value       Value
	Note        PHI
	Author      PHI
	Sensitivity Sensitivity
	// Active says of a condition that it belongs in the diagnosis line: active,
	// and a problem-list item or uncategorised.
	Active bool
	// Source is the FHIR resource the record came from, whole.
	Source PHI

	// InError: it was marked as entered in error.
	InError bool

	Version              int64
	CreatedAt, UpdatedAt time.Time
}

// RecordView is a record as one caller may see it. What it hides was never
// opened.
type RecordView struct {
	Record
	View View
	// Tag names what is seen here, as of a patient. Version and UpdatedAt are
	// there for those only from whom nothing is hidden.
	Tag string
	// Event is the audit entry of this call.
	Event EventID
	// Suspect: the chart is not what its manifest says, or that is not there. An
	// alarm was raised.
	Suspect bool
	// MaxAge is the break-glass grant's.
	MaxAge time.Duration
}

// RecordAsk says which records are wanted: of one kind, when it is named; of
// care from one day to another, both included, where they are days.
type RecordAsk struct {
	Kind     Kind
	From, To Day
}

// RecordPage is one page of records, newest care first.
type RecordPage struct {
	Records []RecordView
	Next    string // cursor of the next page; "" on the last
	View    View
	Event   EventID
	Suspect bool
	MaxAge  time.Duration // the break-glass grant's
}

// Code is one coding of a concept.
type Code struct {
	System, Code, Display PHI
}

// Value is what was observed: one of the three, as text so that the precision
// of the source stays.
type Value struct {
	Quantity PHI // number and unit as text: "5.4 mmol/L"
	Text     PHI
	Code     *Code
}
