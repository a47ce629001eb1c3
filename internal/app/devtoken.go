// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/med"
)

// devKeyID is `kid` of the development issuer's key.
const devKeyID = "dev"

// DevToken says what a development token is to say.
type DevToken struct {
	Roles    []string
	Practice string
	Subject  string // "" means dev-<first role>
	Patient  string
	MFA      bool
	TTL      time.Duration
}

// SignDevToken signs a token of the development server on the folder. It
// reports an unknown role, a missing practice, and a folder without a server.
func SignDevToken(dir string, t DevToken) (string, error) {
	if len(t.Roles) == 0 {
		return "", fmt.Errorf("a token needs a role: one or more of %v", med.Roles)
	}
	for _, r := range t.Roles {
		if _, ok := med.ParseRole(r); !ok {
			return "", fmt.Errorf("unknown role; roles are %v", med.Roles)
		}
	}
	if t.Practice == "" && !slices.Equal(t.Roles, []string{string(med.RoleBreakGlass)}) {
		return "", errors.New("a token needs --practice; only break_glass alone goes without")
	}
	if _, err := med.ParsePracticeID(t.Practice); t.Practice != "" && err != nil {
		return "", errors.New("--practice must be 1 to 64 letters, digits, dots and hyphens")
	}
	if _, err := med.ParsePatientID(t.Patient); t.Patient != "" && err != nil {
		return "", errors.New("--patient must be 1 to 64 letters, digits, dots and hyphens")
	}
	if t.TTL <= 0 || t.TTL > 24*time.Hour {
		return "", errors.New("--ttl must be above 0 and at most 24h")
	}
	files := devFiles{dir}
	if _, err := os.Stat(files.issuerKey()); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s holds no development server: start one with `medirecord dev --data %s`", dir, dir)
	}
	key, err := files.signingKey()
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims := map[string]any{
		"iss": DevIssuer, "aud": devAudience, "sub": cmp.Or(t.Subject, "dev-"+t.Roles[0]), "roles": t.Roles,
		"iat": now.Unix(), "auth_time": now.Unix(), "exp": now.Add(t.TTL).Unix(), "jti": med.NewUUID(now), "sid": med.NewUUID(now),
		"mfa_verified": t.MFA,
	}
	if t.Practice != "" {
		claims["practice_id"] = t.Practice
	}
	if t.Patient != "" {
		claims["patient_id"] = t.Patient
	}
	return sign(key, claims)
}

func sign(key *ecdsa.PrivateKey, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: devKeyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// jwks returns the key's public half as a JWK set.
func jwks(key *ecdsa.PrivateKey) ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), KeyID: devKeyID, Algorithm: string(jose.ES256), Use: "sig"},
	}})
}
