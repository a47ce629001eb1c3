// SPDX-License-Identifier: Apache-2.0

// Package audit holds the audit entry: who did what to whose data, when, from
// where, with which outcome and why. It knows nothing of databases or HTTP and
// never holds clinical text: ids, field names, codes and a sealed reason.
package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/med"
)

// Outcome of a call.
type Outcome string

// Outcomes. AccessGranted is a break-glass grant that was opened.
const (
	Success       Outcome = "success"
	AccessGranted Outcome = "access_granted"
	Denied        Outcome = "denied"
	Failure       Outcome = "failure"
)

// ReadTicket is the action of a child entry that is committed before its call
// reads: under a strict context PostgreSQL gives a row against it, and only
// then. What came of the call is in the parent.
const ReadTicket = "read_ticket"

// Version of the entry's form. A reader of old entries needs it.
const Version = 1

// Entry is one entry of the trail. A primary entry stands for one call; a
// child, with Parent set, for a part of it.
type Entry struct {
	ID         med.EventID
	Parent     med.EventID
	OccurredAt time.Time // UTC, to the millisecond

	Actor           Actor
	Patient         med.PatientID
	PatientPractice med.PracticeID
	Action          string
	ResourceType    string
	ResourceID      string
	Outcome         Outcome
	Code            string // of the problem, when not a success

	// ContextNonce is of the signed context that was used, ContextMAC the entry
	// MAC that the sidecar made with it, for this entry's columns.
	ContextNonce, ContextMAC string

	Detail Detail
	Nonce  [16]byte // makes the entry's hash tell nothing
}

// Actor is who did it.
type Actor struct {
	Issuer, Subject string
	Practice        med.PracticeID
}

// Detail is the rest of the entry. Its JSON is stored as the bytes written.
type Detail struct {
	Roles      []med.Role  `json:"roles,omitempty"`
	Session    string      `json:"session,omitempty"`
	TokenID    string      `json:"token_id,omitempty"`
	MFA        med.MFA     `json:"mfa,omitempty"`
	OnBehalfOf string      `json:"on_behalf_of,omitempty"`
	Clear      []med.Field `json:"clear,omitempty"`
	Masked     []med.Field `json:"masked,omitempty"`
	Hidden     []med.Field `json:"hidden,omitempty"`
	Changed    []med.Field `json:"changed,omitempty"`  // their names, never a value
	Searched   []med.Field `json:"searched,omitempty"` // what a search was by
	Reason     string      `json:"reason,omitempty"`   // the decision's reason code
	Purpose    string      `json:"purpose,omitempty"`
	// AccessReason is the code that the caller gave for looking into the chart.
	AccessReason string         `json:"access_reason,omitempty"`
	BreakGlass   *BreakGlass    `json:"break_glass,omitempty"`
	IP           string         `json:"ip,omitempty"`
	UserAgent    string         `json:"user_agent,omitempty"`
	Origin       string         `json:"origin,omitempty"`
	RequestID    string         `json:"request_id,omitempty"`
	ClientID     string         `json:"client_request_id,omitempty"`
	TraceID      string         `json:"trace_id,omitempty"`
	Revision     string         `json:"policy_revision,omitempty"`
	Counts       map[string]int `json:"counts,omitempty"`
	// Checkpoint is the last head of the epoch before, in the entry that begins
	// one.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Ended is where the epoch before ended, in the same entry: signed or not yet.
	Ended *Ended `json:"ended,omitempty"`
	// Digest is the SHA-256 in hex of the export of a month that is dropped.
	Digest string `json:"digest,omitempty"`
	// Manifest is the SHA-256 in hex of the sealed manifest that a change of a
	// chart left.
	Manifest string `json:"manifest,omitempty"`
}

// Ended is the end of a closed log.
type Ended struct {
	Size     int64     `json:"size"`
	Root     tlog.Hash `json:"root"`
	Patients tlog.Hash `json:"patients"` // root of the patient map
}

// BreakGlass says on which grant the access stood. The reason text is sealed
// under the practice's audit key; its code is not.
type BreakGlass struct {
	Grant      string `json:"grant"`
	ReasonCode string `json:"reason_code"`
	Sealed     []byte `json:"sealed,omitempty"`
}

// New returns an entry of a call by c, with a new id, a new nonce and the
// outcome Failure: whoever forgets to say how the call ended has said that it
// failed.
func New(now time.Time, c *med.Caller, action, resourceType, resourceID string) *Entry {
	e := &Entry{
		ID:           med.EventID(med.NewUUID(now)),
		OccurredAt:   now.UTC().Truncate(time.Millisecond),
		Actor:        Actor{Issuer: c.Issuer, Subject: c.Subject, Practice: c.Practice},
		Action:       action,
		ResourceType: resourceType,
		ResourceID:   resourceID,
		Outcome:      Failure,
		Detail: Detail{
			Roles: c.Roles, Session: c.Session, TokenID: c.TokenID, MFA: c.MFA, OnBehalfOf: c.OnBehalfOf,
			Purpose: c.Purpose, AccessReason: c.AccessReason, IP: c.Origin.IP, UserAgent: c.Origin.UserAgent, Origin: c.Origin.Origin,
			RequestID: c.Origin.RequestID, ClientID: c.Origin.ClientID, TraceID: c.Origin.TraceID,
		},
	}
	_, _ = rand.Read(e.Nonce[:])
	return e
}

// Child returns an entry for a part of this one's call.
func (e *Entry) Child(now time.Time, action string, outcome Outcome) *Entry {
	c := *e
	c.ID, c.Parent = med.EventID(med.NewUUID(now)), e.ID
	c.OccurredAt = now.UTC().Truncate(time.Millisecond)
	c.Action, c.Outcome, c.Code = action, outcome, ""
	_, _ = rand.Read(c.Nonce[:])
	return &c
}

// Longest values that the trail keeps, in bytes.
const (
	maxName = 255
	maxText = 1024
)

// Clean makes every string of the entry fit to store: valid UTF-8, free of NUL
// and other control characters, of bounded length. What a client sends can
// then neither fail its own entry nor forge a line of somebody's log.
func (e *Entry) Clean() {
	for _, s := range []*string{
		&e.Actor.Issuer, &e.Actor.Subject, (*string)(&e.Actor.Practice), (*string)(&e.Patient), (*string)(&e.PatientPractice),
		&e.Action, &e.ResourceType, &e.ResourceID, &e.Code, &e.ContextNonce, &e.ContextMAC,
		&e.Detail.Session, &e.Detail.TokenID, &e.Detail.OnBehalfOf, &e.Detail.Reason, &e.Detail.Purpose, &e.Detail.AccessReason,
		&e.Detail.IP, &e.Detail.Digest, &e.Detail.Manifest, &e.Detail.RequestID, &e.Detail.ClientID, &e.Detail.TraceID, &e.Detail.Revision,
	} {
		*s = clean(*s, maxName)
	}
	e.Detail.UserAgent = clean(e.Detail.UserAgent, maxText)
	e.Detail.Origin = clean(e.Detail.Origin, maxText)
}

func clean(s string, most int) string {
	if len(s) <= most && printable(s) {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, s)
	for len(s) > most {
		_, n := utf8.DecodeLastRuneInString(s[:most])
		s = s[:most-n]
		if utf8.ValidString(s) {
			break
		}
	}
	return s
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// DetailJSON returns the detail as it is stored.
func (e *Entry) DetailJSON() (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&e.Detail); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// ParseDetail reads a stored detail.
func ParseDetail(s string) (Detail, error) {
	var d Detail
	err := json.Unmarshal([]byte(s), &d)
	return d, err
}
