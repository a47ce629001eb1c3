// SPDX-License-Identifier: Apache-2.0

package med

import "time"

// AccessEvent is one entry of the trail as the guide's face shows it.
type AccessEvent struct {
	ID        EventID
	Timestamp time.Time // UTC, to the millisecond
	Actor     string    // subject, or service:<name>
	Action    string    // read, break_glass, import, ...
	Resource  string    // patient/<id>
	Outcome   string    // success, access_granted, denied, failure
	Reason    PHI       // the break-glass reason, opened
	// BreakGlass is set when the access stood on a grant.
	BreakGlass            bool
	Clear, Masked, Hidden []Field
	Changed               []Field
}

// TrailQuery asks for entries of the trail of the caller's practice, newest
// first: what its people did, and what others did to its patients. What is
// empty does not narrow it.
type TrailQuery struct {
	From, To time.Time // occurred from, and before
	Action   string
	Outcome  string
	Patient  PatientID
	Actor    string // the subject who did it
	// BreakGlass is "true", "false", or "" for both.
	BreakGlass string
	Page       Page
}

// TrailEntry is an entry of the trail as an officer or admin reads it.
type TrailEntry struct {
	ID, Parent             EventID
	OccurredAt, RecordedAt time.Time // UTC, to the millisecond
	Issuer, Subject        string
	Roles                  []Role
	Practice               PracticeID // of who did it
	Session, OnBehalfOf    string
	MFA                    MFA
	Action                 string
	ResourceType           string
	ResourceID             string
	Patient                PatientID
	Clear, Masked, Hidden  []Field
	Changed                []Field
	Outcome, Code, Purpose string
	BreakGlass             *TrailGlass // nil unless the access stood on a grant
	Origin                 Origin
	Revision               string // of the policy
}

// TrailGlass says on which break-glass grant an access stood.
type TrailGlass struct {
	Grant, ReasonCode string
	Reason            PHI // opened for those whose practice's key it is under
}

// TrailPage is one page of the trail.
type TrailPage struct {
	Event   EventID // of this reading
	Entries []TrailEntry
	Next    string // the cursor of the next page; "" on the last
}

// Access is what somebody did with a patient's record, in the patient's words.
type Access struct {
	OccurredAt time.Time // UTC, to the millisecond
	Who        string
	Role       string
	Practice   PracticeID
	What       string  // a sentence
	Fields     []Field // what they saw, masked fields among them
	BreakGlass bool
	Event      EventID
}

// AccessPage is one page of a patient's accesses.
type AccessPage struct {
	Event    EventID // of this reading
	Accesses []Access
	Next     string // the cursor of the next page; "" on the last
}
