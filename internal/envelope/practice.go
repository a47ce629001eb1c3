// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"crypto/cipher"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/medirecord/medirecord/internal/med"
)

// Purpose says what a practice's key is for. Keys of different purposes are
// independent random keys.
type Purpose string

// The purposes of practice keys.
const (
	PurposeKEK   Purpose = "kek"   // wraps patients' data keys
	PurposeIndex Purpose = "index" // blind indexes and keyed digests, never encryption
	PurposeAudit Purpose = "audit" // seals break-glass reasons and disclosures
)

// Purposes lists them.
var Purposes = []Purpose{PurposeKEK, PurposeIndex, PurposeAudit}

// PracticeKeyID names a version of a practice's key.
type PracticeKeyID struct {
	Practice med.PracticeID
	Purpose  Purpose
	Version  int32
}

func (id PracticeKeyID) check() error {
	if !slices.Contains(Purposes, id.Purpose) {
		return fmt.Errorf("practice key: unknown purpose: %w", ErrMisuse)
	}
	if err := checkText("practice id", string(id.Practice)); err != nil {
		return err
	}
	return checkVersion("practice key version", int64(id.Version))
}

// aad binds a wrapped practice key to its practice, purpose and version.
func (id PracticeKeyID) aad() []byte {
	b := appendText(nil, "mr-practice-key-1")
	b = appendText(b, string(id.Practice))
	b = appendText(b, string(id.Purpose))
	return appendInt32(b, id.Version)
}

// PracticeKey is one version of a practice's key. It prints as [key].
type PracticeKey struct {
	hidden
	id  PracticeKeyID
	key *Key
}

// ID names the key.
func (k *PracticeKey) ID() PracticeKeyID { return k.id }

// Wipe overwrites the key.
func (k *PracticeKey) Wipe() { k.key.Wipe() }

// NewPracticeKey returns a fresh key. It reports ErrMisuse for an id that
// names no purpose, practice or version.
func NewPracticeKey(id PracticeKeyID) (*PracticeKey, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	return &PracticeKey{id: id, key: randomKey()}, nil
}

// WrapPracticeKey wraps the key under the keeper's root key, bound to its id.
func WrapPracticeKey(ctx context.Context, keeper Keeper, k *PracticeKey) ([]byte, error) {
	b, err := k.key.bytes()
	if err != nil {
		return nil, err
	}
	wrapped, err := keeper.Wrap(ctx, RootKey, b, k.id.aad())
	if err != nil {
		return nil, fmt.Errorf("wrapping %s key of practice %s: %w", k.id.Purpose, k.id.Practice, err)
	}
	return wrapped, nil
}

// UnwrapPracticeKey opens what WrapPracticeKey wrapped for the same id.
func UnwrapPracticeKey(ctx context.Context, keeper Keeper, id PracticeKeyID, wrapped []byte) (*PracticeKey, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	b, err := keeper.Unwrap(ctx, RootKey, wrapped, id.aad())
	if err != nil {
		return nil, fmt.Errorf("unwrapping %s key of practice %s: %w", id.Purpose, id.Practice, err)
	}
	key, err := keyFrom(b)
	if err != nil {
		return nil, fmt.Errorf("unwrapping %s key of practice %s: %w", id.Purpose, id.Practice, err)
	}
	return &PracticeKey{id: id, key: key}, nil
}

// RewrapPracticeKey wraps again under the newest version of the root key,
// without the key leaving the keeper.
func RewrapPracticeKey(ctx context.Context, keeper Keeper, id PracticeKeyID, wrapped []byte) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	fresh, err := keeper.Rewrap(ctx, RootKey, wrapped, id.aad())
	if err != nil {
		return nil, fmt.Errorf("rewrapping %s key of practice %s: %w", id.Purpose, id.Practice, err)
	}
	return fresh, nil
}

// of returns the key's cell when it is of that purpose.
func (k *PracticeKey) of(p Purpose) (*Key, error) {
	if k.id.Purpose != p {
		return nil, fmt.Errorf("%s key used as %s key: %w", k.id.Purpose, p, ErrMisuse)
	}
	return k.key, nil
}

// box holds an AEAD that can be forgotten while others use it: who has loaded
// it finishes with it.
type box struct{ aead atomic.Pointer[cipher.AEAD] }

func (b *box) put(a cipher.AEAD) { b.aead.Store(&a) }

func (b *box) get() (cipher.AEAD, error) {
	a := b.aead.Load()
	if a == nil {
		return nil, ErrForgotten
	}
	return *a, nil
}

// KEK is a practice's key-encryption key, ready to wrap data keys. It is safe
// for concurrent use and prints as [key].
type KEK struct {
	hidden
	id  PracticeKeyID
	box box
}

// NewKEK makes a KEK of a practice key of purpose kek. The practice key may be
// wiped afterwards.
func NewKEK(k *PracticeKey) (*KEK, error) {
	key, err := k.of(PurposeKEK)
	if err != nil {
		return nil, err
	}
	aead, err := key.aead()
	if err != nil {
		return nil, err
	}
	kek := &KEK{id: k.id}
	kek.box.put(aead)
	return kek, nil
}

// Practice is whose key it is.
func (k *KEK) Practice() med.PracticeID { return k.id.Practice }

// Version is the version of the practice key.
func (k *KEK) Version() int32 { return k.id.Version }

// Forget drops the key. Calls that have begun finish; later ones report
// ErrForgotten.
func (k *KEK) Forget() { k.box.aead.Store(nil) }

// boxFor returns the cipher for a data key of this KEK's own practice.
func (k *KEK) boxFor(id DEKID) (cipher.AEAD, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	if id.Practice != k.id.Practice {
		return nil, fmt.Errorf("data key of practice %s under the key of practice %s: %w", id.Practice, k.id.Practice, ErrMisuse)
	}
	return k.box.get()
}
