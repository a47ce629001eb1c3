# SPDX-License-Identifier: Apache-2.0
#
# THE POLICY FILE OF MEDIRECORD
#
# The one place where roles, actions, fields and duties meet. A privacy officer
# may edit it: change a word in a table, run `medirecord policy test`, save. A
# running sidecar takes the new file within two seconds. A file that does not
# compile, breaks a compiled rule or fails a case in cases/ is refused, and the
# old one stays in force.
#
# What is not named here is denied. A field that is not named is hidden, and
# cannot be written.
#
# The question (no names, no ids):
#   subject   roles, mfa (none, done, fresh = at most 5 minutes ago),
#             grant (an open break-glass grant for this patient),
#             reason_given (a coded reason came with this access)
#   action    read, update, ...
#   resource  type, kind (of a record), relation (self, same_practice,
#             other_practice), treating (they have to do with the care of this
#             patient of their practice; this file does not ask, hospital.rego
#             does), sensitivity (normal, restricted, psychotherapy),
#             state (live, deleted), authorship (own_recent = by the caller
#             within 24 hours, own = by the caller, other)
#
# The answer is `decision`, at the end.

package medirecord

import rego.v1

# ---------------------------------------------------------------------------
# 1. WHO MAY DO WHAT
#
# resource -> action -> role: the condition under which that role may.
# The conditions are explained in section 2.

permits := {
	"patient": {
		"read": {"patient": "own", "nurse": "staff", "clinician": "staff", "admin": "staff", "break_glass": "emergency"},
		"search": {"patient": "own_at_work", "nurse": "staff", "clinician": "staff", "admin": "staff"},
		"create": {"clinician": "staff", "admin": "staff", "service:import": "unattended"},
		"import": {"service:import": "unattended"},
		"update": {"nurse": "staff", "clinician": "staff", "admin": "staff"},
		"delete": {"admin": "staff"},
		"restore": {"admin": "staff"},
	},
	"record": {
		"read": {"patient": "own", "nurse": "staff", "clinician": "staff", "admin": "staff", "break_glass": "emergency"},
		"create": {"nurse": "staff", "clinician": "staff", "service:import": "unattended"},
		"import": {"service:import": "unattended"},
		"update": {"nurse": "staff", "clinician": "staff"},
		# Delete means: entered in error.
		"delete": {"nurse": "staff", "clinician": "staff", "admin": "staff"},
	},
	"export": {
		# The right of access, 45 CFR 164.524.
		"own": {"patient": "own_fresh"},
		"patient": {"clinician": "staff", "admin": "staff"},
		# Needs a second person, see section 6.
		"bulk": {"admin": "staff"},
	},
	"audit": {
		# Patients: who looked at their own record.
		"read": {"patient": "own", "admin": "staff", "officer": "practice"},
		# That the entry of one's own request is in the log, and was not changed.
		# Patients get it by the line above, of every entry about them.
		"prove": {"nurse": "staff", "clinician": "staff", "break_glass": "staff", "admin": "staff", "officer": "practice"},
	},
	# What was disclosed to others, 45 CFR 164.528. Who discloses records it,
	# and does not thereby see the rest.
	"disclosure": {
		"create": {"clinician": "staff", "admin": "staff", "officer": "staff"},
		# Recording, correcting, and noting an agency's word that the patient is
		# not to be told for a time.
		"amend": {"admin": "staff", "officer": "staff"},
		# Patients: the accounting of their own.
		"read": {"patient": "own", "admin": "staff", "officer": "staff"},
	},
	# Who has to do with whom: appointments and assignments. Whoever schedules
	# says so; what people say of themselves is kept and proves nothing.
	"treatment": {
		"create": {"nurse": "staff", "clinician": "staff", "admin": "staff"},
		"read": {"nurse": "staff", "clinician": "staff", "admin": "staff"},
		"end": {"nurse": "staff", "clinician": "staff", "admin": "staff"},
	},
	"break_glass": {
		# Asked for by a nurse or clinician, with a coded reason.
		"open": {"nurse": "any_practice_fresh", "clinician": "any_practice_fresh"},
		# The role in the token and the X-Break-Glass-Reason header.
		"open_by_header": {"break_glass": "any_practice"},
		# Who is this person? Id, name and birth date of at most three, in any
		# practice, by family name and birth date.
		"lookup": {"clinician": "any_practice_fresh", "break_glass": "any_practice"},
		"read": {"nurse": "any_practice", "clinician": "any_practice", "break_glass": "any_practice", "admin": "staff", "officer": "staff"},
		"end": {"nurse": "any_practice", "clinician": "any_practice", "break_glass": "any_practice", "admin": "staff", "officer": "staff"},
		# Never by who opened it, see section 6.
		"review": {"admin": "staff", "officer": "staff"},
	},
	"keys": {
		"read": {"admin": "staff", "officer": "staff"},
		"rotate": {"admin": "staff", "officer": "staff"},
		"destroy": {"admin": "staff", "officer": "staff"},
	},
	"retention": {
		"read": {"admin": "staff", "officer": "staff"},
		"hold": {"admin": "staff", "officer": "staff"},
		"release": {"admin": "staff", "officer": "staff"},
		"approve": {"admin": "staff", "officer": "staff"},
	},
	"report": {
		"read": {"admin": "staff", "officer": "staff"},
		"create": {"admin": "staff", "officer": "staff"},
	},
	"alert": {
		"read": {"admin": "staff", "officer": "staff"},
		"acknowledge": {"admin": "staff", "officer": "staff"},
		"close": {"admin": "staff", "officer": "staff"},
	},
	"practice": {
		"practice_add": {"service:operator": "everywhere"},
		"sweep": {"service:worker": "everywhere"},
	},
}

