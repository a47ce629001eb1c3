// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Range is the hashes of the fewest whole subtrees that cover a run of leaves
// [Begin, End): what must be known of it to compute a root. Its memory grows
// with the logarithm of the run.
type Range struct {
	Begin, End int64
	Hashes     []tlog.Hash
}

var errRange = errors.New("a compact range has not the hashes that its ends ask for")

// RangeOf returns the range with these hashes, as an export keeps it. It reports
// an error when their number is not the one that the ends ask for.
func RangeOf(begin, end int64, hashes []tlog.Hash) (*Range, error) {
	if begin < 0 || end < begin || end > 1<<60 || len(Subtrees(begin, end)) != len(hashes) {
		return nil, errRange
	}
	return &Range{begin, end, append([]tlog.Hash(nil), hashes...)}, nil
}

// levelAt is the height of the subtree that a range up to end has at this place.
func levelAt(at, end int64) int {
	most := bits.Len64(uint64(end-at)) - 1
	if at == 0 {
		return most
	}
	return min(most, bits.TrailingZeros64(uint64(at)))
}

// Append adds leaves at the right.
func (r *Range) Append(leaves ...tlog.Hash) {
	for _, h := range leaves {
		r.push(0, h)
	}
}

// Join adds the run that begins where this one ends.
func (r *Range) Join(next *Range) error {
	if next.Begin != r.End {
		return errRange
	}
	for i, s := range Subtrees(next.Begin, next.End) {
		r.push(s.Level, next.Hashes[i])
	}
	return nil
}

// push adds a whole subtree, and makes one of two for as long as that can be.
func (r *Range) push(level int, h tlog.Hash) {
	n := r.End >> level
	r.End += 1 << level
	for ; n&1 == 1 && (n-1)<<level >= r.Begin; level++ {
		last := len(r.Hashes) - 1
		h = tlog.NodeHash(r.Hashes[last], h)
		r.Hashes = r.Hashes[:last]
		n >>= 1
	}
	r.Hashes = append(r.Hashes, h)
}

// Root is the root of a tree of End leaves. The range must begin at 0.
func (r *Range) Root() tlog.Hash {
	if len(r.Hashes) == 0 {
		h, _ := tlog.TreeHash(0, nil) // of nothing: it reads none
		return h
	}
	h := r.Hashes[len(r.Hashes)-1]
	for i := len(r.Hashes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(r.Hashes[i], h)
	}
	return h
}

// Subtree is a whole subtree: the N-th of 2^Level leaves.
type Subtree struct {
	Level int
	N     int64
}

// Subtrees returns the fewest whole subtrees that cover [begin, end), whose
// hashes a Range holds.
func Subtrees(begin, end int64) (out []Subtree) {
	for at := begin; at < end; {
		level := levelAt(at, end)
		out = append(out, Subtree{level, at >> level})
		at += 1 << level
	}
	return out
}
