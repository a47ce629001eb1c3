// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// CursorKey seals the cursors of lists: where a page ended, for whom, and of
// which list. Every replica derives the same one of the practice's audit key,
// so that it needs no secret of its own. It is safe for concurrent use and
// prints as [key].
type CursorKey struct {
	hidden
	id  PracticeKeyID
	box box
}

const (
	cursorFormat = 1
	cursorHead   = 1 + 4 // format, key version
	cursorExpiry = 8
	maxCursor    = 1024 // bytes of text
	labelCursor  = "mr/cursor/v1"
)

// cursorText is strict: one cursor has one spelling.
var cursorText = base64.RawURLEncoding.Strict()

// NewCursorKey makes a CursorKey of a practice key of purpose audit. The
// practice key may be wiped afterwards.
func NewCursorKey(k *PracticeKey) (*CursorKey, error) {
	key, err := k.of(PurposeAudit)
	if err != nil {
		return nil, err
	}
	keys, err := key.kin(labelCursor)
	if err != nil {
		return nil, err
	}
	defer wipeAll(keys)
	aead, err := keys[0].aead()
	if err != nil {
		return nil, err
	}
	c := &CursorKey{id: k.id}
	c.box.put(aead)
	return c, nil
}

// Seal returns the cursor of a position: text that tells nothing and that only
// Open of the same practice's key, with the same bond, reads again before it
// expires. It reports ErrTooLarge for a position that would make it longer
// than 1 KiB.
func (k *CursorKey) Seal(bond, position []byte, expires time.Time) (string, error) {
	box, err := k.box.get()
	if err != nil {
		return "", err
	}
	if cursorText.EncodedLen(cursorHead+gcmOverhead+cursorExpiry+len(position)) > maxCursor {
		return "", fmt.Errorf("sealing a cursor of %d bytes: %w", len(position), ErrTooLarge)
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(expires.UnixMilli())) //nolint:gosec // after 1970
	b := appendInt32([]byte{cursorFormat}, k.id.Version)
	b = box.Seal(b, nil, append(plain, position...), k.aad(bond))
	return cursorText.EncodeToString(b), nil
}

// Open returns the position that was sealed with the same bond. It reports
// ErrOpen for any other text, bond, practice or version of the key, and
// ErrExpired.
func (k *CursorKey) Open(bond []byte, cursor string, now time.Time) ([]byte, error) {
	version, err := CursorKeyVersion(cursor)
	if err != nil {
		return nil, err
	}
	if version != k.id.Version {
		return nil, fmt.Errorf("cursor under audit key %d, not %d: %w", version, k.id.Version, ErrOpen)
	}
	box, err := k.box.get()
	if err != nil {
		return nil, err
	}
	b, err := cursorText.DecodeString(cursor)
	if err != nil {
		return nil, malformed("cursor")
	}
	plain, err := box.Open(nil, nil, b[cursorHead:], k.aad(bond))
	if err != nil || len(plain) < cursorExpiry {
		return nil, fmt.Errorf("opening a cursor: %w", ErrOpen)
	}
	if now.UnixMilli() >= int64(binary.BigEndian.Uint64(plain)) { //nolint:gosec // what Seal wrote
		return nil, ErrExpired
	}
	return plain[cursorExpiry:], nil
}

// CursorKeyVersion says which version of the audit key a cursor needs. It
// reports ErrMalformed for what cannot be one.
func CursorKeyVersion(cursor string) (int32, error) {
	if len(cursor) > maxCursor {
		return 0, malformed("cursor")
	}
	b, err := cursorText.DecodeString(cursor)
	if err != nil || len(b) < cursorHead+gcmOverhead+cursorExpiry || b[0] != cursorFormat {
		return 0, malformed("cursor")
	}
	version := binary.BigEndian.Uint32(b[1:])
	if version == 0 || version > math.MaxInt32 {
		return 0, malformed("cursor")
	}
	return int32(version), nil
}

func (k *CursorKey) aad(bond []byte) []byte {
	b := appendText(nil, "mr-cursor-1")
	b = appendText(b, string(k.id.Practice))
	b = appendInt32(b, k.id.Version)
	return appendText(b, string(bond))
}
