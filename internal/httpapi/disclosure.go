// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/medirecord/medirecord/internal/med"
)

// writeErrors are what a write of patient data can end in besides.
var writeErrors = append([]*med.ErrorKind{med.Conflict}, readErrors...)

func (s *Server) disclosureRoutes(r *router) {
	handle(s, r, operation{
		id: "record-disclosure", method: http.MethodPost, path: "/api/v1/patients/{id}/disclosures", tag: "disclosures", status: http.StatusCreated,
		summary: "Record a disclosure",
		doc: "Writes down that data of the patient was disclosed to somebody, for the accounting of 45 CFR 164.528. For a clinician, admin or officer " +
			"with a second factor; with a suspension, for an admin or officer. Bases that need no accounting can be recorded, and are left out of it. " +
			"With an Idempotency-Key the same request can be sent again.",
		errors: writeErrors,
	}, s.recordDisclosure)
	handle(s, r, operation{
		id: "amend-disclosure", method: http.MethodPost, path: "/api/v1/patients/{id}/disclosures/{disclosure}/amendments", tag: "disclosures", status: http.StatusCreated,
		summary: "Correct, withdraw or suspend a disclosure",
		doc: "Makes the next version of a disclosure; the ones before are kept. A correction takes the place of all that was told. A suspension is the statement " +
			"of a law enforcement official or health oversight agency that the patient is not to be told for a time: orally for 30 days at most from the first oral " +
			"statement, in writing until the day it states. The last statement counts. For an admin or officer with a second factor.",
		errors: writeErrors,
	}, s.amendDisclosure)
	handle(s, r, operation{
		id: "read-accounting", path: "/api/v1/patients/{id}/disclosures", tag: "disclosures",
		summary: "Read the accounting of disclosures",
		doc: "The disclosures of a period of at most six years that 45 CFR 164.528 accounts for, oldest first; those to one recipient for one purpose are one line. " +
			"For patients, of their own record, without what an agency had suspended; for an admin or officer with a second factor, with it and marked. Days are days in UTC.",
		errors: readErrors,
	}, s.readAccounting)
	handle(s, r, operation{
		id: "print-accounting", path: "/api/v1/patients/{id}/disclosures/accounting", tag: "disclosures", media: "text/html",
		summary: "Print the accounting of disclosures",
		doc: "The patient's copy of the accounting, whoever asks for it, as one page of HTML to print: what an agency had suspended is not in it. " +
			"It has no script and loads nothing.",
		errors: readErrors,
	}, s.printAccounting)
}

// basis is a med.Basis in the contract.
type basis string

// Schema lists the bases, from the one table of them.
func (basis) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, Description: "On which ground of 45 CFR it was made.", Examples: []any{"public_health"}}
	for _, r := range med.Bases {
		s.Enum = append(s.Enum, string(r.Basis))
	}
	return s
}

type recipientBody struct {
	Name    string `json:"name" maxLength:"200" doc:"Who received it." example:"County Health Department"`
	Address string `json:"address,omitempty" maxLength:"500" doc:"Their address, if known."`
}

// DisclosureBody is what is told of a disclosure. It is exported because Huma
// looks into no other embedded type.
type DisclosureBody struct {
	Recipient   recipientBody `json:"recipient"`
	Basis       basis         `json:"basis"`
	Purpose     string        `json:"purpose,omitempty" maxLength:"500" doc:"Why, in brief. Needed unless there is a request."`
	Request     string        `json:"request,omitempty" maxLength:"500" doc:"Where the written request for it is kept."`
	Description string        `json:"description" maxLength:"2000" doc:"What was disclosed, in brief." example:"Laboratory report"`
	DisclosedOn string        `json:"disclosed_on,omitempty" format:"date" doc:"On which day; or give a period."`
	Period      *periodBody   `json:"period,omitempty" doc:"Of repeated disclosures to this recipient for this purpose."`
}

type periodBody struct {
	First     string `json:"first" format:"date" doc:"The day of the first."`
	Last      string `json:"last" format:"date" doc:"The day of the last."`
	Frequency string `json:"frequency,omitempty" enum:"daily,weekly,monthly,quarterly,yearly,irregular" doc:"How often."`
	Count     int    `json:"count,omitempty" minimum:"1" maximum:"1000000" doc:"How many."`
}

