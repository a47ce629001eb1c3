// SPDX-License-Identifier: Apache-2.0

package med

import (
	"fmt"
	"log/slog"
	"time"
)

// Day is a calendar day in UTC. It prints as [phi] under every verb: on which
// day something happened to a patient identifies them, 45 CFR
// 164.514(b)(2)(i)(C). Reveal is the one way out. The zero value is no day.
type Day struct{ t time.Time }

// ParseDay reads YYYY-MM-DD. It reports false for what is no day of the
// calendar.
func ParseDay(s string) (Day, bool) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1 {
		return Day{}, false
	}
	return Day{t}, true
}

// DayOf returns the day in UTC on which the instant falls.
func DayOf(t time.Time) Day {
	y, m, d := t.UTC().Date()
	return Day{time.Date(y, m, d, 0, 0, 0, 0, time.UTC)}
}

// IsZero reports whether it is no day.
func (d Day) IsZero() bool { return d.t.IsZero() }

// Before and After compare two days.
func (d Day) Before(o Day) bool { return d.t.Before(o.t) }

// After is Before the other way round.
func (d Day) After(o Day) bool { return d.t.After(o.t) }

// Start returns the instant at which the day begins.
func (d Day) Start() time.Time { return d.t }

// Plus returns the day that many days later.
func (d Day) Plus(days int) Day { return Day{d.t.AddDate(0, 0, days)} }

// YearsBack returns the same day that many years earlier: of the 29th of
// February, when that year has none, the 28th, so that no span gets shorter.
func (d Day) YearsBack(years int) Day {
	back := d.t.AddDate(-years, 0, 0)
	if back.Month() != d.t.Month() {
		back = back.AddDate(0, 0, -back.Day())
	}
	return Day{back}
}

// Reveal returns the day as YYYY-MM-DD, and "" of no day.
func (d Day) Reveal() string {
	if d.IsZero() {
		return ""
	}
	return d.t.Format(time.DateOnly)
}

func (d Day) String() string               { return phiMark }
func (d Day) GoString() string             { return phiMark }
func (d Day) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(phiMark)) }
func (d Day) MarshalText() ([]byte, error) { return []byte(phiMark), nil }
func (d Day) MarshalJSON() ([]byte, error) { return []byte(`"` + phiMark + `"`), nil }
func (d Day) LogValue() slog.Value         { return slog.StringValue(phiMark) }
