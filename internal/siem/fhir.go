// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"cmp"
	"encoding/base64"
	"strings"
	"unicode"

	"github.com/medirecord/medirecord/internal/med"
)

// The parts of an AuditEvent that we write; hl7.org/fhir/R4/auditevent.html.
type (
	fhirCoding struct {
		System  string `json:"system,omitempty"`
		Code    string `json:"code,omitempty"`
		Display string `json:"display,omitempty"`
	}
	fhirConcept struct {
		Coding []fhirCoding `json:"coding,omitempty"`
		Text   string       `json:"text,omitempty"`
	}
	fhirIdentifier struct {
		System string `json:"system,omitempty"`
		Value  string `json:"value,omitempty"`
	}
	fhirReference struct {
		Reference  string          `json:"reference,omitempty"`
		Identifier *fhirIdentifier `json:"identifier,omitempty"`
		Display    string          `json:"display,omitempty"`
	}
	fhirNetwork struct {
		Address string `json:"address"`
		Type    string `json:"type,omitempty"`
	}
	fhirAgent struct {
		Type      fhirConcept   `json:"type"`
		Role      []fhirConcept `json:"role,omitempty"`
		Who       fhirReference `json:"who"`
		Name      string        `json:"name,omitempty"`
		Requestor bool          `json:"requestor"`
		Policy    []string      `json:"policy,omitempty"`
		Network   *fhirNetwork  `json:"network,omitempty"`
		Purpose   []fhirConcept `json:"purposeOfUse,omitempty"`
	}
	fhirDetail struct {
		Type  string `json:"type"`
		Value string `json:"valueString"`
	}
	fhirEntity struct {
		What        *fhirReference `json:"what,omitempty"`
		Type        fhirCoding     `json:"type"`
		Role        *fhirCoding    `json:"role,omitempty"`
		Label       []fhirCoding   `json:"securityLabel,omitempty"`
		Description string         `json:"description,omitempty"`
		Query       string         `json:"query,omitempty"`
		Detail      []fhirDetail   `json:"detail,omitempty"`
	}
	fhirSource struct {
		Site     string        `json:"site,omitempty"`
		Observer fhirReference `json:"observer"`
		Type     []fhirCoding  `json:"type"`
	}
	fhirMeta struct {
		Profile []string `json:"profile"`
	}
	fhirAuditEvent struct {
		ResourceType   string        `json:"resourceType"`
		ID             string        `json:"id,omitempty"`
		Meta           *fhirMeta     `json:"meta,omitempty"`
		Type           fhirCoding    `json:"type"`
		Subtype        []fhirCoding  `json:"subtype"`
		Action         string        `json:"action"`
		Recorded       string        `json:"recorded"`
		Outcome        string        `json:"outcome"`
		OutcomeDesc    string        `json:"outcomeDesc,omitempty"`
		PurposeOfEvent []fhirConcept `json:"purposeOfEvent,omitempty"`
		Agent          []fhirAgent   `json:"agent"`
		Source         fhirSource    `json:"source"`
		Entity         []fhirEntity  `json:"entity,omitempty"`
	}
)

func (c code) coding() fhirCoding { return fhirCoding{c.system, c.code, c.display} }
func (c code) concept() fhirConcept {
	return fhirConcept{Coding: []fhirCoding{c.coding()}}
}

// fhirEvent is the entry as an AuditEvent.
func fhirEvent(src Source, v *view) []byte {
	k := kindOf(v)
	url := cmp.Or(uri(src.URL), "urn:medirecord")
	us := fhirReference{Identifier: &fhirIdentifier{"urn:ietf:rfc:3986", url}, Display: "MediRecord"}
	e := fhirAuditEvent{
		ResourceType: "AuditEvent", ID: fhirID(v.ID), Type: k.event.coding(), Subtype: []fhirCoding{k.subtype.coding()}, Action: k.action,
		Recorded: v.OccurredAt.Format(millis), Outcome: v.outcome(), OutcomeDesc: text(v.Code), PurposeOfEvent: purposes(v),
		Source: fhirSource{Site: text(v.Practice), Observer: us, Type: []fhirCoding{{sourceType, "4", "Application Server"}}},
		Agent: []fhirAgent{
			{Type: k.server.concept(), Who: us, Network: &fhirNetwork{url, "5"}},
			clientAgent(k, v),
			userAgent(k, v, url),
		},
		Entity: entities(k, v, url),
	}
	if k == &kindDisclose { // who received it stands in the disclosure, and only there
		e.Agent[1] = fhirAgent{
			Type: destination.concept(), Network: &fhirNetwork{Address: "as the disclosure says"},
			Who: fhirReference{Identifier: &fhirIdentifier{url + "/disclosure", cmp.Or(text(v.ResourceID), "unknown")}, Display: "recipient of the disclosure"},
		}
	}
	if k.profile != "" && v.outcome() == "0" && e.Agent[1].Network != nil && v.Patient != "" && v.RequestID != "" {
		e.Meta = &fhirMeta{Profile: []string{balp + k.profile}}
	}
	return asciiJSON(e)
}

func clientAgent(k *kind, v *view) fhirAgent {
	a := fhirAgent{Type: k.client.concept(), Who: fhirReference{Identifier: &fhirIdentifier{Value: cmp.Or(text(v.IP), "unknown")}, Display: text(v.UserAgent)}}
	if ip := text(v.IP); ip != "" {
		a.Network = &fhirNetwork{ip, "2"}
	}
	return a
}

