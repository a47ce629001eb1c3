// SPDX-License-Identifier: Apache-2.0

package med

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// DisclosureID names a disclosure: a UUID in its text form.
type DisclosureID string

// Basis is the rule that permits, or does not permit, a disclosure.
type Basis string

// BasisRule is a row of the table of bases.
type BasisRule struct {
	Basis Basis
	CFR   string // of 45 CFR
	Words string // for the patient
	// Accounted: the accounting tells of it. 45 CFR 164.528(a)(1) lists those
	// of which it does not.
	Accounted bool
	// Agency may ask that the patient is not told of it for a time. 45 CFR
	// 164.528(a)(2)
	Agency Agency
}

// Bases is the table of bases. What it does not have is no basis.
var Bases = []BasisRule{
	{"required_by_law", "164.512(a)", "Required by law", true, ""},
	{"public_health", "164.512(b)", "Public health activities", true, ""},
	{"abuse_or_neglect", "164.512(c)", "Report about a victim of abuse, neglect or domestic violence", true, ""},
	{"health_oversight", "164.512(d)", "Health oversight", true, AgencyOversight},
	{"judicial", "164.512(e)", "Judicial or administrative proceedings", true, ""},
	{"law_enforcement", "164.512(f)", "Law enforcement", true, AgencyLawEnforcement},
	{"decedent", "164.512(g)", "Coroners, medical examiners and funeral directors", true, ""},
	{"organ_donation", "164.512(h)", "Organ, eye or tissue donation", true, ""},
	{"research", "164.512(i)", "Research without an authorization", true, ""},
	{"serious_threat", "164.512(j)", "To avert a serious threat to health or safety", true, ""},
	{"specialized_government", "164.512(k)", "Specialized government functions", true, ""},
	{"workers_compensation", "164.512(l)", "Workers' compensation", true, ""},
	{"hhs", "164.502(a)(2)(ii)", "Required by the Secretary of Health and Human Services", true, ""},
	{"not_permitted", "164.502(a)", "Not permitted: made in error, or by somebody who should not have", true, ""},

	{"treatment", "164.506", "Treatment", false, ""},
	{"payment", "164.506", "Payment", false, ""},
	{"operations", "164.506", "Health care operations", false, ""},
	{"individual", "164.502(a)(1)(i)", "To you", false, ""},
	{"incidental", "164.502(a)(1)(iii)", "Incident to a permitted use or disclosure", false, ""},
	{"authorization", "164.508", "With your authorization", false, ""},
	{"facility_directory", "164.510(a)", "Facility directory", false, ""},
	{"involved_in_care", "164.510(b)", "Persons involved in your care", false, ""},
	{"national_security", "164.512(k)(2)", "National security or intelligence", false, ""},
	{"custody", "164.512(k)(5)", "Correctional institution or law enforcement custody", false, ""},
	{"limited_data_set", "164.514(e)", "Limited data set", false, ""},
}

// Rule returns the basis's row of the table.
func (b Basis) Rule() (BasisRule, bool) {
	for _, r := range Bases {
		if r.Basis == b {
			return r, true
		}
	}
	return BasisRule{}, false
}

// Frequency is how often a disclosure of a period was repeated.
type Frequency string

// Frequencies lists them.
var Frequencies = []Frequency{"daily", "weekly", "monthly", "quarterly", "yearly", "irregular"}

// Disclosure is one disclosure in clear, or several to one recipient for one
// purpose: then First and Last differ, and Frequency or Count says how often.
type Disclosure struct {
	ID      DisclosureID
	Version int32
	Basis   Basis
	// Recipient and, when known, their address.
	Recipient, Address PHI
	// Purpose in brief, or Request: where the written request for it is kept.
	Purpose, Request PHI
	// Description of what was disclosed, in brief.
	Description PHI
	First, Last Day
	Frequency   Frequency
	Count       int
	// InError: it was never made, or not of this patient's data.
	InError bool
	// Suspensions, as they were stated; the last one counts.
	Suspensions []Suspension
	Event       EventID // the entry of this version
	RecordedAt  time.Time
}

// Agency is who may have the patient's right to an accounting suspended.
type Agency string

// The agencies of 45 CFR 164.528(a)(2).
const (
	AgencyLawEnforcement Agency = "law_enforcement"
	AgencyOversight      Agency = "health_oversight"
)

// Statement is the form in which an agency asked.
type Statement string

// The forms. An oral one suspends for 30 days at most.
const (
	StatementWritten Statement = "written"
	StatementOral    Statement = "oral"
)

// OralDays is how long an oral statement suspends at most, from the day it was
// made. 45 CFR 164.528(a)(2)(ii)(C)
const OralDays = 30

// AccountedYears is how far back an accounting goes. 45 CFR 164.528(a)(1)
const AccountedYears = 6

// Suspension is an agency's statement that the patient, told of the
// disclosure, would be reasonably likely to impede its activities.
type Suspension struct {
	Agency    Agency
	Official  PHI // who made the statement
	Statement Statement
	StatedOn  Day
	Until     Day // the last day on which the patient is not told
}

// The longest texts, in characters.
const (
	maxRecipient   = 200
	maxDisclosure  = 500 // address, purpose, request, official
	maxDescription = 2000
	maxDisclosures = 1_000_000 // of one period
	maxSuspensions = 20
)

// Amendment is what changes in a disclosure; at least one of the three.
type Amendment struct {
	// Correction takes the place of all that was told, but for suspensions.
	Correction *Disclosure
	InError    bool
	Suspension *Suspension
}

