// SPDX-License-Identifier: Apache-2.0

package med

import (
	"slices"
	"time"
)

// GlassID names a break-glass grant.
type GlassID string

// Glass is a break-glass grant as it was written down, with its review.
type Glass struct {
	ID              GlassID
	Patient         PatientID
	Practice        PracticeID // the patient's
	Issuer, Subject string     // who opened it
	ReasonCode      string
	Reason          PHI // "" for who may not read it
	OpenedAt        time.Time
	ExpiresAt       time.Time
	EndedAt         time.Time // zero while it was not ended
	Review          GlassReview
	Event           EventID // of the call that returned it
	// MaxAge is how old a second factor may be that its opener is asked for, of a
	// grant beyond what care needs; 0: they are asked for none.
	MaxAge time.Duration
}

// GlassReview is what somebody else thought of a grant.
type GlassReview struct {
	State   string // due, done, overdue
	By      string // the reviewer's subject
	At      time.Time
	Verdict string
	Note    PHI // "" for who may not read it
}

// States of a review.
const (
	ReviewDue     = "due"
	ReviewDone    = "done"
	ReviewOverdue = "overdue"
)

// ReviewTime is how soon a grant is to be reviewed.
const ReviewTime = 24 * time.Hour

// Verdicts of a review.
var Verdicts = []string{"justified", "not_justified"}

// GlassStates are what a list of grants can be narrowed to: open, not reviewed
// yet, and not reviewed in time.
var GlassStates = []string{"open", ReviewDue, ReviewOverdue}

// GlassQuery asks for grants: those of the practice's patients for its officer
// and admin, one's own for everybody else.
type GlassQuery struct {
	State string // "" or one of GlassStates
	Page  Page
}

// GlassPage is one page of grants.
type GlassPage struct {
	Grants []Glass
	Next   string
	Event  EventID
}

// LookupAsk asks in an emergency who, in any practice, has this family name and
// birth date.
type LookupAsk struct {
	Family, DOB PHI
	ReasonCode  string
	Reason      PHI
}

// Candidate is somebody who has them.
type Candidate struct {
	ID   PatientID
	Name Name
	DOB  PHI
}

// Lookup is whom a lookup found: at most three. Of more it tells only that.
type Lookup struct {
	Candidates []Candidate
	TooMany    bool
	Event      EventID
}

// CheckText returns a reason or note that was sent in a body, trimmed. It
// reports Invalid, at the pointer, for one that CheckReason would not take.
func CheckText(pointer string, s PHI) (PHI, error) {
	text, err := CheckReason(s)
	if err != nil {
		return "", Invalid.New("").With(FieldError{Pointer: pointer, Reason: "10 to 500 characters, letters among them, no control or format characters"})
	}
	return text, nil
}

// CheckReasonCode reports Invalid for a coded reason that is none.
func CheckReasonCode(code string) error {
	if slices.Contains(ReasonCodes, code) {
		return nil
	}
	return Invalid.New("").With(FieldError{Pointer: "/reason_code", Reason: "not one of the coded reasons"})
}
