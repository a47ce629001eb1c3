// SPDX-License-Identifier: Apache-2.0

package token

import (
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// FreshMFA is how old a second factor may be to count as fresh.
const FreshMFA = 5 * time.Minute

// MFAState says whether a second factor was proved, and whether that is fresh
// at this moment. Claims are remembered, so the answer is made when it is used.
// Without a time, or with one in the future, it is never fresh.
func (c *Claims) MFAState(now time.Time) med.MFA {
	if c.Caller.MFA == med.MFANone {
		return med.MFANone
	}
	age := now.Sub(c.Caller.MFAAt)
	if c.Caller.MFAAt.IsZero() || age < -c.leeway || age > FreshMFA {
		return med.MFADone
	}
	return med.MFAFresh
}

// FactorAt says how lately a second factor had been proved at an earlier moment;
// one that was proved since is fresh too. Without a time it is never fresh.
func (c *Claims) FactorAt(t time.Time) med.MFA {
	switch {
	case c.Caller.MFA == med.MFANone:
		return med.MFANone
	case c.Caller.MFAAt.IsZero() || c.Caller.MFAAt.Before(t.Add(-FreshMFA)):
		return med.MFADone
	}
	return med.MFAFresh
}

func (c *Claims) readMFA(m members, now time.Time, leeway time.Duration) error {
	var err error
	if c.Caller.AuthTime, err = m.past("auth_time", now, leeway); err != nil {
		return err
	}
	c.Caller.MFA = med.MFANone
	if !mfaProved(m) {
		return nil
	}
	c.Caller.MFAAt = c.Caller.AuthTime
	if _, present := m["mfa_time"]; present {
		if c.Caller.MFAAt, err = m.past("mfa_time", now, leeway); err != nil {
			return err
		}
	}
	c.Caller.MFA = med.MFADone
	c.Caller.MFA = c.MFAState(now)
	return nil
}

// past is when for a moment that cannot lie ahead: one that does would keep a
// sign-in fresh for as long as its issuer's clock is wrong.
func (m members) past(name string, now time.Time, leeway time.Duration) (time.Time, error) {
	t, err := m.when(name)
	if err == nil && t.After(now.Add(leeway)) {
		return time.Time{}, &Error{Reason: ReasonNotYetValid, Claim: name}
	}
	return t, err
}

// mfaProved reads mfa_verified, else amr. A mfa_verified of any other value than
// true is a no, whatever amr says; an amr that is not a list of strings is one too.
func mfaProved(m members) bool {
	if raw, present := m["mfa_verified"]; present {
		return string(raw) == "true"
	}
	methods, _ := strs(m["amr"])
	classes := map[string]bool{}
	for _, method := range methods {
		if method == "mfa" {
			return true
		}
		if class := factorClass(method); class != "" {
			classes[class] = true
		}
	}
	return len(classes) >= 2
}

// factorClass sorts the methods of RFC 8176 into what one knows, has and is.
// Two passwords are one factor.
func factorClass(method string) string {
	switch method {
	case "pwd", "pin", "kba":
		return "knowledge"
	case "otp", "hwk", "swk", "sms", "sc", "pop":
		return "possession"
	case "fpt", "face", "iris", "vbm":
		return "inherence"
	}
	return ""
}
