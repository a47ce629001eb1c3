// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// The patient map says, for each patient, how many entries about them the log
// holds and which: a count, and the head of a chain over their leaf hashes. Its
// root is in every checkpoint, so a list of accesses can be shown to be whole.
//
// It is a sparse Merkle tree: a patient's place is the 256 bits of their key, a
// subtree with no patient is 32 zero bytes, and below depth 16 one with a
// single patient is that patient's leaf. Other patients appear as hashes only.

// MapBuckets is the number of subtrees at depth 16, each hashed as a whole.
const MapBuckets = 1 << mapDepth

const mapDepth = 16

// PatientKey is a patient's place in the map.
type PatientKey [sha256.Size]byte

// KeyOf returns the place of the patient with this id.
func KeyOf(patient string) PatientKey { return sha256.Sum256([]byte("mr-patient-v1\x00" + patient)) }

// Bucket is the key's subtree at depth 16.
func (k PatientKey) Bucket() int { return int(binary.BigEndian.Uint16(k[:])) }

func (k PatientKey) bit(depth int) byte { return k[depth/8] >> (7 - depth%8) & 1 }

// PatientHead is what the map holds of one patient.
type PatientHead struct {
	Key   PatientKey
	Count int64
	Head  tlog.Hash // of the chain; zero before the first entry
}

// Add continues the chain with the leaf hash of an entry about the patient:
// SHA-256("mr-patient-chain-v1", 0, head before, leaf hash).
func (p *PatientHead) Add(leaf tlog.Hash) {
	b := make([]byte, 0, 96)
	b = append(b, "mr-patient-chain-v1\x00"...)
	b = append(b, p.Head[:]...)
	b = append(b, leaf[:]...)
	p.Head = sha256.Sum256(b)
	p.Count++
}

// hash is the patient's leaf: SHA-256(0x00, key, count in 8 bytes, head).
func (p *PatientHead) hash() tlog.Hash {
	b := make([]byte, 0, 1+32+8+32)
	b = append(b, 0)
	b = append(b, p.Key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Count)) //nolint:gosec // a count
	return sha256.Sum256(append(b, p.Head[:]...))
}

// mapNode is SHA-256(0x01, left, right), and nothing above nothing.
func mapNode(left, right tlog.Hash) tlog.Hash {
	if left == (tlog.Hash{}) && right == (tlog.Hash{}) {
		return tlog.Hash{}
	}
	return tlog.NodeHash(left, right)
}

