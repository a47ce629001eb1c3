// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"slices"
	"testing"
)

// sealedRows are the good rows of the vectors: the same bytes in every process
// that fuzzes, which rows sealed afresh would not be.
func sealedRows(f *testing.F) [][]byte {
	f.Helper()
	all, err := readVectors[[]rowVector]("testdata/vectors/row.json")
	must(f, err)
	var good [][]byte
	for _, v := range all {
		if v.Result == "ok" {
			good = append(good, v.Packed)
		}
	}
	if len(good) == 0 {
		f.Fatal("no good rows")
	}
	return good
}

func FuzzParseRow(f *testing.F) {
	k := patientKey(f, 1, aliceDEK)
	good := sealedRows(f)
	for _, b := range good {
		f.Add(b)
		f.Add(b[:rowHead])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		row, err := ParseRow(b)
		if err != nil {
			wantErr(t, err, ErrMalformed)
			return
		}
		if !bytes.Equal(repack(row), b) {
			t.Error("one row has two packed forms")
		}
		if !slices.IsSorted(row.Fields()) || row.Version() < 1 || row.DEKVersion() < 1 {
			t.Error("an impossible row was parsed")
		}
		if k.Check(aliceRow, row) != nil {
			return
		}
		// The MAC is over the tags; the rest of a value is its field's business.
		same := slices.ContainsFunc(good, func(g []byte) bool { return bytes.Equal(b, g) })
		for _, name := range row.Fields() {
			_, err := k.OpenField(aliceRow, row, name)
			same = same || err != nil
		}
		if !same {
			t.Error("a row that nobody sealed passes and opens")
		}
	})
}

// FuzzOpenField changes a sealed row byte by byte, as the input says, and
// wants of every field: the value that was sealed, or an error.
func FuzzOpenField(f *testing.F) {
	k := patientKey(f, 1, aliceDEK)
	packed := sealedRows(f)[0]
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1})
	f.Add([]byte{0, 5, 0x80, 0, 20, 3})
	f.Add([]byte{1, 0, 7, 0, 40, 255, 0, 60, 1})
	f.Fuzz(func(t *testing.T, edits []byte) {
		b := slices.Clone(packed)
		for ; len(edits) >= 3; edits = edits[3:] {
			at := (int(edits[0])<<8 | int(edits[1])) % len(b)
			b[at] ^= edits[2]
		}
		row, err := ParseRow(b)
		if err != nil {
			return
		}
		for name, want := range aliceFields() {
			got, err := k.OpenField(aliceRow, row, name)
			if err == nil && (got == nil || !bytes.Equal(got, want)) {
				t.Errorf("%s: another value than was sealed", name)
			}
		}
	})
}
