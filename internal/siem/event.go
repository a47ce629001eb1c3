// SPDX-License-Identifier: Apache-2.0

// Package siem says a sealed audit entry in the words of those who watch: our
// own JSON, FHIR R4 AuditEvent (IHE BALP), DICOM audit XML (PS3.15 A.5), and
// puts it into what carries it: RFC 5424 syslog, a Splunk HEC body, an OTLP
// request. It is pure: no clock, no files, no network.
//
// Every string of an entry may be an attacker's: a client chooses its user
// agent, and whoever takes an API over chooses all the rest. So what leaves
// here is printable ASCII with the rest escaped in the format's own way, never
// longer than asked for, and one entry can neither break its frame nor look
// like two. The text of a break-glass reason never leaves: its code and the
// entry's id do.
package siem

import (
	"strconv"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
)

// Event is one sealed entry. Epoch and Index place its leaf in the log: they
// are the stable id of the event, beside the entry's own, and a receiver that
// sees a number missing has lost one.
type Event struct {
	audit.Entry
	RecordedAt time.Time
	Epoch      int32
	Index      int64
	// Unreadable says that the stored detail is not one of ours: somebody wrote
	// past the API. The event is told all the same, without it.
	Unreadable bool
}

// Of returns the event of a stored record at its place in the log. It never
// fails: whatever was stored, the watchers hear of it.
func Of(index int64, r *audit.Record) Event {
	e := Event{RecordedAt: r.RecordedAt, Epoch: r.Epoch, Index: index, Entry: audit.Entry{
		ID: med.EventID(r.ID), Parent: med.EventID(value(r.Parent)), OccurredAt: r.OccurredAt,
		Actor:   audit.Actor{Issuer: r.ActorIssuer, Subject: r.ActorSubject, Practice: med.PracticeID(value(r.ActorPractice))},
		Patient: med.PatientID(value(r.Patient)), PatientPractice: med.PracticeID(value(r.PatientPractice)),
		Action: r.Action, ResourceType: r.ResourceType, ResourceID: r.ResourceID, Outcome: audit.Outcome(r.Outcome), Code: value(r.Code),
	}}
	d, err := audit.ParseDetail(r.Detail)
	e.Detail, e.Unreadable = d, err != nil
	if r.BreakGlass && d.BreakGlass == nil { // the column counts: row security and alarms go by it
		e.Detail.BreakGlass = &audit.BreakGlass{}
	}
	return e
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Leaf is epoch and index as one word.
func (e *Event) Leaf() string {
	return strconv.Itoa(int(e.Epoch)) + "/" + strconv.FormatInt(e.Index, 10)
}

// Source is who speaks: our host's name, and the address under which the
// installation is known, which FHIR and DICOM ask for.
type Source struct {
	Host string // "" is unknown
	URL  string // such as https://medirecord.example
}

// Format is a form of the event.
type Format string

// The formats.
const (
	MediRecord Format = "medirecord" // the audit log row of our API
	FHIR       Format = "fhir"       // R4 AuditEvent after IHE BALP
	ATNA       Format = "atna"       // DICOM PS3.15 A.5, for IHE ITI-20
)

// Formats lists them.
var Formats = []Format{MediRecord, FHIR, ATNA}

// EventBytes is the longest that an event becomes where no message limits it.
const EventBytes = 32 << 10

// Encode returns the event in the format: printable ASCII of at most
// EventBytes. Texts that do not fit are cut, and the event says so.
func (f Format) Encode(src Source, e *Event) []byte { return f.encode(src, e, EventBytes) }

func (f Format) encode(src Source, e *Event, limit int) (b []byte) {
	for _, c := range []clip{{1024, 64}, {256, 32}, {64, 16}, {24, 8}, {8, 2}} {
		v := newView(e, &c)
		switch f {
		case FHIR:
			b = fhirEvent(src, v)
		case ATNA:
			b = atnaMessage(src, v)
		default:
			b = row(v)
		}
		if len(b) <= limit {
			break
		}
	}
	return b
}
