// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight is that of C2SP tlog-tiles: a full tile holds 256 hashes.
const TileHeight = 8

const tileWidth = 1 << TileHeight

// TileID names a tile: the N-th at level L, whose hashes stand at height 8 L of
// the tree.
type TileID struct {
	L int
	N int64
}

// Path is where a tile with w hashes lies, by C2SP tlog-tiles: tile/0/x001/234,
// with .p/<w> behind it while it is not full.
func (t TileID) Path(w int) string {
	// tlog's own path carries the height, which C2SP fixes and leaves out.
	p := tlog.Tile{H: TileHeight, L: t.L, N: t.N, W: w}.Path()
	return "tile/" + p[len("tile/8/"):]
}

// ParseTilePath reads what Path writes. It reports an error for any other text,
// and for the tiles of entries, which are not served.
func ParseTilePath(path string) (id TileID, w int, err error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	if err != nil || !ok || t.L < 0 || t.L > 7 {
		return TileID{}, 0, errors.New("no path of a tile of hashes")
	}
	return TileID{t.L, t.N}, t.W, nil
}

// Tree is the Merkle tree of a log (RFC 6962) as tiles: what it needs of them it
// reads once, what it appends is in Changed until Flush. It is for one
// goroutine.
type Tree struct {
	size    int64
	read    func(TileID) ([]byte, error)
	tiles   map[TileID][]byte
	changed map[TileID]bool
}

// OpenTree returns the tree of a log with size entries, whose tiles read
// returns. It reads the right edge only when it is needed.
func OpenTree(size int64, read func(TileID) ([]byte, error)) *Tree {
	return &Tree{size: size, read: read, tiles: map[TileID][]byte{}, changed: map[TileID]bool{}}
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Append adds leaf hashes at the right.
func (t *Tree) Append(leaves ...tlog.Hash) error {
	for _, h := range leaves {
		if err := t.add(0, t.size, h); err != nil {
			return err
		}
		t.size++
	}
	return nil
}

// add puts a hash at place n of a level; a tile that it fills goes one level up
// as one hash.
func (t *Tree) add(level int, n int64, h tlog.Hash) error {
	id := TileID{level, n >> TileHeight}
	w := int(n & (tileWidth - 1))
	data, err := t.tile(id, w)
	if err != nil {
		return err
	}
	data = append(data[:w*tlog.HashSize], h[:]...)
	t.tiles[id], t.changed[id] = data, true
	if w+1 < tileWidth {
		return nil
	}
	return t.add(level+1, id.N, subtree(data))
}

// tile returns a tile with at least w hashes.
func (t *Tree) tile(id TileID, w int) ([]byte, error) {
	data, ok := t.tiles[id]
	if !ok && w > 0 {
		var err error
		if data, err = t.read(id); err != nil {
			return nil, fmt.Errorf("tile %s: %w", id.Path(tileWidth), err)
		}
		t.tiles[id] = data
	}
	if len(data) < w*tlog.HashSize || len(data)%tlog.HashSize != 0 || len(data) > tileWidth*tlog.HashSize {
		return nil, fmt.Errorf("tile %s holds %d bytes, want %d hashes of 32", id.Path(tileWidth), len(data), w)
	}
	return data, nil
}

func subtree(data []byte) tlog.Hash {
	if len(data) == tlog.HashSize {
		return tlog.Hash(data)
	}
	half := len(data) / 2
	return tlog.NodeHash(subtree(data[:half]), subtree(data[half:]))
}

// ReadHashes returns hashes by tlog's storage index, so that tlog's proofs can
// be made of the tree.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		least := tlog.TileForIndex(TileHeight, x)
		data, err := t.tile(TileID{least.L, least.N}, least.W)
		if err != nil {
			return nil, err
		}
		least.W = len(data) / tlog.HashSize
		if out[i], err = tlog.HashFromTile(least, data, x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Root returns the tree's hash at a size it has had: SHA-256 of nothing when
// that is 0.
func (t *Tree) Root(size int64) (tlog.Hash, error) {
	if size < 0 || size > t.size {
		return tlog.Hash{}, fmt.Errorf("the log has %d entries, not %d", t.size, size)
	}
	return tlog.TreeHash(size, t)
}

// Consistency proves that the tree at size is a continuation of the one at old.
func (t *Tree) Consistency(old, size int64) ([]tlog.Hash, error) {
	if old == 0 || old == size {
		return nil, nil
	}
	if old < 0 || old > size || size > t.size {
		return nil, fmt.Errorf("the log has %d entries: no proof from %d to %d", t.size, old, size)
	}
	return tlog.ProveTree(size, old, t)
}

// Inclusion proves that the leaf at index is in the tree at size.
func (t *Tree) Inclusion(index, size int64) ([]tlog.Hash, error) {
	if index < 0 || index >= size || size > t.size {
		return nil, fmt.Errorf("the log has %d entries: no proof of %d in %d", t.size, index, size)
	}
	return tlog.ProveRecord(size, index, t)
}

// Changed returns the tiles that were written since the last Flush, whole.
func (t *Tree) Changed() map[TileID][]byte {
	out := make(map[TileID][]byte, len(t.changed))
	for id := range t.changed {
		out[id] = t.tiles[id]
	}
	return out
}

// Flush says that what Changed returned is safe, and forgets tiles that are
// full: the right edge is all that appending needs.
func (t *Tree) Flush() {
	clear(t.changed)
	for id, data := range t.tiles {
		if len(data) == tileWidth*tlog.HashSize {
			delete(t.tiles, id)
		}
	}
}