# ---------------------------------------------------------------------------
# 2. THE CONDITIONS
#
# relation: how the caller must stand to the patient (or to what is asked for).
# mfa:      the least second factor: none, done, fresh.
# grant:    whether an open break-glass grant is needed.

conditions := {
	# Their own record, and nobody else's.
	"own": {"relation": {"self"}, "mfa": "none", "grant": false},
	"own_fresh": {"relation": {"self"}, "mfa": "fresh", "grant": false},
	# Staff who come upon their own record in work they may do: they see it as
	# the patient they are.
	"own_at_work": {"relation": {"self"}, "mfa": "done", "grant": false},
	# Staff, in their own practice, with a second factor.
	"staff": {"relation": {"same_practice"}, "mfa": "done", "grant": false},
	# Staff, in their own practice, second factor not asked.
	"practice": {"relation": {"same_practice"}, "mfa": "none", "grant": false},
	# Break-glass: any practice, with a grant and a second factor.
	"emergency": {"relation": {"same_practice", "other_practice"}, "mfa": "done", "grant": true},
	# Opening a grant and ending it: any practice.
	"any_practice": {"relation": {"same_practice", "other_practice"}, "mfa": "done", "grant": false},
	"any_practice_fresh": {"relation": {"same_practice", "other_practice"}, "mfa": "fresh", "grant": false},
	# Services: they hold a certificate, not a second factor.
	"unattended": {"relation": {"same_practice"}, "mfa": "none", "grant": false},
	"everywhere": {"relation": {"same_practice", "other_practice"}, "mfa": "none", "grant": false},
}

# ---------------------------------------------------------------------------
# 3. WHAT EACH ROLE SEES
#
# Besides this, id, practice_id, version and times are seen by everybody who may
# read at all. An officer has no row: no clinical data. mask exists for ssn
# (***-**-6789) and dob (****-**-15) only.

patient_views := {
	"patient": {
		"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
		"dob": "mask",
		"ssn": "mask",
		"insurance": "reveal",
		"diagnosis": "hide",
		"sensitivity": "hide",
	},
	"nurse": {
		"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
		"dob": "reveal",
		"ssn": "hide",
		"insurance": "hide",
		"diagnosis": "reveal",
		"sensitivity": "reveal",
	},
	"clinician": {
		"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
		"dob": "reveal",
		"ssn": "reveal",
		"insurance": "reveal",
		"diagnosis": "reveal",
		"sensitivity": "reveal",
	},
	"admin": {
		"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
		"dob": "reveal",
		"ssn": "reveal",
		"insurance": "reveal",
		"diagnosis": "reveal",
		"sensitivity": "reveal",
	},
	"break_glass": {
		"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
		"dob": "reveal",
		"ssn": "reveal",
		"insurance": "reveal",
		"diagnosis": "reveal",
		"sensitivity": "reveal",
	},
}

