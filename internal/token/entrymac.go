// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An entry MAC is what an entry of the trail carries of its context, in one
// form that says all that is needed to check it but the key:
//
//	e1.<kid>.<when minted, Unix seconds>.<action>.<mac>
//
// mac is the lowercase hex HMAC-SHA-256, under a key derived from the context
// key for this use alone, of everything before the last dot and of EntryClaims,
// each after its length in 4 bytes, big-endian. The action is the context's
// (patient.read), not the entry's word (read): it stands in the text, where who
// reads the entry can hold one against the other.
const (
	entryVersion = "e1"
	entryInfo    = "medirecord entry mac 1"
	// MaxEntryAge is how long after its context an entry may be recorded: a
	// context lives a minute at most, the trail takes entries ten minutes old.
	MaxEntryAge = 15 * time.Minute
	// entrySkew is how far the clocks of sidecar and database may differ before
	// the API closes.
	entrySkew = 30 * time.Second
)

// EntryClaims is what an entry MAC is over, in the words that an entry has for
// it. Of a service's context only the nonce and the service are: it is about a
// whole practice, and stands for many entries.
type EntryClaims struct {
	Nonce string
	// Event is the call's primary entry. A MAC cannot be carried over to another
	// call of the same person on the same patient.
	Event           string
	Issuer, Subject string
	Practice        string // the actor's
	Patient         string
}

// serviceIssuer is the issuer of all services, and of nobody else.
const serviceIssuer = "medirecord"

// IsService reports whether the person is none.
func IsService(issuer, subject string) bool {
	return issuer == serviceIssuer && strings.HasPrefix(subject, "service:")
}

// entryKey is a key for entry MACs, with its schedule computed once.
type entryKey struct{ hashes sync.Pool }

func newEntryKey(k ContextKey) *entryKey {
	secret, err := hkdf.Expand(sha256.New, k.Key[:], entryInfo, sha256.Size)
	if err != nil { // 32 bytes of a 32-byte key: never
		return nil
	}
	out := &entryKey{}
	out.hashes.New = func() any { return hmac.New(sha256.New, secret) }
	return out
}

func (k *entryKey) mac(head string, service bool, c *EntryClaims) string {
	h := k.hashes.Get().(hash.Hash) //nolint:forcetypeassert // the pool holds nothing else
	defer k.hashes.Put(h)
	h.Reset()
	class, event, practice, patient := "person", c.Event, c.Practice, c.Patient
	if service {
		class, event, practice, patient = "service", "", "", ""
	}
	b := make([]byte, 0, 512)
	for _, s := range [...]string{head, class, c.Nonce, event, c.Issuer, c.Subject, practice, patient} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // an entry's column, or less
		b = append(b, s...)
	}
	h.Write(b) // a hash.Hash never fails
	return hex.EncodeToString(h.Sum(b[:0]))
}

// SignEntry returns the entry MAC of a context that was minted now: for its
// nonce, its person and its patient, and for the call whose primary entry is
// event. It returns "" when the minter has no usable key.
func (m *Minter) SignEntry(c *Context, nonce, event string) string {
	if !m.usable {
		return ""
	}
	head := strings.Join([]string{entryVersion, m.kid, strconv.FormatInt(m.now().Unix(), 10), c.Action}, ".")
	return head + "." + m.entry.mac(head, c.Service != "", &EntryClaims{
		Nonce: nonce, Event: event, Issuer: c.Issuer, Subject: c.Subject, Practice: string(c.Practice), Patient: c.Patient,
	})
}

// Attester checks entry MACs. It is safe for concurrent use.
type Attester struct{ keys map[string]*entryKey }

// NewAttester returns one that knows the keys: the one that signs, and those
// that did before it.
func NewAttester(keys []ContextKey) *Attester {
	a := &Attester{keys: make(map[string]*entryKey, len(keys))}
	for _, k := range keys {
		if legalKID(k.KID) && k.Key != [32]byte{} {
			a.keys[k.KID] = newEntryKey(k)
		}
	}
	return a
}

// Attest reports nil when the MAC was made for an entry of these claims,
// recorded then. It reports an *Error: malformed, unknown_key, bad_signature,
// or expired for an entry that was recorded before its context was minted, or
// long after.
func (a *Attester) Attest(c EntryClaims, mac string, recorded time.Time) error {
	head, sum, when, err := partsOf(mac)
	if err != nil {
		return err
	}
	key := a.keys[strings.Split(head, ".")[1]]
	if key == nil {
		return refuse(ReasonUnknownKey)
	}
	if !hmac.Equal([]byte(key.mac(head, IsService(c.Issuer, c.Subject), &c)), []byte(sum)) {
		return refuse(ReasonBadSignature)
	}
	if recorded.Before(when.Add(-entrySkew)) || recorded.After(when.Add(MaxEntryAge)) {
		return refuse(ReasonExpired)
	}
	return nil
}

func partsOf(mac string) (head, sum string, when time.Time, err error) {
	end := strings.LastIndexByte(mac, '.')
	parts := strings.SplitN(mac, ".", 4)
	if end < 0 || len(parts) != 4 || parts[0] != entryVersion || len(mac)-end-1 != macLen || !legalKID(parts[1]) {
		return "", "", time.Time{}, refuse(ReasonMalformed)
	}
	seconds, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return "", "", time.Time{}, refuse(ReasonMalformed)
	}
	return mac[:end], mac[end+1:], time.Unix(seconds, 0), nil
}
