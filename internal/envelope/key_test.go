// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestKeysDoNotPrint(t *testing.T) {
	t.Parallel()
	const fill = 0xab
	kek, err := NewKEK(practiceKey(t, PurposeKEK, fill))
	must(t, err)
	index, err := NewIndexKey(practiceKey(t, PurposeIndex, fill))
	must(t, err)
	audit, err := NewAuditKey(practiceKey(t, PurposeAudit, fill))
	must(t, err)
	digest, err := index.NewDigest("d")
	must(t, err)
	key := fixedKey(fill)
	for name, k := range map[string]any{
		"key": key, "key by value": *key, "practice key": practiceKey(t, PurposeKEK, fill), "kek": kek,
		"index key": index, "audit key": audit, "digest": digest, "patient key": patientKey(t, fill, aliceDEK),
		"versioned key": versionedKey{key, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%c", "%U", "%t", "%e", "%z"} {
				if got := fmt.Sprintf(verb, k); got != keyMark {
					t.Errorf("%s: got %q, want %q", verb, got, keyMark)
				}
				// Where fmt may not call methods, it must find no bytes.
				inside := struct {
					k any
					p *any
				}{k, &k}
				refuse(t, verb, fmt.Sprintf(verb, inside))
				refuse(t, verb, fmt.Sprintf(verb, &inside))
				refuse(t, verb, fmt.Sprintf(verb, []any{k}))
				refuse(t, verb, fmt.Sprintf(verb, map[string]any{"k": k}))
			}
			refuse(t, "Sprint", fmt.Sprint(k)+fmt.Sprintln(k)+fmt.Errorf("of %v", k).Error())

			b, err := json.Marshal(map[string]any{"k": k})
			must(t, err)
			if string(b) != `{"k":"[key]"}` {
				t.Errorf("JSON: got %s", b)
			}
			var log bytes.Buffer
			for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
				slog.New(h).LogAttrs(context.Background(), slog.LevelInfo, "m", slog.Any("k", k), slog.Any("in", struct{ K any }{k}))
			}
			refuse(t, "slog", log.String())
			if n := strings.Count(log.String(), keyMark); n != 4 {
				t.Errorf("slog: got %d marks, want 4: %s", n, log.String())
			}
		})
	}
	t.Run("a struct with a key in an unexported field shows an address at most", func(t *testing.T) {
		t.Parallel()
		type cache struct {
			k   *Key
			v   Key
			pk  *PracticeKey
			kek *KEK
			p   *PatientKey
		}
		c := cache{key, *key, practiceKey(t, PurposeKEK, fill), kek, patientKey(t, fill, aliceDEK)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			refuse(t, verb, fmt.Sprintf(verb, c)+fmt.Sprintf(verb, &c)+fmt.Sprintf(verb, []cache{c}))
		}
	})
}

// refuse fails when the text shows two key bytes in a row in any base.
func refuse(t *testing.T, how, text string) {
	t.Helper()
	low := strings.ToLower(text)
	for _, leak := range []string{"171 171", "abab", "ab ab", "0xab, 0xab", "171,171", `\xab\xab`, "q6ur", "253 253", "10101011 10101011"} {
		if strings.Contains(low, leak) {
			t.Errorf("%s shows the key: %s", how, text)
		}
	}
}

func TestFreshKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[[KeySize]byte]bool{}
	for range 100 {
		seen[*NewDEK().cell.b] = true
	}
	if len(seen) != 100 || seen[[KeySize]byte{}] {
		t.Errorf("got %d different keys, want 100, none of zeros", len(seen))
	}
}

func TestWipeOverwrites(t *testing.T) {
	t.Parallel()
	k := NewDEK()
	cell := k.cell.b
	k.Wipe()
	k.Wipe()
	if *cell != [KeySize]byte{} {
		t.Error("the bytes are still there")
	}
}
