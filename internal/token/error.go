// SPDX-License-Identifier: Apache-2.0

package token

import "errors"

// The reasons why a token, a context or a grant is refused. They are fixed
// words, fit for a log, a metric label and the trail.
const (
	ReasonMissing            = "missing"              // there is none
	ReasonTooLarge           = "too_large"            // above MaxSize
	ReasonMalformed          = "malformed"            // not three clean segments of JSON
	ReasonDuplicateClaim     = "duplicate_claim"      // a JSON name twice, at any depth
	ReasonBadHeader          = "bad_header"           // a header parameter that is not taken: jku, jwk, x5u, x5c, crit, ...
	ReasonBadAlgorithm       = "bad_algorithm"        // not on the allow list
	ReasonUnknownIssuer      = "unknown_issuer"       // not configured
	ReasonUnknownKey         = "unknown_key"          // no key in force fits
	ReasonAmbiguousKey       = "ambiguous_key"        // more than one key fits
	ReasonKeysUnavailable    = "keys_unavailable"     // the keys cannot be fetched: says nothing about the token
	ReasonBadSignature       = "bad_signature"        // not by that key
	ReasonMissingExpiry      = "missing_expiry"       // no exp
	ReasonExpired            = "expired"              // exp is past
	ReasonNotYetValid        = "not_yet_valid"        // nbf, iat or auth_time in the future
	ReasonWrongAudience      = "wrong_audience"       // not for us
	ReasonBadClaim           = "bad_claim"            // a claim of the wrong shape; Claim names it
	ReasonConflictingRoles   = "conflicting_roles"    // roles and role both, or an officer with another duty
	ReasonNoRole             = "no_role"              // no role that we know
	ReasonRoleNotAllowed     = "role_not_allowed"     // the issuer may not speak for it
	ReasonManyPractices      = "many_practices"       // practice_id and tenant_id differ
	ReasonNoPractice         = "no_practice"          // none, and not break_glass alone
	ReasonPracticeNotAllowed = "practice_not_allowed" // the issuer may not speak for it
	ReasonWrongUse           = "wrong_use"            // a grant where a context is wanted, or the reverse
)

// Error says why something was refused. It carries fixed words only, never a
// value of the token.
type Error struct {
	Reason string // one of the constants
	Claim  string // the claim or header parameter at fault, one of our own words; often ""
	cause  error  // of keys_unavailable: why the fetch failed
}

func (e *Error) Error() string {
	msg := "token: " + e.Reason
	if e.Claim != "" {
		msg += " (" + e.Claim + ")"
	}
	if e.cause != nil {
		msg += ": " + e.cause.Error()
	}
	return msg
}

func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is a question about the reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// ReasonOf returns the reason in the error, "" when it carries none.
func ReasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// Unavailable reports whether the token could not be judged, because the keys
// of its issuer cannot be had. The token is refused all the same.
func Unavailable(err error) bool { return ReasonOf(err) == ReasonKeysUnavailable }

func refuse(reason string) error { return &Error{Reason: reason} }

func badClaim(name string) error { return &Error{Reason: ReasonBadClaim, Claim: name} }
