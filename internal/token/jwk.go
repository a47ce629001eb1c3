// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // beyond, each check is a gift to a flood
	maxKeys    = 100  // of one issuer
	maxKeySet  = 1 << 20
)

// signingKey is one public key of an issuer.
type signingKey struct {
	jwk   jose.JSONWebKey // key, kid, alg and use; no certificates
	thumb string          // RFC 7638
}

// fits reports whether the key may check a signature of this algorithm.
func (k *signingKey) fits(alg jose.SignatureAlgorithm) bool {
	if a := k.jwk.Algorithm; a != "" && a != string(alg) {
		return false
	}
	switch k.jwk.Key.(type) {
	case *rsa.PublicKey:
		return alg == jose.RS256 || alg == jose.PS256
	case *ecdsa.PublicKey:
		return alg == jose.ES256
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}

var errNoKeys = errors.New("the key set holds no usable key")

// parseKeySet returns the usable keys of a JWK set. A key that cannot be used
// is left out, as RFC 7517 says; a set without a usable key is an error.
func parseKeySet(body []byte) ([]*signingKey, error) {
	if len(body) > maxKeySet {
		return nil, errors.New("the key set is too large")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil { // the decoder's error could quote the answer
		return nil, errors.New("the answer is not a key set")
	}
	if len(set.Keys) > maxKeys {
		return nil, errors.New("the key set holds too many keys")
	}
	var keys []*signingKey
	for _, raw := range set.Keys {
		k := parseKey(raw)
		if k == nil || slices.ContainsFunc(keys, func(have *signingKey) bool {
			return have.jwk.KeyID == k.jwk.KeyID && have.jwk.Algorithm == k.jwk.Algorithm && have.thumb == k.thumb
		}) {
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errNoKeys
	}
	return keys, nil
}

// privateParameters are those of RSA, EC, OKP and symmetric keys. Who finds
// them in a public place must not trust the key any longer.
var privateParameters = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// parseKey returns the key if it is a public one for checking signatures, else nil.
func parseKey(raw json.RawMessage) *signingKey {
	m, err := parseObject(raw)
	if err != nil || !forSignatures(m) {
		return nil
	}
	for _, name := range privateParameters {
		if _, present := m[name]; present {
			return nil
		}
	}
	// Trust in the key is trust in the place it came from; certificates add
	// nothing but ways to fail.
	for _, name := range []string{"x5c", "x5u", "x5t", "x5t#S256"} {
		delete(m, name)
	}
	bare, err := json.Marshal(m)
	if err != nil {
		return nil
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(bare) != nil || !strong(jwk.Key) {
		return nil
	}
	thumb, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil
	}
	return &signingKey{jwk: jwk, thumb: hex.EncodeToString(thumb)}
}

// forSignatures reads use, key_ops and alg. They may be absent, not different.
func forSignatures(m members) bool {
	if raw, present := m["use"]; present {
		if use, ok := str(raw); !ok || use != "sig" {
			return false
		}
	}
	if raw, present := m["key_ops"]; present {
		if ops, ok := strs(raw); !ok || !slices.Contains(ops, "verify") {
			return false
		}
	}
	if raw, present := m["alg"]; present {
		if alg, ok := str(raw); !ok || !slices.Contains(algorithms, jose.SignatureAlgorithm(alg)) {
			return false
		}
	}
	return true
}

func strong(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSABits && k.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize
	}
	return false
}
