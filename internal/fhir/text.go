// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/med"
)

// hostile says whether a character has no business in a field people read:
// controls, and the format characters that turn the direction of the text
// around it so that a screen shows another text than was stored.
func hostile(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7F && r <= 0x9F: // C0, DEL, C1
		return true
	case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069: // embeddings, overrides, isolates
		return true
	case r == 0x2028 || r == 0x2029: // line and paragraph separators
		return true
	}
	return false
}

// plainASCII is the common case, answered without decoding runes.
func plainASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7F {
			return false
		}
	}
	return true
}

// clean puts U+FFFD where a hostile character was and says whether it had to.
// The source keeps the original.
func clean(s string, lines bool) (string, bool) {
	if plainASCII(s) {
		return s, false
	}
	changed := false
	out := strings.Map(func(r rune) rune {
		if !hostile(r) || lines && (r == '\n' || r == '\r' || r == '\t') {
			return r
		}
		changed = true
		return utf8.RuneError
	}, s)
	return out, changed
}

// dateTime says whether s is a FHIR date, dateTime or instant:
// YYYY, YYYY-MM, YYYY-MM-DD, or with time and zone.
func dateTime(s string) bool {
	_, ok := instant(s)
	return ok
}

// date says whether s is a FHIR date.
func date(s string) bool { return len(s) <= 10 && dateTime(s) }

// instant is the moment a FHIR dateTime begins, for putting dates in order. A
// date without a zone begins in UTC.
func instant(s string) (time.Time, bool) {
	var layout string
	switch len(s) {
	case 4:
		layout = "2006"
	case 7:
		layout = "2006-01"
	case 10:
		layout = "2006-01-02"
	default:
		// time.Parse takes "T1:02:03Z" and a decimal comma, FHIR does not.
		if len(s) < 20 || s[10] != 'T' || s[13] != ':' || s[16] != ':' || strings.Contains(s, ",") {
			return time.Time{}, false
		}
		layout = time.RFC3339
	}
	t, err := time.Parse(layout, s)
	return t, err == nil && t.Year() > 0
}

// oneOf says whether s is one of the words.
func oneOf(s, words string) bool {
	return s != "" && !strings.Contains(s, " ") && strings.Contains(" "+words+" ", " "+s+" ")
}

func phi(s string) med.PHI { return med.PHI(s) }

// trimmed is a string element without the space around it.
func trimmed(v val) string { return strings.TrimSpace(v.str()) }
