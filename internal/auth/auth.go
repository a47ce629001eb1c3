// SPDX-License-Identifier: Apache-2.0

// Package auth turns what a request shows into a caller, by asking the gate.
// It reads no token itself and remembers no answer.
package auth

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/trail"
)

// maxToken is the longest token that is shown to the sidecar, in bytes.
const maxToken = 16 << 10

// Service authenticates.
type Service struct {
	gate   *gate.Gate
	trail  *trail.Trail
	limits *limits
}

// New returns the service.
func New(g *gate.Gate, t *trail.Trail, now func() time.Time) *Service {
	return &Service{gate: g, trail: t, limits: newLimits(now)}
}

// Authenticate returns the caller of a request with these Authorization
// headers. It reports Unauthorized for anything but one bearer token that the
// sidecar takes, and RateLimited for an address that showed too many others:
// such refusals are counted in one audit entry for each address and minute.
func (s *Service) Authenticate(ctx context.Context, header []string, from med.Origin) (med.Caller, error) {
	token, err := bearer(header)
	if err != nil {
		return med.Caller{}, s.refuse(err, from)
	}
	if wait := s.limits.wait(from.IP, token); wait > 0 {
		e := med.RateLimited.New("")
		e.RetryAfter = wait
		return med.Caller{}, s.refuse(e, from)
	}
	c, err := s.gate.Who(ctx, token)
	if err != nil {
		// Only what the sidecar refused was a bad token: not what it could not
		// be asked about, nor what nobody waited for.
		if med.CodeOf(err) == "unauthorized" {
			s.limits.failed(from.IP)
		}
		return med.Caller{}, s.refuse(err, from)
	}
	s.limits.passed(token, c.ExpiresAt)
	c.Origin = from
	return c, nil
}

func (s *Service) refuse(err error, from med.Origin) error {
	s.trail.Refused(from, med.CodeOf(err))
	return err
}

func bearer(header []string) (med.Credential, error) {
	if len(header) != 1 {
		return "", med.Unauthorized.Because(errors.New("no Authorization header, or several"))
	}
	scheme, token, ok := strings.Cut(header[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken || strings.ContainsFunc(token, notOfAToken) {
		return "", med.Unauthorized.Because(errors.New("not a bearer token"))
	}
	return med.Credential(token), nil
}

// notOfAToken reports what no token has in it: blanks, a comma between two
// headers joined into one, and bytes beyond visible ASCII.
func notOfAToken(r rune) bool { return r <= ' ' || r > '~' || r == ',' }
