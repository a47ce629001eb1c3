// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// MapCheck makes the patient map anew from the entries. It holds the head of
// each patient; its root costs what has changed since the last one.
type MapCheck struct {
	buckets [][]PatientHead
	nodes   []tlog.Hash // a heap: 1 is the root, MapBuckets+b the bucket b
	dirty   []int
	marked  []bool
	lost    bool
}

// NewMapCheck returns the map of a log without entries.
func NewMapCheck() *MapCheck {
	return &MapCheck{buckets: make([][]PatientHead, MapBuckets), nodes: make([]tlog.Hash, 2*MapBuckets), marked: make([]bool, MapBuckets)}
}

// Add continues a patient's chain.
func (m *MapCheck) Add(key PatientKey, leaf tlog.Hash) {
	b := key.Bucket()
	at, there := slices.BinarySearchFunc(m.buckets[b], key, func(p PatientHead, k PatientKey) int { return bytes.Compare(p.Key[:], k[:]) })
	if !there {
		m.buckets[b] = slices.Insert(m.buckets[b], at, PatientHead{Key: key})
	}
	m.buckets[b][at].Add(leaf)
	if !m.marked[b] {
		m.marked[b] = true
		m.dirty = append(m.dirty, b)
	}
}

// Lose says that an entry is not to be had: what follows cannot be compared.
func (m *MapCheck) Lose() { m.lost = true }

// Whole reports whether every entry so far was to be had.
func (m *MapCheck) Whole() bool { return !m.lost }

// Root is the root of the map as the entries make it.
func (m *MapCheck) Root() tlog.Hash {
	if len(m.dirty) > 0 {
		slices.Sort(m.dirty)
		level := m.dirty[:0:len(m.dirty)]
		for _, b := range m.dirty {
			m.marked[b] = false
			m.nodes[MapBuckets+b] = mapSubtree(m.buckets[b], mapDepth)
			level = append(level, MapBuckets+b)
		}
		for level[0] > 1 {
			up := level[:0]
			for _, n := range level {
				if n /= 2; len(up) == 0 || up[len(up)-1] != n {
					m.nodes[n] = mapNode(m.nodes[2*n], m.nodes[2*n+1])
					up = append(up, n)
				}
			}
			level = up
		}
		m.dirty = m.dirty[:0]
	}
	return m.nodes[1]
}

// Bucket returns the heads of a bucket, sorted.
func (m *MapCheck) Bucket(b int) []PatientHead { return m.buckets[b] }

// BucketRoot is the hash of a bucket's subtree.
func (m *MapCheck) BucketRoot(b int) tlog.Hash { return mapSubtree(m.buckets[b], mapDepth) }
