// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// Patient maps a Patient resource. The whole of it stays in Source; the id the
// source gave it becomes SourceID, and ID is left to the chart. It reports a
// Refusal for a resource that is malformed, masked, or breaks R4 in a field that
// names the person; the warnings tell what else could not be mapped.
func Patient(raw []byte) (med.Patient, []Warning, error) {
	e, d, err := parseOne(raw)
	if err != nil {
		return med.Patient{}, nil, err
	}
	m := mapper{d: d, typ: e.typ}
	p, err := m.patient(e)
	return p, m.warnings, err
}

func parseOne(raw []byte) (entry, *doc, error) {
	d := &doc{}
	e, err := parseLine(d, string(raw), Limits{Entry: len(raw)}.withDefaults())
	if err != nil {
		return entry{}, nil, err
	}
	return e, d, nil
}

// mapper maps one resource and collects what it had to leave out.
type mapper struct {
	d        *doc
	place    Place
	index    int
	typ      string
	warnings []Warning
}

func (m *mapper) warn(element, reason string) {
	m.warnings = append(m.warnings, Warning{Place: m.place, Index: m.index, Type: m.typ, Element: element, Reason: reason})
}

func (m *mapper) patient(e entry) (med.Patient, error) {
	v := e.res
	if e.typ != "Patient" {
		return med.Patient{}, refuse("the resource is not a Patient")
	}
	l := labelsOf(v.get("meta"))
	if l.altered || m.d.masked(v) {
		return med.Patient{}, errAltered
	}
	p := med.Patient{
		MRN: phi(mrn(v)), Name: humanName(v.get("name")), SSN: phi(m.ssn(v)),
		DOB: phi(v.get("birthDate").str()), Sex: phi(v.get("gender").str()),
		Address: address(v.get("address")),
		Phone:   phi(telecom(v, "phone")), Email: phi(telecom(v, "email")),
		DeceasedAt: phi(deceased(v)), Sensitivity: phi(string(med.SensitivityNormal)),
		Source: phi(v.raw()), SourceID: phi(e.id),
	}
	// The patient's own resource has no author to keep a psychotherapy note for.
	if l.sensitivity != med.SensitivityNormal {
		p.Sensitivity = phi(string(med.SensitivityRestricted))
	}
	return p, m.checkPatient(v, p)
}

// checkPatient refuses what would make a wrong person of the right one.
func (m *mapper) checkPatient(v val, p med.Patient) error {
	dob, sex, died := p.DOB.Reveal(), p.Sex.Reveal(), p.DeceasedAt.Reveal()
	switch {
	case v.get("birthDate").present() && !date(dob):
		return refuse("birthDate is not a FHIR date")
	case v.get("gender").present() && !oneOf(sex, "male female other unknown"):
		return refuse("gender is not one of the codes FHIR R4 requires")
	case v.get("deceasedDateTime").present() && !dateTime(died):
		return refuse("deceasedDateTime is not a FHIR dateTime")
	}
	for element, value := range identity(p) {
		// Refused and not cleaned: a name is compared, searched and printed.
		if _, bad := clean(value, false); bad {
			return refuse(element + " holds control or direction characters")
		}
	}
	for element, value := range map[string]string{"name": p.Name.Text.Reveal(), "birthDate": dob, "identifier (MR)": p.MRN.Reveal()} {
		if value == "" {
			m.warn(element, "absent")
		}
	}
	return nil
}

// identity lists the mapped fields of a patient that people read as one line.
func identity(p med.Patient) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		fields := []struct {
			element string
			values  []med.PHI
		}{
			{"identifier", []med.PHI{p.MRN, p.SourceID}},
			{"name", append([]med.PHI{p.Name.Family, p.Name.Text}, p.Name.Given...)},
			{"address", append([]med.PHI{p.Address.City, p.Address.State, p.Address.PostalCode, p.Address.Country}, p.Address.Line...)},
			{"telecom", []med.PHI{p.Phone, p.Email}},
		}
		for _, f := range fields {
			for _, value := range f.values {
				if !yield(f.element, value.Reveal()) {
					return
				}
			}
		}
	}
}

