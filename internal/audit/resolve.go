// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func hashOf(b []byte) tlog.Hash { return sha256.Sum256(b) }

// resolver holds suspicions against each other.
type resolver struct {
	v      *Verifier
	byLeaf map[tlog.Hash]int // places by what was sealed there
	absent map[UUID]int      // places without their entry, by its id
	done   []bool
	tried  int
}

// maxTried is how many altered entries are tried for what was done to them: a
// hash tells, when a guess is right.
const maxTried = 200

func (r *resolver) run() {
	all := r.v.suspects
	for i := range all {
		s := &all[i]
		if s.row == nil || r.done[i] {
			continue
		}
		// Its hash was sealed in another place.
		if j, ok := r.byLeaf[s.row.Hash]; ok && j != i && !r.done[j] && all[j].row == nil {
			r.done[j] = true
			r.home(i)
			r.v.Tell(Finding{
				Kind: BadBatch, Epoch: r.v.Epoch, Index: all[j].place, ID: s.row.ID.String(),
				Note: "the entry is as it was sealed; the list of its batch names another, or other bounds",
			})
			continue
		} else if ok && j != i && r.v.Listed { // its own bytes say that it is right
			r.home(i)
			r.v.Tell(Finding{Kind: BadBatch, Epoch: r.v.Epoch, Index: all[j].place, ID: s.row.ID.String(), Note: "the entry is as it was sealed; the list of its batch has it in another place"})
			continue
		} else if ok && j != i {
			r.done[i] = true
			r.v.Tell(Finding{
				Kind: Reordered, Epoch: r.v.Epoch, Index: s.place, ID: s.row.ID.String(),
				Note: fmt.Sprintf("what stands here was sealed as entry %d", all[j].place),
			})
			continue
		}
		// Its id was sealed, elsewhere in the order.
		if j, ok := r.absent[s.row.ID]; ok && s.place < 0 && !r.done[j] {
			r.done[i], r.done[j] = true, true
			r.altered(&all[j], s.row, Reordered)
		}
	}
	for i := range all {
		if s := &all[i]; !r.done[i] && s.place >= 0 && s.row != nil {
			r.altered(s, s.row, Altered)
		} else if !r.done[i] {
			r.v.say(s)
		}
	}
}

// home settles the entry of a suspicion, which belongs elsewhere. The place that
// the list had it in, if any, is without one: whether it is missing is seen later.
func (r *resolver) home(i int) {
	r.v.suspects[i].row = nil
	r.done[i] = r.v.suspects[i].place < 0 || !r.v.Listed
}