type suspensionBody struct {
	Agency    string `json:"agency" enum:"law_enforcement,health_oversight" doc:"Which agency asked: the one that the disclosure was made to."`
	Official  string `json:"official" maxLength:"500" doc:"Who made the statement."`
	Statement string `json:"statement" enum:"written,oral" doc:"In which form."`
	StatedOn  string `json:"stated_on" format:"date" doc:"On which day."`
	Until     string `json:"until" format:"date" doc:"The last day on which the patient is not told."`
}

// recordedBody is a DisclosureBody with what only a new one has.
type recordedBody struct {
	ID string `json:"id,omitempty" format:"uuid" doc:"An id of your own choice, so that a second attempt is a conflict and no second disclosure."`
	DisclosureBody
	Suspension *suspensionBody `json:"suspension,omitempty" doc:"The statement of an agency that the patient is not to be told for a time."`
}

type amendmentBody struct {
	Correction     *DisclosureBody `json:"correction,omitempty" doc:"Takes the place of all that was told."`
	EnteredInError bool            `json:"entered_in_error,omitempty" doc:"It was never made, or not of this patient's data."`
	Suspension     *suspensionBody `json:"suspension,omitempty"`
}

type recordInput struct {
	ID string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	OnceInput
	Body recordedBody
}

type amendInput struct {
	ID         string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	Disclosure string `path:"disclosure" format:"uuid" doc:"The disclosure's id."`
	Body       amendmentBody
}

type disclosureVersion struct {
	ID      string `json:"id" format:"uuid" doc:"The disclosure."`
	Version int32  `json:"version" doc:"Which version of it this made."`
}

func (s *Server) recordDisclosure(ctx context.Context, c med.Caller, in *recordInput) (*answer[disclosureVersion], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	d, err := in.Body.disclosure()
	if err != nil {
		return nil, err
	}
	d.ID = med.DisclosureID(in.Body.ID)
	if in.Body.Suspension != nil {
		d.Suspensions = []med.Suspension{in.Body.Suspension.suspension()}
	}
	once, err := onceOf(in.OnceInput, "record-disclosure "+string(id), in.Body)
	if err != nil {
		return nil, err
	}
	out, err := s.cfg.Chart.RecordDisclosure(ctx, c, id, *d, once)
	if err != nil {
		return nil, err
	}
	return answered(out.Event, disclosureVersion{string(out.ID), out.Version}), nil
}

func (s *Server) amendDisclosure(ctx context.Context, c med.Caller, in *amendInput) (*answer[disclosureVersion], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	change := med.Amendment{InError: in.Body.EnteredInError}
	if in.Body.Correction != nil {
		if change.Correction, err = in.Body.Correction.disclosure(); err != nil {
			return nil, err
		}
	}
	if in.Body.Suspension != nil {
		x := in.Body.Suspension.suspension()
		change.Suspension = &x
	}
	out, err := s.cfg.Chart.AmendDisclosure(ctx, c, id, med.DisclosureID(in.Disclosure), change)
	if err != nil {
		return nil, err
	}
	return answered(out.Event, disclosureVersion{string(out.ID), out.Version}), nil
}

// disclosure is what the body tells. Days that are none are left for the chart
// to refuse; it reports Invalid only for two ways of saying when.
func (b *DisclosureBody) disclosure() (*med.Disclosure, error) {
	d := &med.Disclosure{
		Basis: med.Basis(b.Basis), Recipient: med.PHI(b.Recipient.Name), Address: med.PHI(b.Recipient.Address), Purpose: med.PHI(b.Purpose),
		Request: med.PHI(b.Request), Description: med.PHI(b.Description),
	}
	if b.Period == nil {
		d.First = dayOf(b.DisclosedOn)
		d.Last = d.First
		return d, nil
	}
	if b.DisclosedOn != "" {
		return nil, med.Invalid.New("").With(med.FieldError{Pointer: "/period", Reason: "a day or a period, not both"})
	}
	d.First, d.Last, d.Frequency, d.Count = dayOf(b.Period.First), dayOf(b.Period.Last), med.Frequency(b.Period.Frequency), b.Period.Count
	return d, nil
}

func (b *suspensionBody) suspension() med.Suspension {
	return med.Suspension{
		Agency: med.Agency(b.Agency), Official: med.PHI(b.Official), Statement: med.Statement(b.Statement),
		StatedOn: dayOf(b.StatedOn), Until: dayOf(b.Until),
	}
}

