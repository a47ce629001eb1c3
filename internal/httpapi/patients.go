// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/medirecord/medirecord/internal/med"
)

// createErrors are what a write can end in that names nothing that is there.
var createErrors = append([]*med.ErrorKind{med.Conflict}, listErrors...)

func (s *Server) patientsRoutes(r *router) {
	handle(s, r, operation{
		id: "create-patient", method: http.MethodPost, path: "/api/v1/patients", tag: "patients", status: http.StatusCreated,
		summary: "Create a patient",
		doc: "Makes a patient of the caller's practice. The id is ours. For a clinician or admin with a second factor. With an Idempotency-Key the same " +
			"request can be sent again after whatever went wrong: it makes nothing twice, and its answer is made anew.",
		errors: createErrors,
	}, s.createPatient)
	handle(s, r, operation{
		id: "get-patient", path: "/api/v1/patients/{id}", tag: "patients",
		summary: "Read a patient, all of them that the caller may see",
		doc: "A masked field carries its mask; a hidden field, and one without a value, is absent: meta.view tells which are masked and hidden. Version and " +
			"updated_at are there for callers from whom nothing is hidden. A deleted patient is found by an admin of the practice with a second factor only.",
		errors: readErrors, glass: true,
	}, s.getPatient)
	handle(s, r, operation{
		id: "update-patient", method: http.MethodPatch, path: "/api/v1/patients/{id}", tag: "patients",
		summary: "Change a patient",
		doc: "A JSON merge patch (RFC 7386): fields that are sent take the place of what is there, null takes a field away, whatever is not sent stays as it is, seen or " +
			"not. Send application/merge-patch+json, or application/json. A nurse may write address, phone and email; a clinician all but ssn and mrn; an admin all. " +
			"A mask that comes back as a value is refused: leave out what you do not see.",
		errors: changeErrors,
	}, s.updatePatient)
	handle(s, r, operation{
		id: "delete-patient", method: http.MethodDelete, path: "/api/v1/patients/{id}", tag: "patients", status: http.StatusNoContent,
		summary: "Delete a patient",
		doc:     "Takes them out of sight of everybody but an admin of the practice, who can restore them for thirty days. For an admin with a second factor.",
		errors:  changeErrors,
	}, s.deletePatient)
	handle(s, r, operation{
		id: "restore-patient", method: http.MethodPost, path: "/api/v1/patients/{id}/restore", tag: "patients", bodiless: true,
		summary: "Restore a deleted patient",
		doc:     "Undoes a deletion of the last thirty days. For an admin with a second factor.",
		errors:  writeErrors,
	}, s.restorePatient)
}

// patientWrite is what may be written of a patient: the fields of a merge patch.
type patientWrite struct {
	MRN         string         `json:"mrn,omitempty" nullable:"true" maxLength:"64" doc:"The practice's own number for the patient." example:"MRN-0042"`
	Name        nameWrite      `json:"name,omitempty" doc:"Needed of a new patient: a family name, given names or the written form."`
	SSN         string         `json:"ssn,omitempty" nullable:"true" maxLength:"11" doc:"ddd-dd-dddd." example:"123-45-6789"`
	DOB         string         `json:"dob,omitempty" nullable:"true" maxLength:"10" doc:"YYYY, YYYY-MM or YYYY-MM-DD." example:"1985-06-15"`
	Sex         string         `json:"sex,omitempty" nullable:"true" maxLength:"10" doc:"male, female, other or unknown." example:"female"`
	Address     addressWrite   `json:"address,omitempty" doc:"Parts that are not sent stay; null for the whole takes all of it away."`
	Phone       string         `json:"phone,omitempty" nullable:"true" maxLength:"64" example:"+1 555 0100"`
	Email       string         `json:"email,omitempty" nullable:"true" maxLength:"200" example:"alice@example.org"`
	Insurance   insuranceWrite `json:"insurance,omitempty"`
	Diagnosis   string         `json:"diagnosis,omitempty" nullable:"true" maxLength:"4000" doc:"The diagnosis line." example:"Type 2 diabetes"`
	DeceasedAt  string         `json:"deceased_at,omitempty" nullable:"true" maxLength:"40" doc:"A date, a time with its zone, or true when only the fact is known." example:"2026-01-31"`
	Sensitivity string         `json:"sensitivity,omitempty" nullable:"true" maxLength:"10" doc:"normal or restricted." example:"normal"`
}

