// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// MaxToken is the longest token that is asked about, in bytes.
const MaxToken = 16 << 10

// leeway is how long after its expiry a token may still be called valid by the
// sidecar, whose own leeway is 30 s: clocks of issuers are not ours.
const leeway = 30 * time.Second

// Claims is who a token speaks for, by the sidecar's word. Subject is the
// person only together with Issuer.
type Claims struct {
	Subject   string
	Issuer    string
	TenantID  string // the practice; "" when the token has none
	Roles     []string
	PatientID string // the caller's own record; "" when the token has none
	MFA       bool   // a second factor was verified
	ExpiresAt time.Time
	All       map[string]string // every claim as the sidecar sent it
}

// Is reports whether one of the roles is in force.
func (c *Claims) Is(roles ...string) bool {
	return c != nil && slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(c.Roles, r) })
}

// Format prints the subject and the roles, and nothing else under any verb:
// claims can hold names and addresses of people, and end in logs.
func (c Claims) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "claims of %q as %q", c.Subject, c.Roles)
}

// LogValue logs what Format prints.
func (c Claims) LogValue() slog.Value {
	return slog.GroupValue(slog.String("subject", c.Subject), slog.Any("roles", c.Roles))
}

// Authorize returns who the token speaks for. It returns claims only if the
// sidecar said that the token is valid, said so without reservation, named
// the subject, and the token has not expired; then they are never nil.
//
// It reports ErrUnauthorized when the sidecar said anything else, or the
// token cannot be one, and ErrUnavailable when it said nothing.
func (s *SDK) Authorize(ctx context.Context, token string) (*Claims, error) {
	if err := s.check(token); err != nil {
		return nil, err
	}
	answer, err := ask(ctx, s, "ValidateToken", s.auth.ValidateToken, &coresdkv1.ValidateTokenRequest{
		Token: token, Tenant: s.tenant, Metadata: s.request, ExpectedAudience: s.config.Audience,
	})
	if err != nil {
		return nil, err
	}
	return s.claims(answer)
}

// claims reads an answer as a suspicious clerk would: one yes, and nothing
// beside it that says no.
func (s *SDK) claims(a *coresdkv1.ValidateTokenResponse) (*Claims, error) {
	all := a.GetClaims()
	expires := time.Unix(a.GetExpiresAt(), 0).UTC()
	tenant, one := either(all["tenant_id"], all["practice_id"])
	switch {
	case !a.GetValid():
		return nil, fmt.Errorf("%w: the token is not valid", ErrUnauthorized)
	case a.GetError() != nil:
		return nil, fmt.Errorf("%w: the answer is valid and an error at once", ErrUnauthorized)
	case a.GetSubject() == "":
		return nil, fmt.Errorf("%w: the answer names no subject", ErrUnauthorized)
	case !s.now().Before(expires.Add(leeway)): // an answer without an expiry means 1970
		return nil, fmt.Errorf("%w: the token has expired", ErrUnauthorized)
	case !one:
		return nil, fmt.Errorf("%w: the answer names two tenants", ErrUnauthorized)
	}
	return &Claims{
		Subject: a.GetSubject(), Issuer: all["iss"], TenantID: tenant, Roles: a.GetRoles(),
		PatientID: all["patient_id"], MFA: all["mfa_verified"] == "true", ExpiresAt: expires, All: all,
	}, nil
}

// either returns the one of two names for the same thing that is set, and
// false when they contradict each other.
func either(a, b string) (string, bool) {
	if a == "" {
		return b, true
	}
	return a, b == "" || a == b
}

// Can reports whether the token's owner may do the action on the resource, and
// the sidecar's reason, a text for logs. It is allowed only if err is nil and
// allowed is true; the errors are those of Authorize.
func (s *SDK) Can(ctx context.Context, token, action, resource string) (allowed bool, reason string, err error) {
	if err := s.check(token); err != nil {
		return false, "", err
	}
	answer, err := ask(ctx, s, "Authorize", s.auth.Authorize, &coresdkv1.AuthorizeRequest{
		Token: token, Action: action, Resource: resource, Tenant: s.tenant, Metadata: s.request,
	})
	if err != nil {
		return false, "", err
	}
	if answer.GetError() != nil {
		return false, "", fmt.Errorf("%w: Authorize answered with an error", ErrUnauthorized)
	}
	return answer.GetAllowed(), answer.GetReason(), nil
}

// Revoke ends the token before its time, for a reason that the sidecar keeps.
// Unless it returns nil, the token may still be good: an answer without
// success is an error too.
func (s *SDK) Revoke(ctx context.Context, token, reason string) error {
	if err := s.check(token); err != nil {
		return err
	}
	answer, err := ask(ctx, s, "RevokeToken", s.auth.RevokeToken, &coresdkv1.RevokeTokenRequest{
		Token: token, TenantId: s.config.TenantID, Reason: reason,
	})
	if err != nil {
		return err
	}
	if !answer.GetSuccess() {
		return errors.New("coresdk: the sidecar did not revoke the token; it may still be good")
	}
	return nil
}

// check refuses what needs no question: an SDK without a sidecar, and a text
// that is no bearer token.
func (s *SDK) check(token string) error {
	if !s.usable() {
		return fmt.Errorf("%w: this SDK was not made by New or FromEnv", ErrUnavailable)
	}
	if !token68(token) {
		return fmt.Errorf("%w: that is not a bearer token of at most %d bytes", ErrUnauthorized, MaxToken)
	}
	return nil
}

// token68 reports whether the text can be a bearer token (RFC 6750 2.1).
func token68(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" || len(s) > MaxToken {
		return false
	}
	for i := range len(body) {
		switch c := body[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}
