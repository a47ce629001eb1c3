// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// Runs that are joined make the root that the tree has, wherever they meet.
func TestRangesJoinToTheRoot(t *testing.T) {
	t.Parallel()
	const most = 70
	tiles := shelf{}
	tree := OpenTree(0, tiles.read)
	var leaves []tlog.Hash
	for i := range most {
		leaves = append(leaves, leafOf(i))
	}
	if err := tree.Append(leaves...); err != nil {
		t.Fatal(err)
	}
	for size := range int64(most + 1) {
		want, err := tree.Root(size)
		if err != nil {
			t.Fatal(err)
		}
		for a := range size + 1 {
			for b := a; b <= size; b += 3 {
				left, middle, right := &Range{}, &Range{Begin: a, End: a}, &Range{Begin: b, End: b}
				left.Append(leaves[:a]...)
				middle.Append(leaves[a:b]...)
				right.Append(leaves[b:size]...)
				for _, r := range []*Range{middle, right} {
					kept, err := RangeOf(r.Begin, r.End, r.Hashes)
					if err != nil {
						t.Fatalf("%d to %d: %v", r.Begin, r.End, err)
					}
					if err := left.Join(kept); err != nil {
						t.Fatal(err)
					}
				}
				if got := left.Root(); got != want || left.End != size {
					t.Fatalf("%d of %d, met at %d and %d: another root", left.End, size, a, b)
				}
			}
		}
	}
	if _, err := RangeOf(3, 9, leaves[:2]); err == nil {
		t.Error("a range with too few hashes is taken")
	}
	if err := (&Range{}).Join(&Range{Begin: 1, End: 1}); err == nil {
		t.Error("runs with a gap between them are joined")
	}
}
