// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/mod/sumdb/tlog"
)

// FileResult is what the verification of an export came to.
type FileResult struct {
	Header ExportHeader
	Head   *Head // the checkpoint, when it is signed as it must be
	Rows   int64 // entries that were hashed
	// Neighbours is how many places stand for entries of the month before or
	// after, by the file's word: only their hashes are in it.
	Neighbours int64
	Proved     bool // the leaves lead to the checkpoint's root
}

// VerifyExport reads an export to its end and tells of everything in it that
// is not as it was sealed. trust verifies a checkpoint's
// signatures; with an error it returns a head too when the log's own signature is
// good. known
// returns the leaves that somebody outside keeps of [from, from+n), or none; it
// may be nil. taken, when not nil, gets each place in its order. It returns an
// error only when the file cannot be read as an export at all.
func VerifyExport(r io.Reader, tell func(Finding), trust func(note string) (*Head, error), known func(from int64, n int) []tlog.Hash,
	taken func(*Matched),
) (*FileResult, error) {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return nil, ErrExport
	}
	in := bufio.NewReaderSize(gz, 1<<20)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, ErrExport
	}
	f := &file{out: &FileResult{}, tell: tell, known: known, taken: taken}
	h := &f.out.Header
	if unambiguous(line, h) != nil || h.Format != ExportFormat {
		return nil, ErrExport
	}
	left, err1 := RangeOf(0, h.From, hashesOf(h.Left))
	f.right, err = RangeOf(h.To, h.Size, hashesOf(h.Right))
	if err1 != nil || err != nil || h.From > h.To {
		return nil, fmt.Errorf("%w: its ranges do not fit its bounds", ErrExport)
	}
	f.v = &Verifier{Epoch: h.Epoch, Tell: tell, Tree: left}
	if f.start, err = time.Parse("2006-01", h.Month); err != nil {
		return nil, fmt.Errorf("%w: its month does not read", ErrExport)
	}
	f.end = f.start.AddDate(0, 1, 0)
	f.next, f.whole, f.ahead = h.From, true, map[int64]*place{}
	f.head(trust)
	err = InOrder(max(1, runtime.GOMAXPROCS(0)), chunks(in), func(_ int, lines [][]byte) ([]place, error) {
		out := make([]place, len(lines))
		var buf []byte
		for i, l := range lines {
			out[i], buf = parseLine(l, buf)
		}
		return out, nil
	}, f.take)
	if err != nil && !errors.Is(err, errCutOff) {
		return nil, err
	}
	if err != nil {
		f.say(Misfiled, "the file is cut off or damaged")
	}
	f.finish()
	return f.out, nil
}

var errCutOff = errors.New("cut off")

func hashesOf(in [][]byte) (out []tlog.Hash) {
	for _, b := range in {
		if len(b) != tlog.HashSize {
			return nil // RangeOf counts
		}
		out = append(out, tlog.Hash(b))
	}
	return out
}

// chunks reads lines, some hundreds at a time.
func chunks(in *bufio.Reader) func() ([][]byte, bool, error) {
	return func() ([][]byte, bool, error) {
		const most = 512
		var out [][]byte
		all := make([]byte, 0, 512<<10)
		for len(out) < most {
			line, err := in.ReadSlice('\n')
			switch {
			case errors.Is(err, io.EOF) && len(line) == 0:
				return out, len(out) > 0, nil
			case err != nil:
				if len(out) > 0 {
					// What came before is verified; the next call fails again.
					return append(out, []byte("cut off")), true, nil
				}
				return nil, false, errCutOff
			}
			if len(all)+len(line) > cap(all) {
				all = make([]byte, 0, max(512<<10, len(line)))
			}
			at := len(all)
			all = append(all, line[:len(line)-1]...)
			out = append(out, all[at:len(all):len(all)])
		}
		return out, true, nil
	}
}

// file is an export under verification.
type file struct {
	out       *FileResult
	v         *Verifier
	right     *Range
	tell      func(Finding)
	known     func(from int64, n int) []tlog.Hash
	taken     func(*Matched)
	m         *Matched
	next      int64            // the place that comes next
	ahead     map[int64]*place // lines that wait for those before them
	highest   int64
	over      bool
	lines     int64
	ended     bool
	whole     bool // every leaf so far is there
	lastTX    uint64
	lastEpoch int32
	lastID    UUID

	start, end time.Time // of the month
	before     time.Time // when the last good entry was recorded
	strangers  []strangers
}

// strangers are places in a row that the file says are of another month.
type strangers struct {
	first, last int64
	id          UUID
	month       string
}

func (f *file) say(k Kind, note string) {
	f.tell(Finding{Kind: k, Epoch: f.out.Header.Epoch, Index: -1, Note: note})
}

