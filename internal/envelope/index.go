// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
)

// IndexKey makes blind indexes and keyed digests for one practice. Two
// practices never give the same value the same tag. It is safe for concurrent
// use and prints as [key].
type IndexKey struct {
	hidden
	id   PracticeKeyID
	live atomic.Pointer[indexSecrets]
}

type indexSecrets struct {
	key  *Key
	subs sync.Map // label to *Key, derived once each
}

// NewIndexKey makes an IndexKey of a practice key of purpose index. The
// practice key may be wiped afterwards.
func NewIndexKey(k *PracticeKey) (*IndexKey, error) {
	key, err := k.of(PurposeIndex)
	if err != nil {
		return nil, err
	}
	b, err := key.bytes()
	if err != nil {
		return nil, err
	}
	own, err := keyFrom(append([]byte(nil), b...))
	if err != nil {
		return nil, err
	}
	x := &IndexKey{id: k.id}
	x.live.Store(&indexSecrets{key: own})
	return x, nil
}

// Version is the version of the practice key; a store keeps it beside the tags.
func (k *IndexKey) Version() int32 { return k.id.Version }

// Forget drops the key. Calls that have begun finish; later ones report
// ErrForgotten.
func (k *IndexKey) Forget() { k.live.Store(nil) }

// Tag is the blind index of a normalised value: 64 bits of HMAC-SHA-256 under
// the field's own key. Equal values give equal tags, so a hit is a candidate:
// compare again after opening. Use it for what has many values (an SSN, a
// name with a birth date), never for sex, a diagnosis or a status: their tags
// can be told by how often they come. It reports ErrMisuse for an empty value,
// which would join all who lack one, and ErrForgotten after Forget.
func (k *IndexKey) Tag(field, normalised string) ([8]byte, error) {
	if normalised == "" || !legalField(field) {
		return [8]byte{}, fmt.Errorf("blind index: empty value or illegal field: %w", ErrMisuse)
	}
	h, err := k.mac("bi/v1/patient/" + field)
	if err != nil {
		return [8]byte{}, err
	}
	_, _ = h.Write([]byte(normalised)) // a hash does not fail
	var sum [sha256.Size]byte
	return [8]byte(h.Sum(sum[:0])[:8]), nil
}

// Digest is a keyed digest of the parts, each taken with its length, for one
// domain of use: it says whether the same thing came before and tells nothing
// of it to who lacks the key.
func (k *IndexKey) Digest(domain string, parts ...[]byte) ([32]byte, error) {
	h, err := k.NewDigest(domain)
	if err != nil {
		return [32]byte{}, err
	}
	for _, p := range parts {
		h.Part(p)
	}
	return h.Sum(), nil
}

// NewDigest starts a keyed digest to be written piece by piece.
func (k *IndexKey) NewDigest(domain string) (*KeyedDigest, error) {
	if err := checkText("digest domain", domain); err != nil {
		return nil, err
	}
	h, err := k.mac("digest/v1/" + domain)
	if err != nil {
		return nil, err
	}
	return &KeyedDigest{h: h}, nil
}

func (k *IndexKey) mac(label string) (hash.Hash, error) {
	s := k.live.Load()
	if s == nil {
		return nil, ErrForgotten
	}
	if sub, ok := s.subs.Load(label); ok {
		return hmac.New(sha256.New, sub.(*Key).cell.b[:]), nil //nolint:errcheck // only *Key goes in
	}
	keys, err := s.key.kin(label)
	if err != nil {
		return nil, err
	}
	// Another caller may have stored its own by now: the same bytes.
	s.subs.Store(label, keys[0])
	return hmac.New(sha256.New, keys[0].cell.b[:]), nil
}

// KeyedDigest is a running keyed digest, an io.Writer. It prints as [key],
// because a running HMAC holds its key. It is not for concurrent use.
type KeyedDigest struct {
	hidden
	h hash.Hash
}

// Write adds bytes; it never fails. How they are cut into writes makes no
// difference.
func (d *KeyedDigest) Write(p []byte) (int, error) { return d.h.Write(p) }

// Part adds bytes with their length before them (64 bits, big endian), so that
// no two lists of parts are alike.
func (d *KeyedDigest) Part(p []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(p)))
	_, _ = d.h.Write(n[:])
	_, _ = d.h.Write(p)
}

// Sum returns the digest of what was written so far.
func (d *KeyedDigest) Sum() [32]byte {
	var sum [sha256.Size]byte
	return [32]byte(d.h.Sum(sum[:0]))
}
