// SPDX-License-Identifier: Apache-2.0

// Package token says who a bearer token speaks for, and signs what the sidecar
// says to PostgreSQL: database contexts and break-glass grants.
//
// It promises that a token it accepts was signed by a configured issuer with a
// key that is in force, for us, for now, and that every claim it reports has
// one meaning only. It never decides what a caller may do, never remembers a
// token, never prints one, and never takes a key from a token.
package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/med"
)

// Issuer is one configured issuer and what it may speak for.
type Issuer struct {
	Issuer   string `yaml:"issuer" json:"issuer"`     // `iss`, compared byte for byte
	Audience string `yaml:"audience" json:"audience"` // must be in `aud`
	JWKS     string `yaml:"jwks" json:"jwks"`         // the address of its keys
	// Practices it may speak for; empty means any.
	Practices []med.PracticeID `yaml:"practices" json:"practices"`
	// Roles it may give; empty means any.
	Roles []med.Role `yaml:"roles" json:"roles"`
	// SubjectIsPatient reads `sub` as the patient id of a token with the role
	// patient and without `patient_id`.
	SubjectIsPatient bool `yaml:"subject_is_patient" json:"subject_is_patient"`
}

// Config of a Verifier. Issuers and Get are needed; the rest has defaults.
type Config struct {
	Issuers []Issuer
	// DefaultPractice is the practice of a token without one, "" for none. It
	// must answer only while that practice is the only one. It is not used for
	// break_glass alone, which needs no practice. May be nil.
	DefaultPractice func() med.PracticeID
	// Leeway for exp, nbf, iat and auth_time. Zero means the default of 30 s,
	// negative means none.
	Leeway time.Duration
	// Get fetches a key set; outbound.Client.Get. It must end with its context.
	Get func(ctx context.Context, url string) ([]byte, error)
	// RefreshEvery is the age at which keys are fetched again; 0 means 10 min.
	RefreshEvery time.Duration
	// FetchInterval is the least time between fetches for one issuer, beside
	// one to spare; 0 means 5 s. After failures it doubles up to 5 min.
	FetchInterval time.Duration
	// MaxAge is how long keys are used without a good answer; 0 means 24 h.
	MaxAge time.Duration
	Now    func() time.Time
	Log    *slog.Logger
}

const (
	defaultLeeway = 30 * time.Second
	fetchDeadline = 2 * time.Second
	maxBackoff    = 5 * time.Minute
)

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	issuers         []*issuer
	defaultPractice func() med.PracticeID
	leeway          time.Duration
	now             func() time.Time
}

// issuer is an Issuer with its keys.
type issuer struct {
	Issuer
	ring *keyring
}

// NewVerifier returns a verifier. It fetches nothing yet. It reports a config
// without issuers, an incomplete one, and two entries for one issuer.
func NewVerifier(cfg Config) (*Verifier, error) {
	if len(cfg.Issuers) == 0 || cfg.Get == nil {
		return nil, errors.New("a verifier needs an issuer and a way to fetch its keys")
	}
	cfg = withDefaults(cfg)
	v := &Verifier{defaultPractice: cfg.DefaultPractice, leeway: cfg.Leeway, now: cfg.Now}
	for i, entry := range cfg.Issuers {
		if err := entry.check(); err != nil {
			return nil, fmt.Errorf("token issuer %d: %w", i+1, err)
		}
		if v.issuer(entry.Issuer) != nil {
			return nil, fmt.Errorf("token issuer %d: configured twice", i+1)
		}
		v.issuers = append(v.issuers, &issuer{Issuer: entry, ring: newKeyring(cfg, entry)})
	}
	return v, nil
}

