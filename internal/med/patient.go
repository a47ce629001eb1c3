// SPDX-License-Identifier: Apache-2.0

package med

import "time"

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
	// Event is the audit entry of this read.
	Event EventID
	// Suspect: the row is not what the chart's manifest says, or the manifest is
	// not there. An alarm was raised.
	Suspect bool
}
