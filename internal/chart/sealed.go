// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
)

// What is inside sealed fields. Texts are sealed as they are; the composed
// ones as JSON of these forms. They exist only between opening and answering.
type (
	sealedName struct {
		Family string   `json:"family,omitempty"`
		Given  []string `json:"given,omitempty"`
		Text   string   `json:"text,omitempty"`
	}
	sealedAddress struct {
		Line       []string `json:"line,omitempty"`
		City       string   `json:"city,omitempty"`
		State      string   `json:"state,omitempty"`
		PostalCode string   `json:"postal_code,omitempty"`
		Country    string   `json:"country,omitempty"`
	}
	sealedInsurance struct {
		Payer    string `json:"payer,omitempty"`
		MemberID string `json:"member_id,omitempty"`
	}
	// sealedHeader is what a list of records needs to know of each.
	sealedHeader struct {
		Kind        med.Kind        `json:"kind"`
		Type        string          `json:"type,omitempty"`
		Codes       []sealedCode    `json:"codes,omitempty"`
		Status      string          `json:"status,omitempty"`
		Start       string          `json:"start,omitempty"`
		End         string          `json:"end,omitempty"`
		Author      string          `json:"author,omitempty"`
		Sensitivity med.Sensitivity `json:"sensitivity"`
		Active      bool            `json:"active,omitempty"`
		// Digest of the source, keyed: whether an import brings something new.
		Digest []byte `json:"digest,omitempty"`
		// By is who wrote it here, issuer and subject, and At when, in Unix
		// milliseconds. Sealed, so that nobody becomes an author by UPDATE. An
		// imported record has neither.
		By string `json:"by,omitempty"`
		At int64  `json:"at,omitempty"`
		// Mark is what its author said of its sensitivity; of an imported one what
		// its source says. It is never less closed than this.
		Mark    med.Sensitivity `json:"mark,omitempty"`
		InError bool            `json:"in_error,omitempty"`
	}
	sealedCode struct {
		System  string `json:"system,omitempty"`
		Code    string `json:"code,omitempty"`
		Display string `json:"display,omitempty"`
	}
	sealedValue struct {
		Quantity string      `json:"quantity,omitempty"`
		Text     string      `json:"text,omitempty"`
		Code     *sealedCode `json:"code,omitempty"`
	}
)

// Fields of a row beside those that a policy names.
const (
	fieldSource   = "source"    // the FHIR resource, whole, compressed
	fieldSourceID = "source_id" // of a patient: their id there
	fieldHeader   = envelope.HeaderField
	fieldValue    = "value"
	fieldNote     = "note"
)

// patientFields returns the fields of a patient as they are sealed.
func patientFields(p *med.Patient) (map[string][]byte, error) {
	out := map[string][]byte{}
	for f, v := range map[med.Field]med.PHI{
		med.FieldMRN: p.MRN, med.FieldSSN: p.SSN, med.FieldDOB: p.DOB, med.FieldSex: p.Sex, med.FieldPhone: p.Phone,
		med.FieldEmail: p.Email, med.FieldDiagnosis: p.Diagnosis, med.FieldDeceasedAt: p.DeceasedAt,
		med.FieldSensitivity: p.Sensitivity, fieldSourceID: p.SourceID,
	} {
		if v != "" {
			out[string(f)] = []byte(v.Reveal())
		}
	}
	if p.Source != "" {
		out[fieldSource] = envelope.Compress([]byte(p.Source.Reveal()))
	}
	name := sealedName{p.Name.Family.Reveal(), reveal(p.Name.Given), p.Name.Text.Reveal()}
	address := sealedAddress{
		reveal(p.Address.Line), p.Address.City.Reveal(), p.Address.State.Reveal(), p.Address.PostalCode.Reveal(), p.Address.Country.Reveal(),
	}
	insurance := sealedInsurance{p.Insurance.Payer.Reveal(), p.Insurance.MemberID.Reveal()}
	for f, v := range map[med.Field]any{med.FieldName: name, med.FieldAddress: address, med.FieldInsurance: insurance} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f, err)
		}
		if string(b) != "{}" {
			out[string(f)] = b
		}
	}
	return out, nil
}

