// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) treatmentRoutes(r *router) {
	s.treatmentsOf(r, med.TreatmentAppointment, "appointment", "/api/v1/appointments",
		"It lasts a day at most, and is a reason to see the patient's chart from 14 days before it until 30 days after.")
	s.treatmentsOf(r, med.TreatmentAssignment, "assignment", "/api/v1/assignments",
		"It lasts 366 days at most, and is a reason to see the patient's chart from 2 hours before it until 72 hours after.")
}

// treatmentsOf adds the routes of one kind of relation that people write.
func (s *Server) treatmentsOf(r *router, kind med.TreatmentKind, word, path, lasts string) {
	handle(s, r, operation{
		id: "add-" + word, method: http.MethodPost, path: path, tag: "treatment", status: http.StatusCreated,
		summary: "Add an " + word,
		doc: "Says that a member of staff has to do with a patient. " + lasts + " What somebody writes about themselves is kept, marked self_written, and is no such reason. " +
			"With an Idempotency-Key the same request can be sent again. For a nurse, clinician or admin with a second factor.",
		errors: []*med.ErrorKind{med.Forbidden, med.MFARequired, med.BreakGlassReasonRequired, med.NotFound, med.Conflict, med.KeysUnavailable},
	}, func(ctx context.Context, c med.Caller, in *addTreatmentInput) (*created[treatmentBody], error) {
		return s.addTreatment(ctx, c, kind, path, in)
	})
	handle(s, r, operation{
		id: "list-" + word + "s", path: path, tag: "treatment",
		summary: "List " + word + "s",
		doc:     "Those of a patient, or the caller's own; those that begin last come first. Ended ones are in it. For a nurse, clinician or admin with a second factor.",
		errors:  readErrors,
	}, func(ctx context.Context, c med.Caller, in *listTreatmentsInput) (*answer[[]treatmentBody], error) {
		return s.listTreatments(ctx, c, kind, in)
	})
	handle(s, r, operation{
		id: "end-" + word, method: http.MethodDelete, path: path + "/{id}", tag: "treatment",
		summary: "End an " + word,
		doc:     "From now on it is no reason to see the chart. It is never removed. For a nurse, clinician or admin with a second factor.",
		errors:  []*med.ErrorKind{med.Forbidden, med.MFARequired, med.BreakGlassReasonRequired, med.NotFound},
	}, func(ctx context.Context, c med.Caller, in *endTreatmentInput) (*answer[endedBody], error) {
		return s.endTreatment(ctx, c, kind, in)
	})
}

type addTreatmentInput struct {
	OnceInput
	Body struct {
		ID      string    `json:"id,omitempty" format:"uuid" doc:"An id of your own choice, so that a second attempt is a conflict and no second one."`
		Patient string    `json:"patient_id" doc:"The patient's id." example:"p-001"`
		Subject string    `json:"subject" minLength:"1" maxLength:"255" doc:"Who of the staff: the subject of their token." example:"nurse-7"`
		Issuer  string    `json:"issuer,omitempty" maxLength:"255" doc:"The issuer of their token, the caller's own unless it says otherwise."`
		From    time.Time `json:"from" doc:"When it begins: at most a day ago, at most two years from now."`
		To      time.Time `json:"to" doc:"When it ends."`
	}
}

type listTreatmentsInput struct {
	Patient string `query:"patient_id" doc:"Whose. Without it, the caller's own." example:"p-002"`
	PageInput
}

type endTreatmentInput struct {
	ID      string `path:"id" format:"uuid" doc:"Which one."`
	Patient string `query:"patient_id" required:"true" doc:"The patient whom it is about." example:"p-001"`
}

type treatmentBody struct {
	ID          string `json:"id" format:"uuid"`
	Patient     string `json:"patient_id"`
	Issuer      string `json:"issuer"`
	Subject     string `json:"subject" doc:"Who of the staff."`
	From        string `json:"from" format:"date-time"`
	To          string `json:"to" format:"date-time"`
	SelfWritten bool   `json:"self_written" doc:"Who wrote it is whom it is about: it is no reason to see the chart."`
	CreatedAt   string `json:"created_at" format:"date-time"`
	EndedAt     string `json:"ended_at,omitempty" format:"date-time"`
	Event       string `json:"audit_event_id" format:"uuid" doc:"The entry of its making."`
}

type endedBody struct {
	ID string `json:"id" format:"uuid" doc:"What was ended."`
}

func treatmentBodyOf(t *med.Treatment) treatmentBody {
	return treatmentBody{
		ID: string(t.ID), Patient: string(t.Patient), Issuer: t.Issuer, Subject: t.Subject, From: stamp(t.From), To: stamp(t.To),
		SelfWritten: t.SelfWritten, CreatedAt: stamp(t.CreatedAt), EndedAt: stampIf(t.EndedAt), Event: string(t.Event),
	}
}

func (s *Server) addTreatment(ctx context.Context, c med.Caller, kind med.TreatmentKind, path string, in *addTreatmentInput) (*created[treatmentBody], error) {
	id, err := parsePatient(in.Body.Patient)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(checkTime("/from", in.Body.From), checkTime("/to", in.Body.To)); err != nil {
		return nil, err
	}
	once, err := onceOf(in.OnceInput, "add-"+string(kind), in.Body)
	if err != nil {
		return nil, err
	}
	t, err := s.cfg.Chart.AddTreatment(ctx, c, med.Treatment{
		ID: med.TreatmentID(in.Body.ID), Kind: kind, Patient: id, Issuer: in.Body.Issuer, Subject: in.Body.Subject, From: in.Body.From, To: in.Body.To,
	}, once)
	if err != nil {
		return nil, err
	}
	return made(t.Event, treatmentBodyOf(t), path+"/"+string(t.ID)), nil
}

func (s *Server) listTreatments(ctx context.Context, c med.Caller, kind med.TreatmentKind, in *listTreatmentsInput) (*answer[[]treatmentBody], error) {
	q := med.TreatmentQuery{Kind: kind, Page: in.page()}
	if in.Patient != "" {
		var err error
		if q.Patient, err = parsePatient(in.Patient); err != nil {
			return nil, err
		}
	}
	p, err := s.cfg.Chart.Treatments(ctx, c, q)
	if err != nil {
		return nil, err
	}
	items := make([]treatmentBody, len(p.Treatments))
	for i := range p.Treatments {
		items[i] = treatmentBodyOf(&p.Treatments[i])
	}
	return paged(p.Event, items, q.Page, p.Next), nil
}

func (s *Server) endTreatment(ctx context.Context, c med.Caller, kind med.TreatmentKind, in *endTreatmentInput) (*answer[endedBody], error) {
	id, err := parsePatient(in.Patient)
	if err != nil {
		return nil, err
	}
	event, err := s.cfg.Chart.EndTreatment(ctx, c, kind, id, med.TreatmentID(in.ID))
	if err != nil {
		return nil, err
	}
	return answered(event, endedBody{in.ID}), nil
}
