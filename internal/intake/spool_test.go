// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
)

func TestSpool(t *testing.T) {
	t.Parallel()
	const parts, items = 5, 3000
	fill := func(t *testing.T, dir string) *spool {
		t.Helper()
		s := newSpool(dir, parts*partBytes)
		s.chunk = 1000
		for i := range items {
			if err := s.add(i%parts, fmt.Appendf(nil, "Secretname %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	t.Run("gives back each part in order", func(t *testing.T) {
		t.Parallel()
		s := fill(t, t.TempDir())
		for p := range parts {
			got, err := s.items(p)
			if err != nil || len(got) != items/parts {
				t.Fatalf("part %d: %d items, %v", p, len(got), err)
			}
			for i, item := range got {
				if string(item) != fmt.Sprintf("Secretname %d", i*parts+p) {
					t.Fatalf("part %d, item %d differs", p, i)
				}
			}
		}
	})
	t.Run("leaves nothing readable on disk, and no file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := fill(t, dir)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%d files, %v", len(entries), err)
		}
		b, err := io.ReadAll(io.NewSectionReader(s.file, 0, s.size))
		if err != nil || len(b) < items*10 || bytes.Contains(b, []byte("Secretname")) {
			t.Errorf("%d bytes, readable or not there: %v", len(b), err)
		}
	})
	t.Run("a changed or moved chunk is refused", func(t *testing.T) {
		t.Parallel()
		s := fill(t, t.TempDir())
		var b [1]byte
		at := s.parts[0].chunks[0].at + 20
		if _, err := s.file.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := s.file.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := s.items(0); err == nil {
			t.Error("a changed chunk was read")
		}
		s.parts[1].chunks[0], s.parts[2].chunks[0] = s.parts[2].chunks[0], s.parts[1].chunks[0]
		if _, err := s.items(1); err == nil {
			t.Error("another part's chunk was read")
		}
	})
	t.Run("what is small stays in memory", func(t *testing.T) {
		t.Parallel()
		s := newSpool(t.TempDir(), 100)
		if err := s.add(0, []byte("x")); err != nil || s.file != nil {
			t.Errorf("%v", err)
		}
	})
}
