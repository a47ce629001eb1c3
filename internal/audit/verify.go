// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Row is an entry as a verifier found it, and its hash: of the data itself,
// never of what somebody says its hash is.
type Row struct {
	ID   UUID
	Hash tlog.Hash
	*Record
}

// RowOf hashes a record. buf is room to work in, and is returned grown.
func RowOf(r *Record, buf []byte) (Row, []byte) {
	buf = r.AppendLeaf(append(buf[:0], 0)) // RFC 6962, 2.1: a leaf's hash begins with 0
	id, _ := ParseUUID(r.ID)
	return Row{ID: id, Hash: hashOf(buf), Record: r}, buf
}

// Stretch is a run of the log: what was sealed in it, and the entries that are
// there, in no order.
type Stretch struct {
	First  int64
	Leaves []tlog.Hash
	Names  []UUID // of the entries that were sealed; nil when the list is lost
	Rows   []Row
	Pruned func(index int64) (key PatientKey, about, pruned bool)
	Lo, Hi uint64 // the transactions between which they were written
}

// Matched is a stretch in which each place has its entry, or a suspicion.
type Matched struct {
	first    int64
	leaves   []tlog.Hash
	about    []PatientKey
	state    []byte // of each place: nothing, an entry, one of a patient, or pruned
	suspects []suspect
	misnamed []misnamed
	rows     int64
	pruned   int64
}

// States of a place.
const (
	lost byte = iota
	plain
	aboutPatient
	elsewhere
)

// suspect is a place without its entry, an entry without a place, or a place
// with the wrong one.
type suspect struct {
	place  int64 // -1: none
	id     UUID
	named  bool
	leaf   tlog.Hash
	row    *Row
	lo, hi uint64
}

// Match puts entries into their places: each first where its hash was sealed,
// which no list and no other row can gainsay, and what is left where the list
// has its id. Stretches can be matched side by side.
func (s *Stretch) Match() *Matched {
	m := newMatched(s.First, s.Leaves)
	m.rows = int64(len(s.Rows))
	places := make(map[tlog.Hash]int, len(s.Leaves))
	for i, h := range s.Leaves {
		places[h] = i
	}
	var left []*Row
	for n := range s.Rows {
		r := &s.Rows[n]
		i, ok := places[r.Hash]
		if !ok || m.state[i] != lost { // not as it was sealed, or there twice
			left = append(left, r)
			continue
		}
		m.fill(i, r)
		if s.Names != nil && s.Names[i] != r.ID {
			m.misnamed = append(m.misnamed, misnamed{s.First + int64(i), r.ID})
		}
	}
	wrong := map[int]*Row{}
	byID := s.unfilled(m)
	for _, r := range left {
		if i, ok := byID[r.ID]; ok && wrong[i] == nil {
			wrong[i] = r
			continue
		}
		m.suspects = append(m.suspects, suspect{place: -1, id: r.ID, named: true, row: r, lo: s.Lo, hi: s.Hi})
	}
	for i := range s.Leaves {
		if m.state[i] != lost {
			continue
		}
		if wrong[i] == nil && s.Pruned != nil {
			if key, about, ok := s.Pruned(s.First + int64(i)); ok {
				m.state[i], m.about[i] = plain, key
				if about {
					m.state[i] = aboutPatient
				}
				m.pruned++
				continue
			}
		}
		sus := suspect{place: s.First + int64(i), leaf: s.Leaves[i], row: wrong[i], lo: s.Lo, hi: s.Hi}
		if s.Names != nil {
			sus.id, sus.named = s.Names[i], true
		}
		m.suspects = append(m.suspects, sus)
	}
	return m
}

// unfilled returns the places that have no entry yet, by the ids that the list
// has there.
func (s *Stretch) unfilled(m *Matched) map[UUID]int {
	out := map[UUID]int{}
	for i, id := range s.Names {
		if _, twice := out[id]; m.state[i] == lost && !twice {
			out[id] = i
		}
	}
	return out
}

// misnamed is a place whose entry is as it was sealed, and whose list says that
// another is there.
type misnamed struct {
	place int64
	id    UUID
}

func newMatched(first int64, leaves []tlog.Hash) *Matched {
	return &Matched{first: first, leaves: leaves, about: make([]PatientKey, len(leaves)), state: make([]byte, len(leaves))}
}

func (m *Matched) fill(i int, r *Row) {
	m.state[i] = plain
	if r.Patient != nil {
		m.state[i], m.about[i] = aboutPatient, KeyOf(*r.Patient)
	}
}

// Want is what somebody says of the log at a size.
type Want struct {
	Size     int64
	Root     tlog.Hash
	Patients tlog.Hash
	Kind     Kind // of the finding when it is not so
	What     string
	Good     func() // called when it is so; may be nil
}

