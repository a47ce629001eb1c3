// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/medirecord/medirecord/internal/med"
)

// AuditKey seals break-glass reason texts under one practice's audit key,
// apart from every patient's key: the trail outlives the record. It is safe
// for concurrent use and prints as [key].
type AuditKey struct {
	hidden
	id  PracticeKeyID
	box box
}

const (
	reasonFormat = 1
	reasonHead   = 1 + 4 // format, key version
	maxReason    = 4096
	labelReason  = "mr/reason/v1"
)

// NewAuditKey makes an AuditKey of a practice key of purpose audit. The
// practice key may be wiped afterwards.
func NewAuditKey(k *PracticeKey) (*AuditKey, error) {
	key, err := k.of(PurposeAudit)
	if err != nil {
		return nil, err
	}
	keys, err := key.kin(labelReason)
	if err != nil {
		return nil, err
	}
	defer wipeAll(keys)
	aead, err := keys[0].aead()
	if err != nil {
		return nil, err
	}
	a := &AuditKey{id: k.id}
	a.box.put(aead)
	return a, nil
}

// Version is the version of the practice key.
func (k *AuditKey) Version() int32 { return k.id.Version }

// Forget drops the key. Calls that have begun finish; later ones report
// ErrForgotten.
func (k *AuditKey) Forget() { k.box.aead.Store(nil) }

// Seal seals the reason text of one audit entry. It reports ErrTooLarge above
// 4 KiB.
func (k *AuditKey) Seal(event med.EventID, text med.PHI) ([]byte, error) {
	if err := checkText("event id", string(event)); err != nil {
		return nil, err
	}
	if len(text) > maxReason {
		return nil, fmt.Errorf("sealing a reason of %d bytes: %w", len(text), ErrTooLarge)
	}
	box, err := k.box.get()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, reasonHead+gcmOverhead+len(text))
	b = appendInt32(append(b, reasonFormat), k.id.Version)
	return box.Seal(b, nil, []byte(text.Reveal()), k.aad(event)), nil
}

// Open opens the reason text of the entry it was sealed for. It reports
// ErrOpen for any other entry, practice or version of the key.
func (k *AuditKey) Open(event med.EventID, sealed []byte) (med.PHI, error) {
	version, err := ReasonKeyVersion(sealed)
	if err != nil {
		return "", err
	}
	if version != k.id.Version {
		return "", fmt.Errorf("reason of event %s is under audit key %d, not %d: %w", event, version, k.id.Version, ErrOpen)
	}
	box, err := k.box.get()
	if err != nil {
		return "", err
	}
	text, err := box.Open(nil, nil, sealed[reasonHead:], k.aad(event))
	if err != nil {
		return "", fmt.Errorf("opening reason of event %s: %w", event, ErrOpen)
	}
	return med.PHI(text), nil
}

// ReasonKeyVersion says which version of the audit key a sealed reason needs.
func ReasonKeyVersion(sealed []byte) (int32, error) {
	if len(sealed) < reasonHead+gcmOverhead || len(sealed) > reasonHead+gcmOverhead+maxReason || sealed[0] != reasonFormat {
		return 0, malformed("sealed reason")
	}
	version := binary.BigEndian.Uint32(sealed[1:])
	if version == 0 || version > math.MaxInt32 {
		return 0, malformed("sealed reason")
	}
	return int32(version), nil
}

func (k *AuditKey) aad(event med.EventID) []byte {
	b := appendText(nil, "mr-reason-1")
	b = appendText(b, string(k.id.Practice))
	b = appendInt32(b, k.id.Version)
	return appendText(b, string(event))
}
