// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) searchRoutes(r *router) {
	handle(s, r, operation{
		id: "list-patients", path: "/api/v1/patients", tag: "patients",
		summary: "List the practice's patients",
		doc: "Ids and names, as the caller may see them, in the order of the ids, which tells nothing. For a nurse, clinician or admin with a second factor. " +
			"Each patient shown leaves an audit entry of their own.",
		errors: listErrors,
	}, s.listPatients)
	handle(s, r, operation{
		id: "search-patients", method: http.MethodPost, path: "/api/v1/patients/search", tag: "patients",
		summary: "Search for a patient",
		doc: "An exact search in the caller's practice by one of mrn, ssn, phone, email and member_id, or by family and dob together. Case, accents and punctuation " +
			"make no difference. In the body, because URLs reach logs; what is searched for is recorded nowhere. Only what the caller may see in clear can be searched by: " +
			"a nurse does not search by ssn or member_id. At most 50 are shown.",
		errors: listErrors,
	}, s.searchPatients)
	s.onlyPost(r, "/api/v1/patients/search")
}

// onlyPost says of a path below the patients that its last word is no patient's
// id, whatever the method.
func (s *Server) onlyPost(r *router, path string) {
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		r.engine.Handle(method, path, func(c *gin.Context) {
			c.Header("Allow", http.MethodPost)
			s.refused(med.MethodNotAllowed)(c)
		})
	}
}

type searchBody struct {
	MRN      string `json:"mrn,omitempty" minLength:"1" maxLength:"64"`
	SSN      string `json:"ssn,omitempty" minLength:"1" maxLength:"32"`
	Phone    string `json:"phone,omitempty" minLength:"1" maxLength:"64"`
	Email    string `json:"email,omitempty" minLength:"1" maxLength:"200"`
	MemberID string `json:"member_id,omitempty" minLength:"1" maxLength:"64" doc:"Of the insurance."`
	Family   string `json:"family,omitempty" minLength:"1" maxLength:"200" doc:"With dob." example:"Smith"`
	DOB      string `json:"dob,omitempty" minLength:"1" maxLength:"10" doc:"With family: a whole date, YYYY-MM-DD." example:"1985-06-15"`
}

// probe says by which index the body searches. It reports Invalid unless it is
// exactly one.
func (b *searchBody) probe() (by string, probe med.Patient, err error) {
	probe = med.Patient{
		MRN: med.PHI(b.MRN), SSN: med.PHI(b.SSN), Phone: med.PHI(b.Phone), Email: med.PHI(b.Email),
		Insurance: med.Insurance{MemberID: med.PHI(b.MemberID)}, Name: med.Name{Family: med.PHI(b.Family)}, DOB: med.PHI(b.DOB),
	}
	for name, given := range map[string]bool{
		"mrn": b.MRN != "", "ssn": b.SSN != "", "phone": b.Phone != "", "email": b.Email != "", "member_id": b.MemberID != "",
		"family_dob": b.Family != "" || b.DOB != "",
	} {
		switch {
		case given && by != "":
			return "", probe, med.Invalid.New("").With(med.FieldError{Pointer: "/", Reason: "one of mrn, ssn, phone, email, member_id, or family with dob"})
		case given:
			by = name
		}
	}
	if by == "" || by == "family_dob" && (b.Family == "" || b.DOB == "") {
		return "", probe, med.Invalid.New("").With(med.FieldError{Pointer: "/", Reason: "one of mrn, ssn, phone, email, member_id, or family with dob"})
	}
	return by, probe, nil
}

type searchInput struct{ Body searchBody }

type listedPatient struct {
	ID   string    `json:"id"`
	Name *nameFull `json:"name,omitempty" doc:"As the caller may see it."`
}

type foundPatient struct {
	ID   string    `json:"id"`
	Name *nameFull `json:"name,omitempty" doc:"As the caller may see it."`
	DOB  string    `json:"dob,omitempty" doc:"As the caller may see it."`
}

func (s *Server) listPatients(ctx context.Context, c med.Caller, in *PageInput) (*answer[[]listedPatient], error) {
	page, err := s.cfg.Chart.ListPatients(ctx, c, in.page())
	if err != nil {
		return nil, err
	}
	items := make([]listedPatient, len(page.Patients))
	for i, v := range page.Patients {
		full := patientOf(v)
		items[i] = listedPatient{full.ID, full.Name}
	}
	out := paged(page.Event, items, in.page(), page.Next)
	out.Body.Meta.Integrity = integrity(page.Suspect)
	return out, nil
}

func (s *Server) searchPatients(ctx context.Context, c med.Caller, in *searchInput) (*answer[[]foundPatient], error) {
	by, probe, err := in.Body.probe()
	if err != nil {
		return nil, err
	}
	page, err := s.cfg.Chart.SearchPatients(ctx, c, by, probe)
	if err != nil {
		return nil, err
	}
	items := make([]foundPatient, len(page.Patients))
	for i, v := range page.Patients {
		full := patientOf(v)
		items[i] = foundPatient{full.ID, full.Name, full.DOB}
	}
	out := answered(page.Event, items)
	out.Body.Meta.Integrity = integrity(page.Suspect)
	return out, nil
}
