// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/med"
)

// Claims is what a verified token says. It prints as [claims].
type Claims struct {
	// Caller is who the token speaks for. Session is `sid`, else `jti`, else
	// derived from the token; TokenID is `jti`, else derived from the token.
	// The derived one is the hex SHA-256 of header and payload, without the
	// signature: who holds an ES256 token can respell its signature, and that
	// must not give it a new name. Revoke by (Issuer, TokenID), not by Hash.
	Caller med.Caller
	// All holds every scalar claim as text: strings as they are, numbers and
	// booleans as JSON writes them.
	All map[string]string
	// Audience is `aud`.
	Audience []string
	// Hash is the SHA-256 of the whole token: the key under which a verified
	// token may be remembered.
	Hash                [sha256.Size]byte
	NotBefore, IssuedAt time.Time // zero when the token does not say

	alg       jose.SignatureAlgorithm
	thumb     string // of the key that signed
	defaulted bool   // the practice is DefaultPractice's
	leeway    time.Duration
}

// Format keeps a token's claims out of logs: some issuers put names and
// addresses into them.
func (c *Claims) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[claims]")) }

// LogValue keeps them out of slog.
func (c *Claims) LogValue() slog.Value { return slog.StringValue("[claims]") }

// read makes claims of a token whose signature was checked.
func (v *Verifier) read(s *signed, from *issuer, key *signingKey) (*Claims, error) {
	now := v.now()
	c := &Claims{
		Hash: sha256.Sum256([]byte(s.raw)), All: scalars(s.payload),
		alg: s.alg, thumb: key.thumb, leeway: v.leeway,
	}
	c.Caller.Issuer = from.Issuer.Issuer
	c.Caller.Credential = med.Credential(s.raw)
	for _, step := range []func() error{
		func() error { return c.readTimes(s.payload, now, v.leeway) },
		func() error { return c.readAudience(s.payload, from.Audience) },
		func() error { return c.readNames(s) },
		func() error { return c.readRoles(s.payload, from) },
		func() error { return c.readPractice(s.payload, from, v.defaultPractice) },
		func() error { return c.readPatient(s.payload, from) },
		func() error { return c.readMFA(s.payload, now, v.leeway) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Claims) readTimes(m members, now time.Time, leeway time.Duration) error {
	if _, present := m["exp"]; !present {
		return refuse(ReasonMissingExpiry)
	}
	for _, t := range []struct {
		name string
		at   *time.Time
	}{{"exp", &c.Caller.ExpiresAt}, {"nbf", &c.NotBefore}, {"iat", &c.IssuedAt}} {
		var err error
		if *t.at, err = m.when(t.name); err != nil {
			return err
		}
	}
	return c.checkTimes(now, leeway)
}

func (c *Claims) checkTimes(now time.Time, leeway time.Duration) error {
	latest := now.Add(leeway)
	switch {
	case !now.Before(c.Caller.ExpiresAt.Add(leeway)):
		return refuse(ReasonExpired)
	case c.NotBefore.After(latest):
		return &Error{Reason: ReasonNotYetValid, Claim: "nbf"}
	case c.IssuedAt.After(latest):
		return &Error{Reason: ReasonNotYetValid, Claim: "iat"}
	}
	return nil
}

func (c *Claims) readAudience(m members, want string) error {
	var err error
	if c.Audience, err = m.texts("aud"); err != nil {
		return err
	}
	if !slices.Contains(c.Audience, want) {
		return refuse(ReasonWrongAudience)
	}
	return nil
}

func (c *Claims) readNames(s *signed) error {
	var err error
	if c.Caller.Subject, err = s.payload.text("sub"); err != nil {
		return err
	}
	if c.Caller.Subject == "" {
		return badClaim("sub")
	}
	if c.Caller.TokenID, err = s.payload.text("jti"); err != nil {
		return err
	}
	if c.Caller.TokenID == "" {
		c.Caller.TokenID = hex.EncodeToString(s.identity[:])
	}
	if c.Caller.Session, err = s.payload.text("sid"); err != nil {
		return err
	}
	if c.Caller.Session == "" {
		c.Caller.Session = c.Caller.TokenID
	}
	return nil
}

func (c *Claims) readRoles(m members, from *issuer) error {
	_, many := m["roles"]
	_, one := m["role"]
	if many && one {
		return refuse(ReasonConflictingRoles)
	}
	name := "roles"
	if one {
		name = "role"
	}
	words, err := m.texts(name)
	if err != nil {
		return err
	}
	roles := knownRoles(words)
	if len(roles) == 0 {
		return refuse(ReasonNoRole)
	}
	if slices.Contains(roles, med.RoleOfficer) && slices.ContainsFunc(roles, notBesideOfficer) {
		return refuse(ReasonConflictingRoles)
	}
	for _, r := range roles {
		if len(from.Roles) > 0 && !slices.Contains(from.Roles, r) {
			return refuse(ReasonRoleNotAllowed)
		}
	}
	c.Caller.Roles = roles
	return nil
}

// knownRoles returns the roles we know, each once, in the order of the tables.
// Other words are other systems' business.
func knownRoles(words []string) []med.Role {
	var roles []med.Role
	for _, known := range med.Roles {
		if slices.ContainsFunc(words, func(w string) bool { r, ok := med.ParseRole(w); return ok && r == known }) {
			roles = append(roles, known)
		}
	}
	return roles
}

// notBesideOfficer: who watches must not be who acts.
func notBesideOfficer(r med.Role) bool {
	return r == med.RoleNurse || r == med.RoleClinician || r == med.RoleBreakGlass || r == med.RoleAdmin
}

func (c *Claims) readPractice(m members, from *issuer, otherwise func() med.PracticeID) error {
	practice, err := practiceOf(m)
	if err != nil {
		return err
	}
	if practice == "" && !c.Caller.Only(med.RoleBreakGlass) {
		practice = otherwise()
		c.defaulted = true
		if practice == "" {
			return refuse(ReasonNoPractice)
		}
	}
	if practice != "" && len(from.Practices) > 0 && !slices.Contains(from.Practices, practice) {
		return refuse(ReasonPracticeNotAllowed)
	}
	c.Caller.Practice = practice
	return nil
}

// practiceOf returns the one practice that the token names, "" for none.
func practiceOf(m members) (med.PracticeID, error) {
	var practice med.PracticeID
	for _, name := range []string{"practice_id", "tenant_id"} {
		text, err := m.text(name)
		if err != nil {
			return "", err
		}
		if text == "" {
			continue
		}
		id, err := med.ParsePracticeID(text)
		if err != nil {
			return "", badClaim(name)
		}
		if practice != "" && practice != id {
			return "", refuse(ReasonManyPractices)
		}
		practice = id
	}
	return practice, nil
}

func (c *Claims) readPatient(m members, from *issuer) error {
	name := "patient_id"
	text, err := m.text(name)
	if err != nil {
		return err
	}
	if text == "" && from.SubjectIsPatient && c.Caller.Is(med.RolePatient) {
		name, text = "sub", c.Caller.Subject
	}
	if text == "" {
		return nil
	}
	if c.Caller.Patient, err = med.ParsePatientID(text); err != nil {
		return badClaim(name)
	}
	return nil
}

// scalars returns the claims that are not objects, arrays or null.
func scalars(m members) map[string]string {
	out := make(map[string]string, len(m))
	for name, raw := range m {
		if text, ok := scalar(raw); ok {
			out[name] = text
		}
	}
	return out
}

func scalar(raw json.RawMessage) (string, bool) {
	switch raw[0] {
	case '"':
		return str(raw)
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true
}
