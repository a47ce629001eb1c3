// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// MaxSize is the longest token in bytes.
const MaxSize = 16 << 10

// algorithms is the allow list. ES384 and its like are left out: they are ten
// times slower, and every algorithm more is a way in.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// refusedHeaders name a key, or change what the header means, from inside the
// token. crit lists extensions that must be understood; we understand none.
var refusedHeaders = []string{"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"}

// signed is a token taken apart. Nothing in it is to be believed before the
// signature is checked.
type signed struct {
	raw      string
	alg      jose.SignatureAlgorithm
	kid      string // "" when the header has none
	payload  members
	identity [sha256.Size]byte // of the signed part
}

// parseSigned takes a compact JWS apart.
func parseSigned(raw string) (*signed, error) {
	switch {
	case raw == "":
		return nil, refuse(ReasonMissing)
	case len(raw) > MaxSize:
		return nil, refuse(ReasonTooLarge)
	}
	segments := strings.Split(raw, ".")
	if len(segments) != 3 {
		return nil, refuse(ReasonMalformed)
	}
	var parts [3][]byte
	for i, segment := range segments {
		var err error
		if parts[i], err = decodeSegment(segment); err != nil {
			return nil, err
		}
	}
	header, err := parseObject(parts[0])
	if err != nil {
		return nil, err
	}
	s := &signed{raw: raw, identity: sha256.Sum256([]byte(segments[0] + "." + segments[1]))}
	if s.alg, s.kid, err = checkHeader(header); err != nil {
		return nil, err
	}
	s.payload, err = parseObject(parts[1])
	return s, err
}

// decodeSegment decodes base64url in its one canonical form. Go's decoder
// skips line breaks, and without Strict it ignores left-over bits: both would
// give one token many spellings, and a revoked one a new hash.
func decodeSegment(s string) ([]byte, error) {
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return nil, refuse(ReasonMalformed)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, refuse(ReasonMalformed)
	}
	return b, nil
}

func checkHeader(h members) (jose.SignatureAlgorithm, string, error) {
	name, ok := str(h["alg"])
	if alg := jose.SignatureAlgorithm(name); !ok || !slices.Contains(algorithms, alg) {
		return "", "", refuse(ReasonBadAlgorithm)
	}
	for _, name := range refusedHeaders {
		if _, present := h[name]; present {
			return "", "", &Error{Reason: ReasonBadHeader, Claim: name}
		}
	}
	if !typeFits(h) {
		return "", "", &Error{Reason: ReasonBadHeader, Claim: "typ"}
	}
	kid, err := h.text("kid")
	if err != nil {
		return "", "", &Error{Reason: ReasonBadHeader, Claim: "kid"}
	}
	return jose.SignatureAlgorithm(name), kid, nil
}

// typeFits keeps apart what the same issuer signs for other uses: a logout
// token or a DPoP proof is not an access token (RFC 8725, 3.11).
func typeFits(h members) bool {
	if _, nested := h["cty"]; nested {
		return false
	}
	raw, present := h["typ"]
	if !present {
		return true
	}
	typ, ok := str(raw)
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	return ok && (typ == "jwt" || typ == "at+jwt")
}

// checkSignature reports bad_signature unless the key signed the token.
func (s *signed) checkSignature(key *signingKey) error {
	sig, err := jose.ParseSignedCompact(s.raw, algorithms)
	if err != nil {
		return refuse(ReasonMalformed) // the library's error quotes the token
	}
	if _, err := sig.Verify(key.jwk.Key); err != nil {
		return refuse(ReasonBadSignature)
	}
	return nil
}
