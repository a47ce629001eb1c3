// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) trailRoutes(r *router) {
	handle(s, r, operation{
		id: "list-audit-logs", path: "/api/v1/audit/logs", tag: "audit",
		summary: "Read the audit trail",
		doc: "What the people of the caller's practice did, and what others did to its patients, newest first. For the practice's officer, " +
			"and its admin with a second factor. Reading is itself an entry. A filter that matches little gives short pages; read on with next.",
		errors: listErrors,
	}, s.listTrail)
	handle(s, r, operation{
		id: "list-user-audit-logs", path: "/api/v1/audit/logs/{userId}", tag: "audit",
		summary: "Read one user's audit trail",
		doc: "What one user did in the caller's practice or with its patients, newest first. A user whom the practice does not know has an " +
			"empty trail, whether or not they are known elsewhere.",
		errors: listErrors,
	}, s.listUserTrail)
}

// listErrors are what a list can end in.
var listErrors = []*med.ErrorKind{med.BreakGlassReasonRequired, med.Forbidden, med.MFARequired, med.KeysUnavailable}

// TrailFilter are the filters of both. It is exported for the same reason as
// PageInput.
type TrailFilter struct {
	From       time.Time `query:"from" doc:"Occurred at this time or later (RFC 3339)." example:"2026-03-01T00:00:00Z"`
	To         time.Time `query:"to" doc:"Occurred before this time (RFC 3339)." example:"2026-03-02T00:00:00Z"`
	Action     string    `query:"action" pattern:"^[a-z][a-z0-9_.]{0,63}$" doc:"read, break_glass, import, read_audit, and others." example:"read"`
	Outcome    string    `query:"outcome" enum:"success,access_granted,denied,failure" doc:"How it ended."`
	Patient    string    `query:"patient" doc:"About this patient." example:"p-001"`
	BreakGlass string    `query:"break_glass" enum:"true,false" doc:"Whether the access stood on a break-glass grant."`
}

// query reads the filters. It reports Invalid, and where.
func (f *TrailFilter) query(p med.Page) (med.TrailQuery, error) {
	q := med.TrailQuery{From: f.From, To: f.To, Action: f.Action, Outcome: f.Outcome, BreakGlass: f.BreakGlass, Page: p}
	if err := cmp.Or(checkTime("from", f.From), checkTime("to", f.To)); err != nil {
		return q, err
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return q, med.Invalid.New("").With(med.FieldError{Pointer: "from", Reason: "not before to"})
	}
	if f.Patient == "" {
		return q, nil
	}
	var err error
	if q.Patient, err = med.ParsePatientID(f.Patient); err != nil {
		return q, med.Invalid.New("").With(med.FieldError{Pointer: "patient", Reason: "1 to 64 letters, digits, dots and hyphens"})
	}
	return q, nil
}

type trailInput struct {
	TrailFilter
	PageInput
	Actor string `query:"actor" maxLength:"255" doc:"Done by the user with this subject." example:"dr-1"`
}

type userTrailInput struct {
	TrailFilter
	PageInput
	User string `path:"userId" minLength:"1" maxLength:"255" doc:"The user's subject." example:"dr-1"`
}

func (s *Server) listTrail(ctx context.Context, c med.Caller, in *trailInput) (*answer[[]trailRow], error) {
	q, err := in.query(in.page())
	if err != nil {
		return nil, err
	}
	q.Actor = in.Actor
	return trailAnswer(q.Page)(s.cfg.Chart.ReadTrail(ctx, c, q))
}

func (s *Server) listUserTrail(ctx context.Context, c med.Caller, in *userTrailInput) (*answer[[]trailRow], error) {
	if foul(in.User) {
		return nil, med.Invalid.New("").With(med.FieldError{Pointer: "userId", Reason: reasonText})
	}
	q, err := in.query(in.page())
	if err != nil {
		return nil, err
	}
	return trailAnswer(q.Page)(s.cfg.Chart.ReadUserTrail(ctx, c, in.User, q))
}

func trailAnswer(asked med.Page) func(*med.TrailPage, error) (*answer[[]trailRow], error) {
	return func(p *med.TrailPage, err error) (*answer[[]trailRow], error) {
		if err != nil {
			return nil, err
		}
		rows := make([]trailRow, len(p.Entries))
		for i := range p.Entries {
			rows[i] = trailRowOf(&p.Entries[i])
		}
		return paged(p.Event, rows, asked, p.Next), nil
	}
}

