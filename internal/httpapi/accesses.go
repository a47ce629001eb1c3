// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"slices"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) accessRoutes(r *router) {
	handle(s, r, operation{
		id: "list-accesses", path: "/api/v1/patients/{id}/accesses", tag: "audit",
		summary: "Read who used a patient's record",
		doc: "The patient's own view: who did what with their record, newest first, refusals too. For the patient themselves, and for the officer " +
			"and the admin (with a second factor) of their practice. Reading it is itself an access and leaves an entry.",
		errors: append(slices.Clone(listErrors), med.NotFound),
	}, s.listAccesses)
}

type accessesInput struct {
	ID string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	PageInput
}

// access is one entry of the trail as its patient reads it.
type access struct {
	OccurredAt string      `json:"occurred_at" format:"date-time" doc:"UTC, to the millisecond." example:"2026-03-01T08:30:00.000Z"`
	Who        string      `json:"who" doc:"The subject of who it was; You; or the program of ours." example:"dr-1"`
	Role       string      `json:"role" doc:"The roles they acted in." example:"clinician"`
	Practice   string      `json:"practice" doc:"Where they work; empty when that is not told." example:"practice-1"`
	What       string      `json:"what" doc:"What happened, as a sentence." example:"A clinician looked at your record: name and date of birth."`
	Fields     []med.Field `json:"fields" doc:"What they saw, in part or in full."`
	BreakGlass bool        `json:"break_glass" doc:"It was an emergency access, which an officer reviews."`
	Event      string      `json:"audit_event_id" format:"uuid" doc:"The audit entry, of which a proof can be had."`
}

func (s *Server) listAccesses(ctx context.Context, c med.Caller, in *accessesInput) (*answer[[]access], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	p, err := s.cfg.Chart.ReadAccesses(ctx, c, id, in.page())
	if err != nil {
		return nil, err
	}
	rows := make([]access, len(p.Accesses))
	for i, a := range p.Accesses {
		rows[i] = access{
			OccurredAt: stamp(a.OccurredAt), Who: a.Who, Role: a.Role, Practice: string(a.Practice), What: a.What,
			Fields: listed(a.Fields), BreakGlass: a.BreakGlass, Event: string(a.Event),
		}
	}
	return paged(p.Event, rows, in.page(), p.Next), nil
}
