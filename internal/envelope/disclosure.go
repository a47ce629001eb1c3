// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/medirecord/medirecord/internal/med"
)

// DisclosureKey seals disclosures under one practice's audit key, apart from
// every patient's key: the accounting of them is kept when the patient's key
// is destroyed. It is safe for concurrent use and prints as [key].
type DisclosureKey struct {
	hidden
	id  PracticeKeyID
	box box
}

// DisclosurePlace says which version of which disclosure it is; of the key's
// own practice.
type DisclosurePlace struct {
	Patient med.PatientID
	ID      med.DisclosureID
	Version int32
}

const (
	disclosureFormat = 1
	disclosureHead   = 1 + 4 // format, key version
	maxDisclosure    = 64 << 10
	// disclosureStep is what lengths are rounded up to, so that a length does
	// not tell a line of text from another, nor whether an agency asked for silence.
	disclosureStep  = 1024
	labelDisclosure = "mr/disclosure/v1"
)

// NewDisclosureKey makes a DisclosureKey of a practice key of purpose audit.
// The practice key may be wiped afterwards.
func NewDisclosureKey(k *PracticeKey) (*DisclosureKey, error) {
	key, err := k.of(PurposeAudit)
	if err != nil {
		return nil, err
	}
	keys, err := key.kin(labelDisclosure)
	if err != nil {
		return nil, err
	}
	defer wipeAll(keys)
	aead, err := keys[0].aead()
	if err != nil {
		return nil, err
	}
	d := &DisclosureKey{id: k.id}
	d.box.put(aead)
	return d, nil
}

// Version is the version of the practice key.
func (k *DisclosureKey) Version() int32 { return k.id.Version }

// Forget drops the key. Calls that have begun finish; later ones report
// ErrForgotten.
func (k *DisclosureKey) Forget() { k.box.aead.Store(nil) }

// Seal seals one version of a disclosure. It reports ErrTooLarge above 64 KiB.
func (k *DisclosureKey) Seal(where DisclosurePlace, plain []byte) ([]byte, error) {
	aad, err := k.aad(where)
	if err != nil {
		return nil, err
	}
	if len(plain) >= maxDisclosure {
		return nil, fmt.Errorf("sealing a disclosure of %d bytes: %w", len(plain), ErrTooLarge)
	}
	box, err := k.box.get()
	if err != nil {
		return nil, err
	}
	padded := make([]byte, (len(plain)/disclosureStep+1)*disclosureStep)
	defer clear(padded)
	padded[copy(padded, plain)] = 1 // and zeros: the mark ends what is sealed
	b := make([]byte, 0, disclosureHead+gcmOverhead+len(padded))
	b = appendInt32(append(b, disclosureFormat), k.id.Version)
	return box.Seal(b, nil, padded, aad), nil
}

// Open opens what was sealed for the same place. It reports ErrOpen for any
// other place, practice or version of the key.
func (k *DisclosureKey) Open(where DisclosurePlace, sealed []byte) ([]byte, error) {
	version, err := DisclosureKeyVersion(sealed)
	if err != nil {
		return nil, err
	}
	if version != k.id.Version {
		return nil, fmt.Errorf("disclosure %s is under audit key %d, not %d: %w", where.ID, version, k.id.Version, ErrOpen)
	}
	aad, err := k.aad(where)
	if err != nil {
		return nil, err
	}
	box, err := k.box.get()
	if err != nil {
		return nil, err
	}
	padded, err := box.Open(nil, nil, sealed[disclosureHead:], aad)
	if err != nil {
		return nil, fmt.Errorf("opening disclosure %s: %w", where.ID, ErrOpen)
	}
	end := len(padded) - 1
	for end >= 0 && padded[end] == 0 {
		end--
	}
	if end < 0 || padded[end] != 1 {
		return nil, malformed("sealed disclosure")
	}
	return padded[:end], nil
}

// DisclosureKeyVersion says which version of the audit key a sealed disclosure
// needs.
func DisclosureKeyVersion(sealed []byte) (int32, error) {
	if len(sealed) < disclosureHead+gcmOverhead+disclosureStep || len(sealed) > disclosureHead+gcmOverhead+maxDisclosure || sealed[0] != disclosureFormat {
		return 0, malformed("sealed disclosure")
	}
	version := binary.BigEndian.Uint32(sealed[1:])
	if version == 0 || version > math.MaxInt32 {
		return 0, malformed("sealed disclosure")
	}
	return int32(version), nil
}

func (k *DisclosureKey) aad(where DisclosurePlace) ([]byte, error) {
	if err := checkText("patient id", string(where.Patient)); err != nil {
		return nil, err
	}
	if err := checkText("disclosure id", string(where.ID)); err != nil {
		return nil, err
	}
	if err := checkVersion("disclosure version", int64(where.Version)); err != nil {
		return nil, err
	}
	b := appendText(nil, "mr-disclosure-1")
	b = appendText(b, string(k.id.Practice))
	b = appendInt32(b, k.id.Version)
	b = appendText(b, string(where.Patient))
	b = appendText(b, string(where.ID))
	return appendInt32(b, where.Version), nil
}
