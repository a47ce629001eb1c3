// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"strings"

	"github.com/medirecord/medirecord/internal/audit"
)

// code is a term of a code system.
type code struct{ system, code, display string }

const (
	dcm          = "http://dicom.nema.org/resources/ontology/DCM"
	restful      = "http://hl7.org/fhir/restful-interaction"
	participant  = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
	eventType    = "http://terminology.hl7.org/CodeSystem/audit-event-type"
	actReason    = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
	lifecycle    = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
	balp         = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
	balpEntity   = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
	entityType   = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
	objectRole   = "http://terminology.hl7.org/CodeSystem/object-role"
	sourceType   = "http://terminology.hl7.org/CodeSystem/security-source-type"
	confidential = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
)

var (
	source      = code{dcm, "110153", "Source Role ID"}
	destination = code{dcm, "110152", "Destination Role ID"}
	application = code{dcm, "110150", "Application"}
	custodian   = code{"http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian", "Custodian"}
	clerk       = code{"http://snomed.info/sct", "159541003", "Record keeping/library clerk"}
	recipient   = code{participant, "IRCP", "information recipient"}
	author      = code{participant, "AUT", "author (originator)"}
	rest        = code{eventType, "rest", "RESTful Operation"}
	breakGlass  = code{actReason, "BTG", "break the glass"}
)

// kind is what sort of event an entry is, in the words of BALP and of DICOM.
type kind struct {
	profile              string // of BALP, when the entry is a success
	action               string // C R U D E
	event, subtype       code
	client, server, user code
	role                 code // of the data
	atna                 code // DICOM's EventID
	life                 string
}

var (
	domainResource = code{objectRole, "4", "Domain Resource"}
	report         = code{objectRole, "3", "Report"}
	query          = code{objectRole, "24", "Query"}
	patientRecord  = code{dcm, "110110", "Patient Record"}
)

// The kinds. Source and destination of a query are the other way round on
// purpose: BALP says so.
var (
	kindRead = kind{
		profile: "PatientRead", action: "R", event: rest, subtype: code{restful, "read", "read"},
		client: destination, server: source, user: recipient, role: domainResource, atna: patientRecord, life: "6",
	}
	kindQuery = kind{
		profile: "PatientQuery", action: "E", event: rest, subtype: code{restful, "search", "search"},
		client: source, server: destination, user: recipient, role: query, atna: code{dcm, "110112", "Query"}, life: "6",
	}
	kindCreate = kind{
		profile: "PatientCreate", action: "C", event: rest, subtype: code{restful, "create", "create"},
		client: source, server: destination, user: author, role: domainResource, atna: patientRecord, life: "1",
	}
	kindUpdate = kind{
		profile: "PatientUpdate", action: "U", event: rest, subtype: code{restful, "update", "update"},
		client: source, server: destination, user: author, role: domainResource, atna: patientRecord, life: "3",
	}
	kindDelete = kind{
		profile: "PatientDelete", action: "D", event: rest, subtype: code{restful, "delete", "delete"},
		client: application, server: custodian, user: author, role: domainResource, atna: patientRecord, life: "14",
	}
	kindDisclose = kind{
		profile: "PrivacyDisclosure.Source", action: "R", event: code{dcm, "110106", "Export"},
		subtype: code{lifecycle, "disclose", "Disclose Record Lifecycle Event"},
		client:  destination, server: source, user: clerk, role: report, atna: code{dcm, "110106", "Export"}, life: "11",
	}
	kindExport = kind{
		action: "R", event: code{dcm, "110106", "Export"}, subtype: code{restful, "operation", "operation"},
		client: destination, server: source, user: recipient, role: domainResource, atna: code{dcm, "110106", "Export"}, life: "10",
	}
	kindAlert = kind{
		action: "E", event: code{dcm, "110113", "Security Alert"}, subtype: code{dcm, "110127", "Emergency Override Started"},
		client: destination, server: source, user: recipient, role: domainResource, atna: code{dcm, "110113", "Security Alert"},
	}
	kindAlertEnd = kind{
		action: "E", event: code{dcm, "110113", "Security Alert"}, subtype: code{dcm, "110138", "Emergency Override Stopped"},
		client: destination, server: source, user: recipient, role: domainResource, atna: code{dcm, "110113", "Security Alert"},
	}
	kindTrail = kind{
		action: "R", event: code{dcm, "110101", "Audit Log Used"}, subtype: code{restful, "read", "read"},
		client: destination, server: source, user: recipient, role: code{objectRole, "13", "Security Resource"}, atna: code{dcm, "110101", "Audit Log Used"},
	}
	kindLogin = kind{
		action: "E", event: code{dcm, "110114", "User Authentication"}, subtype: code{dcm, "110122", "Login"},
		client: source, server: destination, user: recipient, role: code{objectRole, "11", "Security User Entity"}, atna: code{dcm, "110114", "User Authentication"},
	}
	kindOther = kind{
		action: "E", event: rest, subtype: code{restful, "operation", "operation"},
		client: source, server: destination, user: author, role: domainResource, atna: code{dcm, "110100", "Application Activity"},
	}
)

// kindOf reads the entry's action. One that it does not know is an operation:
// told, and not guessed at.
func kindOf(v *view) *kind {
	verb, _, _ := strings.Cut(v.Action, "_")
	_, last, _ := strings.Cut(v.Action, "_")
	switch {
	case strings.HasPrefix(v.Action, "break_glass"):
		switch {
		case strings.HasSuffix(v.Action, "end") || strings.HasSuffix(v.Action, "ended"):
			return &kindAlertEnd
		case v.Action == "break_glass" || audit.Outcome(v.Outcome) == audit.AccessGranted:
			return &kindAlert
		}
		return &kindOther
	case verb == "audit" || last == "audit" || last == "accesses":
		return &kindTrail
	case strings.HasPrefix(verb, "disclos"):
		return &kindDisclose
	case v.ResourceType == "practice" || v.ResourceType == "audit":
		return &kindOther
	}
	switch verb {
	case "read", "vread":
		return &kindRead
	case "search", "list", "lookup", "query", "find":
		return &kindQuery
	case "create", "import", "add":
		return &kindCreate
	case "update", "restore", "change", "patch":
		return &kindUpdate
	case "delete":
		return &kindDelete
	case "export":
		return &kindExport
	case "authenticate", "login":
		return &kindLogin
	}
	return &kindOther
}
