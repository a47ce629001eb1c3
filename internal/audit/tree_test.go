// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func leafOf(i int) tlog.Hash { return tlog.RecordHash(binary.BigEndian.AppendUint64(nil, uint64(i))) }

// shelf keeps tiles as the database does: the widest of each.
type shelf map[TileID][]byte

func (s shelf) read(id TileID) ([]byte, error) {
	b, ok := s[id]
	if !ok {
		return nil, errors.New("no such tile")
	}
	return append([]byte(nil), b...), nil
}

func (s shelf) keep(t *Tree) {
	for id, b := range t.Changed() {
		s[id] = append([]byte(nil), b...)
	}
	t.Flush()
}

// The second opinion is transparency-dev/merkle's: roots, inclusion and
// consistency, over trees that were stored, dropped and opened again.
func TestTreeAgreesWithASecondOpinion(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	tiles, size := shelf{}, 0
	roots := map[int]tlog.Hash{}
	for _, grow := range []int{1, 1, 254, 1, 511, 70_000, 3} {
		tree := OpenTree(int64(size), tiles.read)
		for range grow {
			if err := tree.Append(leafOf(size)); err != nil {
				t.Fatal(err)
			}
			size++
		}
		tiles.keep(tree)
		root, err := OpenTree(int64(size), tiles.read).Root(int64(size))
		if err != nil {
			t.Fatal(err)
		}
		roots[size] = root
	}
	tree := OpenTree(int64(size), tiles.read)
	for old, root := range roots {
		hashes, err := tree.Consistency(int64(old), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		now := roots[size]
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), flat(hashes), root[:], now[:]); err != nil {
			t.Errorf("consistency %d to %d: %v", old, size, err)
		}
		for range 20 {
			i := rng.IntN(old)
			hashes, err := tree.Inclusion(int64(i), int64(old))
			if err != nil {
				t.Fatal(err)
			}
			leaf := leafOf(i)
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), uint64(old), leaf[:], flat(hashes), root[:]); err != nil {
				t.Errorf("inclusion of %d in %d: %v", i, old, err)
			}
			if err := tlog.CheckRecord(hashes, int64(old), root, int64(i), leaf); err != nil {
				t.Errorf("inclusion of %d in %d by x/mod: %v", i, old, err)
			}
		}
	}
	if _, err := tree.Inclusion(int64(size), int64(size)); err == nil {
		t.Error("a proof of an entry that is not there")
	}
	if _, err := tree.Root(int64(size) + 1); err == nil {
		t.Error("a root of a size that was never had")
	}
}

func flat(hs []tlog.Hash) (out [][]byte) {
	for _, h := range hs {
		out = append(out, h[:])
	}
	return out
}

func TestTilesAreWhereC2SPWantsThem(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		id   TileID
		w    int
		want string
	}{
		{TileID{0, 0}, 256, "tile/0/000"}, {TileID{0, 1234067}, 256, "tile/0/x001/x234/067"}, {TileID{2, 5}, 7, "tile/2/005.p/7"},
	} {
		if got := tc.id.Path(tc.w); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
		if id, w, err := ParseTilePath(tc.want); err != nil || id != tc.id || w != tc.w {
			t.Errorf("%s reads as %v of %d, %v", tc.want, id, w, err)
		}
	}
	for _, bad := range []string{"", "tile/", "tile/0/1", "tile/0/001.p/0", "tile/0/001.p/256", "tile/9/001", "tile/data/001", "tile/-1/001", "tile/0/../001", "tile/8/0/001", "x/0/001"} {
		if id, _, err := ParseTilePath(bad); err == nil {
			t.Errorf("%q reads as %v", bad, id)
		}
	}
}

func TestABrokenTileIsNotUsed(t *testing.T) {
	t.Parallel()
	for _, broken := range [][]byte{nil, make([]byte, 31), make([]byte, 33), make([]byte, 300*32)} {
		tree := OpenTree(10, shelf{TileID{0, 0}: broken}.read)
		if err := tree.Append(tlog.Hash{1}); err == nil {
			t.Errorf("%d bytes were used as ten hashes", len(broken))
		}
	}
}

