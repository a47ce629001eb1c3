// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/medirecord/medirecord/internal/med"
)

// glassErrors are what a call about one grant can end in; a change, in a
// conflict besides.
var (
	glassErrors       = append([]*med.ErrorKind{med.NotFound}, listErrors...)
	glassChangeErrors = append([]*med.ErrorKind{med.Conflict}, glassErrors...)
)

func (s *Server) glassRoutes(r *router) {
	handle(s, r, operation{
		id: "open-break-glass", method: http.MethodPost, path: "/api/v1/break-glass", tag: "break-glass", status: http.StatusCreated,
		summary: "Open a break-glass grant",
		doc: "For a nurse or clinician with a second factor of the last five minutes: opens one patient, of any practice, to this person and session, for reading, " +
			"for an hour unless it is configured otherwise. Until it ends, reads of that patient need no header. Every use is audited and pages an officer, and somebody else " +
			"reviews it within 24 hours. Asked again while it is open, the answer is the same grant.",
		errors: []*med.ErrorKind{med.NotFound, med.Forbidden, med.MFARequired, med.KeysUnavailable}, glass: true,
	}, s.openGlass)
	handle(s, r, operation{
		id: "list-break-glass", path: "/api/v1/break-glass", tag: "break-glass",
		summary: "List break-glass grants",
		doc: "The newest first: for an officer or admin with a second factor, those on patients of their practice, with their reasons; for everybody else, those that " +
			"they opened themselves.",
		errors: listErrors,
	}, s.listGlass)
	handle(s, r, operation{
		id: "read-break-glass", path: "/api/v1/break-glass/{grant}", tag: "break-glass",
		summary: "Read a break-glass grant", doc: "For who opened it, and for the officer and the admin of the patient's practice. For everybody else there is none.",
		errors: glassErrors,
	}, s.readGlass)
	handle(s, r, operation{
		id: "end-break-glass", method: http.MethodDelete, path: "/api/v1/break-glass/{grant}", tag: "break-glass",
		summary: "End a break-glass grant", doc: "At once, for who opened it, and for the officer and the admin of the patient's practice. The next emergency opens a new one.",
		errors: glassChangeErrors,
	}, s.endGlass)
	handle(s, r, operation{
		id: "review-break-glass", method: http.MethodPost, path: "/api/v1/break-glass/{grant}/review", tag: "break-glass", status: http.StatusCreated,
		summary: "Review a break-glass grant",
		doc:     "Once, within 24 hours, for the officer or the admin of the patient's practice with a second factor, and never for who opened it.",
		errors:  glassChangeErrors,
	}, s.reviewGlass)
}

// reasonCode is a coded reason in the contract.
type reasonCode string

// Schema lists the codes, from the one list of them.
func (reasonCode) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: anys(med.ReasonCodes), Description: "The coded reason.", Examples: []any{"patient_unconscious"}}
}

type openGlassBody struct {
	Patient string     `json:"patient_id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	Code    reasonCode `json:"reason_code"`
	Reason  string     `json:"reason" maxLength:"2000" doc:"Why, 10 to 500 characters." example:"Unconscious after a fall, allergies unknown"`
}

type openGlassInput struct{ Body openGlassBody }

type glassListInput struct {
	State string `query:"state" enum:"open,due,overdue" doc:"Only those that are open, not reviewed, or not reviewed in time."`
	PageInput
}

type glassInput struct {
	Grant string `path:"grant" format:"uuid" doc:"The grant's id."`
}

type reviewGlassInput struct {
	Grant string `path:"grant" format:"uuid" doc:"The grant's id."`
	Body  struct {
		Verdict string `json:"verdict" enum:"justified,not_justified"`
		Note    string `json:"note" maxLength:"2000" doc:"Why, 10 to 500 characters." example:"Admitted by ambulance, no relative reachable"`
	}
}

// grantBody is a grant, as design/api.md has it.
type grantBody struct {
	ID         string          `json:"id" format:"uuid"`
	Patient    string          `json:"patient_id" example:"p-001"`
	Practice   string          `json:"practice_id" doc:"The patient's."`
	Actor      grantActor      `json:"actor"`
	ReasonCode reasonCode      `json:"reason_code"`
	Reason     string          `json:"reason,omitempty" doc:"For the officer and the admin of the patient's practice, and in the answer to who opens it."`
	OpenedAt   string          `json:"opened_at" format:"date-time"`
	ExpiresAt  string          `json:"expires_at" format:"date-time"`
	EndedAt    string          `json:"ended_at,omitempty" format:"date-time" doc:"When it ended, by somebody or by its time."`
	Review     glassReviewBody `json:"review"`
}

type grantActor struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject" example:"dr-1"`
}