// userAgent is the person, or the service, that asked. A token is named by its
// id and never shown.
func userAgent(k *kind, v *view, url string) fhirAgent {
	a := fhirAgent{
		Type: k.user.concept(), Requestor: true, Name: text(v.Subject), Purpose: purposes(v),
		Who: fhirReference{Identifier: &fhirIdentifier{uri(v.Issuer), cmp.Or(text(v.Subject), "unknown")}},
	}
	for _, r := range v.Roles {
		if word(r, "") != "" {
			a.Role = append(a.Role, fhirConcept{Coding: []fhirCoding{{System: url + "/fhir/CodeSystem/role", Code: r}}})
		} else if t := text(r); t != "" {
			a.Role = append(a.Role, fhirConcept{Text: t})
		}
	}
	if word(v.TokenID, "") != "" {
		a.Policy = []string{"urn:ietf:params:oauth:jti:" + v.TokenID}
	}
	return a
}

var knownPurposes = map[string]string{
	"TREAT": "treatment", "HPAYMT": "healthcare payment", "HOPERAT": "healthcare operations", "ETREAT": "Emergency Treatment",
	"PATRQT": "patient requested", "PUBHLTH": "public health", "HRESCH": "healthcare research", "HLEGAL": "legal", "BTG": "break the glass",
}

// purposes are why: what the caller said, and break-glass where that was the way in.
func purposes(v *view) (out []fhirConcept) {
	if v.Glass {
		out = append(out, breakGlass.concept())
	}
	if display, known := knownPurposes[v.Purpose]; known {
		out = append(out, code{actReason, v.Purpose, display}.concept())
	} else if t := text(v.Purpose); t != "" {
		out = append(out, fhirConcept{Text: t})
	}
	return out
}

func entities(k *kind, v *view, url string) (out []fhirEntity) {
	system := code{entityType, "2", "System Object"}.coding()
	if v.Patient != "" {
		role := code{objectRole, "1", "Patient"}.coding()
		out = append(out, fhirEntity{What: patientReference(v.Patient, url), Type: code{entityType, "1", "Person"}.coding(), Role: &role})
	}
	role := k.role.coding()
	data := fhirEntity{Type: system, Role: &role, Detail: details(v)}
	switch {
	case k == &kindQuery: // results are told one by one, in children; the terms are not kept at all
		data.Description = "the terms of the search are not kept"
		data.Query = base64.StdEncoding.EncodeToString([]byte(v.Action + " " + v.ResourceType))
	case v.ResourceType == "patient" && v.ResourceID != "":
		data.What = patientReference(v.ResourceID, url)
	default:
		data.What = &fhirReference{Identifier: &fhirIdentifier{url + "/" + word(v.ResourceType, "resource"), cmp.Or(text(v.ResourceID), "none")}}
	}
	if v.Glass {
		data.Label = []fhirCoding{{confidential, "R", "restricted"}}
	}
	out = append(out, data)
	if id := text(v.RequestID); id != "" {
		out = append(out, fhirEntity{What: &fhirReference{Identifier: &fhirIdentifier{Value: id}}, Type: fhirCoding{System: balpEntity, Code: "XrequestId"}})
	}
	return out
}

func patientReference(id, url string) *fhirReference {
	if p := fhirID(id); p != "" {
		return &fhirReference{Reference: "Patient/" + p}
	}
	return &fhirReference{Identifier: &fhirIdentifier{url + "/patient", cmp.Or(text(id), "unknown")}}
}

// details are what BALP has no place for: which fields were seen, on which
// grant, and where the entry's leaf is.
func details(v *view) (out []fhirDetail) {
	add := func(name, value string) {
		if value = text(value); value != "" {
			out = append(out, fhirDetail{name, value})
		}
	}
	add("audit-leaf", v.Leaf)
	add("audit-action", v.Action)
	add("audit-parent", v.Parent)
	add("recorded-at", v.RecordedAt.Format(millis))
	add("clear", strings.Join(v.Clear, ","))
	add("masked", strings.Join(v.Masked, ","))
	add("hidden", strings.Join(v.Hidden, ","))
	add("changed", strings.Join(v.Changed, ","))
	add("mfa", v.MFA)
	add("session", v.Session)
	add("on-behalf-of", v.OnBehalfOf)
	add("decision-reason", v.Reason)
	add("break-glass-grant", v.Grant)
	add("break-glass-reason-code", v.ReasonCode)
	add("policy-revision", v.Revision)
	add("truncated", when(v.Cut, "true"))
	add("detail-unreadable", when(v.Unreadable, "true"))
	return out
}

// fhirID returns s if it may be a FHIR id.
func fhirID(s string) string {
	if id, err := med.ParsePatientID(s); err == nil {
		return string(id)
	}
	return ""
}

// text is a FHIR string: not blank, without white space around it, with no
// other white space than the space, and without control characters.
func text(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\uFEFF' || unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r):
			return '\uFFFD'
		}
		return r
	}, s))
}

// uri returns s if it is written without white space and begins like a URI.
func uri(s string) string {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || rest == "" || word(scheme, "") == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
		return ""
	}
	return s
}