// Amend makes the disclosure its own next version. It reports Invalid when
// nothing changes, and when it was entered in error before.
func (d *Disclosure) Amend(a Amendment) error {
	switch {
	case a.Correction == nil && !a.InError && a.Suspension == nil:
		return Invalid.New("An amendment corrects the disclosure, says that it was entered in error, or suspends it.")
	case d.InError:
		return Conflict.New("The disclosure was entered in error: record another one.").Coded("entered_in_error")
	}
	if c := a.Correction; c != nil {
		corrected := *c
		corrected.ID, corrected.Version, corrected.Suspensions = d.ID, d.Version, d.Suspensions
		before, _ := d.Basis.Rule()
		if now, _ := c.Basis.Rule(); now.Agency != before.Agency {
			corrected.Suspensions = nil // it was not that agency's to suspend
		}
		*d = corrected
	}
	if a.Suspension != nil {
		d.Suspensions = append(slices.Clone(d.Suspensions), *a.Suspension)
	}
	d.InError = a.InError
	d.Version++
	return nil
}

// Check reports Invalid, with every place that is wrong, unless the disclosure
// tells all that its accounting needs. today is the last day it may be of.
func (d *Disclosure) Check(today Day) error {
	var at places
	at.text("/recipient/name", d.Recipient, maxRecipient, true)
	at.text("/recipient/address", d.Address, maxDisclosure, false)
	at.text("/purpose", d.Purpose, maxDisclosure, d.Request == "")
	at.text("/request", d.Request, maxDisclosure, false)
	at.text("/description", d.Description, maxDescription, true)
	rule, known := d.Basis.Rule()
	at.unless(known, "/basis", "not one of the bases")
	at.unless(!d.First.IsZero() && !d.Last.IsZero(), "/disclosed_on", "a day, or a period")
	at.unless(!d.Last.After(today), "/disclosed_on", "in the future")
	at.unless(!d.Last.Before(d.First), "/period/last", "before the first")
	at.unless(d.Count >= 0 && d.Count <= maxDisclosures, "/period/count", "not a number of disclosures")
	repeated := d.First != d.Last
	at.unless(!repeated || d.Count > 1 || d.Frequency != "", "/period/frequency", "how often, in words or as a count of at least 2")
	at.unless(d.Frequency == "" || d.Frequency.known(), "/period/frequency", "not one of the frequencies")
	at.unless(repeated || d.Frequency == "", "/period/frequency", "of one day only")
	at.unless(len(d.Suspensions) <= maxSuspensions, "/suspension", "too many statements")
	if n := len(d.Suspensions); n > 0 {
		d.checkSuspension(&at, &d.Suspensions[n-1], rule, today)
	}
	return at.err("The disclosure is not complete.")
}

func (d *Disclosure) checkSuspension(at *places, s *Suspension, rule BasisRule, today Day) {
	at.text("/suspension/official", s.Official, maxDisclosure, true)
	at.unless(rule.Agency != "" && s.Agency == rule.Agency, "/suspension/agency",
		"only a disclosure to law enforcement or for health oversight, at the word of that agency")
	at.unless(s.Statement == StatementWritten || s.Statement == StatementOral, "/suspension/statement", "written or oral")
	at.unless(!s.StatedOn.IsZero() && !s.StatedOn.After(today), "/suspension/stated_on", "a day that is not in the future")
	at.unless(!s.Until.IsZero() && !s.Until.Before(s.StatedOn), "/suspension/until", "a day not before the statement")
	at.unless(s.Until.YearsBack(AccountedYears).Before(today), "/suspension/until", "further ahead than an accounting goes back")
	if s.Statement == StatementOral {
		at.unless(!s.Until.After(d.firstOral().Plus(OralDays)), "/suspension/until",
			"an oral statement suspends for 30 days at most, counted from the first: ask for it in writing")
	}
}

// firstOral returns the day of the first oral statement: repeating it does not
// make it longer.
func (d *Disclosure) firstOral() (first Day) {
	for _, s := range d.Suspensions {
		if s.Statement == StatementOral && (first.IsZero() || s.StatedOn.Before(first)) {
			first = s.StatedOn
		}
	}
	return first
}

// Suspended returns the suspension in force on the day.
func (d *Disclosure) Suspended(on Day) (Suspension, bool) {
	if len(d.Suspensions) == 0 {
		return Suspension{}, false
	}
	last := d.Suspensions[len(d.Suspensions)-1]
	return last, !last.Until.Before(on)
}

func (f Frequency) known() bool { return slices.Contains(Frequencies, f) }

// places collects where a request is wrong.
type places []FieldError

func (p *places) unless(good bool, pointer, reason string) {
	if !good {
		*p = append(*p, FieldError{Pointer: pointer, Reason: reason})
	}
}

// text checks one text: as long as it may be, and nothing in it that makes it
// look like another.
func (p *places) text(pointer string, text PHI, most int, required bool) {
	s := text.Reveal()
	if strings.TrimSpace(s) == "" {
		p.unless(!required && s == "", pointer, "required")
		return
	}
	bad := !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
	p.unless(!bad, pointer, "control or direction characters, or not UTF-8")
	p.unless(utf8.RuneCountInString(s) <= most, pointer, "too long")
}

func (p places) err(detail string) error {
	if len(p) == 0 {
		return nil
	}
	return Invalid.New(detail).With(p...)
}