func withDefaults(cfg Config) Config {
	switch {
	case cfg.Leeway == 0:
		cfg.Leeway = defaultLeeway
	case cfg.Leeway < 0:
		cfg.Leeway = 0
	}
	if cfg.RefreshEvery <= 0 {
		cfg.RefreshEvery = 10 * time.Minute
	}
	if cfg.FetchInterval <= 0 {
		cfg.FetchInterval = 5 * time.Second
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = 24 * time.Hour
	}
	if cfg.DefaultPractice == nil {
		cfg.DefaultPractice = func() med.PracticeID { return "" }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func newKeyring(cfg Config, entry Issuer) *keyring {
	return &keyring{
		timing: timing{
			every: cfg.RefreshEvery, least: cfg.FetchInterval, most: max(maxBackoff, cfg.FetchInterval),
			deadline: fetchDeadline, maxAge: cfg.MaxAge,
		},
		issuer: entry.Issuer, url: entry.JWKS, get: cfg.Get, now: cfg.Now, log: cfg.Log,
	}
}

func (i *Issuer) check() error {
	if i.Issuer == "" || len(i.Issuer) > maxText || !clean(i.Issuer) {
		return errors.New("issuer: 1 to 255 bytes without control characters")
	}
	if i.Audience == "" {
		return errors.New("audience: needed, or tokens for other services would pass")
	}
	if u, err := url.Parse(i.JWKS); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("jwks: not an http or https address")
	}
	for _, p := range i.Practices {
		if _, err := med.ParsePracticeID(string(p)); err != nil {
			return fmt.Errorf("practices: %w", err)
		}
	}
	for _, r := range i.Roles {
		if !slices.Contains(med.Roles, r) {
			return errors.New("roles: not a role of this system")
		}
	}
	return nil
}

func (v *Verifier) issuer(iss string) *issuer {
	for _, i := range v.issuers {
		if i.Issuer.Issuer == iss {
			return i
		}
	}
	return nil
}

// Verify returns what the token says, if it is one to believe. It reports an
// *Error otherwise; Unavailable(err) tells a token that could not be judged
// from a bad one. It may fetch the issuer's keys, for at most 2 s.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Claims, error) {
	s, err := parseSigned(raw)
	if err != nil {
		return nil, err
	}
	// The issuer is only a claim yet, but it may choose no more than which of
	// the configured key sets must contain the signer.
	iss, err := s.payload.text("iss")
	if err != nil {
		return nil, err
	}
	from := v.issuer(iss)
	if from == nil {
		return nil, refuse(ReasonUnknownIssuer)
	}
	key, err := from.ring.find(ctx, s.kid, s.alg)
	if err != nil {
		return nil, err
	}
	if err := s.checkSignature(key); err != nil {
		return nil, err
	}
	return v.read(s, from, key)
}

// Recheck reports whether claims that Verify returned earlier would still be
// believed: not expired, signed by a key in force, and, for a practice that
// came from DefaultPractice, still the same. It fetches nothing and costs
// nothing, so that whoever remembers verified tokens can ask each time.
func (v *Verifier) Recheck(c *Claims) error {
	if err := c.checkTimes(v.now(), v.leeway); err != nil {
		return err
	}
	from := v.issuer(c.Caller.Issuer)
	if from == nil {
		return refuse(ReasonUnknownIssuer)
	}
	keys, err := from.ring.inForce()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(keys, func(k *signingKey) bool { return k.thumb == c.thumb && k.fits(c.alg) }) {
		return refuse(ReasonUnknownKey)
	}
	if c.defaulted && v.defaultPractice() != c.Caller.Practice {
		return refuse(ReasonNoPractice)
	}
	return nil
}

// JWKS returns the public keys in force of all issuers as one JWK set. An
// issuer whose keys cannot be had is left out; it reports keys_unavailable when
// that leaves none.
func (v *Verifier) JWKS(ctx context.Context) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	seen := map[string]bool{}
	var failure error
	for _, i := range v.issuers {
		keys, err := i.ring.all(ctx)
		if err != nil {
			failure = err
			continue
		}
		for _, k := range keys {
			if id := k.thumb + " " + k.jwk.Algorithm + " " + k.jwk.KeyID; !seen[id] {
				seen[id] = true
				set.Keys = append(set.Keys, k.jwk)
			}
		}
	}
	if len(set.Keys) == 0 {
		return nil, failure
	}
	out, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("writing the key set: %w", err)
	}
	return out, nil
}

// all returns the keys in force, fetched first when there are none or they are old.
func (r *keyring) all(ctx context.Context) ([]*signingKey, error) {
	r.freshen(ctx)
	keys, err := r.inForce()
	if err == nil {
		return keys, nil
	}
	f := r.begin(ctx)
	if f == nil {
		return nil, err
	}
	f.wait(ctx)
	return r.inForce()
}

// Run keeps the keys of all issuers fresh until ctx ends. Without it they are
// refreshed when used.
func (v *Verifier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, i := range v.issuers {
		wg.Go(func() { i.ring.run(ctx) })
	}
	wg.Wait()
}

// Close waits for fetches under way, at most 2 s, and starts no more.
func (v *Verifier) Close() {
	for _, i := range v.issuers {
		i.ring.close()
	}
}
