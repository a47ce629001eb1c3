// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// Record maps any resource but a Patient. A type without a mapping is kept
// whole as kind other. Patient, Practice and Version are left to the chart; the
// id is a function of the source's type and id, see RecordID. It reports a
// Refusal for a resource that is malformed, masked, or has a status outside the
// code set FHIR R4 requires; the warnings tell what else could not be mapped.
func Record(raw []byte) (med.Record, []Warning, error) {
	e, d, err := parseOne(raw)
	if err != nil {
		return med.Record{}, nil, err
	}
	m := mapper{d: d, typ: e.typ}
	r, err := m.record(e)
	return r, m.warnings, err
}

// KindOf returns the kind of record a resource type becomes.
func KindOf(resourceType string) med.Kind {
	if s, ok := shapes[resourceType]; ok {
		return s.kind
	}
	return med.KindOther
}

// RecordID returns the record id for a resource's type and id. A UUID is taken
// as it is; any other id gets its type before it, because FHIR ids are unique
// per type only: Observation/1 imported today and Condition/1 tomorrow are two
// records. An id that is missing or no FHIR id is replaced by a digest of the
// resource, so that the same resource finds itself again.
func RecordID(resourceType, id, raw string) med.RecordID {
	switch {
	case med.IsUUID(id):
		return med.RecordID(id)
	case id == "":
		return digestID(raw)
	}
	return typedID(resourceType, id)
}

func typedID(resourceType, id string) med.RecordID {
	if typed, err := med.ParseRecordID(resourceType + "." + id); err == nil {
		return typed
	}
	return digestID(resourceType + "\x00" + id)
}

func digestID(of string) med.RecordID {
	sum := sha256.Sum256([]byte(of))
	return med.RecordID("x." + hex.EncodeToString(sum[:16]))
}

func (m *mapper) record(e entry) (med.Record, error) {
	v := e.res
	if e.typ == "Patient" {
		return med.Record{}, refuse("the resource is a Patient, not a record")
	}
	l := labelsWithin(v)
	l.sensitivity = med.Strictest(l.sensitivity, v.listed())
	if l.altered || m.d.masked(v) {
		return med.Record{}, errAltered
	}
	r := med.Record{
		ID: RecordID(e.typ, e.id, v.raw()), Kind: med.KindOther, Type: e.typ,
		Sensitivity: l.sensitivity, Source: phi(v.raw()),
	}
	s, mapped := shapes[e.typ]
	if !mapped {
		return r, nil
	}
	r.Kind = s.kind
	status, err := s.statusOf(v)
	if err != nil {
		return med.Record{}, err
	}
	if status == "" && s.status != "" {
		m.warn("status", "absent")
	}
	r.Status = phi(status)
	r.Codes = m.codes(v, s)
	r.Start, r.End = m.effective(v, s)
	r.Value = m.value(v, s)
	r.Note = phi(m.note(v, s))
	r.Author = phi(m.clean("author", author(v, s)))
	r.Active = e.typ == "Condition" && current(v) && onProblemList(v)
	return r, nil
}

// current says whether a condition is one the patient has.
func current(v val) bool {
	return oneOf(concept(v.get("clinicalStatus")), "active recurrence relapse") &&
		!oneOf(concept(v.get("verificationStatus")), "refuted entered-in-error")
}

// onProblemList says whether a condition is a problem-list item, or does not
// say what it is.
func onProblemList(v val) bool {
	said := false
	for c := range v.get("category").items() {
		for coding := range c.get("coding").items() {
			said = true
			if coding.get("code").str() == "problem-list-item" {
				return true
			}
		}
	}
	return !said
}

// concept is the first code of a CodeableConcept that is bound to one system.
func concept(v val) string { return v.at("coding", "code").str() }

// clean is for lines people read: what could deceive them is replaced.
func (m *mapper) clean(element, s string) string {
	out, changed := clean(s, false)
	if changed {
		m.warn(element, "control or direction characters replaced")
	}
	return out
}

