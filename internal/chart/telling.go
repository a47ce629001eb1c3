// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// told tells one entry of the trail as its patient would. Who is a patient here
// is itself PHI (45 CFR 160.103), so of another patient who tried the door
// their patient is told that somebody did, and not who.
func told(c *med.Caller, self bool, r *postgres.TrailRow, d *audit.Detail) med.Access {
	a := med.Access{
		OccurredAt: r.OccurredAt.UTC(), Who: r.ActorSubject, Role: roleOf(r, d), Practice: med.PracticeID(text(r.ActorPractice)),
		Fields: slices.Concat(d.Clear, d.Masked), BreakGlass: r.BreakGlass, Event: med.EventID(r.EventID),
	}
	service, unattended := strings.CutPrefix(r.ActorSubject, "service:")
	subject := "Somebody"
	switch {
	case self && r.ActorIssuer == c.Issuer && r.ActorSubject == c.Subject:
		a.Who, subject = "You", "You"
	case unattended:
		a.Who, subject = "MediRecord ("+service+")", "A program of ours"
	case isPatientOnly(d) && r.Outcome == string(audit.Success):
		a.Who, subject = "You, signed in another way", "You"
		if !self {
			a.Who, subject = r.ActorSubject, "The patient"
		}
	case isPatientOnly(d) && self:
		a.Who, a.Practice = "Somebody who may not", ""
	default:
		subject = people(d.Roles)
	}
	whose := "your"
	switch {
	case subject == "You":
		whose = "your own"
	case !self:
		whose = "the patient's"
	}
	a.What = sentence(subject, whose, r, d)
	return a
}

// isPatientOnly reports whether somebody acted as a patient and in no other role.
func isPatientOnly(d *audit.Detail) bool { return len(d.Roles) == 1 && d.Roles[0] == med.RolePatient }

// roleOf names the roles somebody acted in.
func roleOf(r *postgres.TrailRow, d *audit.Detail) string {
	if strings.HasPrefix(r.ActorSubject, "service:") {
		return "service"
	}
	words := make([]string, len(d.Roles))
	for i, role := range d.Roles {
		words[i] = string(role)
	}
	return strings.Join(words, ", ")
}

// people says who somebody with the roles is.
func people(roles []med.Role) string {
	for _, known := range []struct {
		role  med.Role
		words string
	}{
		{med.RoleOfficer, "A privacy officer"},
		{med.RoleBreakGlass, "Emergency staff"},
		{med.RoleClinician, "A clinician"},
		{med.RoleNurse, "A nurse"},
		{med.RoleAdmin, "An administrator"},
	} {
		if slices.Contains(roles, known.role) {
			return known.words
		}
	}
	return "Somebody"
}

// deed is what was done, and what was tried.
type deed struct{ did, tried string }

var paperwork = deed{"did paperwork on WHOSE record", "do paperwork on WHOSE record"}