// trailRow is an entry of the trail, as design/api.md has it.
type trailRow struct {
	ID         string        `json:"id" format:"uuid" doc:"The audit entry."`
	Parent     string        `json:"parent_id,omitempty" format:"uuid" doc:"The entry of the call that this is a part of."`
	OccurredAt string        `json:"occurred_at" format:"date-time" doc:"UTC, to the millisecond." example:"2026-03-01T08:30:00.000Z"`
	RecordedAt string        `json:"recorded_at" format:"date-time" doc:"When the trail had it." example:"2026-03-01T08:30:00.004Z"`
	Actor      trailActor    `json:"actor"`
	Action     string        `json:"action" example:"read"`
	Resource   trailResource `json:"resource"`
	Fields     auditFields   `json:"fields" doc:"Which fields were disclosed, and how."`
	Outcome    string        `json:"outcome" doc:"success, access_granted, denied or failure." example:"success"`
	Code       string        `json:"code,omitempty" doc:"Of the problem, when it was not a success."`
	Purpose    string        `json:"purpose,omitempty" doc:"The purpose of use that the caller stated."`
	BreakGlass *trailGlass   `json:"break_glass,omitempty" doc:"Of an access that stood on a break-glass grant."`
	Origin     trailOrigin   `json:"origin" doc:"Where the request came from."`
	Revision   string        `json:"policy_revision" doc:"Of the policy that decided; empty when it was not asked."`
}

type trailActor struct {
	Issuer     string     `json:"issuer"`
	Subject    string     `json:"subject" example:"dr-1"`
	Roles      []med.Role `json:"roles"`
	Practice   string     `json:"practice_id"`
	Session    string     `json:"session"`
	MFA        string     `json:"mfa" doc:"none, done or fresh."`
	OnBehalfOf string     `json:"on_behalf_of,omitempty" doc:"For whom unattended work was done."`
}

type trailResource struct {
	Type    string `json:"type" example:"patient"`
	ID      string `json:"id" example:"p-001"`
	Patient string `json:"patient_id,omitempty" example:"p-001"`
}

type trailGlass struct {
	Grant      string `json:"grant_id"`
	ReasonCode string `json:"reason_code"`
	Reason     string `json:"reason,omitempty" doc:"Opened for the officer and admin, with a second factor, of the practice whose patient it was."`
}

type trailOrigin struct {
	IP        string `json:"ip" doc:"By the trusted-proxy rule." example:"192.0.2.1"`
	UserAgent string `json:"user_agent"`
	Origin    string `json:"origin"`
	RequestID string `json:"request_id"`
	TraceID   string `json:"trace_id"`
}

func trailRowOf(e *med.TrailEntry) trailRow {
	r := trailRow{
		ID: string(e.ID), Parent: string(e.Parent), OccurredAt: stamp(e.OccurredAt), RecordedAt: stamp(e.RecordedAt),
		Actor: trailActor{
			Issuer: e.Issuer, Subject: e.Subject, Roles: e.Roles, Practice: string(e.Practice), Session: e.Session, MFA: string(e.MFA), OnBehalfOf: e.OnBehalfOf,
		},
		Action: e.Action, Resource: trailResource{Type: e.ResourceType, ID: e.ResourceID, Patient: string(e.Patient)},
		Fields:  auditFields{Clear: listed(e.Clear), Masked: listed(e.Masked), Hidden: listed(e.Hidden), Changed: e.Changed},
		Outcome: e.Outcome, Code: e.Code, Purpose: e.Purpose, Revision: e.Revision,
		Origin: trailOrigin{IP: e.Origin.IP, UserAgent: e.Origin.UserAgent, Origin: e.Origin.Origin, RequestID: e.Origin.RequestID, TraceID: e.Origin.TraceID},
	}
	if r.Actor.Roles == nil {
		r.Actor.Roles = []med.Role{}
	}
	if g := e.BreakGlass; g != nil {
		r.BreakGlass = &trailGlass{Grant: g.Grant, ReasonCode: g.ReasonCode, Reason: g.Reason.Reveal()}
	}
	return r
}

// checkTime refuses a time whose zone is a day away: Go reads one, and neither
// RFC 3339 nor a writer of JSON knows it. For every time that a caller gives.
func checkTime(pointer string, t time.Time) error {
	if _, east := t.Zone(); max(east, -east) >= 24*60*60 {
		return med.Invalid.New("").With(med.FieldError{Pointer: pointer, Reason: "not a time of RFC 3339"})
	}
	return nil
}

// stamp writes a time to the millisecond.
func stamp(t time.Time) string { return t.UTC().Truncate(time.Millisecond).Format(milliseconds) }

// stampIf is stamp, and nothing for no time.
func stampIf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t)
}