// codes lists all codings and texts of the shape's coded elements.
func (m *mapper) codes(v val, s shape) []med.Code {
	var out []med.Code
	for _, name := range s.codes {
		for c := range v.get(name).items() {
			if c.get("coding").present() || c.get("text").present() {
				out = m.conceptCodes(out, name, c)
			} else if code := m.coding(name, c); code != (med.Code{}) {
				out = append(out, code) // Encounter.class is a bare Coding
			}
		}
	}
	if len(out) == 0 {
		for _, name := range s.codes {
			if ref := strings.TrimSuffix(name, "CodeableConcept") + "Reference"; v.get(ref).present() {
				return m.referenced(v, ref)
			}
		}
		m.warn(s.codes[0], "no code")
	}
	return out
}

func (m *mapper) conceptCodes(out []med.Code, element string, c val) []med.Code {
	text, told := m.clean(element, trimmed(c.get("text"))), false
	for coding := range c.get("coding").items() {
		code := m.coding(element, coding)
		told = told || code.Display.Reveal() == text
		out = append(out, code)
	}
	if text != "" && !told {
		out = append(out, med.Code{Display: phi(text)})
	}
	return out
}

func (m *mapper) coding(element string, c val) med.Code {
	return med.Code{
		System:  phi(m.clean(element, trimmed(c.get("system")))),
		Code:    phi(m.clean(element, trimmed(c.get("code")))),
		Display: phi(m.clean(element, trimmed(c.get("display")))),
	}
}

// referenced codes a medication that is named by reference: the contained
// Medication, else what the reference displays.
func (m *mapper) referenced(v val, name string) []med.Code {
	ref := v.get(name)
	if id, ok := strings.CutPrefix(ref.get("reference").str(), "#"); ok {
		for c := range v.get("contained").items() {
			if c.get("id").str() == id {
				return m.conceptCodes(nil, name, c.get("code"))
			}
		}
	}
	if display := m.clean(name, trimmed(ref.get("display"))); display != "" {
		return []med.Code{{Display: phi(display)}}
	}
	m.warn(name, "no code: the reference displays nothing")
	return nil
}

// effective is the first of the shape's dates that the resource has: a moment,
// or the start and end of a period.
func (m *mapper) effective(v val, s shape) (start, end med.PHI) {
	for _, name := range s.dates {
		x := v.get(name)
		switch {
		case x.kind() == jsonString:
			start = phi(m.when(name, x))
		case x.kind() == jsonObject:
			start, end = phi(m.when(name, x.get("start"))), phi(m.when(name, x.get("end")))
		}
		if start != "" || end != "" {
			break
		}
	}
	if end == "" {
		for _, name := range s.ends {
			x := v.get(name)
			if x.kind() == jsonObject {
				x = x.get("end")
			}
			if end = phi(m.when(name, x)); end != "" {
				break
			}
		}
	}
	return start, end
}

func (m *mapper) when(element string, v val) string {
	if !v.present() {
		return ""
	}
	s := v.str()
	if !dateTime(s) {
		m.warn(element, "not a FHIR dateTime")
		return ""
	}
	return s
}

// author is the first of the shape's people that the resource names.
func author(v val, s shape) string {
	for _, path := range s.authors {
		outer, inner, nested := strings.Cut(path, ".")
		for x := range v.get(outer).items() {
			if nested {
				x = x.get(inner)
			}
			if a := reference(x); a != "" {
				return a
			}
		}
	}
	return ""
}

// reference is who or what a Reference names: display, and the reference in
// brackets.
func reference(v val) string {
	display, ref := trimmed(v.get("display")), trimmed(v.get("reference"))
	if ref == "" {
		if value := trimmed(v.at("identifier", "value")); value != "" {
			ref = trimmed(v.at("identifier", "system")) + "|" + value
		}
	}
	switch {
	case display == "":
		return ref
	case ref == "":
		return display
	}
	return display + " (" + ref + ")"
}