// altered tells how the entry at a place differs from what was sealed there.
func (r *resolver) altered(s *suspect, row *Row, otherwise Kind) {
	f := Finding{Kind: otherwise, Epoch: r.v.Epoch, Index: s.place, ID: row.ID.String()}
	if otherwise == Reordered {
		f.Note = "it was written by another transaction than it says: its place in the order was changed"
	}
	if r.tried < maxTried {
		r.tried++
		if kind, note := r.guess(s, row); kind != "" {
			f.Kind, f.Note = kind, note
		}
	}
	if f.Note == "" && row.OccurredAt.UnixMilli() != row.ID.Milli() {
		f.Note = fmt.Sprintf("its id was made at %s, and it says it occurred at %s", clock(row.ID.Milli()), clock(row.OccurredAt.UnixMilli()))
	}
	r.v.Tell(f)
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// guess tries what may have been done to the entry. A guess that hashes to what
// was sealed is no guess any more.
func (r *resolver) guess(s *suspect, row *Row) (Kind, string) {
	var buf []byte
	fits := func(c Record) bool {
		buf = c.AppendLeaf(append(buf[:0], 0))
		return hashOf(buf) == s.leaf
	}
	made := time.UnixMilli(row.ID.Milli()).UTC()
	c := *row.Record
	c.OccurredAt = made
	if fits(c) {
		return Redated, fmt.Sprintf("it occurred at %s, and says %s", clock(made.UnixMilli()), clock(row.OccurredAt.UnixMilli()))
	}
	// Recorded soon after: to the millisecond, there are not many.
	for _, at := range []time.Time{row.OccurredAt, made} {
		c := *row.Record
		c.OccurredAt = at
		for ms := -1000; ms <= 10_000; ms++ {
			c.RecordedAt = made.Add(time.Duration(ms) * time.Millisecond)
			if fits(c) {
				return Redated, fmt.Sprintf("it was recorded at %s, and says %s", clock(c.RecordedAt.UnixMilli()), clock(row.RecordedAt.UnixMilli()))
			}
		}
	}
	for tx := s.lo; tx <= s.hi && tx-s.lo < 10_000; tx++ {
		c := *row.Record
		c.TX = tx
		if fits(c) {
			return Reordered, fmt.Sprintf("it was written by transaction %d, and says %d", tx, row.TX)
		}
	}
	for _, o := range []Outcome{Success, AccessGranted, Denied, Failure} {
		c := *row.Record
		c.Outcome = string(o)
		if fits(c) {
			return Altered, fmt.Sprintf("its outcome was %s, and says %s", o, row.Outcome)
		}
		if c.Code = nil; fits(c) {
			return Altered, fmt.Sprintf("its outcome was %s and it had no code", o)
		}
	}
	c = *row.Record
	c.BreakGlass = !c.BreakGlass
	if fits(c) {
		return Altered, "its break-glass mark was turned round"
	}
	if column := r.emptied(row, fits); column != "" {
		return Altered, "its " + column + " was empty"
	}
	return r.swapped(row, fits)
}

// emptied returns the column that was NULL.
func (r *resolver) emptied(row *Row, fits func(Record) bool) string {
	for _, x := range []struct {
		name  string
		clear func(*Record)
	}{
		{"parent", func(c *Record) { c.Parent = nil }},
		{"code", func(c *Record) { c.Code = nil }},
		{"patient", func(c *Record) { c.Patient = nil }},
		{"patient's practice", func(c *Record) { c.PatientPractice = nil }},
		{"actor's practice", func(c *Record) { c.ActorPractice = nil }},
		{"context", func(c *Record) { c.ContextNonce, c.ContextMAC = nil, nil }},
	} {
		c := *row.Record
		if x.clear(&c); fits(c) {
			return x.name
		}
	}
	return ""
}

// maxOthers is how many other suspects an altered entry is held against.
const maxOthers = 64

// swapped finds out whether what was sealed here now stands, all of it or one
// column, in another suspect.
func (r *resolver) swapped(row *Row, fits func(Record) bool) (Kind, string) {
	others := 0
	for i := range r.v.suspects {
		o := r.v.suspects[i].row
		if o == nil || o.Record == row.Record {
			continue
		}
		if others++; others > maxOthers {
			break
		}
		note := fmt.Sprintf("what was sealed here stands in entry %s", o.ID)
		// Its contents with this one's id, order and times, each or none.
		for mask := range 8 {
			c := *o.Record
			c.ID = row.Record.ID
			if mask&1 != 0 {
				c.Epoch, c.TX = row.Epoch, row.TX
			}
			if mask&2 != 0 {
				c.OccurredAt = row.OccurredAt
			}
			if mask&4 != 0 {
				c.RecordedAt = row.RecordedAt
			}
			if fits(c) {
				return Reordered, note
			}
		}
		for _, x := range []struct {
			name string
			take func(c *Record)
		}{
			{"transaction", func(c *Record) { c.TX = o.TX }},
			{"times", func(c *Record) { c.OccurredAt, c.RecordedAt = o.OccurredAt, o.RecordedAt }},
			{"actor", func(c *Record) {
				c.ActorIssuer, c.ActorSubject, c.ActorPractice = o.ActorIssuer, o.ActorSubject, o.ActorPractice
			}},
			{"actor's subject", func(c *Record) { c.ActorSubject = o.ActorSubject }},
			{"patient", func(c *Record) {
				c.Patient, c.PatientPractice, c.ResourceID = o.Patient, o.PatientPractice, o.ResourceID
			}},
			{"patient", func(c *Record) { c.Patient = o.Patient }},
			{"action", func(c *Record) { c.Action = o.Action }},
			{"detail", func(c *Record) { c.Detail = o.Detail }},
			{"nonce", func(c *Record) { c.Nonce = o.Nonce }},
		} {
			c := *row.Record
			if x.take(&c); fits(c) {
				kind := Altered
				switch x.name {
				case "transaction":
					kind = Reordered
				case "times":
					kind = Redated
				}
				return kind, fmt.Sprintf("its %s stands in entry %s", x.name, o.ID)
			}
		}
	}
	return "", ""
}
