// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
)

// The message of DICOM PS3.15 A.5.1, in the order of its schema.
type (
	atnaCode struct {
		Code   string `xml:"csd-code,attr"`
		System string `xml:"codeSystemName,attr"`
		Text   string `xml:"originalText,attr"`
	}
	atnaEvent struct {
		Action      string   `xml:"EventActionCode,attr"`
		At          string   `xml:"EventDateTime,attr"`
		Outcome     string   `xml:"EventOutcomeIndicator,attr"`
		ID          atnaCode `xml:"EventID"`
		Type        atnaCode `xml:"EventTypeCode"`
		Description string   `xml:"EventOutcomeDescription,omitempty"`
	}
	atnaParticipant struct {
		UserID      string     `xml:"UserID,attr"`
		Alternative string     `xml:"AlternativeUserID,attr,omitempty"`
		Requestor   bool       `xml:"UserIsRequestor,attr"`
		Point       string     `xml:"NetworkAccessPointID,attr,omitempty"`
		PointType   string     `xml:"NetworkAccessPointTypeCode,attr,omitempty"`
		Roles       []atnaCode `xml:"RoleIDCode"`
	}
	atnaSource struct {
		Site string         `xml:"AuditEnterpriseSiteID,attr,omitempty"`
		ID   string         `xml:"AuditSourceID,attr"`
		Type atnaSourceType `xml:"AuditSourceTypeCode"`
	}
	atnaSourceType struct {
		Code string `xml:"csd-code,attr"`
	}
	atnaPair struct {
		Type  string `xml:"type,attr"`
		Value string `xml:"value,attr"`
	}
	atnaObject struct {
		ID     string     `xml:"ParticipantObjectID,attr"`
		Type   string     `xml:"ParticipantObjectTypeCode,attr"`
		Role   string     `xml:"ParticipantObjectTypeCodeRole,attr"`
		Life   string     `xml:"ParticipantObjectDataLifeCycle,attr,omitempty"`
		IDType atnaCode   `xml:"ParticipantObjectIDTypeCode"`
		Name   string     `xml:"ParticipantObjectName,omitempty"`
		Query  string     `xml:"ParticipantObjectQuery,omitempty"`
		Detail []atnaPair `xml:"ParticipantObjectDetail"`
	}
	atnaAudit struct {
		XMLName      xml.Name          `xml:"AuditMessage"`
		Event        atnaEvent         `xml:"EventIdentification"`
		Participants []atnaParticipant `xml:"ActiveParticipant"`
		Source       atnaSource        `xml:"AuditSourceIdentification"`
		Objects      []atnaObject      `xml:"ParticipantObjectIdentification"`
	}
)

func (c code) atna() atnaCode {
	name := "DCM"
	if c.system != dcm {
		name = c.system
	}
	return atnaCode{c.code, name, c.display}
}

// atnaMessage is the entry as DICOM audit XML. The schema wants a name of each
// object: it is the id again, because a patient's name is nobody's here.
func atnaMessage(src Source, v *view) []byte {
	k := kindOf(v)
	us := cmp.Or(uri(src.URL), "urn:medirecord")
	m := atnaAudit{
		Event: atnaEvent{
			Action: k.action, At: v.OccurredAt.Format(millis), Outcome: v.outcome(), ID: k.atna.atna(), Type: k.subtype.atna(), Description: v.Code,
		},
		Participants: []atnaParticipant{
			{UserID: cmp.Or(v.Subject, "unknown"), Alternative: v.Issuer, Requestor: true, Point: v.IP, PointType: when(v.IP != "", "2"), Roles: atnaRoles(v)},
			{UserID: us, Point: us, PointType: "5", Roles: []atnaCode{k.server.atna()}},
		},
		Source: atnaSource{Site: v.Practice, ID: cmp.Or(src.Host, "medirecord"), Type: atnaSourceType{"4"}},
	}
	if v.Patient != "" {
		m.Objects = append(m.Objects, atnaObject{
			ID: v.Patient, Type: "1", Role: "1", Life: k.life, IDType: atnaCode{"2", "RFC-3881", "Patient Number"}, Name: v.Patient,
		})
	}
	data := atnaObject{
		ID: cmp.Or(v.ResourceID, "none"), Type: "2", Role: k.role.code, Life: k.life,
		IDType: atnaCode{word(v.ResourceType, "resource"), "MediRecord", "resource of MediRecord"}, Name: cmp.Or(v.ResourceID, "none"), Detail: atnaDetail(v),
	}
	if k == &kindQuery {
		data.Name, data.Query = "", base64.StdEncoding.EncodeToString([]byte(v.Action+" "+v.ResourceType))
	}
	m.Objects = append(m.Objects, data)
	b, err := xml.Marshal(m)
	if err != nil {
		return []byte(`<AuditMessage/>`) // strings and lists do marshal
	}
	return escaped(append([]byte(`<?xml version="1.0" encoding="UTF-8"?>`), b...), func(out []byte, r rune) []byte {
		return fmt.Appendf(out, "&#x%X;", r)
	})
}

func atnaRoles(v *view) (out []atnaCode) {
	for _, r := range v.Roles {
		out = append(out, atnaCode{word(r, "other"), "MediRecord", r})
	}
	return out
}

// atnaDetail is the rest, each value in base64 as the schema wants: whatever
// a client sent can do no harm in there.
func atnaDetail(v *view) (out []atnaPair) {
	add := func(name, value string) {
		if value != "" {
			out = append(out, atnaPair{name, base64.StdEncoding.EncodeToString([]byte(value))})
		}
	}
	add("audit-event", v.ID)
	add("audit-parent", v.Parent)
	add("audit-leaf", v.Leaf)
	add("audit-action", v.Action)
	add("recorded-at", v.RecordedAt.Format(millis))
	add("clear", strings.Join(v.Clear, ","))
	add("masked", strings.Join(v.Masked, ","))
	add("hidden", strings.Join(v.Hidden, ","))
	add("changed", strings.Join(v.Changed, ","))
	add("user-agent", v.UserAgent)
	add("request", v.RequestID)
	add("purpose", v.Purpose)
	add("mfa", v.MFA)
	add("on-behalf-of", v.OnBehalfOf)
	add("decision-reason", v.Reason)
	add("break-glass-grant", v.Grant)
	add("break-glass-reason-code", v.ReasonCode)
	add("policy-revision", v.Revision)
	for _, c := range v.Counts {
		add("count-"+word(c.name, "other"), strconv.Itoa(c.n))
	}
	add("truncated", when(v.Cut, "true"))
	add("detail-unreadable", when(v.Unreadable, "true"))
	return out
}

func when(is bool, s string) string {
	if is {
		return s
	}
	return ""
}
