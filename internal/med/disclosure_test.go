// SPDX-License-Identifier: Apache-2.0

package med_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func day(t testing.TB, s string) med.Day {
	t.Helper()
	d, ok := med.ParseDay(s)
	if !ok {
		t.Fatalf("%s is no day", s)
	}
	return d
}

// reported is a disclosure that lacks nothing, of one day.
func reported(t testing.TB, on string) med.Disclosure {
	t.Helper()
	return med.Disclosure{
		ID: med.DisclosureID("d-" + on), Version: 1, Basis: "public_health", Recipient: "County Health Department", Address: "1 Main Street",
		Purpose: "Notifiable disease", Description: "Laboratory report", First: day(t, on), Last: day(t, on),
	}
}

func TestDays(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "2026-02-29", "2026-13-01", "2026-1-1", "2026-01-01T00:00:00Z", " 2026-01-01", "0000-01-01", "20260101"} {
		if _, ok := med.ParseDay(bad); ok {
			t.Errorf("%q is a day", bad)
		}
	}
	for _, tc := range []struct{ today, back string }{
		{"2026-11-28", "2020-11-28"},
		{"2028-02-29", "2022-02-28"}, // no 29th there: the span gets longer, not shorter
		{"2026-02-28", "2020-02-28"}, // the 29th of 2020 is in
		{"2026-03-01", "2020-03-01"}, // and here it is not
		{"2026-12-31", "2020-12-31"},
		{"2027-01-01", "2021-01-01"},
	} {
		if got := day(t, tc.today).YearsBack(6).Reveal(); got != tc.back {
			t.Errorf("six years before %s: got %s, want %s", tc.today, got, tc.back)
		}
	}
	// A day is one of UTC, wherever the clock stands.
	late := time.Date(2026, 2, 28, 23, 30, 0, 0, time.FixedZone("west", -5*3600))
	if got := med.DayOf(late).Reveal(); got != "2026-03-01" {
		t.Errorf("half past eleven at night in New York: got %s", got)
	}
	d := day(t, "2026-03-01")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, struct{ D med.Day }{d}); strings.Contains(got, "2026") || strings.Contains(got, "63") {
			t.Errorf("%s tells the day: %s", verb, got)
		}
	}
}