const systemSSN = "http://hl7.org/fhir/sid/us-ssn"

// hasType says whether an identifier's type is the v2-0203 code. The system of
// the code is not asked: sources write it in several ways.
func hasType(identifier val, code string) bool {
	for c := range identifier.at("type", "coding").items() {
		if c.get("code").str() == code {
			return true
		}
	}
	return false
}

// mrn is the value of the first identifier of type MR.
func mrn(v val) string {
	for id := range v.get("identifier").items() {
		if value := trimmed(id.get("value")); value != "" && hasType(id, "MR") {
			return value
		}
	}
	return ""
}

// ssn is the first social security number that is one, as ddd-dd-dddd.
func (m *mapper) ssn(v val) string {
	for id := range v.get("identifier").items() {
		if id.get("system").str() != systemSSN && !hasType(id, "SS") {
			continue
		}
		if s, ok := normalSSN(trimmed(id.get("value"))); ok {
			return s
		}
		m.warn("identifier (SS)", "not a social security number")
	}
	return ""
}

// normalSSN accepts ddd-dd-dddd and ddddddddd.
func normalSSN(s string) (string, bool) {
	if len(s) == 11 && s[3] == '-' && s[6] == '-' {
		s = s[:3] + s[4:6] + s[7:]
	}
	if len(s) != 9 {
		return "", false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return "", false
		}
	}
	return s[:3] + "-" + s[3:5] + "-" + s[5:], true
}

// humanName is the official name, else the usual one, else the first.
func humanName(names val) med.Name {
	n := prefer(names, "use", "official", "usual")
	out := med.Name{Family: phi(trimmed(n.get("family")))}
	words := make([]string, 0, 4)
	for g := range n.get("given").items() {
		if s := trimmed(g); s != "" {
			out.Given = append(out.Given, phi(s))
			words = append(words, s)
		}
	}
	text := trimmed(n.get("text"))
	if text == "" {
		text = strings.TrimSpace(strings.Join(append(words, out.Family.Reveal()), " "))
	}
	out.Text = phi(text)
	return out
}

// prefer returns the first item whose property has the first wanted word, else
// the second, and so on; else the first item.
func prefer(list val, property string, words ...string) val {
	for _, w := range words {
		for x := range list.items() {
			if x.get(property).str() == w {
				return x
			}
		}
	}
	return list.first()
}

// address leaves extensions out: geolocation is an identifier that nobody here
// needs. It stays in the source.
func address(list val) med.Address {
	a := prefer(list, "use", "home")
	out := med.Address{
		City: phi(trimmed(a.get("city"))), State: phi(trimmed(a.get("state"))),
		PostalCode: phi(trimmed(a.get("postalCode"))), Country: phi(trimmed(a.get("country"))),
	}
	for line := range a.get("line").items() {
		if s := trimmed(line); s != "" {
			out.Line = append(out.Line, phi(s))
		}
	}
	return out
}

// telecom is the contact point of that system with the lowest rank, else the
// first; one that is marked old only if there is no other.
func telecom(v val, system string) string {
	best, bestRank := "", "~"
	for t := range v.get("telecom").items() {
		value := trimmed(t.get("value"))
		if value == "" || t.get("system").str() != system {
			continue
		}
		if rank := telecomRank(t); best == "" || rank < bestRank {
			best, bestRank = value, rank
		}
	}
	return best
}

// telecomRank sorts as text: current before old, ranked before unranked.
func telecomRank(t val) string {
	age := "0"
	if t.get("use").str() == "old" {
		age = "1"
	}
	rank := t.get("rank").raw() // positiveInt
	if rank == "" || len(rank) > 10 {
		return age + "~"
	}
	return age + strings.Repeat("0", 10-len(rank)) + rank
}

// deceased is the time of death, or "true" when only the fact is known.
func deceased(v val) string {
	if at := v.get("deceasedDateTime").str(); at != "" {
		return at
	}
	if v.get("deceasedBoolean").kind() == jsonTrue {
		return "true"
	}
	return ""
}