// deeds are what was done and what was tried, by the entry's action. WHOSE
// becomes "your", or "the patient's".
var deeds = map[string]deed{
	"read":    {"looked at WHOSE record", "look at WHOSE record"},
	"search":  {"found WHOSE record in a search", "search for WHOSE record"},
	"lookup":  {"found WHOSE record in an emergency search", "search for WHOSE record in an emergency"},
	"create":  {"made WHOSE record", "make WHOSE record"},
	"update":  {"changed WHOSE record", "change WHOSE record"},
	"delete":  {"deleted WHOSE record", "delete WHOSE record"},
	"restore": {"restored WHOSE record", "restore WHOSE record"},
	"import":  {"added to WHOSE record from another system", "add to WHOSE record from another system"},
	"export":  {"took a copy of WHOSE record", "take a copy of WHOSE record"},
	// One sentence for all that is done with disclosures: what an agency had
	// suspended (45 CFR 164.528(a)(2)) must not be told from the rest by it.
	"disclose":            paperwork,
	"amend_disclosure":    paperwork,
	"read_disclosures":    paperwork,
	"add_appointment":     {"made an appointment for WHOSE care", "make an appointment for WHOSE care"},
	"end_appointment":     {"ended an appointment for WHOSE care", "end an appointment for WHOSE care"},
	"list_appointments":   {"looked at WHOSE appointments", "look at WHOSE appointments"},
	"add_assignment":      {"assigned somebody to WHOSE care", "assign somebody to WHOSE care"},
	"end_assignment":      {"ended an assignment to WHOSE care", "end an assignment to WHOSE care"},
	"list_assignments":    {"looked at who is assigned to WHOSE care", "look at who is assigned to WHOSE care"},
	"read_audit":          {"looked at the list of who used WHOSE record", "look at the list of who used WHOSE record"},
	"prove":               {"asked for a proof of who used WHOSE record", "ask for a proof of who used WHOSE record"},
	"read_ticket":         {"announced a look at WHOSE record", "announce a look at WHOSE record"},
	"break_glass":         {"opened WHOSE record in an emergency, which a privacy officer reviews", "open WHOSE record in an emergency"},
	"open_break_glass":    {"asked for WHOSE record in an emergency", "ask for WHOSE record in an emergency"},
	"break_glass_end":     {"ended an emergency access to WHOSE record", "end an emergency access to WHOSE record"},
	"break_glass_review":  {"reviewed an emergency access to WHOSE record", "review an emergency access to WHOSE record"},
	"break_glass_overdue": {"reminded of the review of an emergency access to WHOSE record", "remind of the review of an emergency access to WHOSE record"},
	// Of one entry of a record, by the type of what was changed too.
	"record.create": {"added to WHOSE record", "add to WHOSE record"},
	"record.update": {"changed an entry of WHOSE record", "change an entry of WHOSE record"},
	"record.delete": {"marked an entry of WHOSE record as made in error", "mark an entry of WHOSE record as made in error"},
}

// sentence says what happened.
func sentence(subject, whose string, r *postgres.TrailRow, d *audit.Detail) string {
	act, known := deeds[r.ResourceType+"."+r.Action]
	if !known {
		act, known = deeds[r.Action]
	}
	switch {
	case subject == "You" && r.Action == "read_disclosures":
		act = deed{"looked at whom WHOSE record was disclosed to", "look at whom WHOSE record was disclosed to"}
	case !known:
		act.did, act.tried = "used WHOSE record ("+r.Action+")", "use WHOSE record ("+r.Action+")"
	}
	var s string
	switch audit.Outcome(r.Outcome) {
	case audit.Denied:
		s = "tried to " + act.tried + " and was refused; nothing was shown"
	case audit.Failure:
		s = "tried to " + act.tried + ", but it did not work; nothing was shown"
	default:
		s = act.did
		if r.BreakGlass && r.Action != "break_glass" && r.Action != "read_ticket" {
			s += " in an emergency, which a privacy officer reviews"
		}
		if what := fieldWords(d); what != "" {
			s += ": " + what
		}
	}
	if subject == "You" {
		s = strings.Replace(s, " and was refused", " and were refused", 1)
	}
	return subject + " " + strings.Replace(s, "WHOSE", whose, 1) + "."
}

// fieldWords lists what was seen, as people call it.
func fieldWords(d *audit.Detail) string {
	var words []string
	if len(d.Changed) > 0 { // what was shown of it in answer goes without saying
		for _, f := range d.Changed {
			words = append(words, fieldWord(f))
		}
		return listed(words)
	}
	for _, f := range d.Clear {
		words = append(words, fieldWord(f))
	}
	for _, f := range d.Masked {
		words = append(words, fieldWord(f)+" (partly hidden)")
	}
	return listed(words)
}

func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

func fieldWord(f med.Field) string {
	words := map[med.Field]string{
		med.FieldMRN: "medical record number", med.FieldSSN: "social security number", med.FieldDOB: "date of birth", med.FieldPhone: "phone number",
		med.FieldEmail: "email address", med.FieldDeceasedAt: "date of death", med.FieldSensitivity: "sensitivity marks",
	}
	if w, ok := words[f]; ok {
		return w
	}
	return strings.ReplaceAll(string(f), "_", " ")
}