// maxSuspects is how many suspicions are kept to be held against each other.
// Those above are told at once, without a try at what happened.
const maxSuspects = 20_000

// Verifier verifies one epoch's log from left to right. It is for one
// goroutine; only Match is done side by side.
type Verifier struct {
	Epoch int32
	Tell  func(Finding)
	Tree  *Range // of the leaves so far; begins with what is left of them
	// Listed says that the entries' places come from a list of their own, and not
	// from where they stand.
	Listed bool
	Map    *MapCheck // nil when the log is not read from its beginning

	Rows, Pruned int64
	wants        []Want // sorted by size
	wrong        map[Kind]bool
	mapWrong     bool
	rootAt       int64
	rootIs       tlog.Hash
	suspects     []suspect
}

// Add goes on with the stretch that begins where the last one ended.
func (v *Verifier) Add(m *Matched) {
	v.Rows += m.rows
	v.Pruned += m.pruned
	for _, x := range m.misnamed {
		v.Tell(Finding{Kind: BadBatch, Epoch: v.Epoch, Index: x.place, ID: x.id.String(), Note: "the entry is as it was sealed; the list of its batch names another"})
	}
	for _, s := range m.suspects {
		if len(v.suspects) < maxSuspects {
			v.suspects = append(v.suspects, s)
		} else {
			v.say(&s)
		}
	}
	for i, h := range m.leaves {
		v.reach()
		v.Tree.Append(h)
		if v.Map == nil {
			continue
		}
		switch m.state[i] {
		case lost, elsewhere:
			v.Map.Lose()
		case aboutPatient:
			v.Map.Add(m.about[i], h)
		}
	}
	v.reach()
}

// Want asks for what is said of the log at a size to come.
func (v *Verifier) Want(w ...Want) {
	v.wants = append(v.wants, w...)
	slices.SortStableFunc(v.wants, func(a, b Want) int { return cmp.Compare(a.Size, b.Size) })
}

// reach holds what is said of the log at this size against the log. What goes
// on being wrong is told once.
func (v *Verifier) reach() {
	for len(v.wants) > 0 && v.wants[0].Size <= v.Tree.End {
		w := v.wants[0]
		v.wants = v.wants[1:]
		if w.Size < v.Tree.End {
			continue // before the beginning
		}
		good := v.root() == w.Root
		if !good && !v.wrong[w.Kind] {
			v.Tell(Finding{Kind: w.Kind, Epoch: v.Epoch, Index: -1, Note: fmt.Sprintf("%s is of another tree of %d entries than this log", w.What, w.Size)})
		}
		if v.wrong == nil {
			v.wrong = map[Kind]bool{}
		}
		v.wrong[w.Kind] = !good
		if w.Good != nil && good {
			w.Good()
		}
		if good {
			v.reachMap(w)
		}
	}
}

func (v *Verifier) root() tlog.Hash {
	if v.rootAt != v.Tree.End || v.rootAt == 0 {
		v.rootAt, v.rootIs = v.Tree.End, v.Tree.Root()
	}
	return v.rootIs
}

func (v *Verifier) reachMap(w Want) {
	if v.Map == nil || !v.Map.Whole() {
		return
	}
	good := w.Patients == v.Map.Root()
	if !good && !v.mapWrong {
		v.Tell(Finding{Kind: BadMap, Epoch: v.Epoch, Index: -1, Note: fmt.Sprintf("the patient map of %s is not the one that its %d entries make", w.What, w.Size)})
	}
	v.mapWrong = !good
}

// say tells of a suspicion that stays one.
func (v *Verifier) say(s *suspect) {
	f := Finding{Epoch: v.Epoch, Index: s.place}
	if s.named {
		f.ID = s.id.String()
	}
	switch {
	case s.row == nil:
		f.Kind = Missing
	case s.place < 0:
		f.Kind = Added
		f.Note = "it stands among sealed entries and was not sealed"
	default:
		f.Kind = Altered
	}
	v.Tell(f)
}

// Finish holds the suspicions against each other and tells what has happened.
func (v *Verifier) Finish() {
	slices.SortStableFunc(v.suspects, func(a, b suspect) int { return cmp.Compare(uint64(a.place), uint64(b.place)) })
	r := &resolver{v: v, byLeaf: map[tlog.Hash]int{}, absent: map[UUID]int{}, done: make([]bool, len(v.suspects))}
	for i, s := range v.suspects {
		if s.place >= 0 {
			r.byLeaf[s.leaf] = i
		}
		if s.place >= 0 && s.row == nil && s.named {
			r.absent[s.id] = i
		}
	}
	r.run()
	v.suspects = nil
}