type glassReviewBody struct {
	State   string `json:"state" enum:"due,done,overdue"`
	By      string `json:"by,omitempty" doc:"The reviewer's subject."`
	At      string `json:"at,omitempty" format:"date-time"`
	Verdict string `json:"verdict,omitempty" enum:"justified,not_justified"`
	Note    string `json:"note,omitempty" doc:"For who may review."`
}

func (s *Server) openGlass(ctx context.Context, c med.Caller, in *openGlassInput) (*created[grantBody], error) {
	id, err := med.ParsePatientID(in.Body.Patient)
	if err != nil {
		return nil, med.Invalid.New("").With(med.FieldError{Pointer: "/patient_id", Reason: "1 to 64 letters, digits, dots and hyphens"})
	}
	g, err := s.cfg.Chart.OpenGlass(ctx, c, id, string(in.Body.Code), med.PHI(in.Body.Reason))
	if err != nil {
		return nil, err
	}
	out := made(g.Event, grantOf(g), "/api/v1/break-glass/"+string(g.ID))
	out.Factor = challenge(g.MaxAge)
	return out, nil
}

func (s *Server) listGlass(ctx context.Context, c med.Caller, in *glassListInput) (*answer[[]grantBody], error) {
	p, err := s.cfg.Chart.ListGlass(ctx, c, med.GlassQuery{State: in.State, Page: in.page()})
	if err != nil {
		return nil, err
	}
	rows := make([]grantBody, 0, len(p.Grants))
	for i := range p.Grants {
		rows = append(rows, grantOf(&p.Grants[i]))
	}
	return paged(p.Event, rows, in.page(), p.Next), nil
}

func (s *Server) readGlass(ctx context.Context, c med.Caller, in *glassInput) (*answer[grantBody], error) {
	return grantAnswer(s.cfg.Chart.ReadGlass(ctx, c, med.GlassID(in.Grant)))
}

func (s *Server) endGlass(ctx context.Context, c med.Caller, in *glassInput) (*answer[grantBody], error) {
	return grantAnswer(s.cfg.Chart.EndGlass(ctx, c, med.GlassID(in.Grant)))
}

func (s *Server) reviewGlass(ctx context.Context, c med.Caller, in *reviewGlassInput) (*answer[grantBody], error) {
	return grantAnswer(s.cfg.Chart.ReviewGlass(ctx, c, med.GlassID(in.Grant), in.Body.Verdict, med.PHI(in.Body.Note)))
}

func grantAnswer(g *med.Glass, err error) (*answer[grantBody], error) {
	if err != nil {
		return nil, err
	}
	return answered(g.Event, grantOf(g)), nil
}

func grantOf(g *med.Glass) grantBody {
	return grantBody{
		ID: string(g.ID), Patient: string(g.Patient), Practice: string(g.Practice), Actor: grantActor{g.Issuer, g.Subject},
		ReasonCode: reasonCode(g.ReasonCode), Reason: g.Reason.Reveal(), OpenedAt: stamp(g.OpenedAt), ExpiresAt: stamp(g.ExpiresAt), EndedAt: stampIf(g.EndedAt),
		Review: glassReviewBody{
			State: g.Review.State, By: g.Review.By, At: stampIf(g.Review.At), Verdict: g.Review.Verdict, Note: g.Review.Note.Reveal(),
		},
	}
}
