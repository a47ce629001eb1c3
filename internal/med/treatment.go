// SPDX-License-Identifier: Apache-2.0

package med

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"
)

// TreatmentID names one relation of a member of staff to a patient: a UUID.
type TreatmentID string

// TreatmentKind is how somebody has to do with a patient.
type TreatmentKind string

// The kinds. Appointments and assignments are written by people; the others
// come with an import.
const (
	TreatmentEncounter   TreatmentKind = "encounter"
	TreatmentAppointment TreatmentKind = "appointment"
	TreatmentAssignment  TreatmentKind = "assignment"
	TreatmentOrder       TreatmentKind = "order"
	TreatmentCareTeam    TreatmentKind = "care_team"
)

// longest is how long a relation that a person writes may be valid, by kind: one
// for ever would explain every later access.
var longest = map[TreatmentKind]time.Duration{
	TreatmentAppointment: 24 * time.Hour,
	TreatmentAssignment:  366 * 24 * time.Hour,
}

// Treatment says that a member of staff has to do with a patient for a time. It
// is never removed, only ended.
type Treatment struct {
	ID      TreatmentID
	Kind    TreatmentKind
	Patient PatientID
	// Issuer and Subject are who of the staff.
	Issuer, Subject string
	From, To        time.Time

	// SelfWritten: who wrote it is whom it is about. It proves nothing.
	SelfWritten bool
	Event       EventID // its entry
	CreatedAt   time.Time
	EndedAt     time.Time // zero: not ended
}

// Check reports Invalid for a relation that names nobody of the staff, is not one
// that people write, begins more than a day before now or more than two years
// after, or lasts longer than its kind may.
func (t *Treatment) Check(now time.Time) error {
	var wrong []FieldError
	for name, s := range map[string]string{"/issuer": t.Issuer, "/subject": t.Subject} {
		if s == "" || len(s) > 255 || !utf8.ValidString(s) || slices.ContainsFunc([]rune(s), func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			wrong = append(wrong, FieldError{Pointer: name, Reason: "1 to 255 bytes of text without control characters"})
		}
	}
	if t.ID != "" && !IsUUID(string(t.ID)) {
		wrong = append(wrong, FieldError{Pointer: "/id", Reason: "not a UUID"})
	}
	most, written := longest[t.Kind]
	switch {
	case !written:
		wrong = append(wrong, FieldError{Pointer: "/kind", Reason: "not one that people write"})
	case t.From.Before(now.Add(-24*time.Hour)) || t.From.After(now.Add(2*366*24*time.Hour)):
		// What is written afterwards explains nothing that was done before.
		wrong = append(wrong, FieldError{Pointer: "/from", Reason: "more than a day ago, or more than two years from now"})
	case t.To.Before(t.From):
		wrong = append(wrong, FieldError{Pointer: "/to", Reason: "before from"})
	case t.To.Sub(t.From) > most:
		wrong = append(wrong, FieldError{Pointer: "/to", Reason: "later than such a relation may last: a day for an appointment, 366 days for an assignment"})
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.SortFunc(wrong, func(a, b FieldError) int { return cmp.Compare(a.Pointer, b.Pointer) })
	return Invalid.New("").With(wrong...)
}

// TreatmentQuery asks for the relations of one kind: of a patient, or, without
// one, the caller's own.
type TreatmentQuery struct {
	Kind    TreatmentKind
	Patient PatientID
	Page    Page
}

// TreatmentPage is a page of relations, those that begin last first.
type TreatmentPage struct {
	Treatments []Treatment
	Next       string
	Event      EventID
}

// SourceTreatment is a relation as a source of imports tells it.
type SourceTreatment struct {
	// Origin names it at its source: the resource and the practitioner.
	Origin       string
	Kind         TreatmentKind
	Practitioner string // as the source names them
	From, To     time.Time
	Open         bool // it has no end yet; To does not count
	Void         bool // the source took it back
}