func TestADisclosureTellsAllThatItsAccountingNeeds(t *testing.T) {
	t.Parallel()
	today := day(t, "2026-11-28")
	suspended := func(s med.Suspension) func(*med.Disclosure) {
		return func(d *med.Disclosure) { d.Basis, d.Suspensions = "law_enforcement", append(d.Suspensions, s) }
	}
	oral := med.Suspension{Agency: "law_enforcement", Official: "Det. Jones, badge 12", Statement: "oral", StatedOn: today, Until: today.Plus(30)}
	with := func(change func(*med.Suspension)) med.Suspension { s := oral; change(&s); return s }
	for _, tc := range []struct {
		name   string
		change func(*med.Disclosure)
		at     string // "" means good
	}{
		{"whole", func(*med.Disclosure) {}, ""},
		{"no address", func(d *med.Disclosure) { d.Address = "" }, ""},
		{"no recipient", func(d *med.Disclosure) { d.Recipient = " " }, "/recipient/name"},
		{"no description", func(d *med.Disclosure) { d.Description = "" }, "/description"},
		{"neither purpose nor request", func(d *med.Disclosure) { d.Purpose = "" }, "/purpose"},
		{"a request instead of a purpose", func(d *med.Disclosure) { d.Purpose, d.Request = "", "Subpoena 17-204, folder 3" }, ""},
		{"an unknown basis", func(d *med.Disclosure) { d.Basis = "curiosity" }, "/basis"},
		{"no basis", func(d *med.Disclosure) { d.Basis = "" }, "/basis"},
		{"no day", func(d *med.Disclosure) { d.First, d.Last = med.Day{}, med.Day{} }, "/disclosed_on"},
		{"today", func(d *med.Disclosure) { d.First, d.Last = today, today }, ""},
		{"tomorrow", func(d *med.Disclosure) { d.First, d.Last = today.Plus(1), today.Plus(1) }, "/disclosed_on"},
		{"a period that ends before it begins", func(d *med.Disclosure) { d.Last, d.Count = d.First.Plus(-1), 2 }, "/period/last"},
		{"a period without a how often", func(d *med.Disclosure) { d.Last = d.First.Plus(60) }, "/period/frequency"},
		{"a period and a frequency", func(d *med.Disclosure) { d.Last, d.Frequency = d.First.Plus(60), "monthly" }, ""},
		{"a period and a count", func(d *med.Disclosure) { d.Last, d.Count = d.First.Plus(60), 2 }, ""},
		{"a period of one", func(d *med.Disclosure) { d.Last, d.Count = d.First.Plus(60), 1 }, "/period/frequency"},
		{"an unknown frequency", func(d *med.Disclosure) { d.Last, d.Frequency = d.First.Plus(60), "often" }, "/period/frequency"},
		{"a direction override", func(d *med.Disclosure) { d.Recipient = "County \u202ehtlaeH" }, "/recipient/name"},
		{"a control character", func(d *med.Disclosure) { d.Purpose = "x\x00" }, "/purpose"},
		{"too long", func(d *med.Disclosure) { d.Recipient = med.PHI(strings.Repeat("é", 201)) }, "/recipient/name"},
		{"as long as may be", func(d *med.Disclosure) { d.Recipient = med.PHI(strings.Repeat("é", 200)) }, ""},

		{"an oral statement of 30 days", suspended(oral), ""},
		{"an oral statement of 31 days", suspended(with(func(s *med.Suspension) { s.Until = today.Plus(31) })), "/suspension/until"},
		{"a written one of a year", suspended(with(func(s *med.Suspension) { s.Statement, s.Until = "written", today.Plus(365) })), ""},
		{"a written one of 60 years", suspended(with(func(s *med.Suspension) { s.Statement, s.Until = "written", today.Plus(60*365) })), "/suspension/until"},
		{"a statement of nobody", suspended(with(func(s *med.Suspension) { s.Official = "" })), "/suspension/official"},
		{"a statement in no form", suspended(with(func(s *med.Suspension) { s.Statement = "mimed" })), "/suspension/statement"},
		{"a statement of tomorrow", suspended(with(func(s *med.Suspension) { s.StatedOn = today.Plus(1) })), "/suspension/stated_on"},
		{"a statement without an end", suspended(with(func(s *med.Suspension) { s.Statement, s.Until = "written", med.Day{} })), "/suspension/until"},
		{"an end before the statement", suspended(with(func(s *med.Suspension) { s.Until = today.Plus(-1) })), "/suspension/until"},
		{"another agency's word", suspended(with(func(s *med.Suspension) { s.Agency = "health_oversight" })), "/suspension/agency"},
		{"a disclosure that is no agency's", func(d *med.Disclosure) { d.Suspensions = []med.Suspension{oral} }, "/suspension/agency"},
		{"a second oral statement goes no further than the first", func(d *med.Disclosure) {
			suspended(with(func(s *med.Suspension) { s.StatedOn, s.Until = today.Plus(-20), today }))(d)
			suspended(with(func(s *med.Suspension) { s.Until = today.Plus(11) }))(d)
		}, "/suspension/until"},
		{"a second oral statement within the first's 30 days", func(d *med.Disclosure) {
			suspended(with(func(s *med.Suspension) { s.StatedOn, s.Until = today.Plus(-20), today }))(d)
			suspended(with(func(s *med.Suspension) { s.Until = today.Plus(10) }))(d)
		}, ""},
		{"a written statement after an oral one", func(d *med.Disclosure) {
			suspended(oral)(d)
			suspended(with(func(s *med.Suspension) { s.Statement, s.Until = "written", today.Plus(200) }))(d)
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := reported(t, "2026-03-01")
			tc.change(&d)
			err := d.Check(today)
			var e *med.Error
			switch {
			case tc.at == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tc.at != "" && !errors.As(err, &e):
				t.Errorf("got %v, want one at %s", err, tc.at)
			case tc.at != "" && (e.Kind != med.Invalid || !slices.ContainsFunc(e.Fields, func(f med.FieldError) bool { return f.Pointer == tc.at })):
				t.Errorf("got %v %+v, want one at %s", e.Kind.Slug, e.Fields, tc.at)
			}
		})
	}
}