# What patients get when they export their own record: all of it.
own_export_view := {
	"mrn": "reveal", "name": "reveal", "sex": "reveal", "address": "reveal", "phone": "reveal", "email": "reveal", "deceased_at": "reveal",
	"dob": "reveal",
	"ssn": "reveal",
	"insurance": "reveal",
	"diagnosis": "reveal",
	"sensitivity": "hide",
}

# A health record, if its kind may be seen at all (section 4). source is the
# document it came from, whole.
record_views := {
	"patient": {
		"kind": "reveal", "code": "reveal", "status": "reveal", "effective": "reveal", "value": "reveal", "note": "reveal", "author": "reveal",
		"sensitivity": "hide",
		"source": "hide",
	},
	"nurse": whole_record,
	"clinician": whole_record,
	"admin": whole_record,
	"break_glass": whole_record,
}

whole_record := {
	"kind": "reveal", "code": "reveal", "status": "reveal", "effective": "reveal", "value": "reveal", "note": "reveal", "author": "reveal",
	"sensitivity": "reveal",
	"source": "reveal",
}

# An entry of the trail: reason is what was written when a glass was broken.
audit_views := {
	"patient": {"reason": "hide"},
	"admin": {"reason": "reveal"},
	"officer": {"reason": "reveal"},
}

# ---------------------------------------------------------------------------
# 4. WHICH KINDS OF RECORD
#
# A role that has no line here has no kind at all.

every_kind := {"condition", "observation", "medication", "allergy", "immunization", "procedure", "encounter", "report", "document", "careplan", "claim", "other"}

# Other kinds do not exist for patients, until they export their record.
kinds.record.read.patient := {"observation", "medication", "allergy", "immunization", "procedure"}

kinds.record.read.nurse := {"condition", "observation", "medication", "allergy", "immunization", "procedure", "encounter", "report", "document", "careplan", "other"}

kinds.record.read.clinician := every_kind

kinds.record.read.admin := every_kind

kinds.record.read.break_glass := every_kind

kinds.record.create.nurse := {"observation", "immunization"}

kinds.record.create.clinician := every_kind

kinds.record.create["service:import"] := every_kind

kinds.record.import["service:import"] := every_kind

kinds.record.update.nurse := {"observation", "immunization"}

kinds.record.update.clinician := every_kind

kinds.record.delete.nurse := {"observation", "immunization"}

kinds.record.delete.clinician := every_kind

kinds.record.delete.admin := every_kind

kinds.export.own.patient := every_kind

kinds.export.patient.clinician := every_kind

kinds.export.patient.admin := every_kind

kinds.export.bulk.admin := every_kind

# Who reaches restricted records (labelled R or V, or HIV, SUD, PSY, MH, BH,
# SDV, STD, SEX, ETH, or marked by their author). A nurse does not.
reaches_restricted := {"patient", "clinician", "admin", "break_glass", "service:import"}

# Psychotherapy notes reach their author only, in one of these roles. The
# importer stores them without seeing them. They are never exported.
psychotherapy_authors := {"clinician", "admin", "break_glass"}

# ---------------------------------------------------------------------------
# 5. WHAT EACH ROLE MAY WRITE

may_write.patient.create.clinician := whole_patient

may_write.patient.create.admin := whole_patient

may_write.patient.create["service:import"] := whole_patient

may_write.patient.import["service:import"] := whole_patient

may_write.patient.update.nurse := {"address": true, "phone": true, "email": true}

# All but ssn and mrn.
may_write.patient.update.clinician := {
	"name": true, "dob": true, "sex": true, "address": true, "phone": true, "email": true,
	"insurance": true, "diagnosis": true, "deceased_at": true, "sensitivity": true,
}