type nameWrite struct {
	Family string   `json:"family,omitempty" nullable:"true" maxLength:"200" example:"Smith"`
	Given  []string `json:"given,omitempty" maxItems:"8" doc:"In order." example:"[\"Alice\"]"`
	Text   string   `json:"text,omitempty" nullable:"true" maxLength:"400" doc:"As a person would write it; made of the parts unless it is sent." example:"Alice Smith"`
}

type addressWrite struct {
	Line       []string `json:"line,omitempty" maxItems:"8" example:"[\"1 Main Street\"]"`
	City       string   `json:"city,omitempty" nullable:"true" maxLength:"200" example:"Springfield"`
	State      string   `json:"state,omitempty" nullable:"true" maxLength:"64" example:"IL"`
	PostalCode string   `json:"postal_code,omitempty" nullable:"true" maxLength:"64" example:"62701"`
	Country    string   `json:"country,omitempty" nullable:"true" maxLength:"64" example:"US"`
}

type insuranceWrite struct {
	Payer    string `json:"payer,omitempty" nullable:"true" maxLength:"200" example:"County Health Plan"`
	MemberID string `json:"member_id,omitempty" nullable:"true" maxLength:"64" example:"CHP-112233"`
}

// patientFull is a patient in the versioned face: what is hidden, and what has
// no value, is absent.
type patientFull struct {
	ID          string         `json:"id" example:"01977f3e-5c00-7000-8000-000000000001"`
	Practice    string         `json:"practice_id" example:"practice-1"`
	MRN         string         `json:"mrn,omitempty"`
	Name        *nameFull      `json:"name,omitempty"`
	SSN         string         `json:"ssn,omitempty" doc:"Masked it keeps its last four digits: ***-**-6789."`
	DOB         string         `json:"dob,omitempty" doc:"Masked it keeps its day: ****-**-15."`
	Sex         string         `json:"sex,omitempty"`
	Address     *addressFull   `json:"address,omitempty"`
	Phone       string         `json:"phone,omitempty"`
	Email       string         `json:"email,omitempty"`
	Insurance   *insuranceFull `json:"insurance,omitempty"`
	Diagnosis   string         `json:"diagnosis,omitempty"`
	DeceasedAt  string         `json:"deceased_at,omitempty"`
	Sensitivity string         `json:"sensitivity,omitempty"`
	Version     int64          `json:"version,omitempty" doc:"For callers from whom nothing is hidden: it counts every change."`
	CreatedAt   string         `json:"created_at,omitempty" format:"date-time" doc:"Not in the answer that creates."`
	UpdatedAt   string         `json:"updated_at,omitempty" format:"date-time" doc:"For callers from whom nothing is hidden."`
	Deleted     bool           `json:"deleted,omitempty" doc:"Seen by an admin of the practice only, who can restore them."`
}

type nameFull struct {
	Family string   `json:"family,omitempty"`
	Given  []string `json:"given,omitempty"`
	Text   string   `json:"text,omitempty"`
}

type addressFull struct {
	Line       []string `json:"line,omitempty"`
	City       string   `json:"city,omitempty"`
	State      string   `json:"state,omitempty"`
	PostalCode string   `json:"postal_code,omitempty"`
	Country    string   `json:"country,omitempty"`
}

type insuranceFull struct {
	Payer    string `json:"payer,omitempty"`
	MemberID string `json:"member_id,omitempty"`
}

type createInput struct {
	OnceInput
	Body patchOf[patientWrite]
}

type updateInput struct {
	ID string `path:"id" doc:"The patient's id." example:"p-001"`
	MatchInput
	Body patchOf[patientWrite] `contentType:"application/merge-patch+json"`
}

type deleteInput struct {
	ID string `path:"id" doc:"The patient's id." example:"p-001"`
	MatchInput
}