// BucketRoot returns the hash of a bucket's subtree. The heads are sorted by it.
func BucketRoot(heads []PatientHead) tlog.Hash {
	slices.SortFunc(heads, func(a, b PatientHead) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return mapSubtree(heads, mapDepth)
}

func mapSubtree(sorted []PatientHead, depth int) tlog.Hash {
	switch len(sorted) {
	case 0:
		return tlog.Hash{}
	case 1:
		return sorted[0].hash()
	}
	left, right := split(sorted, depth)
	return mapNode(mapSubtree(left, depth+1), mapSubtree(right, depth+1))
}

func split(sorted []PatientHead, depth int) (left, right []PatientHead) {
	i, _ := slices.BinarySearchFunc(sorted, byte(1), func(p PatientHead, bit byte) int { return cmp.Compare(p.Key.bit(depth), bit) })
	return sorted[:i], sorted[i:]
}

// MapTop is the map above depth 16: the buckets' roots and what is over them.
type MapTop struct{ buckets, middle []tlog.Hash } // at depth 16 and 8

// NewMapTop returns the top of a map without patients.
func NewMapTop() *MapTop {
	return &MapTop{make([]tlog.Hash, MapBuckets), make([]tlog.Hash, 256)}
}

// Set sets a bucket's root.
func (m *MapTop) Set(bucket int, root tlog.Hash) {
	m.buckets[bucket] = root
	m.middle[bucket>>8] = mapFold(m.buckets[bucket&^255:][:256])
}

// SetAll sets the roots of many buckets.
func (m *MapTop) SetAll(roots map[int]tlog.Hash) {
	touched := map[int]bool{}
	for bucket, root := range roots {
		m.buckets[bucket] = root
		touched[bucket>>8] = true
	}
	m.fold(touched)
}

// Root is the root of the map.
func (m *MapTop) Root() tlog.Hash { return mapFold(m.middle) }

// row returns the roots of the 256 buckets that begin with this byte.
func (m *MapTop) row(first int) []tlog.Hash { return m.buckets[first<<8:][:256] }

// MapSlice is how many buckets the database keeps together: few, because of the
// patients of half a second hardly two share one, and all of a slice is written
// when one of its buckets changes.
const MapSlice = 16

// Slice returns the roots of the buckets from n*MapSlice on.
func (m *MapTop) Slice(n int) []tlog.Hash { return m.buckets[n*MapSlice:][:MapSlice] }

// SetSlices sets the roots of slices, by their numbers.
func (m *MapTop) SetSlices(roots map[int][]tlog.Hash) {
	touched := map[int]bool{}
	for n, some := range roots {
		copy(m.Slice(n), some)
		touched[n*MapSlice>>8] = true
	}
	m.fold(touched)
}

func (m *MapTop) fold(touched map[int]bool) {
	for first := range touched {
		m.middle[first] = mapFold(m.row(first))
	}
}

// mapFold hashes a complete subtree of a power of two.
func mapFold(row []tlog.Hash) tlog.Hash {
	if len(row) == 1 {
		return row[0]
	}
	half := len(row) / 2
	return mapNode(mapFold(row[:half]), mapFold(row[half:]))
}

// MapProof shows what a map holds of one patient: their head, or that there is
// none, because their place is empty or another's leaf stands there.
type MapProof struct {
	Head     PatientHead
	Other    *PatientHead // whose leaf stands where this patient's would
	Siblings []tlog.Hash  // from the leaf up
}

// Prove makes the proof of a patient from the heads of their bucket, this
// one's included when there is one, and the top.
func (m *MapTop) Prove(key PatientKey, bucket []PatientHead) *MapProof {
	slices.SortFunc(bucket, func(a, b PatientHead) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	p := &MapProof{Head: PatientHead{Key: key}}
	for depth := mapDepth; len(bucket) > 1; depth++ {
		left, right := split(bucket, depth)
		bucket = left
		if key.bit(depth) == 1 {
			left, right = right, left
			bucket = left
		}
		p.Siblings = append(p.Siblings, mapSubtree(right, depth+1))
	}
	if len(bucket) == 1 {
		if bucket[0].Key == key {
			p.Head = bucket[0]
		} else {
			p.Other = &bucket[0]
		}
	}
	slices.Reverse(p.Siblings)
	p.Siblings = append(p.Siblings, siblings(m.row(int(key[0])), int(key[1]))...)
	p.Siblings = append(p.Siblings, siblings(m.middle, int(key[0]))...)
	return p
}

// siblings returns the hashes beside the way from place at up to the root of a
// complete subtree.
func siblings(level []tlog.Hash, at int) (out []tlog.Hash) {
	for len(level) > 1 {
		out = append(out, level[at^1])
		up := make([]tlog.Hash, len(level)/2)
		for i := range up {
			up[i] = mapNode(level[2*i], level[2*i+1])
		}
		level, at = up, at>>1
	}
	return out
}

// ErrMapProof says that a proof does not lead to the root.
var ErrMapProof = errors.New("the proof does not fit the patient map of the checkpoint")

// Check reports ErrMapProof unless the map with this root holds exactly the
// head, or nothing of the patient when its count is 0.
func (p *MapProof) Check(root tlog.Hash) error {
	depth := len(p.Siblings)
	if depth < mapDepth || depth > 256 {
		return ErrMapProof
	}
	var h tlog.Hash
	switch {
	case p.Other != nil:
		if p.Head.Count != 0 || p.Other.Key == p.Head.Key {
			return ErrMapProof
		}
		for d := range depth {
			if p.Other.Key.bit(d) != p.Head.Key.bit(d) {
				return ErrMapProof
			}
		}
		h = p.Other.hash()
	case p.Head.Count > 0:
		h = p.Head.hash()
	}
	for i, sibling := range p.Siblings {
		if p.Head.Key.bit(depth-1-i) == 0 {
			h = mapNode(h, sibling)
		} else {
			h = mapNode(sibling, h)
		}
	}
	if h != root {
		return ErrMapProof
	}
	return nil
}
