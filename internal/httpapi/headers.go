// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

const (
	headerReason  = "X-Break-Glass-Reason"
	headerPurpose = "X-Purpose-Of-Use"
	headerAccess  = "X-Access-Reason"
	headerRequest = "X-Request-Id"
	headerEvent   = "Audit-Event-Id"
	// headerFactor is of refusals for want of a token, and of answers that ask for
	// a second factor and do not wait for it. RFC 9110, 11.6.1
	headerFactor = "WWW-Authenticate"
)

// purposes are the codes of v3-PurposeOfUse that a caller may state.
var purposes = []string{"TREAT", "HPAYMT", "HOPERAT", "ETREAT", "PATRQT"}

const (
	apiCSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
	// The page of the documentation has no inline script and no inline style.
	docsCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

// secure sets the headers that every answer has, refusals included.
func secure(h http.Header, id string) {
	h.Set(headerRequest, id)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", apiCSP)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// challenge asks for a second factor that is at most so old (RFC 9470); "" asks
// for none.
func challenge(maxAge time.Duration) string {
	if maxAge <= 0 {
		return ""
	}
	return fmt.Sprintf(`Bearer error="insufficient_user_authentication", error_description="More break-glass grants than care needs: prove a second factor anew. Nothing was held back.", max_age="%d"`,
		int64(maxAge/time.Second))
}

// state adds to the caller what they say of this one request: an emergency, and
// a purpose. It reports Invalid when they say it twice or in no known word. What
// the reason says is for the chart to judge.
func state(c *med.Caller, h http.Header) error {
	reasons, purpose := h.Values(headerReason), h.Values(headerPurpose)
	if len(reasons) > 1 {
		return med.Invalid.New("").With(med.FieldError{Pointer: headerReason, Reason: reasonTwice})
	}
	for _, once := range []string{headerMatch, headerOnce} {
		if len(h.Values(once)) > 1 {
			return med.Invalid.New("").With(med.FieldError{Pointer: once, Reason: reasonTwice})
		}
	}
	// A blank key is a client's mistake: it would make the same thing twice, and
	// think that it could not.
	if keys := h.Values(headerOnce); len(keys) == 1 && keys[0] == "" {
		return med.Invalid.New("").With(med.FieldError{Pointer: headerOnce, Reason: reasonKey})
	}
	if len(reasons) == 1 {
		c.Emergent, c.Emergency = true, med.PHI(reasons[0])
	}
	if len(purpose) == 0 {
		return nil
	}
	if len(purpose) > 1 {
		return med.Invalid.New("").With(med.FieldError{Pointer: headerPurpose, Reason: reasonTwice})
	}
	if !slices.Contains(purposes, purpose[0]) {
		return med.Invalid.New("").With(med.FieldError{Pointer: headerPurpose, Reason: reasonNotOneOf})
	}
	c.Purpose = purpose[0]
	return nil
}

// accessReason adds to the caller why they look into a chart. It reports Invalid
// when that is said twice or in no known word.
func accessReason(c *med.Caller, h http.Header) error {
	given := h.Values(headerAccess)
	switch {
	case len(given) == 0:
		return nil
	case len(given) > 1:
		return med.Invalid.New("").With(med.FieldError{Pointer: headerAccess, Reason: reasonTwice})
	case !slices.Contains(med.ReasonCodes, given[0]):
		return med.Invalid.New("").With(med.FieldError{Pointer: headerAccess, Reason: reasonNotOneOf})
	}
	c.AccessReason = given[0]
	return nil
}
