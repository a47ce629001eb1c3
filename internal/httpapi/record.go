// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"

	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) recordRoutes(r *router) {
	const records, one = "/api/v1/patients/{id}/records", "/api/v1/patients/{id}/records/{record}"
	handle(s, r, operation{
		id: "list-records", path: records, tag: "records",
		summary: "List a patient's health records, newest care first",
		doc: "Which records there are for the caller depends on their kind and sensitivity, and on who wrote them: what a caller may not see is not there. Records " +
			"without a date come last. What was entered in error is left out. The source of a record is in the answer about that record only.",
		errors: readErrors, glass: true,
	}, s.listRecords)
	handle(s, r, operation{
		id: "create-record", method: http.MethodPost, path: records, tag: "records", status: http.StatusCreated,
		summary: "Add a health record",
		doc: "The caller becomes its author. A nurse adds observations and immunizations, a clinician every kind. A record is as sensitive as its codes make it " +
			"(lists of HIV, substance use, mental health and the like), and as its author says. With an Idempotency-Key the same request can be sent again after " +
			"whatever went wrong.",
		errors: append([]*med.ErrorKind{med.NotFound}, createErrors...),
	}, s.createRecord)
	handle(s, r, operation{
		id: "get-record", path: one, tag: "records",
		summary: "Read a health record",
		doc:     "With its source, the FHIR resource that it came from, where the caller may see that. A record that the caller may not see does not exist for them.",
		errors:  readErrors, glass: true,
	}, s.getRecord)
	handle(s, r, operation{
		id: "update-record", method: http.MethodPatch, path: one, tag: "records",
		summary: "Change a health record",
		doc: "A JSON merge patch (RFC 7386) makes a new version; the old one stays. A record keeps its kind, author and source. " +
			"Send application/merge-patch+json, or application/json.",
		errors: append([]*med.ErrorKind{med.Conflict}, changeErrors...),
	}, s.updateRecord)
	handle(s, r, operation{
		id: "delete-record", method: http.MethodDelete, path: one, tag: "records", status: http.StatusNoContent,
		summary: "Mark a health record as entered in error",
		doc: "It is in no list any more; read by its id it says entered_in_error, and what it was stays among its versions. For its author within 24 hours, and for an " +
			"admin with a second factor.",
		errors: append([]*med.ErrorKind{med.Conflict}, changeErrors...),
	}, s.deleteRecord)
	handle(s, r, operation{
		id: "list-record-versions", path: one + "/versions", tag: "records",
		summary: "List the versions of a health record, newest first",
		doc:     "As the caller may see each. Versions that differ only in what the caller does not see are one.",
		errors:  readErrors, glass: true,
	}, s.listVersions)
}

// recordWrite is what may be written of a record: the fields of a merge patch.
type recordWrite struct {
	Kind        string         `json:"kind,omitempty" enum:"condition,observation,medication,allergy,immunization,procedure,encounter,report,document,careplan,claim,other" doc:"Needed of a new record." example:"observation"`
	Code        []codeBody     `json:"code,omitempty" maxItems:"32" doc:"What it is about, in one or more code systems. null takes it away."`
	Status      string         `json:"status,omitempty" nullable:"true" maxLength:"64" doc:"As FHIR names it for this kind: final, active, completed." example:"final"`
	Effective   effectiveWrite `json:"effective,omitempty" doc:"When the care was, or from when to when."`
	Value       valueWrite     `json:"value,omitempty" doc:"What was found: one of the three. Another one takes the place of the one before."`
	Note        string         `json:"note,omitempty" nullable:"true" maxLength:"65536" example:"Fasting."`
	Sensitivity string         `json:"sensitivity,omitempty" nullable:"true" maxLength:"16" doc:"How closed its author wants it: normal, restricted or psychotherapy. It never opens what its codes or its source close, and only its author lowers it." example:"normal"`
}

type codeBody struct {
	System  string `json:"system,omitempty" maxLength:"500" example:"http://loinc.org"`
	Code    string `json:"code,omitempty" maxLength:"128" example:"4548-4"`
	Display string `json:"display,omitempty" maxLength:"500" example:"Hemoglobin A1c"`
}

type effectiveWrite struct {
	Start string `json:"start,omitempty" nullable:"true" maxLength:"40" doc:"A FHIR date or dateTime, as precise as it is known." example:"2026-03-01"`
	End   string `json:"end,omitempty" nullable:"true" maxLength:"40"`
}

