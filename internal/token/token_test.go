// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/outbound"
)

const (
	testIssuer   = "https://idp.example.com/realms/care"
	testAudience = "medirecord"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

// testKeys are made once: RSA keys are slow to make.
type testKeys struct {
	rsa, small *rsa.PrivateKey
	ec, other  *ecdsa.PrivateKey
	p384       *ecdsa.PrivateKey
	ed         ed25519.PrivateKey
}

var keysOnce = sync.OnceValue(func() testKeys {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var k testKeys
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.small, err = rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // must be refused
	must(err)
	k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.other, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.p384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	// The same in every process: a fuzzer's worker must know its parent's tokens.
	k.ed = ed25519.NewKeyFromSeed([]byte("a seed for tests, of 32 bytes ok"))
	return k
})

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// compact signs header and payload exactly as written.
func compact(t testing.TB, key any, header, payload string) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	var err error
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if strings.Contains(header, "PS256") {
			sig, err = rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:])
		}
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, sum[:])
		if err = e; err == nil {
			sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	case nil:
	default:
		t.Fatalf("no way to sign with %T", key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(sig)
}

const esHeader = `{"alg":"ES256","kid":"ec","typ":"JWT"}`

// claims are a nurse's, changed: a nil value takes a claim away.
func claims(t testing.TB, changes map[string]any) string {
	t.Helper()
	m := map[string]any{
		"iss": testIssuer, "aud": testAudience, "sub": "user-1", "roles": []string{"nurse"}, "practice_id": "practice-1",
		"exp": noon.Add(time.Hour).Unix(), "iat": noon.Unix(), "jti": "token-1", "sid": "session-1",
	}
	for name, value := range changes {
		if value == nil {
			delete(m, name)
			continue
		}
		m[name] = value
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func jwk(t testing.TB, key any, kid, alg string) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: alg, Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keySet(t testing.TB, keys ...json.RawMessage) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// standardSet is what the test issuer publishes.
func standardSet(t testing.TB) []byte {
	k := keysOnce()
	return keySet(t, jwk(t, k.rsa.Public(), "rsa", ""), jwk(t, k.ec.Public(), "ec", "ES256"), jwk(t, k.ed.Public(), "ed", "EdDSA"))
}

// serving starts a key server and returns its address and how often it was asked.
func serving(t testing.TB, answer http.HandlerFunc) (string, *atomic.Int32) {
	t.Helper()
	var count atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/jwks", &count
}

// verifier returns a verifier of the test issuer, with the standard keys over
// real HTTP unless change says otherwise.
func verifier(t testing.TB, change func(*Config)) *Verifier {
	t.Helper()
	client := outbound.New(outbound.Config{Dev: true})
	cfg := Config{
		Issuers: []Issuer{{Issuer: testIssuer, Audience: testAudience}},
		Get:     client.Get, Now: atNoon,
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.Issuers[0].JWKS == "" {
		set := standardSet(t)
		cfg.Issuers[0].JWKS, _ = serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
	}
	v, err := NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close(); client.Close() })
	return v
}

// as returns a change that sets the claims' effect on the first issuer.
func as(change func(*Issuer)) func(*Config) {
	return func(cfg *Config) { change(&cfg.Issuers[0]) }
}

func nurseToken(t testing.TB, changes map[string]any) string {
	t.Helper()
	return compact(t, keysOnce().ec, esHeader, claims(t, changes))
}

func wantReason(t testing.TB, err error, reason string) {
	t.Helper()
	if got := ReasonOf(err); got != reason {
		t.Fatalf("got %v; want %s", err, reason)
	}
}

// clock is a clock that tests move.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(noon.UnixMilli())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func mustVerify(t testing.TB, v *Verifier, raw string) *Claims {
	t.Helper()
	c, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("got %v; want the token accepted", err)
	}
	return c
}
