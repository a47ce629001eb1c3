// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/medirecord/medirecord/internal/med"
)

// viewTag gathers which state of a row a caller sees, for the tag that names it:
// the ETag of their answer. It is made of the versions of the fields they see in
// clear, and of no value, so it may stand in headers and logs. What is hidden is
// not in it, nor what is masked, whose version tells of digits that the mask
// does not show: a change of that makes nobody's tag a stale one who does not
// see it, and tells them nothing.
type viewTag struct{ b []byte }

// field says how a field is shown, and in which version.
func (t *viewTag) field(f med.Field, show med.Show, version int64) {
	if show != med.Reveal {
		version = 0
	}
	t.b = append(append(append(t.b, f...), 0, byte(show)), 0)
	t.number(version)
}

func (t *viewTag) number(n int64) {
	t.b = binary.BigEndian.AppendUint64(t.b, uint64(n)) //nolint:gosec // a version
}

func (t *viewTag) String() string {
	sum := sha256.Sum256(t.b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// whole reports whether the view shows all of the fields in clear.
func whole(v med.View, fields []med.Field) bool {
	for _, f := range fields {
		if v[f] != med.Reveal {
			return false
		}
	}
	return true
}
