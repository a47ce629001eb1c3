// SPDX-License-Identifier: Apache-2.0

package med

import (
	"cmp"
	"slices"
	"time"
)

// Compliance is the day from which disclosures are accounted for. 45 CFR
// 164.528(a)(1)(ix), 164.534
var Compliance = DayOf(time.Date(2003, time.April, 14, 0, 0, 0, 0, time.UTC))

// Window is the period that an accounting is about, both days included.
type Window struct{ From, To Day }

// AccountingWindow returns the period asked for on a day: of what is not said,
// the six years before that day. It reports Invalid for a longer one, one that
// reaches into the future, or one that ends before it begins.
func AccountingWindow(from, to, today Day) (Window, error) {
	earliest := today.YearsBack(AccountedYears)
	w := Window{from, to}
	if from.IsZero() {
		w.From = earliest
	}
	if to.IsZero() {
		w.To = today
	}
	var at places
	at.unless(!w.From.Before(earliest), "from", "more than six years ago")
	at.unless(!w.To.After(today), "to", "in the future")
	at.unless(!w.To.Before(w.From), "to", "before from")
	return w, at.err("An accounting covers at most the six years before the day it is asked for (45 CFR 164.528).")
}

// AccountingAsk is how an accounting is asked for: of which period (AccountingWindow
// says what no day means), and whether it is a copy for the patient.
type AccountingAsk struct {
	From, To   Day
	ForPatient bool
}

// AccountedDisclosure is a line of an accounting: a disclosure, or all of the
// period that went to one recipient for one purpose.
type AccountedDisclosure struct {
	Disclosure
	IDs []DisclosureID // of what the line stands for
	// Suspended is set while the patient is not told of it.
	Suspended *Suspension
}

// Accounting is what 164.528 gives a patient.
type Accounting struct {
	Patient  PatientID
	Practice PracticeID
	Name     string // of the practice
	Window   Window
	Made     Day
	Lines    []AccountedDisclosure // oldest first
	// ForPatient: what an agency had suspended is not in it.
	ForPatient bool
	Event      EventID
}

// Told counts the lines that the patient is told.
func (a *Accounting) Told() (n int) {
	for i := range a.Lines {
		if a.Lines[i].Suspended == nil {
			n++
		}
	}
	return n
}

// Account makes the lines of an accounting: of the disclosures, those of the
// period that are accounted for. What is suspended today is left out for the
// patient, and marked for everybody else. What was recorded one by one and went
// to one recipient for one purpose is one line. 45 CFR 164.528(b)(3)
func Account(all []Disclosure, w Window, today Day, forPatient bool) []AccountedDisclosure {
	var out []AccountedDisclosure
	same := map[line]int{}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Disclosure) int {
		return cmp.Or(a.First.t.Compare(b.First.t), a.Last.t.Compare(b.Last.t), cmp.Compare(a.ID, b.ID))
	})
	for _, d := range all {
		rule, _ := d.Basis.Rule()
		if !rule.Accounted || d.InError || d.Last.Before(w.From) || d.First.After(w.To) || d.Last.Before(Compliance) {
			continue
		}
		l := AccountedDisclosure{Disclosure: d, IDs: []DisclosureID{d.ID}}
		if s, suspended := d.Suspended(today); suspended {
			if forPatient {
				continue
			}
			l.Suspended = &s
		}
		// Of the patient's line nothing tells that there ever was a suspension.
		l.Suspensions = nil
		if d.First == d.Last && l.Suspended == nil {
			key := line{d.Basis, d.Recipient, d.Address, d.Purpose, d.Request, d.Description}
			if i, ok := same[key]; ok {
				out[i].add(l)
				continue
			}
			same[key] = len(out)
		}
		out = append(out, l)
	}
	return out
}

// line is what disclosures of one line have in common.
type line struct {
	basis                                             Basis
	recipient, address, purpose, request, description PHI
}

// add makes the line stand for one more, of its own last day or a later one.
func (l *AccountedDisclosure) add(more AccountedDisclosure) {
	l.IDs = append(l.IDs, more.IDs...)
	l.Count = max(l.Count, 1) + max(more.Count, 1)
	l.Last = more.Last
}