func (s *Server) createPatient(ctx context.Context, c med.Caller, in *createInput) (*createdTagged[patientFull], error) {
	sent, err := in.Body.sent()
	if err != nil {
		return nil, err
	}
	once, err := in.once("create-patient", sent)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.CreatePatient(ctx, c, in.Body.patch(), once)
	if err != nil {
		return nil, err
	}
	a := patientAnswered(v)
	return &createdTagged[patientFull]{Event: a.Event, ETag: a.ETag, Location: "/api/v1/patients/" + string(v.ID), Body: a.Body}, nil
}

func (s *Server) getPatient(ctx context.Context, c med.Caller, in *patientInput) (*tagged[patientFull], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.ReadPatient(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return patientAnswered(v), nil
}

func (s *Server) updatePatient(ctx context.Context, c med.Caller, in *updateInput) (*tagged[patientFull], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	seen, err := in.seen()
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.UpdatePatient(ctx, c, id, seen, in.Body.patch())
	if err != nil {
		return nil, err
	}
	return patientAnswered(v), nil
}

func (s *Server) deletePatient(ctx context.Context, c med.Caller, in *deleteInput) (*done, error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	seen, err := in.seen()
	if err != nil {
		return nil, err
	}
	event, err := s.cfg.Chart.DeletePatient(ctx, c, id, seen)
	if err != nil {
		return nil, err
	}
	return &done{Event: string(event)}, nil
}

func (s *Server) restorePatient(ctx context.Context, c med.Caller, in *patientInput) (*tagged[patientFull], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.RestorePatient(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return patientAnswered(v), nil
}

// patientAnswered is the answer with the patient as the caller may see them.
func patientAnswered(v *med.PatientView) *tagged[patientFull] {
	out := &tagged[patientFull]{Event: string(v.Event), ETag: etag(v.Tag), Body: answered(v.Event, patientOf(v)).Body}
	sighted(&out.Body, v.View, med.PatientFields)
	out.Body.Meta.Integrity, out.Factor = integrity(v.Suspect), challenge(v.MaxAge)
	return out
}

func patientOf(v *med.PatientView) patientFull {
	text := func(f med.Field, p med.PHI) string { return shown(v.View, f, p) }
	out := patientFull{
		ID: string(v.ID), Practice: string(v.Practice), MRN: text(med.FieldMRN, v.MRN), SSN: text(med.FieldSSN, v.SSN), DOB: text(med.FieldDOB, v.DOB),
		Sex: text(med.FieldSex, v.Sex), Phone: text(med.FieldPhone, v.Phone), Email: text(med.FieldEmail, v.Email),
		Diagnosis: text(med.FieldDiagnosis, v.Diagnosis), DeceasedAt: text(med.FieldDeceasedAt, v.DeceasedAt),
		Sensitivity: text(med.FieldSensitivity, v.Sensitivity), Version: v.Version, Deleted: v.Deleted,
	}
	if n := v.Name; v.View[med.FieldName] != med.Hide && (n.Family != "" || len(n.Given) > 0 || n.Text != "") {
		out.Name = &nameFull{n.Family.Reveal(), texts(n.Given), n.Text.Reveal()}
	}
	if a := v.Address; v.View[med.FieldAddress] != med.Hide && (len(a.Line) > 0 || a.City+a.State+a.PostalCode+a.Country != "") {
		out.Address = &addressFull{texts(a.Line), a.City.Reveal(), a.State.Reveal(), a.PostalCode.Reveal(), a.Country.Reveal()}
	}
	if i := v.Insurance; v.View[med.FieldInsurance] != med.Hide && i.Payer+i.MemberID != "" {
		out.Insurance = &insuranceFull{i.Payer.Reveal(), i.MemberID.Reveal()}
	}
	out.CreatedAt, out.UpdatedAt = stampIf(v.CreatedAt), stampIf(v.UpdatedAt)
	return out
}

func texts(in []med.PHI) []string {
	out := make([]string, len(in))
	for i, p := range in {
		out[i] = p.Reveal()
	}
	return out
}