type valueWrite struct {
	Quantity string    `json:"quantity,omitempty" nullable:"true" maxLength:"4000" doc:"A number and its unit." example:"5.4 %"`
	Text     string    `json:"text,omitempty" nullable:"true" maxLength:"4000"`
	Code     codeWrite `json:"code,omitempty"`
}

type codeWrite struct {
	System  string `json:"system,omitempty" nullable:"true" maxLength:"500" example:"http://loinc.org"`
	Code    string `json:"code,omitempty" nullable:"true" maxLength:"128" example:"4548-4"`
	Display string `json:"display,omitempty" nullable:"true" maxLength:"500" example:"Hemoglobin A1c"`
}

type valueBody struct {
	Quantity string    `json:"quantity,omitempty" maxLength:"4000" doc:"A number and its unit." example:"5.4 %"`
	Text     string    `json:"text,omitempty" maxLength:"4000"`
	Code     *codeBody `json:"code,omitempty"`
}

// recordBody is a record: what is hidden, and what has no value, is absent.
type recordBody struct {
	ID          string          `json:"id"`
	Patient     string          `json:"patient_id"`
	Kind        string          `json:"kind,omitempty"`
	Code        []codeBody      `json:"code,omitempty"`
	Status      string          `json:"status,omitempty"`
	Effective   *effectiveBody  `json:"effective,omitempty"`
	Value       *valueBody      `json:"value,omitempty"`
	Note        string          `json:"note,omitempty"`
	Author      string          `json:"author,omitempty"`
	Sensitivity string          `json:"sensitivity,omitempty"`
	InError     bool            `json:"entered_in_error,omitempty" doc:"It was entered in error, and does not count."`
	Source      json.RawMessage `json:"source,omitempty" doc:"The FHIR resource it came from, as it came. In the answer about one record only."`
	Version     int64           `json:"version,omitempty" doc:"For callers from whom nothing is hidden: it counts every change."`
	CreatedAt   string          `json:"created_at,omitempty" format:"date-time"`
	UpdatedAt   string          `json:"updated_at,omitempty" format:"date-time" doc:"For callers from whom nothing is hidden."`
}

type effectiveBody struct {
	Start string `json:"start,omitempty"`
	End   string `json:"end,omitempty"`
}

// RecordsInput names the patient whose records they are. It is exported because
// Huma looks into no other embedded type.
type RecordsInput struct {
	ID string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
}

// RecordInput names one record.
type RecordInput struct {
	RecordsInput
	Record string `path:"record" doc:"The record's id: 1 to 64 letters, digits, dots and hyphens." example:"01977f3e-5c00-7000-8000-00000000000a"`
}

// ids reports NotFound for an id that no record can have.
func (in RecordInput) ids() (med.PatientID, med.RecordID, error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return "", "", err
	}
	which, err := med.ParseRecordID(in.Record)
	if err != nil {
		return "", "", med.Invalid.New("").With(med.FieldError{Pointer: "record", Reason: "not a record's id"})
	}
	return id, which, nil
}

type listRecordsInput struct {
	RecordsInput
	Kind string `query:"kind" enum:"condition,observation,medication,allergy,immunization,procedure,encounter,report,document,careplan,claim,other" doc:"Only records of this kind."`
	From string `query:"from" format:"date" doc:"Only care that began on this day or later."`
	To   string `query:"to" format:"date" doc:"Only care that began on this day or earlier."`
	PageInput
}

type createRecordInput struct {
	RecordsInput
	OnceInput
	Body patchOf[recordWrite]
}

type updateRecordInput struct {
	RecordInput
	MatchInput
	Body patchOf[recordWrite] `contentType:"application/merge-patch+json"`
}

type deleteRecordInput struct {
	RecordInput
	MatchInput
}

func (s *Server) listRecords(ctx context.Context, c med.Caller, in *listRecordsInput) (*answer[[]recordBody], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	from, to, err := daysOf(in.From, in.To)
	if err != nil {
		return nil, err
	}
	page, err := s.cfg.Chart.ReadRecords(ctx, c, id, med.RecordAsk{Kind: med.Kind(in.Kind), From: from, To: to}, in.page())
	if err != nil {
		return nil, err
	}
	return recordsAnswered(page, paged(page.Event, recordsOf(page.Records), in.page(), page.Next)), nil
}

