# SPDX-License-Identifier: Apache-2.0
#
# THE POLICY OF A HOSPITAL
#
# medirecord.rego, with one rule more: in a house of many wards, whoever has
# nothing to do with a patient's care sees who the patient is, and no more, until
# they say why they ask. Nobody is blocked: a coded reason opens what their role
# opens, and the trail keeps it.
#
# This file only takes away from what medirecord.rego, beside it, gives.

package medirecord.hospital

import data.medirecord
import rego.v1

# Who has to say why. A grant has its reason already, patients and services have
# no need of one.
asked := {"nurse", "clinician", "admin"}

# For what: everything about one patient who is there already.
about := {
	"patient": {"read", "search", "update", "delete", "restore"},
	"record": {"read", "create", "update", "delete"},
	"export": {"patient"},
}

# What a reader or searcher learns without a reason: who this is.
identity := {"mrn", "name", "sex", "dob"}

tells_who := {"read", "search"}

why_is_asked if {
	some role in input.subject.roles
	role in asked
	input.action in about[input.resource.type]
	input.resource.relation == "same_practice"
	not input.resource.treating
	not input.subject.reason_given
	not input.subject.grant
}

# Taken out of the answer, since an answer in parts is put together, not cut.
narrowed := object.remove(medirecord.decision, {"fields"})

who := {field: show |
	some field in identity
	show := medirecord.decision.fields[field]
}

decision := medirecord.decision if {
	not why_is_asked
} else := medirecord.decision if {
	# What is denied anyway is denied for its own reason.
	not medirecord.decision.allow
} else := object.union(narrowed, {"reason_code": "identity_only", "fields": who}) if {
	input.resource.type == "patient"
	input.action in tells_who
} else := {
	"allow": false,
	"reason_code": "reason_required",
	"fields": {},
	"write": {},
	"obligations": {"notify": [], "max_rows": 0},
}