may_write.patient.update.admin := whole_patient

may_write.record.create.nurse := record_content

may_write.record.create.clinician := record_content

may_write.record.create["service:import"] := imported_record

may_write.record.import["service:import"] := imported_record

may_write.record.update.nurse := record_content

may_write.record.update.clinician := record_content

# The practice of a patient is never written.
whole_patient := {
	"mrn": true, "name": true, "ssn": true, "dob": true, "sex": true, "address": true, "phone": true, "email": true,
	"insurance": true, "diagnosis": true, "deceased_at": true, "sensitivity": true,
}

# Author and source are set by the system, not by the writer.
record_content := {"kind": true, "code": true, "status": true, "effective": true, "value": true, "note": true, "sensitivity": true}

imported_record := {"kind": true, "code": true, "status": true, "effective": true, "value": true, "note": true, "sensitivity": true, "author": true, "source": true}

# ---------------------------------------------------------------------------
# 6. DUTIES
#
# notify: who is paged. max_rows: the longest list.

# Using a grant, and opening one, pages an officer at once.
notify contains "officer" if grant_used

notify contains "officer" if {
	allow
	input.resource.type == "break_glass"
	input.action in {"open", "open_by_header", "lookup"}
}

default max_rows := 0

max_rows := 200 if {
	allow
	input.action == "search"
}

# A second person: a review is not done by who opened the grant, a bulk export
# is not run by who asked for it. Here authorship says who opened or asked.
second_person := {"break_glass": {"review"}, "export": {"bulk"}}

# Staff who opened a grant may see and end that one; admins and officers any.
opener_only := {"nurse", "clinician", "break_glass"}

# ---------------------------------------------------------------------------
# 7. HOW THE TABLES ARE READ

own_record if input.resource.relation == "self"

# The roles that make a caller staff: their every access needs a second factor.
staff_roles := {"nurse", "clinician", "admin", "officer", "break_glass"}

persons := staff_roles | {"patient"}

is_staff if {
	some role in input.subject.roles
	role in staff_roles
}

# An officer watches over the others, and so holds none of their roles.
officer_and_more if {
	"officer" in input.subject.roles
	some role in {"nurse", "clinician", "admin", "break_glass"}
	role in input.subject.roles
}

# Persons whose own record it is act as the patient they are, whatever else
# they are. Everybody else acts in all their roles at once.
acting contains "patient" if {
	own_record
	some role in input.subject.roles
	role in persons
}

acting contains role if {
	not own_record
	some role in input.subject.roles
}

# With a grant, a nurse or a clinician acts as break_glass too: in their own
# practice it opens what their role does not.
acting contains "break_glass" if {
	input.subject.grant
	not own_record
	some role in {"nurse", "clinician"}
	role in input.subject.roles
}

condition(role) := conditions[permits[input.resource.type][input.action][role]]

# The verdict on one role and the terms of its condition: the first line that
# applies, read from the top.
verdict(role, terms) := "roles_conflict" if {
	officer_and_more
	not own_record
} else := "role" if {
	permits[input.resource.type][input.action][role] == "own_at_work"
	not works_here
} else := "mfa_required" if {
	input.subject.mfa == "none"
	terms.mfa != "none"
} else := "mfa_required" if {
	input.subject.mfa == "none"
	own_record
	is_staff
} else := "mfa_not_fresh" if {
	input.subject.mfa != "fresh"
	terms.mfa == "fresh"
} else := "grant_required" if {
	terms.grant
	not input.subject.grant
} else := "not_self" if {
	not own_record
	terms.relation == {"self"}
} else := "other_practice" if {
	not input.resource.relation in terms.relation
} else := "deleted" if {
	# Only an admin sees a deleted patient, to restore it.
	input.resource.state == "deleted"
	not admin_business(role)
} else := "not_deleted" if {
	input.resource.state == "live"
	input.action == "restore"
} else := "kind" if {
	about_a_record
	not input.resource.kind in kinds[input.resource.type][input.action][role]
} else := "psychotherapy" if {
	about_a_record
	input.resource.sensitivity == "psychotherapy"
	not reaches_psychotherapy(role)
} else := "restricted" if {
	about_a_record
	input.resource.sensitivity != "normal"
	not role in reaches_restricted
} else := "authorship" if {
	# Entered in error: by the author within 24 hours, else by an admin.
	input.resource.type == "record"
	input.action == "delete"
	role != "admin"
	input.resource.authorship != "own_recent"
} else := "authorship" if {
	input.resource.type == "break_glass"
	input.action in {"read", "end"}
	role in opener_only
	input.resource.authorship == "other"
} else := "second_person" if {
	input.action in second_person[input.resource.type]
	input.resource.authorship != "other"
} else := "permitted"

