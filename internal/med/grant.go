// SPDX-License-Identifier: Apache-2.0

package med

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Grant is a break-glass grant: one user, one patient, one session, for a
// limited time, read only. The sidecar decides and signs it; PostgreSQL
// honours it while its committed row is not ended.
type Grant struct {
	ID         string
	Opened     bool // by this call; false: it continues
	OpenedAt   time.Time
	ExpiresAt  time.Time
	ReasonCode string
	Signed     string
	PageP1     bool // too many at once: page without delay
	// MaxAge is how old a second factor may be that the caller is asked for, who
	// is not kept waiting for it; 0: they are asked for none.
	MaxAge time.Duration
}

// ReasonOther is the coded reason of the guide's header form, whose text says
// the rest.
const ReasonOther = "other"

// ReasonCodes are the coded reasons for break-glass access.
var ReasonCodes = []string{
	"emergency_treatment", "patient_unconscious", "consent_unreachable", "on_call_cover", "system_outage", ReasonOther,
}

// CheckReason returns the break-glass reason trimmed. It reports
// BreakGlassReasonRequired when it is blank, and Invalid when it is not 10 to
// 500 characters of valid UTF-8 without control and format characters.
func CheckReason(s PHI) (PHI, error) {
	text := strings.TrimSpace(s.Reveal())
	if text == "" {
		return "", BreakGlassReasonRequired.New("")
	}
	bad := !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	})
	words := 0
	for _, r := range text {
		if (unicode.IsLetter(r) || unicode.IsDigit(r)) && !strings.ContainsRune(fillers, r) {
			words++
		}
	}
	if n := utf8.RuneCountInString(text); bad || n < 10 || n > 500 || words < 5 {
		return "", Invalid.New("A break-glass reason is 10 to 500 characters, letters among them, without control or format characters.").
			With(FieldError{Pointer: "X-Break-Glass-Reason", Reason: "10 to 500 characters, letters among them, no control or format characters"})
	}
	return PHI(text), nil
}

// fillers are letters by Unicode's word that nobody can see.
const fillers = "\u115f\u1160\u3164\uffa0"
