// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) auditRoutes(r *router) {
	handle(s, r, operation{
		id: "read-patient-audit", path: "/patients/{id}/audit", tag: "audit",
		summary: "Read who accessed a patient",
		doc:     "The accesses to this patient, newest first. Reading them is itself an access and leaves an audit entry. Needs the role admin and a second factor.",
		errors:  readErrors,
	}, s.readAudit)
}

type auditInput struct {
	ID    string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many entries at most."`
}

type auditAnswer struct {
	Event string `header:"Audit-Event-Id" doc:"The audit entry of this read."`
	Body  []auditEvent
}

func (a *auditAnswer) entry() med.EventID { return med.EventID(a.Event) }

// auditEvent is the guide's event, with the entry's id and the fields it is about.
type auditEvent struct {
	Timestamp  string      `json:"timestamp" format:"date-time" doc:"UTC, to the millisecond." example:"2026-03-01T08:30:00.000Z"`
	Actor      string      `json:"actor" doc:"The subject of the token, or service:<name>."`
	Action     string      `json:"action" doc:"read, break_glass, and others." example:"read"`
	Resource   string      `json:"resource" example:"patient/p-001"`
	Outcome    string      `json:"outcome" doc:"success, access_granted, denied or failure." example:"success"`
	Reason     string      `json:"reason,omitempty" doc:"The reason given for emergency access."`
	BreakGlass bool        `json:"break_glass,omitempty" doc:"The access stood on a break-glass grant."`
	ID         string      `json:"id" doc:"The audit entry."`
	Fields     auditFields `json:"fields" doc:"Which fields were disclosed, and how."`
}

type auditFields struct {
	Clear   []med.Field `json:"clear"`
	Masked  []med.Field `json:"masked"`
	Hidden  []med.Field `json:"hidden"`
	Changed []med.Field `json:"changed,omitempty" doc:"What was written, by name: never a value."`
}

func (s *Server) readAudit(ctx context.Context, c med.Caller, in *auditInput) (*auditAnswer, error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	events, entry, err := s.cfg.Chart.ReadAccessLog(ctx, c, id, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &auditAnswer{Event: string(entry), Body: make([]auditEvent, len(events))}
	for i := range events {
		out.Body[i] = auditEventOf(&events[i])
	}
	return out, nil
}

const milliseconds = "2006-01-02T15:04:05.000Z07:00"

func auditEventOf(e *med.AccessEvent) auditEvent {
	return auditEvent{
		Timestamp:  stamp(e.Timestamp),
		Actor:      e.Actor,
		Action:     e.Action,
		Resource:   e.Resource,
		Outcome:    e.Outcome,
		Reason:     e.Reason.Reveal(),
		BreakGlass: e.BreakGlass,
		ID:         string(e.ID),
		Fields:     auditFields{Clear: listed(e.Clear), Masked: listed(e.Masked), Hidden: listed(e.Hidden), Changed: e.Changed},
	}
}

// listed makes an empty list [] rather than null.
func listed(f []med.Field) []med.Field {
	if f == nil {
		return []med.Field{}
	}
	return f
}
