// SPDX-License-Identifier: Apache-2.0

package fhir

import "github.com/medirecord/medirecord/internal/med"

// shape says where a resource type keeps what a record has. Of dates, ends and
// authors the first that is there is taken.
type shape struct {
	kind     med.Kind
	codes    []string // CodeableConcept or Coding, repeating or not
	status   string   // element; "" when the type has none
	statuses string   // its required binding in R4
	verified string   // the codes of verificationStatus, where the type has one
	dates    []string // dateTime or Period
	ends     []string // dateTime or Period, for types that keep the end apart
	authors  []string // Reference, or element.Reference
	notes    []string // Attachment, or element.Attachment, beside note[]
	value    func(*mapper, val) med.Value
}

const (
	verificationCondition = "unconfirmed provisional differential confirmed refuted entered-in-error"
	verificationAllergy   = "unconfirmed confirmed refuted entered-in-error"
	statusesFinancial     = "active cancelled draft entered-in-error"
)

// shapes has a row for each type that is mapped (R4 4.0.1).
var shapes = map[string]shape{
	"Condition": {
		kind: med.KindCondition, codes: []string{"code"},
		status: "clinicalStatus", statuses: "active recurrence relapse inactive remission resolved", verified: verificationCondition,
		dates: []string{"onsetDateTime", "onsetPeriod", "recordedDate"}, ends: []string{"abatementDateTime", "abatementPeriod"},
		authors: []string{"recorder", "asserter"},
	},
	"Observation": {
		kind: med.KindObservation, codes: []string{"code"},
		status: "status", statuses: "registered preliminary final amended corrected cancelled entered-in-error unknown",
		dates:   []string{"effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued"},
		authors: []string{"performer"}, value: (*mapper).observed,
	},
	"MedicationRequest": {
		kind: med.KindMedication, codes: []string{"medicationCodeableConcept"},
		status: "status", statuses: "active on-hold cancelled completed entered-in-error stopped draft unknown",
		dates: []string{"authoredOn"}, authors: []string{"requester", "recorder"}, value: (*mapper).dosage,
	},
	"MedicationStatement": {
		kind: med.KindMedication, codes: []string{"medicationCodeableConcept"},
		status: "status", statuses: "active completed entered-in-error intended stopped on-hold unknown not-taken",
		dates:   []string{"effectiveDateTime", "effectivePeriod", "dateAsserted"},
		authors: []string{"informationSource"}, value: (*mapper).dosage,
	},
	"MedicationAdministration": {
		kind: med.KindMedication, codes: []string{"medicationCodeableConcept"},
		status: "status", statuses: "in-progress not-done on-hold completed entered-in-error stopped unknown",
		dates:   []string{"effectiveDateTime", "effectivePeriod"},
		authors: []string{"performer.actor"}, value: (*mapper).dosage,
	},
	"MedicationDispense": {
		kind: med.KindMedication, codes: []string{"medicationCodeableConcept"},
		status: "status", statuses: "preparation in-progress cancelled on-hold completed entered-in-error stopped declined unknown",
		dates:   []string{"whenHandedOver", "whenPrepared"},
		authors: []string{"performer.actor"}, value: (*mapper).dosage,
	},
	"AllergyIntolerance": {
		kind: med.KindAllergy, codes: []string{"code"},
		status: "clinicalStatus", statuses: "active inactive resolved", verified: verificationAllergy,
		dates: []string{"onsetDateTime", "onsetPeriod", "recordedDate"}, authors: []string{"recorder", "asserter"},
		value: (*mapper).reactions,
	},
	"Immunization": {
		kind: med.KindImmunization, codes: []string{"vaccineCode"},
		status: "status", statuses: "completed entered-in-error not-done",
		dates: []string{"occurrenceDateTime", "recorded"}, authors: []string{"performer.actor"}, value: (*mapper).dose,
	},
	"Procedure": {
		kind: med.KindProcedure, codes: []string{"code"},
		status: "status", statuses: "preparation in-progress not-done on-hold stopped completed entered-in-error unknown",
		dates: []string{"performedDateTime", "performedPeriod"}, authors: []string{"performer.actor", "recorder", "asserter"},
		value: (*mapper).outcome,
	},
	"Encounter": {
		kind: med.KindEncounter, codes: []string{"type", "class"},
		status: "status", statuses: "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown",
		dates: []string{"period"}, authors: []string{"participant.individual"},
	},
	"DiagnosticReport": {
		kind: med.KindReport, codes: []string{"code"},
		status: "status", statuses: "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown",
		dates:   []string{"effectiveDateTime", "effectivePeriod", "issued"},
		authors: []string{"performer", "resultsInterpreter"}, notes: []string{"presentedForm"}, value: (*mapper).conclusion,
	},
	"DocumentReference": {
		kind: med.KindDocument, codes: []string{"type"},
		status: "status", statuses: "current superseded entered-in-error",
		dates: []string{"date"}, authors: []string{"author", "authenticator"}, notes: []string{"content.attachment"},
		value: (*mapper).description,
	},
	"CarePlan": {
		kind: med.KindCareplan, codes: []string{"category"},
		status: "status", statuses: "draft active on-hold revoked completed entered-in-error unknown",
		dates: []string{"period", "created"}, authors: []string{"author", "contributor"}, value: (*mapper).description,
	},
	"Claim": {
		kind: med.KindClaim, codes: []string{"type"}, status: "status", statuses: statusesFinancial,
		dates: []string{"billablePeriod", "created"}, authors: []string{"provider", "enterer"}, value: (*mapper).total,
	},
	"ExplanationOfBenefit": {
		kind: med.KindClaim, codes: []string{"type"}, status: "status", statuses: statusesFinancial,
		dates: []string{"billablePeriod", "created"}, authors: []string{"provider", "insurer"}, value: (*mapper).total,
	},
	"Coverage": {
		kind: med.KindClaim, codes: []string{"type"}, status: "status", statuses: statusesFinancial,
		dates: []string{"period"}, authors: []string{"payor"},
	},
}

// statusOf is the type's own status. That a condition or an allergy was refuted
// or entered in error says more than that it was once active.
func (s shape) statusOf(v val) (string, error) {
	x := v.get(s.status)
	code := x.str()
	if x.kind() == jsonObject {
		code = concept(x)
	}
	if x.present() && !oneOf(code, s.statuses) {
		return "", refuse(s.status + " is not one of the codes FHIR R4 requires")
	}
	if s.verified == "" {
		return code, nil
	}
	verification := concept(v.get("verificationStatus"))
	if v.get("verificationStatus").present() && !oneOf(verification, s.verified) {
		return "", refuse("verificationStatus is not one of the codes FHIR R4 requires")
	}
	if oneOf(verification, "refuted entered-in-error") {
		return verification, nil
	}
	return code, nil
}
