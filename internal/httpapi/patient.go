// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"strconv"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) patientRoutes(r *router) {
	handle(s, r, operation{
		id: "read-patient", path: "/patients/{id}", tag: "patients",
		summary: "Read a patient",
		doc: "The patient as the caller may see them, always with these six keys. A masked value keeps its shape and tells " +
			"nothing else; a hidden one is empty. Every read leaves an audit entry, named by Audit-Event-Id, before its first byte leaves.",
		errors: readErrors, glass: true,
	}, s.readPatient)
}

type patientInput struct {
	ID string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
}

type patientAnswer struct {
	Event  string `header:"Audit-Event-Id" doc:"The audit entry of this read."`
	ETag   string `header:"ETag" doc:"Names what is seen here; another when that changes."`
	Body   patientBody
	Factor string `header:"WWW-Authenticate" hidden:"true"` // of operations that are glass
}

func (a *patientAnswer) entry() med.EventID { return med.EventID(a.Event) }

// patientBody is the guide's six keys, in the guide's order.
type patientBody struct {
	ID         string `json:"id" example:"p-001"`
	Name       string `json:"name" example:"Alice Smith"`
	SSN        string `json:"ssn" example:"***-**-6789"`
	DOB        string `json:"dob" example:"****-**-15"`
	Diagnosis  string `json:"diagnosis" example:""`
	PracticeID string `json:"practice_id" example:"practice-1"`
}

// faceFields are all that this face shows. What is not asked for is neither
// opened nor said to have been disclosed. 45 CFR 164.502(b)
var faceFields = []med.Field{med.FieldName, med.FieldSSN, med.FieldDOB, med.FieldDiagnosis}

func (s *Server) readPatient(ctx context.Context, c med.Caller, in *patientInput) (*patientAnswer, error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.ReadPatient(ctx, c, id, faceFields...)
	if err != nil {
		return nil, err
	}
	return &patientAnswer{
		Event:  string(v.Event),
		ETag:   strconv.Quote(v.Tag),
		Factor: challenge(v.MaxAge),
		Body: patientBody{
			ID:         string(v.ID),
			Name:       shown(v.View, med.FieldName, v.Name.Text),
			SSN:        shown(v.View, med.FieldSSN, v.SSN),
			DOB:        shown(v.View, med.FieldDOB, v.DOB),
			Diagnosis:  shown(v.View, med.FieldDiagnosis, v.Diagnosis),
			PracticeID: string(v.Practice),
		},
	}, nil
}

// shown is what leaves of a field. The chart leaves hidden fields empty; that
// the view is asked again here costs nothing and fails closed.
func shown(v med.View, f med.Field, p med.PHI) string {
	if v[f] == med.Hide {
		return ""
	}
	return p.Reveal()
}

// parsePatient reads the id of the path. It reports Invalid and where.
func parsePatient(s string) (med.PatientID, error) {
	id, err := med.ParsePatientID(s)
	if err != nil {
		return "", med.Invalid.New("").With(med.FieldError{Pointer: "id", Reason: "1 to 64 letters, digits, dots and hyphens"})
	}
	return id, nil
}
