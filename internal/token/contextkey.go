// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ContextKey signs and verifies contexts and grants. It never prints.
type ContextKey struct {
	KID string
	Key [32]byte
}

const keyMark = "[key]"

// Format keeps the key out of every print.
func (ContextKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(keyMark)) }

// LogValue keeps it out of slog.
func (ContextKey) LogValue() slog.Value { return slog.StringValue(keyMark) }

// MarshalJSON keeps it out of JSON.
func (ContextKey) MarshalJSON() ([]byte, error) { return []byte(`"` + keyMark + `"`), nil }

const maxKeyFile = 64 << 10

// ParseContextKeys reads a key file: one key on a line as `kid:<base64 of 32
// bytes>`, empty lines and lines that begin with '#' between them. The first
// key signs; all verify, which is how keys are rotated. It reports the line of
// a mistake, never what is in it.
func ParseContextKeys(file []byte) ([]ContextKey, error) {
	if len(file) > maxKeyFile {
		return nil, errors.New("context keys: the file is too large")
	}
	var keys []ContextKey
	seen := map[string]bool{}
	for i, line := range strings.Split(string(file), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := parseContextKey(line)
		if err != nil {
			return nil, fmt.Errorf("context keys: line %d: %w", i+1, err)
		}
		if seen[key.KID] {
			return nil, fmt.Errorf("context keys: line %d: the key id is used twice", i+1)
		}
		seen[key.KID] = true
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("context keys: the file holds no key")
	}
	return keys, nil
}

func parseContextKey(line string) (ContextKey, error) {
	kid, text, found := strings.Cut(line, ":")
	if !found || !legalKID(kid) {
		return ContextKey{}, errors.New("want kid:base64, the kid 1 to 16 of a-z and 0-9")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil {
		return ContextKey{}, errors.New("the key is not base64") // the decoder's error tells a position in the key
	}
	key := ContextKey{KID: kid}
	if len(raw) != len(key.Key) {
		return ContextKey{}, fmt.Errorf("the key has %d bytes, want %d", len(raw), len(key.Key))
	}
	copy(key.Key[:], raw)
	if subtle.ConstantTimeCompare(key.Key[:], make([]byte, len(key.Key))) == 1 {
		return ContextKey{}, errors.New("the key is all zeros")
	}
	return key, nil
}

func legalKID(s string) bool {
	if len(s) == 0 || len(s) > 16 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
