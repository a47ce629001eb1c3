// SPDX-License-Identifier: Apache-2.0

// Package sidecar answers over gRPC who a caller is and what they may do, and
// signs the contexts with which PostgreSQL lets them. It has no database, and
// on the serving side it alone has the context key. Roles and practice come
// from a verified token only; what a client says of itself is never believed.
package sidecar

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// Config says what the sidecar stands on.
type Config struct {
	Verifier *token.Verifier
	// Policy returns the policy in force; it changes when the file does.
	Policy func() *policy.Engine
	Minter *token.Minter
	// Attester knows the context keys, the minter's and those before it: it says
	// which entries of the trail are of contexts that were minted.
	Attester *token.Attester
	// Unsettled is how many minted contexts are kept for the worker while it is
	// away; 0 means 200,000. Beyond that the oldest are dropped, with an alarm.
	Unsettled int
	// PatientsAnHour is how many different patients one person may ask for within
	// an hour before that is an alarm; 0 means 300, negative no limit.
	PatientsAnHour int
	// State is the file of revocations and grants.
	State string
	// Services maps the name of an unattended service to the SHA-256 of its
	// token, for connections without a client certificate. With mutual TLS the
	// certificate's common name, service:<name>, says it.
	Services map[string][sha256.Size]byte
	// GrantFor is how long a break-glass grant lasts; 0 means 60 minutes. It
	// is at most 4 hours.
	GrantFor time.Duration
	// StrictReads makes every context for a patient, a record or a disclosure strict, and not
	// only those of broken glass and of exports.
	StrictReads bool
	Log         *slog.Logger
	Now         func() time.Time
}

// Times of rules.md sections 4 and 6.
const (
	contextTTL        = 10 * time.Second
	serviceContextTTL = 60 * time.Second
	longestGrant      = 4 * time.Hour
	headerFormAge     = 8 * time.Hour // since the last sign-in
	rememberToken     = time.Minute   // before it is verified again
	maxRemembered     = 20_000
)

// Service is the sidecar's three faces.
type Service struct {
	coresdkv1.UnimplementedAuthServiceServer
	coresdkv1.UnimplementedPolicyServiceServer
	pb.UnimplementedGateServiceServer

	cfg     Config
	state   *state
	ledger  *ledger
	reach   *reach
	lookups lookups
	tokens  sync.Map // [32]byte to *remembered
	ntokens atomic.Int64
	rulings sync.Map // rulingKey to *ruled
	nruling atomic.Int64
}

type remembered struct {
	claims *token.Claims
	until  time.Time
}

// New opens the state file and returns the service. It reports an error when
// the state cannot be read: revocations would be forgotten.
func New(cfg Config) (*Service, error) {
	if cfg.Verifier == nil || cfg.Policy == nil || cfg.Minter == nil || cfg.Attester == nil {
		return nil, errors.New("the sidecar needs a verifier, a policy and a context key")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.GrantFor <= 0 {
		cfg.GrantFor = time.Hour
	}
	cfg.GrantFor = min(cfg.GrantFor, longestGrant)
	st, err := openState(cfg.State, cfg.Now)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, state: st, ledger: newLedger(cmp.Or(cfg.Unsettled, 200_000), cfg.Now()), reach: newReach(cmp.Or(cfg.PatientsAnHour, 300))}, nil
}

// OnlyPractice returns the practice while no other was added, and none then: it
// is what a token without a practice may be taken to mean.
func (s *Service) OnlyPractice(practice med.PracticeID) med.PracticeID {
	if practice == "" || !s.state.only(string(practice)) {
		return ""
	}
	return practice
}

// Close closes the state file.
func (s *Service) Close() error { return s.state.close() }

// claims returns what a valid token says, now: a token that was verified within
// the last minute is not verified again, but its times, its key and its
// revocation are looked at each time.
func (s *Service) claims(ctx context.Context, raw string) (*token.Claims, error) {
	if raw == "" {
		return nil, errNoToken
	}
	hash := sha256.Sum256([]byte(raw))
	now := s.cfg.Now()
	var c *token.Claims
	if v, ok := s.tokens.Load(hash); ok {
		if r := v.(*remembered); now.Before(r.until) && s.cfg.Verifier.Recheck(r.claims) == nil {
			c = r.claims
		}
	}
	if c == nil {
		var err error
		if c, err = s.cfg.Verifier.Verify(ctx, raw); err != nil {
			s.forget(hash)
			return nil, err
		}
		s.remember(hash, &remembered{claims: c, until: now.Add(rememberToken)})
	}
	if s.state.revoked(c) {
		return nil, errRevoked
	}
	return c, nil
}

func (s *Service) remember(hash [32]byte, r *remembered) {
	if s.ntokens.Load() >= maxRemembered { // start over: rare, and costs one verification each
		s.tokens.Clear()
		s.ntokens.Store(0)
	}
	if _, there := s.tokens.Swap(hash, r); !there {
		s.ntokens.Add(1)
	}
}

func (s *Service) forget(hash [32]byte) {
	if _, there := s.tokens.LoadAndDelete(hash); there {
		s.ntokens.Add(-1)
	}
}

var (
	errNoToken = errors.New("no_token")
	errRevoked = errors.New("revoked")
)

// reasonOf returns a fixed code for an error of claims.
func reasonOf(err error) string {
	if errors.Is(err, errNoToken) || errors.Is(err, errRevoked) {
		return err.Error()
	}
	return token.ReasonOf(err)
}