func TestThePeriodOfAnAccounting(t *testing.T) {
	t.Parallel()
	none := med.Day{}
	today := day(t, "2028-02-29")
	for _, tc := range []struct {
		name     string
		from, to med.Day
		want     string // "" means refused
	}{
		{"six years back when nothing is said", none, none, "2022-02-28 2028-02-29"},
		{"six years at most", day(t, "2022-02-28"), none, "2022-02-28 2028-02-29"},
		{"not a day more", day(t, "2022-02-27"), none, ""},
		{"a shorter one", day(t, "2025-01-01"), day(t, "2025-12-31"), "2025-01-01 2025-12-31"},
		{"one day", today, today, "2028-02-29 2028-02-29"},
		{"not tomorrow", none, day(t, "2028-03-01"), ""},
		{"not backwards", day(t, "2025-02-01"), day(t, "2025-01-31"), ""},
	} {
		w, err := med.AccountingWindow(tc.from, tc.to, today)
		if got := w.From.Reveal() + " " + w.To.Reveal(); tc.want != "" && (err != nil || got != tc.want) || tc.want == "" && med.KindOf(err) != med.Invalid {
			t.Errorf("%s: got %s, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestAnAccounting(t *testing.T) {
	t.Parallel()
	today := day(t, "2026-02-28")
	w, err := med.AccountingWindow(med.Day{}, med.Day{}, today)
	if err != nil {
		t.Fatal(err)
	}
	told := func(ds ...med.Disclosure) (out []string) {
		for _, l := range med.Account(ds, w, today, true) {
			out = append(out, fmt.Sprintf("%s %s %d %s", l.First.Reveal(), l.Last.Reveal(), l.Count, l.Recipient.Reveal()))
		}
		return out
	}
	t.Run("tells of each basis that is not excluded", func(t *testing.T) {
		t.Parallel()
		excluded := []med.Basis{
			"treatment", "payment", "operations", "individual", "incidental", "authorization", "facility_directory", "involved_in_care",
			"national_security", "custody", "limited_data_set",
		}
		for _, r := range med.Bases {
			d := reported(t, "2025-06-01")
			d.Basis = r.Basis
			if got := len(told(d)) == 0; got != slices.Contains(excluded, r.Basis) {
				t.Errorf("%s left out: %v", r.Basis, got)
			}
		}
		d := reported(t, "2025-06-01")
		d.Basis = "unheard_of"
		if len(told(d)) != 0 {
			t.Error("tells of a basis that is none")
		}
	})
	t.Run("begins on the day six years ago and ends today", func(t *testing.T) {
		t.Parallel()
		for on, in := range map[string]bool{
			"2020-02-27": false, "2020-02-28": true, "2020-02-29": true, "2026-02-28": true, "2026-03-01": false,
		} {
			if got := len(told(reported(t, on))) == 1; got != in {
				t.Errorf("of %s: %v, want %v", on, got, in)
			}
		}
		period := reported(t, "2019-01-01")
		period.Frequency = "monthly"
		for last, in := range map[string]bool{"2020-02-27": false, "2020-02-28": true, "2025-01-01": true} {
			period.Last = day(t, last)
			if got := len(told(period)) == 1; got != in {
				t.Errorf("until %s: %v, want %v", last, got, in)
			}
		}
	})
	t.Run("begins no earlier than accounting does", func(t *testing.T) {
		t.Parallel()
		then := day(t, "2005-01-01")
		early, err := med.AccountingWindow(med.Day{}, med.Day{}, then)
		if err != nil {
			t.Fatal(err)
		}
		for on, in := range map[string]bool{"2003-04-13": false, "2003-04-14": true} {
			if got := len(med.Account([]med.Disclosure{reported(t, on)}, early, then, true)) == 1; got != in {
				t.Errorf("of %s: %v, want %v", on, got, in)
			}
		}
	})
	t.Run("makes one line of what went to one recipient for one purpose", func(t *testing.T) {
		t.Parallel()
		a, b, c := reported(t, "2025-01-01"), reported(t, "2025-02-01"), reported(t, "2025-03-01")
		other := reported(t, "2025-02-15")
		other.Purpose = "Registry"
		old := reported(t, "2019-01-01")
		got := told(c, other, a, b, old)
		want := []string{"2025-01-01 2025-03-01 3 County Health Department", "2025-02-15 2025-02-15 0 County Health Department"}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		for name, change := range map[string]func(*med.Disclosure){
			"recipient": func(d *med.Disclosure) { d.Recipient += "!" }, "address": func(d *med.Disclosure) { d.Address += "!" },
			"request": func(d *med.Disclosure) { d.Request = "!" }, "description": func(d *med.Disclosure) { d.Description += "!" },
			"basis": func(d *med.Disclosure) { d.Basis = "research" }, "period": func(d *med.Disclosure) { d.Last, d.Count = d.Last.Plus(3), 2 },
		} {
			d := b
			change(&d)
			if got := told(a, d); len(got) != 2 {
				t.Errorf("another %s: got %q, want two lines", name, got)
			}
		}
	})
	t.Run("leaves out what an agency had suspended, for the patient and for as long", func(t *testing.T) {
		t.Parallel()
		d := reported(t, "2026-01-10")
		d.Basis = "law_enforcement"
		d.Suspensions = []med.Suspension{{Agency: "law_enforcement", Official: "Det. Jones", Statement: "oral", StatedOn: day(t, "2026-01-29"), Until: today}}
		if got := told(d); len(got) != 0 {
			t.Errorf("the patient is told %q", got)
		}
		staff := med.Account([]med.Disclosure{d}, w, today, false)
		if len(staff) != 1 || staff[0].Suspended == nil || staff[0].Suspended.Until != today {
			t.Errorf("the practice sees %d lines, want the marked one", len(staff))
		}
		// Over the day after its last, and nothing tells that there was one.
		for _, patient := range []bool{true, false} {
			after := med.Account([]med.Disclosure{d}, w, today.Plus(1), patient)
			if len(after) != 1 || after[0].Suspended != nil || after[0].Suspensions != nil {
				t.Errorf("after it, patient %v: %d lines", patient, len(after))
			}
		}
		// A suspended one does not hide in a line with others.
		open := d
		open.ID, open.Suspensions = "d-open", nil
		if got := told(d, open); len(got) != 1 || !strings.Contains(got[0], " 0 ") {
			t.Errorf("beside one that is told: got %q", got)
		}
		// The last statement counts, a shorter one too.
		d.Suspensions = append(d.Suspensions, med.Suspension{Agency: "law_enforcement", Official: "Det. Jones", Statement: "written", StatedOn: today.Plus(-5), Until: today.Plus(-1)})
		if got := told(d); len(got) != 1 {
			t.Errorf("withdrawn: the patient is told %q", got)
		}
	})
	t.Run("leaves out what was entered in error", func(t *testing.T) {
		t.Parallel()
		d := reported(t, "2026-01-10")
		if err := d.Amend(med.Amendment{InError: true}); err != nil || d.Version != 2 {
			t.Fatal(err)
		}
		if got := told(d); len(got) != 0 {
			t.Errorf("got %q", got)
		}
		if err := d.Amend(med.Amendment{InError: true}); med.KindOf(err) != med.Conflict {
			t.Errorf("once more: got %v", err)
		}
	})
	t.Run("a correction keeps id and suspension, but for another basis", func(t *testing.T) {
		t.Parallel()
		d := reported(t, "2026-01-10")
		d.Basis = "law_enforcement"
		d.Suspensions = []med.Suspension{{Agency: "law_enforcement", Official: "Det. Jones", Statement: "written", StatedOn: today, Until: today.Plus(90)}}
		correct := reported(t, "2026-01-11")
		correct.ID, correct.Version, correct.Basis = "someone-elses", 17, "law_enforcement"
		if err := d.Amend(med.Amendment{Correction: &correct}); err != nil {
			t.Fatal(err)
		}
		if d.ID != "d-2026-01-10" || d.Version != 2 || d.First != day(t, "2026-01-11") || len(d.Suspensions) != 1 {
			t.Errorf("got %s version %d with %d suspensions", d.ID, d.Version, len(d.Suspensions))
		}
		correct.Basis = "judicial"
		if err := d.Amend(med.Amendment{Correction: &correct}); err != nil || len(d.Suspensions) != 0 {
			t.Errorf("of another basis: got %v and %d suspensions", err, len(d.Suspensions))
		}
		if err := d.Amend(med.Amendment{}); med.KindOf(err) != med.Invalid {
			t.Errorf("of nothing: got %v", err)
		}
	})
}
