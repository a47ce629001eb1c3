// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
)

func TestDisclosures(t *testing.T) {
	t.Parallel()
	practice := func(name med.PracticeID, version int32) *envelope.DisclosureKey {
		p, err := envelope.NewPracticeKey(envelope.PracticeKeyID{Practice: name, Purpose: envelope.PurposeAudit, Version: version})
		if err != nil {
			t.Fatal(err)
		}
		k, err := envelope.NewDisclosureKey(p)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	key := practice("north", 3)
	where := envelope.DisclosurePlace{Patient: "p-1", ID: "d-1", Version: 2}
	seal := func(text string) []byte {
		b, err := key.Seal(where, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("opens as it was sealed, whatever it ends in", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"", "x", "x\x00", "x\x01", "\x00\x00", "\x01\x00\x00", strings.Repeat("é", 511), strings.Repeat("y", 1023), strings.Repeat("y", 1024), strings.Repeat("y", 65535)} {
			sealed := seal(text)
			if v, err := envelope.DisclosureKeyVersion(sealed); err != nil || v != 3 {
				t.Errorf("key version: got %d, %v", v, err)
			}
			if got, err := key.Open(where, sealed); err != nil || string(got) != text {
				t.Errorf("of %d bytes: got %d, %v", len(text), len(got), err)
			}
		}
		if _, err := key.Seal(where, make([]byte, 65536)); !errors.Is(err, envelope.ErrTooLarge) {
			t.Errorf("too much: got %v", err)
		}
	})
	t.Run("a length tells nothing", func(t *testing.T) {
		t.Parallel()
		if a, b := seal("x"), seal(strings.Repeat("y", 1023)); len(a) != len(b) {
			t.Errorf("got %d and %d bytes", len(a), len(b))
		}
	})
	t.Run("opens nowhere else", func(t *testing.T) {
		t.Parallel()
		sealed := seal("text")
		for name, w := range map[string]envelope.DisclosurePlace{
			"another patient": {Patient: "p-2", ID: "d-1", Version: 2}, "another disclosure": {Patient: "p-1", ID: "d-2", Version: 2},
			"another version": {Patient: "p-1", ID: "d-1", Version: 1}, "ids run together": {Patient: "p-1d", ID: "-1", Version: 2},
		} {
			if _, err := key.Open(w, sealed); !errors.Is(err, envelope.ErrOpen) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		for name, k := range map[string]*envelope.DisclosureKey{"another practice's key": practice("south", 3), "another key of that version": practice("north", 3), "another version of the key": practice("north", 4)} {
			if _, err := k.Open(where, sealed); !errors.Is(err, envelope.ErrOpen) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		for i := range sealed {
			flipped := bytes.Clone(sealed)
			flipped[i] ^= 1
			if _, err := key.Open(where, flipped); err == nil {
				t.Errorf("byte %d flipped: opens", i)
			}
		}
		for _, n := range []int{0, 1, 5, 100, len(sealed) - 1} {
			if _, err := key.Open(where, sealed[:n]); err == nil {
				t.Errorf("cut to %d bytes: opens", n)
			}
		}
	})
	t.Run("is of a key of its own", func(t *testing.T) {
		t.Parallel()
		p, err := envelope.NewPracticeKey(envelope.PracticeKeyID{Practice: "north", Purpose: envelope.PurposeKEK, Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := envelope.NewDisclosureKey(p); !errors.Is(err, envelope.ErrMisuse) {
			t.Errorf("a key of another purpose: got %v", err)
		}
		if _, err := key.Seal(envelope.DisclosurePlace{Patient: "p-1", ID: "d-1"}, nil); !errors.Is(err, envelope.ErrMisuse) {
			t.Errorf("no version: got %v", err)
		}
		gone := practice("north", 1)
		gone.Forget()
		if _, err := gone.Seal(where, nil); !errors.Is(err, envelope.ErrForgotten) {
			t.Errorf("forgotten: got %v", err)
		}
	})
}
