// SPDX-License-Identifier: Apache-2.0

package med

import (
	"maps"
	"slices"
	"time"
)

// Patient is a patient in clear. It exists inside the door and in what the
// importer hands to it; what leaves is a PatientView.
type Patient struct {
	ID         PatientID
	Practice   PracticeID
	MRN        PHI
	Name       Name
	SSN        PHI // ddd-dd-dddd
	DOB        PHI // YYYY, YYYY-MM or YYYY-MM-DD
	Sex        PHI // FHIR administrative-gender: male, female, other, unknown
	Address    Address
	Phone      PHI
	Email      PHI
	Insurance  Insurance
	Diagnosis  PHI
	DeceasedAt PHI // RFC 3339 or a FHIR date; "true" when only the fact is known

	// Sensitivity is normal or restricted.
	Sensitivity PHI
	// Source is the FHIR resource the patient came from, whole.
	Source PHI
	// SourceID names the patient at the source, so that a second import finds it.
	SourceID PHI

	Version              int64
	CreatedAt, UpdatedAt time.Time
}

// Name is a human name. Text is the name as a person would write it.
type Name struct {
	Family PHI
	Given  []PHI
	Text   PHI
}

// Address is a postal address (FHIR R4 Address without the geolocation).
type Address struct {
	Line       []PHI
	City       PHI
	State      PHI
	PostalCode PHI
	Country    PHI
}

// Insurance is the payer and the member's id with them.
type Insurance struct {
	Payer    PHI
	MemberID PHI
}

// PatientView is a patient as one caller may see it: fields outside the view
// were never opened.
type PatientView struct {
	Patient
	// View says which fields are in clear, masked and hidden.
	View View
	// Tag names what is seen here: it changes when that does, and not with what
	// is hidden. Version and UpdatedAt, which change with everything, are there
	// for those only from whom nothing is hidden.
	Tag string
	// Deleted patients are seen by an admin of their practice only.
	Deleted bool
	// Event is the audit entry of this read.
	Event EventID
	// Suspect: the row is not what the chart's manifest says, or the manifest is
	// not there. An alarm was raised.
	Suspect bool
	// MaxAge is the break-glass grant's.
	MaxAge time.Duration
}

// Patch is a JSON merge patch (RFC 7386) of a patient or a record: of each
// field that it names the JSON that is to come of it, null where it is to go.
type Patch map[Field]PHI

// Fields lists what the patch names, in the order of the alphabet.
func (p Patch) Fields() []Field { return slices.Sorted(maps.Keys(p)) }

// Once says that a request is made once: who sends the same with the same key
// again gets what the first made. Without a key it says nothing.
type Once struct {
	Key   string // as in the Idempotency-Key header
	Route string // what the key is for: the same key on another route is another
	Sent  PHI    // the JSON that was sent
}

// PatientPage is one page of a list of patients. Next begins the one after.
type PatientPage struct {
	Patients []*PatientView
	Next     string
	Event    EventID
	Suspect  bool // the row of one of them is not what was written
}
