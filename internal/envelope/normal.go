// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// The Normal functions bring a value into the one form whose blind index is
// stored and searched. They report false for a value that must not be indexed:
// an empty one, or one of a shape so common that its tag would tell something.

// NormalSSN returns the nine digits of an SSN.
func NormalSSN(s string) (string, bool) {
	d := digits(s)
	return d, len(d) == 9
}

// NormalPhone returns the digits of a telephone number up to its extension,
// without the international prefix 00 or +, and without the 1 before a North
// American number.
func NormalPhone(s string) (string, bool) {
	var d []byte
	for _, r := range norm.NFKD.String(s) {
		if r >= '0' && r <= '9' {
			d = append(d, byte(r))
		} else if len(d) > 0 && (unicode.IsLetter(r) || r == '#' || r == ';' || r == ',') {
			break // x12, ext. 12, #12, ;ext=12, ,12
		}
	}
	out := strings.TrimPrefix(string(d), "00")
	if len(out) == 11 && out[0] == '1' {
		out = out[1:]
	}
	return out, len(out) >= 7 && len(out) <= 15
}

// NormalEmail returns the address folded to one case and without spaces around.
func NormalEmail(s string) (string, bool) {
	s = strings.TrimSpace(fold(s))
	local, domain, ok := strings.Cut(s, "@")
	ok = ok && local != "" && domain != "" && !strings.ContainsAny(domain, "@ ") && utf8.ValidString(s)
	return s, ok
}

// NormalMRN returns the letters and digits of a medical record number.
func NormalMRN(s string) (string, bool) { return plain(s) }

// NormalMemberID returns the letters and digits of an insurance member id.
func NormalMemberID(s string) (string, bool) { return plain(s) }

// NormalFamilyDOB joins the letters and digits of a family name with a whole
// birth date (YYYY-MM-DD). A name with a year alone is shared by too many to
// be indexed.
func NormalFamilyDOB(family, dob string) (string, bool) {
	name, ok := plain(family)
	day, err := time.Parse(time.DateOnly, strings.TrimSpace(dob))
	if !ok || err != nil {
		return "", false
	}
	return name + "|" + day.Format(time.DateOnly), true
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, norm.NFKD.String(s))
}

// plain returns the letters and digits of a string, decomposed (NFKD), without
// marks, folded to one case: "O'Brien-Müller" and "OBRIEN MULLER" are one.
func plain(s string) (string, bool) {
	if !utf8.ValidString(s) {
		return "", false
	}
	out := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, strokes.Replace(fold(s)))
	return out, out != ""
}

// fold decomposes and folds case; folding can compose, so it decomposes again.
func fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	// A Caser may keep state, so each call has its own.
	return norm.NFKD.String(cases.Fold().String(norm.NFKD.String(s)))
}

// strokes writes letters that Unicode does not decompose as people without the
// key on their keyboard do.
var strokes = strings.NewReplacer("ø", "o", "ł", "l", "đ", "d", "ð", "d", "ħ", "h", "æ", "ae", "œ", "oe", "þ", "th", "ı", "i",
	"ʻ", "", "ʼ", "") // apostrophes that count as letters

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
