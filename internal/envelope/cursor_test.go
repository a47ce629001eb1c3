// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

var cursorTime = time.Date(2026, 3, 1, 8, 30, 0, 0, time.UTC)

func cursorKey(t testing.TB, practice med.PracticeID, version int32, key byte) *CursorKey {
	t.Helper()
	raw, err := keyFrom(bytes.Repeat([]byte{key}, KeySize))
	must(t, err)
	k, err := NewCursorKey(&PracticeKey{id: PracticeKeyID{practice, PurposeAudit, version}, key: raw})
	must(t, err)
	return k
}

func TestACursorIsReadByWhoItIsFor(t *testing.T) {
	t.Parallel()
	k := cursorKey(t, "north", 2, 1)
	sealed, err := k.Seal([]byte("bond"), []byte("position"), cursorTime.Add(time.Hour))
	must(t, err)
	if strings.Contains(sealed, "position") {
		t.Error("the cursor shows its position")
	}
	tests := map[string]struct {
		key    *CursorKey
		bond   string
		cursor string
		now    time.Time
		want   error
	}{
		"the same key and bond":                    {k, "bond", sealed, cursorTime, nil},
		"another replica":                          {cursorKey(t, "north", 2, 1), "bond", sealed, cursorTime, nil},
		"another bond":                             {k, "other", sealed, cursorTime, ErrOpen},
		"another practice with, somehow, this key": {cursorKey(t, "south", 2, 1), "bond", sealed, cursorTime, ErrOpen},
		"another version":                          {cursorKey(t, "north", 3, 1), "bond", sealed, cursorTime, ErrOpen},
		"another key":                              {cursorKey(t, "north", 2, 2), "bond", sealed, cursorTime, ErrOpen},
		"an hour later":                            {k, "bond", sealed, cursorTime.Add(time.Hour), ErrExpired},
		"nothing":                                  {k, "bond", "", cursorTime, ErrMalformed},
		"not base64url":                            {k, "bond", sealed + "=", cursorTime, ErrMalformed},
		"cut short":                                {k, "bond", sealed[:40], cursorTime, ErrMalformed},
		"too long":                                 {k, "bond", sealed + strings.Repeat("A", maxCursor), cursorTime, ErrMalformed},
		"version 0":                                {k, "bond", "AQAAAAA" + sealed[7:], cursorTime, ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := test.key.Open([]byte(test.bond), test.cursor, test.now)
			wantErr(t, err, test.want)
			if err == nil && string(got) != "position" {
				t.Errorf("position %q, want %q", got, "position")
			}
		})
	}
}

func TestNoBitOfACursorCanBeChanged(t *testing.T) {
	t.Parallel()
	k := cursorKey(t, "north", 1, 1)
	sealed, err := k.Seal([]byte("bond"), []byte("p"), cursorTime.Add(time.Hour))
	must(t, err)
	b, err := cursorText.DecodeString(sealed)
	must(t, err)
	for i := range len(b) * 8 {
		changed := bytes.Clone(b)
		changed[i/8] ^= 1 << (i % 8)
		if _, err := k.Open([]byte("bond"), cursorText.EncodeToString(changed), cursorTime); err == nil {
			t.Errorf("bit %d changed, and the cursor opens", i)
		}
	}
}

func TestCursorKeyIsNoOtherKey(t *testing.T) {
	t.Parallel()
	for _, p := range []Purpose{PurposeKEK, PurposeIndex} {
		k, err := NewPracticeKey(PracticeKeyID{"north", p, 1})
		must(t, err)
		_, err = NewCursorKey(k)
		wantErr(t, err, ErrMisuse)
	}
	// The key that seals reasons opens no cursor: each has its own label.
	k, err := NewPracticeKey(PracticeKeyID{"north", PurposeAudit, 1})
	must(t, err)
	c, err := NewCursorKey(k)
	must(t, err)
	a, err := NewAuditKey(k)
	must(t, err)
	box, err := a.box.get()
	must(t, err)
	plain := append(make([]byte, cursorExpiry), "p"...)
	plain[0] = 0x7f
	forged := box.Seal([]byte{cursorFormat, 0, 0, 0, 1}, nil, plain, c.aad([]byte("bond")))
	_, err = c.Open([]byte("bond"), cursorText.EncodeToString(forged), cursorTime)
	wantErr(t, err, ErrOpen)
	if got := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); got != "[key] [key] [key] [key]" {
		t.Errorf("the key prints as %q", got)
	}
	_, err = c.Seal(nil, make([]byte, maxCursor), cursorTime)
	wantErr(t, err, ErrTooLarge)
}

func FuzzOpenCursor(f *testing.F) {
	k := cursorKey(f, "north", 1, 1)
	good, err := k.Seal([]byte("bond"), []byte("position"), cursorTime.Add(time.Hour))
	must(f, err)
	f.Add(good)
	f.Add("")
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, cursor string) {
		// The seed is sealed afresh in every process; no other text opens.
		if _, err := k.Open([]byte("bond"), cursor, cursorTime); err == nil && cursor != good {
			t.Error("a cursor that nobody sealed opens")
		}
	})
}
