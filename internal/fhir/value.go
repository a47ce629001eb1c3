// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"encoding/base64"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/med"
)

func (m *mapper) value(v val, s shape) med.Value {
	if s.value == nil {
		return med.Value{}
	}
	return s.value(m, v)
}

// observed is an Observation's value; its components follow as text, as they
// are values of their own (the two pressures of a blood pressure).
func (m *mapper) observed(v val) med.Value {
	out := m.choice(v)
	var parts []string
	for c := range v.get("component").items() {
		parts = append(parts, label(c.get("code"))+": "+flat(m.choice(c)))
	}
	if len(parts) == 0 {
		return out
	}
	components := strings.Join(parts, "; ")
	if text := out.Text.Reveal(); text != "" {
		components = text + "; " + components
	}
	out.Text = phi(components)
	return out
}

// choice reads value[x].
func (m *mapper) choice(v val) med.Value {
	for name, x := range v.properties() {
		kind, ok := strings.CutPrefix(name, "value")
		if !ok || !x.present() {
			continue
		}
		switch kind {
		case "Quantity":
			return med.Value{Quantity: phi(m.clean(name, quantity(x)))}
		case "CodeableConcept":
			return m.coded(name, x)
		case "String", "Boolean", "Integer", "Time", "DateTime":
			return med.Value{Text: phi(m.clean(name, x.scalar()))}
		case "Range":
			return med.Value{Text: phi(m.clean(name, quantity(x.get("low"))+" to "+quantity(x.get("high"))))}
		case "Ratio":
			return med.Value{Text: phi(m.clean(name, quantity(x.get("numerator"))+" / "+quantity(x.get("denominator"))))}
		case "Period":
			return med.Value{Text: phi(m.clean(name, x.get("start").str()+" to "+x.get("end").str()))}
		default:
			m.warn(name, "kept in the source only")
			return med.Value{}
		}
	}
	return med.Value{}
}

// coded is the first coding of a concept, and its text when that says more.
func (m *mapper) coded(element string, c val) med.Value {
	codes := m.conceptCodes(nil, element, c)
	if len(codes) == 0 {
		return med.Value{}
	}
	first := codes[0]
	if first.Code == "" {
		return med.Value{Text: first.Display}
	}
	out := med.Value{Code: &first}
	if last := codes[len(codes)-1]; last.Code == "" {
		out.Text = last.Display
	}
	return out
}

// quantity is a number as the source wrote it, with its unit.
func quantity(q val) string {
	unit := trimmed(q.get("unit"))
	if unit == "" {
		unit = trimmed(q.get("code"))
	}
	return strings.TrimSpace(q.get("comparator").str() + q.get("value").scalar() + " " + unit)
}

// money is an amount with its currency.
func money(v val) string {
	return strings.TrimSpace(v.get("value").scalar() + " " + v.get("currency").str())
}

// label is what a concept is called: its text, else a display, else a code.
func label(c val) string {
	if text := trimmed(c.get("text")); text != "" {
		return text
	}
	for coding := range c.get("coding").items() {
		if display := trimmed(coding.get("display")); display != "" {
			return display
		}
	}
	return trimmed(c.at("coding", "code"))
}

// flat is a value as one line.
func flat(v med.Value) string {
	switch {
	case v.Quantity != "":
		return v.Quantity.Reveal()
	case v.Text != "":
		return v.Text.Reveal()
	case v.Code != nil && v.Code.Display != "":
		return v.Code.Display.Reveal()
	case v.Code != nil:
		return v.Code.Code.Reveal()
	}
	return "no value"
}

// dosage is the instructions of a medication: their text, else the dose.
func (m *mapper) dosage(v val) med.Value {
	var out []string
	for _, name := range []string{"dosageInstruction", "dosage"} {
		for d := range v.get(name).items() {
			text := trimmed(d.get("text"))
			for _, dose := range []val{d.at("doseAndRate", "doseQuantity"), d.get("dose")} {
				if text == "" {
					text = quantity(dose)
				}
			}
			if text != "" {
				out = append(out, text)
			}
		}
	}
	return med.Value{Text: phi(m.clean("dosage", strings.Join(out, "; ")))}
}

func (m *mapper) dose(v val) med.Value {
	return med.Value{Quantity: phi(m.clean("doseQuantity", quantity(v.get("doseQuantity"))))}
}

// reactions is how an allergy shows.
func (m *mapper) reactions(v val) med.Value {
	var out []string
	for r := range v.get("reaction").items() {
		for c := range r.get("manifestation").items() {
			if l := label(c); l != "" {
				out = append(out, l)
			}
		}
	}
	return med.Value{Text: phi(m.clean("reaction", strings.Join(out, "; ")))}
}

func (m *mapper) outcome(v val) med.Value {
	if !v.get("outcome").present() {
		return med.Value{}
	}
	return m.coded("outcome", v.get("outcome"))
}

func (m *mapper) conclusion(v val) med.Value {
	var out med.Value
	if c := v.get("conclusionCode").first(); c.present() {
		out = m.coded("conclusionCode", c)
	}
	if text := trimmed(v.get("conclusion")); text != "" {
		out.Text = phi(m.text("conclusion", text))
	}
	return out
}

// description is the title and the description of a document or plan.
func (m *mapper) description(v val) med.Value {
	var out []string
	for _, name := range []string{"title", "description"} {
		if s := trimmed(v.get(name)); s != "" {
			out = append(out, s)
		}
	}
	return med.Value{Text: phi(m.text("description", strings.Join(out, ": ")))}
}

// total is what a claim asks for, or what was paid on it.
func (m *mapper) total(v val) med.Value {
	for _, x := range []val{v.at("payment", "amount"), v.get("total"), v.at("total", "amount")} {
		if x.get("value").present() {
			return med.Value{Quantity: phi(m.clean("total", money(x)))}
		}
	}
	return med.Value{}
}

// note joins the annotations and the attached texts.
func (m *mapper) note(v val, s shape) string {
	var out []string
	for n := range v.get("note").items() {
		if text := n.get("text").str(); text != "" {
			out = append(out, m.text("note", text))
		}
	}
	for _, path := range s.notes {
		outer, inner, nested := strings.Cut(path, ".")
		for x := range v.get(outer).items() {
			if nested {
				x = x.get(inner)
			}
			if text := m.attached(path, x); text != "" {
				out = append(out, m.text(path, text))
			}
		}
	}
	return strings.Join(out, "\n\n")
}

// text is for texts of several lines.
func (m *mapper) text(element, s string) string {
	out, changed := clean(s, true)
	if changed {
		m.warn(element, "control or direction characters replaced")
	}
	return out
}

// attached is the text of an Attachment that holds text. Anything else stays in
// the source.
func (m *mapper) attached(element string, a val) string {
	if !a.get("data").present() {
		return ""
	}
	media, params, err := mime.ParseMediaType(a.get("contentType").str())
	if err != nil || !strings.HasPrefix(media, "text/") {
		m.warn(element, "not text: kept in the source only")
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(a.get("data").str()) // passes over line breaks
	if err != nil {
		m.warn(element, "not base64: kept in the source only")
		return ""
	}
	text := string(raw)
	if strings.EqualFold(params["charset"], "iso-8859-1") {
		text = latin1(raw)
	}
	if !utf8.ValidString(text) {
		m.warn(element, "not UTF-8: kept in the source only")
		return ""
	}
	return text
}

func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}