works_here if {
	some role in input.subject.roles
	permits[input.resource.type][input.action][role] == "staff"
}

admin_business(role) if {
	role == "admin"
	input.action in {"read", "restore"}
}

about_a_record if input.resource.type == "record"

about_a_record if {
	input.resource.type == "export"
	input.resource.kind != ""
}

reaches_psychotherapy(role) if {
	input.resource.type == "record"
	role in psychotherapy_authors
	input.resource.authorship in {"own", "own_recent"}
}

reaches_psychotherapy(role) if role == "service:import"

# A role that has no condition in section 1 has no verdict.
verdicts[role] := verdict(role, condition(role)) if some role in acting

# The roles the answer stands on.
standing contains role if {
	some role, "permitted" in verdicts
}

# Whether the answer stands on a break-glass grant.
grant_used if {
	"break_glass" in standing
	condition("break_glass").grant
}

default allow := false

allow if count(standing) > 0

# The reason: "role" if no role may do this at all; of several, the one that
# helps most.
default reason_code := "role"

reason_code := "break_glass" if {
	grant_used
} else := "own_record" if {
	allow
	own_record
} else := "permitted" if {
	allow
} else := only if {
	count(given) == 1
	some only in given
} else := [reason | some reason in reasons; reason in given][0]

given := {reason | some reason in verdicts}

reasons := [
	"roles_conflict", "mfa_required", "mfa_not_fresh", "grant_required", "other_practice", "deleted", "not_deleted",
	"psychotherapy", "restricted", "authorship", "second_person", "kind", "not_self", "role",
]

# What one role sees of what was asked for.
# Of a deletion too: who deletes says which state they saw, and that is looked up.
view(role) := patient_views[role] if input.resource.type == "patient"

view(role) := record_views[role] if {
	input.resource.type == "record"
	input.action != "delete"
}

view(role) := own_export_view if {
	input.resource.type == "export"
	input.action == "own"
	input.resource.kind == ""
	role == "patient"
}

view(role) := whole_record if {
	input.resource.type == "export"
	input.action == "own"
	input.resource.kind != ""
	role == "patient"
}

view(role) := patient_views[role] if {
	input.resource.type == "export"
	input.action != "own"
	input.resource.kind == ""
}

view(role) := record_views[role] if {
	input.resource.type == "export"
	input.action != "own"
	input.resource.kind != ""
}

view(role) := audit_views[role] if input.resource.type == "audit"

views := [v | some role in standing; v := view(role)]

# Several roles combine to the widest view, field by field.
default fields := {}

fields := views[0] if count(views) == 1

fields := {field: shows[widest] |
	some v in views
	some field, _ in v
	widest := max({width[w[field]] | some w in views})
} if {
	count(views) > 1
}

width := {"hide": 0, "mask": 1, "reveal": 2}

shows := ["hide", "mask", "reveal"]

write := object.union_n([w | some role in standing; w := may_write[input.resource.type][input.action][role]])

# ---------------------------------------------------------------------------
# 8. THE ANSWER

decision := {
	"allow": allow,
	"reason_code": reason_code,
	"fields": fields,
	"write": write,
	"obligations": {"notify": notify, "max_rows": max_rows},
} if {
	allow
} else := {
	"allow": false,
	"reason_code": reason_code,
	"fields": {},
	"write": {},
	"obligations": {"notify": [], "max_rows": 0},
}