// dayOf returns the day, or none.
func dayOf(s string) med.Day {
	d, _ := med.ParseDay(s)
	return d
}

type accountingInput struct {
	ID   string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
	From string `query:"from" format:"date" doc:"The first day of the period: six years ago unless it says otherwise, and at most."`
	To   string `query:"to" format:"date" doc:"The last day of the period: today unless it says otherwise."`
}

// ask returns what is asked for. It reports Invalid for a day that is none, which
// would else stand for the whole period.
func (in *accountingInput) ask() (med.PatientID, med.AccountingAsk, error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return "", med.AccountingAsk{}, err
	}
	from, to, err := daysOf(in.From, in.To)
	return id, med.AccountingAsk{From: from, To: to}, err
}

// daysOf returns the days between which something is asked for. It reports
// Invalid for a day that is none, which would else stand for no bound.
func daysOf(from, to string) (first, last med.Day, err error) {
	first, last = dayOf(from), dayOf(to)
	for _, d := range []struct {
		name, given string
		none        bool
	}{{"from", from, first.IsZero()}, {"to", to, last.IsZero()}} {
		if d.given != "" && d.none {
			return first, last, med.Invalid.New("").With(med.FieldError{Pointer: d.name, Reason: "not a day"})
		}
	}
	return first, last, nil
}

type accountingBody struct {
	Patient      string          `json:"patient_id"`
	Practice     string          `json:"practice_id"`
	PracticeName string          `json:"practice_name"`
	From         string          `json:"from" format:"date"`
	To           string          `json:"to" format:"date"`
	MadeOn       string          `json:"made_on" format:"date"`
	Disclosures  []accountedBody `json:"disclosures" doc:"Oldest first."`
}

type accountedBody struct {
	IDs         []string        `json:"ids" doc:"The disclosures that the line stands for."`
	Recipient   recipientBody   `json:"recipient"`
	Basis       basis           `json:"basis"`
	BasisText   string          `json:"basis_text" doc:"The basis in words, with its paragraph of 45 CFR."`
	Purpose     string          `json:"purpose,omitempty"`
	Request     string          `json:"request,omitempty"`
	Description string          `json:"description"`
	First       string          `json:"first" format:"date" doc:"The day of the disclosure, or of the first."`
	Last        string          `json:"last" format:"date" doc:"The day of the last."`
	Count       int             `json:"count,omitempty" doc:"How many, when it is known and not one."`
	Frequency   string          `json:"frequency,omitempty" doc:"How often, when that was recorded."`
	Suspension  *suspensionBody `json:"suspension,omitempty" doc:"In force: the patient must not be told of this line. Never in the patient's own accounting."`
}

func (s *Server) readAccounting(ctx context.Context, c med.Caller, in *accountingInput) (*answer[accountingBody], error) {
	id, ask, err := in.ask()
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Chart.ReadAccounting(ctx, c, id, ask)
	if err != nil {
		return nil, err
	}
	out := accountingBody{
		Patient: string(a.Patient), Practice: string(a.Practice), PracticeName: a.Name,
		From: a.Window.From.Reveal(), To: a.Window.To.Reveal(), MadeOn: a.Made.Reveal(), Disclosures: make([]accountedBody, len(a.Lines)),
	}
	for i := range a.Lines {
		out.Disclosures[i] = accountedOf(&a.Lines[i])
	}
	return answered(a.Event, out), nil
}

func accountedOf(l *med.AccountedDisclosure) accountedBody {
	rule, _ := l.Basis.Rule()
	out := accountedBody{
		Recipient: recipientBody{l.Recipient.Reveal(), l.Address.Reveal()}, Basis: basis(l.Basis), BasisText: rule.Words + " (45 CFR " + rule.CFR + ")",
		Purpose: l.Purpose.Reveal(), Request: l.Request.Reveal(), Description: l.Description.Reveal(), First: l.First.Reveal(), Last: l.Last.Reveal(),
		Count: l.Count, Frequency: string(l.Frequency),
	}
	for _, id := range slices.Sorted(slices.Values(l.IDs)) {
		out.IDs = append(out.IDs, string(id))
	}
	if x := l.Suspended; x != nil {
		out.Suspension = &suspensionBody{string(x.Agency), x.Official.Reveal(), string(x.Statement), x.StatedOn.Reveal(), x.Until.Reveal()}
	}
	return out
}
