// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// What is signed here has one form, which PostgreSQL takes apart again:
//
//	v1.<kid>.<payload>.<mac>
//
// payload is unpadded base64url of a JSON object, mac the lowercase hex
// HMAC-SHA-256 of everything before the last dot. The first member of the
// object is "use", so that a grant is never taken for a context.
const (
	version   = "v1."
	macLen    = 2 * sha256.Size
	maxSigned = 16 << 10
)

// Minter signs contexts and grants with one key. It is safe for concurrent use.
type Minter struct {
	prefix  string // "v1.<kid>."
	kid     string
	entry   *entryKey
	usable  bool
	now     func() time.Time
	buffers sync.Pool // of *scratch
}

// scratch is what one signature needs: a keyed hash, whose key schedule is
// computed once, and room for payload and result.
type scratch struct {
	mac     hash.Hash
	payload []byte
	out     []byte
	sum     [sha256.Size]byte
}

// NewMinter returns a minter. With a nil now it uses the clock. A key whose
// KID is not 1 to 16 of a-z and 0-9, or that is all zeros, signs nothing.
func NewMinter(key ContextKey, now func() time.Time) *Minter {
	if now == nil {
		now = time.Now
	}
	m := &Minter{prefix: version + key.KID + ".", kid: key.KID, entry: newEntryKey(key), now: now}
	m.usable = legalKID(key.KID) && key.Key != [32]byte{}
	m.buffers.New = func() any {
		return &scratch{mac: hmac.New(sha256.New, key.Key[:]), payload: make([]byte, 0, 1<<10), out: make([]byte, 0, 2<<10)}
	}
	return m
}

// sign returns the signed form of s.payload. Its last macLen bytes are the MAC.
func (m *Minter) sign(s *scratch) string {
	s.out = append(s.out[:0], m.prefix...)
	s.out = base64.RawURLEncoding.AppendEncode(s.out, s.payload)
	s.mac.Reset()
	s.mac.Write(s.out) // a hash.Hash never fails
	s.out = append(s.out, '.')
	s.out = hex.AppendEncode(s.out, s.mac.Sum(s.sum[:0]))
	return string(s.out)
}

// open returns the payload of something signed with one of the keys. It
// reports malformed, unknown_key or bad_signature.
func open(keys []ContextKey, signed string) ([]byte, error) {
	parts := strings.Split(signed, ".")
	if len(signed) > maxSigned || len(parts) != 4 || parts[0] != "v1" || len(parts[3]) != macLen {
		return nil, refuse(ReasonMalformed)
	}
	key, ok := keyOf(keys, parts[1])
	if !ok {
		return nil, refuse(ReasonUnknownKey)
	}
	mac := hmac.New(sha256.New, key.Key[:])
	mac.Write([]byte(signed[:len(signed)-macLen-1]))
	// The text is compared, not its bytes: upper case is another spelling.
	if want := hex.EncodeToString(mac.Sum(nil)); !hmac.Equal([]byte(want), []byte(parts[3])) {
		return nil, refuse(ReasonBadSignature)
	}
	return decodeSegment(parts[2])
}

// keyOf looks the kid up. A key that may not sign does not verify either.
func keyOf(keys []ContextKey, kid string) (*ContextKey, bool) {
	if !legalKID(kid) {
		return nil, false
	}
	for i := range keys {
		if keys[i].KID == kid && keys[i].Key != [32]byte{} {
			return &keys[i], true
		}
	}
	return nil, false
}

// useOf returns the first thing a payload says.
func useOf(payload []byte) string {
	var head struct {
		Use string `json:"use"`
	}
	if json.Unmarshal(payload, &head) != nil {
		return ""
	}
	return head.Use
}

const maxField = 512 // bytes of one signed string

// field writes `"name":"value",`. Empty values are written; skip them first.
// It reports false for a value that must not be signed: too long, not UTF-8,
// or with a control character, which PostgreSQL or a log would read otherwise.
func field(b []byte, name, value string) ([]byte, bool) {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	b, ok := quoted(b, value)
	return append(b, ','), ok
}

func quoted(b []byte, s string) ([]byte, bool) {
	if len(s) > maxField {
		return b, false
	}
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || unicode.IsControl(r) {
				return b, false
			}
			b = append(b, s[i:i+n]...)
			i += n
			continue
		}
		if c < 0x20 || c == 0x7f {
			return b, false
		}
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
		i++
	}
	return append(b, '"'), true
}

// closed ends an object: the last comma becomes the brace.
func closed(b []byte) []byte {
	b[len(b)-1] = '}'
	return b
}