func (f *file) head(trust func(string) (*Head, error)) {
	h := &f.out.Header
	head, err := trust(h.Checkpoint)
	switch {
	case err != nil && head != nil && head.Origin == h.Origin && head.Size == h.Size:
		f.say(Unproved, err.Error())
		f.out.Head = head
	case err != nil:
		f.say(BadHead, err.Error())
	case head.Origin != h.Origin || head.Size != h.Size:
		f.say(Misfiled, "the header and its checkpoint are not of the same log and size")
	default:
		f.out.Head = head
	}
}

// take verifies some lines.
func (f *file) take(places []place) error {
	for n := range places {
		f.line(&places[n])
	}
	f.flush()
	return nil
}

func (f *file) line(p *place) {
	if f.ended {
		if !f.over {
			f.say(Misfiled, "there are lines after the end")
		}
		f.over = true
		return
	}
	if p.end {
		f.ended = true
		if p.count != f.lines {
			f.say(Misfiled, fmt.Sprintf("it ends after %d lines, and says it has %d", f.lines, p.count))
		}
		return
	}
	f.lines++
	switch _, twice := f.ahead[p.i]; {
	case p.err != nil && p.leaf == (tlog.Hash{}):
		f.say(Misfiled, fmt.Sprintf("line %d: %v", f.lines+1, p.err))
	case p.i < f.out.Header.From || p.i >= f.out.Header.To:
		f.stray(p, Added, "it is outside of the file's bounds")
	case p.i < f.next || twice:
		f.stray(p, Added, "its place has an entry already")
	case p.i > f.next:
		f.highest = max(f.highest, p.i)
		if f.ahead[p.i] = p; len(f.ahead) > maxAhead {
			f.skip()
		}
	default:
		if p.i < f.highest {
			f.stray(p, Reordered, "its line stands behind that of a later entry")
		}
		f.put(p)
		f.drain()
	}
}

// maxAhead is how many lines may wait for one that should have come before.
const maxAhead = 10_000

// drain puts the lines that have waited for the one before.
func (f *file) drain() {
	for p := f.ahead[f.next]; p != nil; p = f.ahead[f.next] {
		delete(f.ahead, f.next)
		f.put(p)
	}
}

// skip gives up waiting for what should stand before the lines that wait.
func (f *file) skip() {
	for len(f.ahead) > 0 {
		first := f.out.Header.To
		for i := range f.ahead {
			first = min(first, i)
		}
		f.hole(first)
		f.drain()
	}
}

// flush hands on what is in its places.
func (f *file) flush() {
	if m := f.m; m != nil {
		f.m = nil
		f.outside(m)
		f.v.Add(m)
		if f.taken != nil {
			f.taken(m)
		}
	}
}

// put puts a line into its place.
func (f *file) put(p *place) {
	if f.m == nil {
		f.m = newMatched(f.next, nil)
	}
	m := f.m
	f.next++
	m.leaves = append(m.leaves, p.leaf)
	m.state = append(m.state, lost)
	m.about = append(m.about, PatientKey{})
	at := len(m.leaves) - 1
	switch {
	case p.err != nil:
		f.tell(Finding{Kind: Altered, Epoch: f.v.Epoch, Index: p.i, ID: p.id.String(), Note: p.err.Error()})
	case p.row == nil:
		m.state[at] = elsewhere
		f.stranger(p)
	case p.row.Hash != p.leaf:
		m.suspects = append(m.suspects, suspect{place: p.i, id: p.id, named: true, leaf: p.leaf, row: p.row, lo: f.lastTX, hi: p.row.TX + 100})
	default:
		m.rows++
		m.fill(at, p.row)
		f.order(p)
	}
}

// stranger notes a place that the file says is of another month.
func (f *file) stranger(p *place) {
	f.out.Neighbours++
	if n := len(f.strangers) - 1; n >= 0 && f.strangers[n].last == p.i-1 && f.strangers[n].month == p.month {
		f.strangers[n].last = p.i
		return
	}
	f.strangers = append(f.strangers, strangers{p.i, p.i, p.id, p.month})
	if len(f.strangers) > maxAhead { // nobody's order changes so often
		f.neighbours(time.Time{})
	}
}

// borderland is how far from the ends of a month an entry of the next month or
// the one before can stand among its entries: those of a minute come in any
// order, and no call that leaves an entry takes so long.
const borderland = time.Hour