// setField puts an opened field, or its mask, into the patient.
func setField(p *med.Patient, f med.Field, plain []byte) error {
	text := med.PHI(plain)
	switch f {
	case med.FieldMRN:
		p.MRN = text
	case med.FieldSSN:
		p.SSN = text
	case med.FieldDOB:
		p.DOB = text
	case med.FieldSex:
		p.Sex = text
	case med.FieldPhone:
		p.Phone = text
	case med.FieldEmail:
		p.Email = text
	case med.FieldDiagnosis:
		p.Diagnosis = text
	case med.FieldDeceasedAt:
		p.DeceasedAt = text
	case med.FieldSensitivity:
		p.Sensitivity = text
	case med.FieldName:
		var v sealedName
		if err := json.Unmarshal(plain, &v); err != nil {
			return fmt.Errorf("field %s does not read", f)
		}
		p.Name = med.Name{Family: med.PHI(v.Family), Given: conceal(v.Given), Text: med.PHI(v.Text)}
	case med.FieldAddress:
		var v sealedAddress
		if err := json.Unmarshal(plain, &v); err != nil {
			return fmt.Errorf("field %s does not read", f)
		}
		p.Address = med.Address{
			Line: conceal(v.Line), City: med.PHI(v.City), State: med.PHI(v.State), PostalCode: med.PHI(v.PostalCode), Country: med.PHI(v.Country),
		}
	case med.FieldInsurance:
		var v sealedInsurance
		if err := json.Unmarshal(plain, &v); err != nil {
			return fmt.Errorf("field %s does not read", f)
		}
		p.Insurance = med.Insurance{Payer: med.PHI(v.Payer), MemberID: med.PHI(v.MemberID)}
	default: // of a record
	}
	return nil
}

// maskShapeless puts a mask where nothing was opened, whether or not there is
// a value: so the mask tells nothing of it.
func maskShapeless(p *med.Patient, f med.Field) {
	switch f {
	case med.FieldName:
		p.Name = med.Name{Text: maskedText}
	case med.FieldAddress:
		p.Address = med.Address{Line: []med.PHI{maskedText}}
	case med.FieldInsurance:
		p.Insurance = med.Insurance{Payer: maskedText, MemberID: maskedText}
	default:
		_ = setField(p, f, []byte(maskedText)) // a text: cannot fail
	}
}

// recordFields returns the fields of a record as they are sealed.
func recordFields(r *med.Record, digest []byte) (map[string][]byte, error) {
	h := sealedHeader{
		Kind: r.Kind, Type: r.Type, Status: r.Status.Reveal(), Start: r.Start.Reveal(), End: r.End.Reveal(),
		Author: r.Author.Reveal(), Sensitivity: r.Sensitivity, Active: r.Active, Digest: digest, Codes: sealedCodes(r.Codes), Mark: r.Sensitivity,
	}
	header, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{fieldHeader: header}
	v := sealedValue{Quantity: r.Value.Quantity.Reveal(), Text: r.Value.Text.Reveal()}
	if c := r.Value.Code; c != nil {
		v.Code = &sealedCode{c.System.Reveal(), c.Code.Reveal(), c.Display.Reveal()}
	}
	if v != (sealedValue{}) {
		if out[fieldValue], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	if r.Note != "" {
		out[fieldNote] = []byte(r.Note.Reveal())
	}
	if r.Source != "" {
		out[fieldSource] = envelope.Compress([]byte(r.Source.Reveal()))
	}
	return out, nil
}

func sealedCodes(in []med.Code) []sealedCode {
	var out []sealedCode
	for _, c := range in {
		out = append(out, sealedCode{c.System.Reveal(), c.Code.Reveal(), c.Display.Reveal()})
	}
	return out
}

func codesOf(in []sealedCode) []med.Code {
	var out []med.Code
	for _, c := range in {
		out = append(out, med.Code{System: med.PHI(c.System), Code: med.PHI(c.Code), Display: med.PHI(c.Display)})
	}
	return out
}

// record is what the header says of a record.
func (h *sealedHeader) record(id med.RecordID, patient med.PatientID) med.Record {
	return med.Record{
		ID: id, Patient: patient, Kind: h.Kind, Type: h.Type, Codes: codesOf(h.Codes), Status: med.PHI(h.Status), Start: med.PHI(h.Start), End: med.PHI(h.End),
		Author: med.PHI(h.Author), Sensitivity: h.Sensitivity, Active: h.Active, InError: h.InError,
	}
}

func reveal(in []med.PHI) []string {
	out := make([]string, len(in))
	for i, p := range in {
		out[i] = p.Reveal()
	}
	return out
}

func conceal(in []string) []med.PHI {
	out := make([]med.PHI, len(in))
	for i, s := range in {
		out[i] = med.PHI(s)
	}
	return out
}