func (s *Server) listVersions(ctx context.Context, c med.Caller, in *RecordInput) (*answer[[]recordBody], error) {
	id, which, err := in.ids()
	if err != nil {
		return nil, err
	}
	page, err := s.cfg.Chart.ReadVersions(ctx, c, id, which)
	if err != nil {
		return nil, err
	}
	return recordsAnswered(page, answered(page.Event, recordsOf(page.Records))), nil
}

func (s *Server) getRecord(ctx context.Context, c med.Caller, in *RecordInput) (*tagged[recordBody], error) {
	id, which, err := in.ids()
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.ReadRecord(ctx, c, id, which)
	if err != nil {
		return nil, err
	}
	return recordAnswered(v), nil
}

func (s *Server) createRecord(ctx context.Context, c med.Caller, in *createRecordInput) (*createdTagged[recordBody], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	sent, err := in.Body.sent()
	if err != nil {
		return nil, err
	}
	once, err := in.once("create-record "+string(id), sent)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.CreateRecord(ctx, c, id, in.Body.patch(), once)
	if err != nil {
		return nil, err
	}
	a := recordAnswered(v)
	return &createdTagged[recordBody]{
		Event: a.Event, ETag: a.ETag, Location: "/api/v1/patients/" + string(id) + "/records/" + string(v.ID), Body: a.Body,
	}, nil
}

func (s *Server) updateRecord(ctx context.Context, c med.Caller, in *updateRecordInput) (*tagged[recordBody], error) {
	id, which, err := in.ids()
	if err != nil {
		return nil, err
	}
	seen, err := in.seen()
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Chart.UpdateRecord(ctx, c, id, which, seen, in.Body.patch())
	if err != nil {
		return nil, err
	}
	return recordAnswered(v), nil
}

func (s *Server) deleteRecord(ctx context.Context, c med.Caller, in *deleteRecordInput) (*done, error) {
	id, which, err := in.ids()
	if err != nil {
		return nil, err
	}
	seen, err := in.seen()
	if err != nil {
		return nil, err
	}
	event, err := s.cfg.Chart.DeleteRecord(ctx, c, id, which, seen)
	if err != nil {
		return nil, err
	}
	return &done{Event: string(event)}, nil
}

// recordAnswered is the answer with the record as the caller may see it.
func recordAnswered(v *med.RecordView) *tagged[recordBody] {
	out := &tagged[recordBody]{Event: string(v.Event), ETag: etag(v.Tag), Body: answered(v.Event, recordOf(v)).Body}
	sighted(&out.Body, v.View, med.RecordFields)
	out.Body.Meta.Integrity, out.Factor = integrity(v.Suspect), challenge(v.MaxAge)
	return out
}

// recordsAnswered says of a list what the caller sees of it.
func recordsAnswered(page *med.RecordPage, a *answer[[]recordBody]) *answer[[]recordBody] {
	sighted(&a.Body, page.View, med.RecordFields)
	a.Body.Meta.Integrity, a.Factor = integrity(page.Suspect), challenge(page.MaxAge)
	return a
}

func recordsOf(in []med.RecordView) []recordBody {
	out := make([]recordBody, len(in))
	for i := range in {
		out[i] = recordOf(&in[i])
	}
	return out
}

func recordOf(v *med.RecordView) recordBody {
	out := recordBody{
		ID: string(v.ID), Patient: string(v.Patient), Kind: string(v.Kind), Code: codesOf(v.Codes), Status: v.Status.Reveal(), Note: v.Note.Reveal(),
		Author: v.Author.Reveal(), Sensitivity: string(v.Sensitivity), InError: v.InError, Version: v.Version,
	}
	if v.Source != "" {
		out.Source = json.RawMessage(v.Source.Reveal())
	}
	if cmp.Or(v.Start, v.End) != "" {
		out.Effective = &effectiveBody{v.Start.Reveal(), v.End.Reveal()}
	}
	if x := v.Value; x.Quantity+x.Text != "" || x.Code != nil {
		out.Value = &valueBody{Quantity: x.Quantity.Reveal(), Text: x.Text.Reveal()}
		if x.Code != nil {
			out.Value.Code = &codesOf([]med.Code{*x.Code})[0]
		}
	}
	out.CreatedAt, out.UpdatedAt = stampIf(v.CreatedAt), stampIf(v.UpdatedAt)
	return out
}

func codesOf(in []med.Code) []codeBody {
	var out []codeBody
	for _, c := range in {
		out = append(out, codeBody{c.System.Reveal(), c.Code.Reveal(), c.Display.Reveal()})
	}
	return out
}