// neighbours holds the places that are said to be of another month against the
// entries around them. Away from the month's ends it is one of this month that
// is kept back; with one on each side of the hour, nothing can be said of it.
func (f *file) neighbours(after time.Time) {
	for _, s := range f.strangers {
		near := func(at time.Time) bool { return false }
		switch s.month {
		case f.start.AddDate(0, -1, 0).Format("2006-01"):
			near = func(at time.Time) bool { return at.Before(f.start.Add(borderland)) }
		case f.end.Format("2006-01"):
			near = func(at time.Time) bool { return at.After(f.end.Add(-borderland)) }
		}
		far := !f.before.IsZero() && !near(f.before)
		farAfter := !after.IsZero() && !near(after)
		switch beside := !f.before.IsZero() && !far || !after.IsZero() && !farAfter; {
		case beside && (far || farAfter): // nobody was at work around the month's end, or one of them is kept back
			f.tell(Finding{
				Kind: Gap, Epoch: f.v.Epoch, Index: s.first, Last: s.last, ID: s.id.String(),
				Note: "the file says that it is of another month, which one of the entries around it speaks for and one against: the export of that month has it",
			})
		case !beside:
			f.tell(Finding{
				Kind: Misfiled, Epoch: f.v.Epoch, Index: s.first, Last: s.last, ID: s.id.String(),
				Note: "the file says that it is of another month, which cannot stand here: it keeps an entry back",
			})
		}
	}
	f.strangers = f.strangers[:0]
}

// order holds a good entry against the one before and the file's month.
func (f *file) order(p *place) {
	if p.row.OccurredAt.Format("2006-01") != f.out.Header.Month {
		f.tell(Finding{Kind: Misfiled, Epoch: f.v.Epoch, Index: p.i, ID: p.id.String(), Note: "the entry is of another month than the file"})
	}
	if len(f.strangers) > 0 {
		f.neighbours(p.row.RecordedAt)
	}
	f.before = p.row.RecordedAt
	// The first entries of an epoch may have been written in the one before.
	if p.row.Epoch < f.lastEpoch || p.row.Epoch == f.lastEpoch && (p.row.TX < f.lastTX || p.row.TX == f.lastTX && string(p.id[:]) <= string(f.lastID[:])) {
		f.tell(Finding{Kind: Reordered, Epoch: f.v.Epoch, Index: p.i, ID: p.id.String(), Note: "it comes before the entry that stands before it"})
	}
	f.lastEpoch, f.lastTX, f.lastID = p.row.Epoch, p.row.TX, p.id
}

// stray tells of a line that stands where it does not belong.
func (f *file) stray(p *place, kind Kind, note string) {
	f.tell(Finding{Kind: kind, Epoch: f.v.Epoch, Index: p.i, ID: p.id.String(), Note: note})
}

// hole tells of places without a line. What the tree needs of them is lost,
// unless somebody outside has it.
func (f *file) hole(to int64) {
	const most = 1000
	f.flush()
	for at := f.next; at < to; {
		n := int(min(4096, to-at))
		var leaves []tlog.Hash
		if f.known != nil {
			leaves = f.known(at, n)
		}
		if leaves == nil {
			if !f.whole { // nothing more can be made of it, however large the file says it is
				break
			}
			f.whole = false
			leaves = make([]tlog.Hash, n)
		}
		m := newMatched(at, leaves)
		f.v.Add(m)
		if f.taken != nil {
			f.taken(m)
		}
		at += int64(n)
	}
	for i := f.next; i < to; i++ {
		if i-f.next == most {
			f.tell(Finding{Kind: Missing, Epoch: f.v.Epoch, Index: i, Last: to - 1, Note: "the file has no lines for them"})
			break
		}
		f.tell(Finding{Kind: Missing, Epoch: f.v.Epoch, Index: i, Note: "the file has no line for it"})
	}
	f.next = to
}

// outside holds the leaves against those that somebody outside keeps. Where
// they differ, what is kept outside is right.
func (f *file) outside(m *Matched) {
	if f.known == nil || len(m.leaves) == 0 {
		return
	}
	kept := f.known(m.first, len(m.leaves))
	for i, h := range kept {
		if h == m.leaves[i] {
			continue
		}
		f.tell(Finding{Kind: Altered, Epoch: f.v.Epoch, Index: m.first + int64(i), Note: "the leaf is not the one that is kept outside: the entry was rewritten together with its hash"})
		m.leaves[i], m.state[i] = h, lost
	}
}

// finish holds the tree against the checkpoint.
func (f *file) finish() {
	h := f.out.Header
	f.skip()
	if f.next < h.To {
		f.hole(h.To)
	}
	f.flush()
	f.neighbours(time.Time{})
	if !f.ended {
		f.say(Misfiled, "the file has no end: it was cut off")
	}
	f.v.Finish()
	f.out.Rows = f.v.Rows
	if !f.whole || f.out.Head == nil || f.v.Tree.Join(f.right) != nil {
		return
	}
	if f.out.Proved = f.out.Head.fits(f.v.Tree.Root()); !f.out.Proved {
		f.say(BadHead, "its entries and hashes do not lead to the root that was signed: something was rewritten together with its hash, and what is kept outside (--sink) can tell which")
	}
}
