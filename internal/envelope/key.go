// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// KeySize is the length of every key in bytes.
const KeySize = 32

const keyMark = "[key]"

// hidden makes whatever embeds it print as [key] under every verb, in JSON and
// in slog.
type hidden struct{}

func (hidden) String() string               { return keyMark }
func (hidden) GoString() string             { return keyMark }
func (hidden) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(keyMark)) }
func (hidden) MarshalText() ([]byte, error) { return []byte(keyMark), nil }
func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"` + keyMark + `"`), nil }
func (hidden) LogValue() slog.Value         { return slog.StringValue(keyMark) }

// Key is 32 secret bytes. It prints as [key]. The bytes live in one heap cell,
// because Go copies stacks when they grow and never moves the heap.
//
// A Key is not for concurrent use with its own Wipe.
type Key struct {
	hidden
	cell *cell
}

// cell is one pointer further away than a Key needs: a verb that does not fit
// makes fmt follow one pointer out of an unexported field, and this way it
// finds an address there.
type cell struct{ b *[KeySize]byte }

func emptyKey() *Key { return &Key{cell: &cell{b: new([KeySize]byte)}} }

// NewDEK returns a fresh data key for one patient.
func NewDEK() *Key { return randomKey() }

func randomKey() *Key {
	k := emptyKey()
	_, _ = rand.Read(k.cell.b[:]) // crypto/rand.Read does not fail (Go 1.24)
	return k
}

// keyFrom takes the bytes over and wipes the slice they came in.
func keyFrom(b []byte) (*Key, error) {
	defer clear(b)
	if len(b) != KeySize {
		return nil, fmt.Errorf("key of %d bytes: %w", len(b), ErrMalformed)
	}
	k := emptyKey()
	copy(k.cell.b[:], b)
	return k, nil
}

// Wipe overwrites the key. Using it afterwards reports ErrForgotten.
func (k *Key) Wipe() {
	if k == nil || k.cell == nil || k.cell.b == nil {
		return
	}
	clear(k.cell.b[:])
	k.cell.b = nil
}

// bytes returns the key's own cell. A key of zeros comes from a file or a
// memory that was overwritten: never seal under it.
func (k *Key) bytes() ([]byte, error) {
	if k == nil || k.cell == nil || k.cell.b == nil {
		return nil, ErrForgotten
	}
	var zero [KeySize]byte
	if subtle.ConstantTimeCompare(k.cell.b[:], zero[:]) == 1 {
		return nil, ErrForgotten
	}
	return k.cell.b[:], nil
}

// aead returns AES-256-GCM with random nonces: the one GCM constructor that
// FIPS 140-only mode permits.
func (k *Key) aead() (cipher.AEAD, error) {
	b, err := k.bytes()
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(b)
	if err != nil {
		return nil, errors.New("envelope: AES refuses the key") // its error would name a size, nothing more
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// kin derives the keys named by the labels: HKDF-SHA-256 without salt, one
// extract, one expand per label. The caller wipes them.
func (k *Key) kin(labels ...string) ([]*Key, error) {
	b, err := k.bytes()
	if err != nil {
		return nil, err
	}
	var keys []*Key
	discreet(func() { keys, err = deriveAll(b, labels) })
	if err != nil {
		wipeAll(keys)
		return nil, fmt.Errorf("deriving keys: %w", err)
	}
	return keys, nil
}

func deriveAll(secret []byte, labels []string) ([]*Key, error) {
	prk, err := hkdf.Extract(sha256.New, secret, nil)
	if err != nil {
		return nil, err
	}
	defer clear(prk)
	keys := make([]*Key, 0, len(labels))
	for _, label := range labels {
		b, err := hkdf.Expand(sha256.New, prk, label, KeySize)
		if err != nil {
			return keys, err
		}
		k, err := keyFrom(b)
		if err != nil {
			return keys, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func wipeAll(keys []*Key) {
	for _, k := range keys {
		k.Wipe()
	}
}
