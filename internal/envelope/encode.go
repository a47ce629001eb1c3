// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"encoding/binary"
	"fmt"
)

// maxText is the longest string that goes into associated data.
const maxText = 255

// appendText appends a string with its length before it (16 bits, big endian),
// so that no two lists of strings give the same bytes.
func appendText[S string | []byte](b []byte, s S) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s))) //nolint:gosec // checkText holds it to 255
	return append(b, s...)
}

func appendInt64(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // two's complement, checked positive by callers
}

func appendInt32(b []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // as above
}

// checkText reports ErrMisuse for a string that associated data must not hold:
// an empty one names nothing, a long one does not fit its length.
func checkText(what, s string) error {
	if len(s) == 0 || len(s) > maxText {
		return fmt.Errorf("%s of %d bytes, want 1 to %d: %w", what, len(s), maxText, ErrMisuse)
	}
	return nil
}

func checkVersion(what string, n int64) error {
	if n < 1 {
		return fmt.Errorf("%s %d, want 1 or more: %w", what, n, ErrMisuse)
	}
	return nil
}
