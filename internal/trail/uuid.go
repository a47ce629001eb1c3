// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"encoding/hex"
	"strings"
	"time"
)

// formatID writes 16 bytes as an id.
func formatID(b []byte) string {
	var out [36]byte
	hex.Encode(out[:8], b[:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// appendID appends the 16 bytes of an id that the database wrote.
func appendID(b []byte, id string) ([]byte, error) {
	return hex.AppendDecode(b, []byte(strings.ReplaceAll(id, "-", "")))
}

// timeOf is the time that a UUIDv7 begins with, to the millisecond.
func timeOf(b []byte) time.Time {
	var ms int64
	for _, x := range b[:6] {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms)
}
