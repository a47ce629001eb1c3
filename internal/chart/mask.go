// SPDX-License-Identifier: Apache-2.0

package chart

import "github.com/medirecord/medirecord/internal/med"

// A mask keeps the shape of its value and tells nothing else. Only the SSN and
// the birth date have a shape to keep; any other masked field is not opened.
const (
	maskedText    = "***"
	maskedSSN     = "***-**-"
	maskedDay     = "****-**-"
	maskedPartial = "****-**-**"
)

func hasShape(f med.Field) bool { return f == med.FieldSSN || f == med.FieldDOB }

// mask returns the mask of an SSN, its last four digits, or of a birth date,
// its day. What does not look like one is masked whole.
func mask(f med.Field, plain string) string {
	switch f {
	case med.FieldSSN:
		if len(plain) == len("ddd-dd-dddd") && digits(plain[7:]) {
			return maskedSSN + plain[7:]
		}
		return maskedSSN + "****"
	case med.FieldDOB:
		if len(plain) == len("YYYY-MM-DD") && digits(plain[8:]) {
			return maskedDay + plain[8:]
		}
		return maskedPartial
	default:
		return maskedText
	}
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// IsMask reports whether the text looks like one of our masks. One that comes
// back in a write is refused: it would overwrite what its sender cannot see.
func IsMask(s string) bool {
	return s == maskedText || s == maskedPartial ||
		len(s) == len("***-**-dddd") && s[:7] == maskedSSN ||
		len(s) == len("****-**-dd") && s[:8] == maskedDay
}
