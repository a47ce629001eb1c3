// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) lookupRoutes(r *router) {
	handle(s, r, operation{
		id: "lookup-patients", method: http.MethodPost, path: "/api/v1/patients/lookup", tag: "break-glass",
		summary: "Look up an unconscious patient",
		doc: "In an emergency, across practices, by family name and birth date: id, name and birth date of at most three, whatever their practice. Of more it says that they are " +
			"too many, and shows none. For a clinician with a second factor of the last five minutes, and for the role break_glass. Each lookup is audited and pages an officer " +
			"of the caller's practice, and each patient shown pages one of theirs; a person has twenty within an hour. What is looked for is recorded nowhere.",
		errors: listErrors,
	}, s.lookUp)
	s.onlyPost(r, "/api/v1/patients/lookup")
}

type lookupInput struct {
	Body struct {
		Family string     `json:"family" minLength:"1" maxLength:"200" example:"Smith"`
		DOB    string     `json:"dob" minLength:"1" maxLength:"10" doc:"A whole date, YYYY-MM-DD." example:"1985-06-15"`
		Code   reasonCode `json:"reason_code"`
		Reason string     `json:"reason" maxLength:"2000" doc:"Why, 10 to 500 characters." example:"Unconscious after a fall, allergies unknown"`
	}
}

type lookupBody struct {
	Candidates []candidateBody `json:"candidates" maxItems:"3" doc:"Whoever has the name and the birth date; nobody when they are too many."`
	TooMany    bool            `json:"too_many" doc:"More than three have them: find out more of who it is."`
}

type candidateBody struct {
	ID   string   `json:"id" doc:"What POST /api/v1/break-glass opens." example:"p-001"`
	Name nameFull `json:"name"`
	DOB  string   `json:"dob"`
}

func (s *Server) lookUp(ctx context.Context, c med.Caller, in *lookupInput) (*answer[lookupBody], error) {
	found, err := s.cfg.Chart.LookUp(ctx, c, med.LookupAsk{
		Family: med.PHI(in.Body.Family), DOB: med.PHI(in.Body.DOB), ReasonCode: string(in.Body.Code), Reason: med.PHI(in.Body.Reason),
	})
	if err != nil {
		return nil, err
	}
	out := lookupBody{Candidates: make([]candidateBody, 0, len(found.Candidates)), TooMany: found.TooMany}
	for _, one := range found.Candidates {
		name := nameFull{one.Name.Family.Reveal(), texts(one.Name.Given), one.Name.Text.Reveal()}
		out.Candidates = append(out.Candidates, candidateBody{string(one.ID), name, one.DOB.Reveal()})
	}
	return answered(found.Event, out), nil
}
