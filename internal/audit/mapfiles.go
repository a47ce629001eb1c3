// SPDX-License-Identifier: Apache-2.0

package audit

import "fmt"

// MapOfFiles makes the patient map of a log from its exports, month by month in
// their order. Where months meet, an entry may stand in the later file and its
// place in both.
type MapOfFiles struct {
	Epoch int32
	Tell  func(Finding)

	pm      *MapCheck
	next    int64
	waiting map[int64]waitingPlace
	heads   map[int64]*Head
}

type waitingPlace struct {
	state byte
	key   PatientKey
	m     *Matched
	at    int
}

// maxWaiting is how many places may wait for one of the next file.
const maxWaiting = 1 << 20

// Expect asks for the map to be held against a head, when the files get there.
func (f *MapOfFiles) Expect(h *Head) {
	if f.heads == nil {
		f.heads = map[int64]*Head{}
	}
	f.heads[h.Size] = h
}

// Take takes some places of a file.
func (f *MapOfFiles) Take(m *Matched) {
	if f.pm == nil {
		f.pm, f.waiting = NewMapCheck(), map[int64]waitingPlace{}
	}
	for i, state := range m.state {
		at := m.first + int64(i)
		if state == elsewhere || at < f.next || len(f.waiting) >= maxWaiting {
			continue
		}
		f.waiting[at] = waitingPlace{state, m.about[i], m, i}
		for w, ok := f.waiting[f.next]; ok; w, ok = f.waiting[f.next] {
			delete(f.waiting, f.next)
			f.put(w)
		}
	}
}

func (f *MapOfFiles) put(w waitingPlace) {
	switch w.state {
	case lost:
		f.pm.Lose()
	case aboutPatient:
		f.pm.Add(w.key, w.m.leaves[w.at])
	}
	f.next++
	if h := f.heads[f.next]; h != nil && f.pm.Whole() && f.pm.Root() != h.Patients {
		f.Tell(Finding{Kind: BadMap, Epoch: f.Epoch, Index: -1, Note: fmt.Sprintf("the patient map of the checkpoint of %d entries is not the one that they make", f.next)})
	}
}

// Done is up to which place the map was made: all of it, when that is the size
// of a head.
func (f *MapOfFiles) Done() int64 { return f.next }