func testSigner(t *testing.T, name string, seed byte) (note.Signer, note.Verifier) {
	t.Helper()
	var b [32]byte
	b[0] = seed
	skey, vkey, err := note.GenerateKey(strings.NewReader(string(b[:])+strings.Repeat("x", 64)), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	old, oldV := testSigner(t, "example/1", 1)
	now, nowV := testSigner(t, "example/1", 2)
	c := &Checkpoint{Origin: "example/1", Size: 12, Root: tlog.Hash{1}, Patients: tlog.Hash{2}}
	signed, err := c.Sign(old, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []note.Verifier{oldV, nowV} { // the overlap of a rotation
		back, err := OpenCheckpoint(signed, note.VerifierList(v))
		if err != nil || *back != *c {
			t.Errorf("got %+v, %v", back, err)
		}
	}
	_, other := testSigner(t, "example/1", 3)
	if _, err := OpenCheckpoint(signed, note.VerifierList(other)); err == nil {
		t.Error("a stranger's key verifies")
	}
	stranger, _ := testSigner(t, "else/1", 1)
	if _, err := c.Sign(stranger); err == nil {
		t.Error("a key of another name signs")
	}
	for name, text := range map[string]string{
		"no patient map": "example/1\n12\n" + strings.Split(c.Text(), "\n")[2] + "\n", "a line more": c.Text() + "x\n",
		"a leading zero": strings.Replace(c.Text(), "\n12\n", "\n012\n", 1), "too large": strings.Replace(c.Text(), "\n12\n", "\n18446744073709551615\n", 1),
		"empty": "",
	} {
		if _, err := ParseCheckpoint(text); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add((&Checkpoint{Origin: "o", Size: 3}).Text())
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCheckpoint(s); err == nil && c.Text() != s {
			t.Fatal("reads as something else than it says")
		}
	})
}

func TestProof(t *testing.T) {
	t.Parallel()
	signer, v := testSigner(t, "example/1", 1)
	r := vectors()["every column"]
	tree := OpenTree(0, shelf{}.read)
	for i := range 1000 {
		h := leafOf(i)
		if i == 700 {
			h = r.Hash()
		}
		if err := tree.Append(h); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Root(1000)
	if err != nil {
		t.Fatal(err)
	}
	c := &Checkpoint{Origin: "example/1", Size: 1000, Root: root}
	signed, err := c.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := tree.Inclusion(700, 1000)
	if err != nil {
		t.Fatal(err)
	}
	index, inclusion, text, err := ParseProof(FormatProof(700, hashes, signed))
	if err != nil || index != 700 {
		t.Fatalf("got %d, %v", index, err)
	}
	back, err := OpenCheckpoint(text, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckProof(back, index, inclusion, r); err != nil {
		t.Error(err)
	}
	r.Outcome = "success"
	if err := CheckProof(back, index, inclusion, r); err == nil {
		t.Error("a changed entry is proved")
	}
	if _, _, _, err := ParseProof("nonsense"); err == nil {
		t.Error("nonsense is a proof")
	}
}

func TestPatientMap(t *testing.T) {
	t.Parallel()
	top := NewMapTop()
	if top.Root() != (tlog.Hash{}) {
		t.Fatal("an empty map has a root")
	}
	heads := map[PatientKey]PatientHead{}
	buckets := map[int][]PatientHead{}
	// A few crowded buckets: keys that share their first 16 bits and more.
	for i := range 900 {
		h := PatientHead{Key: KeyOf(fmt.Sprint("p-", i))}
		if i%3 == 0 {
			h.Key[0], h.Key[1], h.Key[2] = 7, 7, byte(i%2)
		}
		for n := range i%4 + 1 {
			h.Add(leafOf(n))
		}
		heads[h.Key] = h
		buckets[h.Key.Bucket()] = append(buckets[h.Key.Bucket()], h)
	}
	for b, hs := range buckets {
		top.Set(b, BucketRoot(hs))
	}
	root := top.Root()
	for key, h := range heads {
		p := top.Prove(key, append([]PatientHead(nil), buckets[key.Bucket()]...))
		if p.Head != h || p.Check(root) != nil {
			t.Fatalf("the proof of %x does not hold: %v", key[:4], p.Check(root))
		}
		for _, lie := range []func(*MapProof){
			func(p *MapProof) { p.Head.Count-- }, // an entry left out
			func(p *MapProof) { p.Head.Count, p.Head.Head = 0, tlog.Hash{} },
			func(p *MapProof) { p.Head.Head[0] ^= 1 }, func(p *MapProof) { p.Head.Key[31] ^= 1 },
			func(p *MapProof) { p.Siblings = p.Siblings[1:] }, func(p *MapProof) { p.Siblings[0][0] ^= 1 },
			func(p *MapProof) { p.Siblings = p.Siblings[len(p.Siblings)-15:] },
		} {
			bad := top.Prove(key, append([]PatientHead(nil), buckets[key.Bucket()]...))
			if lie(bad); bad.Check(root) == nil {
				t.Fatalf("a lie about %x holds", key[:4])
			}
		}
	}
	absent := 0
	for i := range 200 {
		key := KeyOf(fmt.Sprint("nobody-", i))
		if i%2 == 0 {
			key[0], key[1] = 7, 7
		}
		p := top.Prove(key, append([]PatientHead(nil), buckets[key.Bucket()]...))
		if p.Head.Count != 0 || p.Check(root) != nil {
			t.Fatalf("absence is not proved: %v", p.Check(root))
		}
		if p.Other != nil {
			absent++
			p.Other.Key = key
			if p.Check(root) == nil {
				t.Fatal("another's leaf passes for one's own absence")
			}
		}
	}
	if absent == 0 {
		t.Error("no absence beside another's leaf was tried")
	}
	// The slices are what the database keeps.
	again, slices := NewMapTop(), map[int][]tlog.Hash{}
	for b := range buckets {
		slices[b/MapSlice] = top.Slice(b / MapSlice)
	}
	again.SetSlices(slices)
	if again.Root() != root {
		t.Error("the map does not come back from its slices")
	}
}

// The chain by its words, so that a second verifier can be written from them.
func TestChainVector(t *testing.T) {
	t.Parallel()
	var p PatientHead
	p.Add(tlog.Hash{1})
	want := sha256.Sum256(append([]byte("mr-patient-chain-v1\x00"), append(make([]byte, 32), append([]byte{1}, make([]byte, 31)...)...)...))
	if p.Head != want || p.Count != 1 {
		t.Errorf("got %x", p.Head)
	}
}
