// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

func TestVerifyAccepts(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	v := verifier(t, nil)

	for _, tt := range []struct {
		name, header string
		key          any
	}{
		{"RS256", `{"alg":"RS256","kid":"rsa"}`, k.rsa},
		{"PS256", `{"alg":"PS256","kid":"rsa"}`, k.rsa},
		{"ES256", esHeader, k.ec},
		{"EdDSA", `{"alg":"EdDSA","kid":"ed"}`, k.ed},
		{"a token without kid when one key fits", `{"alg":"ES256"}`, k.ec},
		{"an access token by type", `{"alg":"ES256","kid":"ec","typ":"application/AT+JWT"}`, k.ec},
		{"a header parameter that means nothing to us", `{"alg":"ES256","kid":"ec","x5t":"abc","nonce":"n"}`, k.ec},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mustVerify(t, v, compact(t, tt.key, tt.header, claims(t, nil)))
		})
	}

	t.Run("every claim finds its place", func(t *testing.T) {
		t.Parallel()
		raw := nurseToken(t, map[string]any{
			"roles": []string{"provider", "something-else", "patient", "clinician"}, "patient_id": "p-1", "tenant_id": "practice-1",
			"mfa_verified": true, "auth_time": noon.Add(-time.Minute).Unix(), "nbf": noon.Add(-time.Hour).Unix(),
			"email": "a@example.com", "n": 1.5, "groups": []string{"x"}, "nothing": "", "aud": []string{"other", testAudience},
		})
		got := mustVerify(t, v, raw)
		want := med.Caller{
			Issuer: testIssuer, Subject: "user-1", Roles: []med.Role{med.RolePatient, med.RoleClinician}, Practice: "practice-1", Patient: "p-1",
			MFA: med.MFAFresh, MFAAt: noon.Add(-time.Minute), AuthTime: noon.Add(-time.Minute), Session: "session-1", TokenID: "token-1",
			ExpiresAt: noon.Add(time.Hour), Credential: med.Credential(raw),
		}
		if diff := cmp.Diff(want, got.Caller); diff != "" {
			t.Error(diff)
		}
		wantAll := map[string]string{
			"iss": testIssuer, "sub": "user-1", "practice_id": "practice-1", "tenant_id": "practice-1", "patient_id": "p-1",
			"exp": fmt.Sprint(noon.Add(time.Hour).Unix()), "iat": fmt.Sprint(noon.Unix()), "nbf": fmt.Sprint(noon.Add(-time.Hour).Unix()),
			"auth_time": fmt.Sprint(noon.Add(-time.Minute).Unix()), "jti": "token-1", "sid": "session-1", "mfa_verified": "true",
			"email": "a@example.com", "n": "1.5", "nothing": "",
		}
		if diff := cmp.Diff(wantAll, got.All); diff != "" {
			t.Error(diff)
		}
		if got.Hash != sha256.Sum256([]byte(raw)) || !got.IssuedAt.Equal(noon) || !got.NotBefore.Equal(noon.Add(-time.Hour)) {
			t.Error("hash or times differ")
		}
		if diff := cmp.Diff([]string{"other", testAudience}, got.Audience); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("nothing of a token is printed", func(t *testing.T) {
		t.Parallel()
		c := mustVerify(t, v, nurseToken(t, map[string]any{"email": "a@example.com"}))
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).InfoContext(t.Context(), "x", slog.Any("claims", c))
		for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", c, c, c, c), log.String()} {
			if strings.Contains(text, "example.com") || strings.Contains(text, "eyJ") {
				t.Errorf("got %s", text)
			}
		}
	})
}

// Every token here is signed by the issuer's own key, or as well as an
// attacker can: what refuses it is the rule its row names.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	v := verifier(t, nil)
	good := nurseToken(t, nil)
	parts := strings.Split(good, ".")
	with := func(changes map[string]any) string { return nurseToken(t, changes) }
	header := func(h string) string { return compact(t, k.ec, h, claims(t, nil)) }
	payload := func(p string) string { return compact(t, k.ec, esHeader, p) }
	der, err := x509.MarshalPKIXPublicKey(k.rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	own := string(jwk(t, k.other.Public(), "own", "ES256"))
	body := strings.TrimPrefix(claims(t, nil), "{")

	for _, tt := range []struct{ name, raw, reason string }{
		{"nothing", "", ReasonMissing},
		{"16 KiB and a byte", strings.Repeat("a", MaxSize+1), ReasonTooLarge},
		{"two segments", parts[0] + "." + parts[1], ReasonMalformed},
		{"four segments", good + ".x", ReasonMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", ReasonMalformed},
		{"five segments, as an encrypted token", "a.b.c.d.e", ReasonMalformed},
		{"the JSON serialization", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, ReasonMalformed},
		{"a space before", " " + good, ReasonMalformed},
		{"a line break inside", good[:20] + "\n" + good[20:], ReasonMalformed},
		{"a line break after", good + "\n", ReasonMalformed},
		{"padding", good + "==", ReasonMalformed},
		{"standard base64", strings.ReplaceAll(good, "-", "+") + "+", ReasonMalformed},
		{"a header that is no object", compact(t, k.ec, `"ES256"`, claims(t, nil)), ReasonMalformed},
		{"a null header", header(`null`), ReasonMalformed},
		{"a payload that is an array", payload(`[]`), ReasonMalformed},
		{"a payload followed by another", payload(claims(t, nil) + `{}`), ReasonMalformed},
		{"a payload that is not JSON", payload(`{"iss":`), ReasonMalformed},
		{"a payload that is not UTF-8", payload("{\"x\":\"\xff\"," + body), ReasonMalformed},
		{"a payload nested beyond reason", payload(`{"x":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + "," + body), ReasonMalformed},

		{"alg none, no signature", compact(t, nil, `{"alg":"none"}`, claims(t, nil)), ReasonMalformed},
		{"alg none with a signature", header(`{"alg":"none","kid":"ec"}`), ReasonBadAlgorithm},
		{"alg nOnE", header(`{"alg":"nOnE","kid":"ec"}`), ReasonBadAlgorithm},
		{"no alg", header(`{"kid":"ec"}`), ReasonBadAlgorithm},
		{"an alg that is a list", header(`{"alg":["ES256"],"kid":"ec"}`), ReasonBadAlgorithm},
		{"HS256 keyed with the public key", compact(t, public, `{"alg":"HS256","kid":"rsa"}`, claims(t, nil)), ReasonBadAlgorithm},
		{"HS256 keyed with the key's modulus", compact(t, k.rsa.N.Bytes(), `{"alg":"HS256","kid":"rsa"}`, claims(t, nil)), ReasonBadAlgorithm},
		{"RS512", header(`{"alg":"RS512","kid":"rsa"}`), ReasonBadAlgorithm},
		{"ES384", header(`{"alg":"ES384","kid":"ec"}`), ReasonBadAlgorithm},
		{"an alg that is not the key's", compact(t, k.rsa, `{"alg":"RS256","kid":"ec"}`, claims(t, nil)), ReasonUnknownKey},
		{"an alg of another key type", header(`{"alg":"EdDSA","kid":"ec"}`), ReasonUnknownKey},

		{"jku", header(`{"alg":"ES256","kid":"ec","jku":"https://evil.example/jwks"}`), ReasonBadHeader},
		{"x5u", header(`{"alg":"ES256","kid":"ec","x5u":"https://evil.example/c"}`), ReasonBadHeader},
		{"x5c", header(`{"alg":"ES256","kid":"ec","x5c":["AAAA"]}`), ReasonBadHeader},
		{"an embedded jwk that signed it", compact(t, k.other, `{"alg":"ES256","jwk":`+own+`}`, claims(t, nil)), ReasonBadHeader},
		{"unknown crit", header(`{"alg":"ES256","kid":"ec","crit":["exp"],"exp":1}`), ReasonBadHeader},
		{"crit b64", header(`{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}`), ReasonBadHeader},
		{"an empty crit", header(`{"alg":"ES256","kid":"ec","crit":[]}`), ReasonBadHeader},
		{"a logout token", header(`{"alg":"ES256","kid":"ec","typ":"logout+jwt"}`), ReasonBadHeader},
		{"a DPoP proof", header(`{"alg":"ES256","kid":"ec","typ":"dpop+jwt"}`), ReasonBadHeader},
		{"a nested token", header(`{"alg":"ES256","kid":"ec","cty":"JWT"}`), ReasonBadHeader},
		{"a kid that is a number", header(`{"alg":"ES256","kid":1}`), ReasonBadHeader},
		{"an empty kid", header(`{"alg":"ES256","kid":""}`), ReasonBadHeader},
		{"a kid that is a path", header(`{"alg":"ES256","kid":"../../dev/null"}`), ReasonUnknownKey},
		{"an unknown kid", header(`{"alg":"ES256","kid":"stranger"}`), ReasonUnknownKey},

		{"another's signature", compact(t, k.other, esHeader, claims(t, nil)), ReasonBadSignature},
		{"another token's signature", parts[0] + "." + strings.Split(with(map[string]any{"roles": "admin"}), ".")[1] + "." + parts[2], ReasonBadSignature},
		{"an ES256 signature of zeros", parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)), ReasonBadSignature},
		{"a short signature", parts[0] + "." + parts[1] + "." + b64(make([]byte, 8)), ReasonBadSignature},
		{"an RS256 signature called PS256", func() string {
			p := strings.Split(compact(t, k.rsa, `{"alg":"RS256","kid":"rsa"}`, claims(t, nil)), ".")
			return b64([]byte(`{"alg":"PS256","kid":"rsa"}`)) + "." + p[1] + "." + p[2]
		}(), ReasonBadSignature},

		{"an alg twice", header(`{"alg":"ES256","kid":"ec","alg":"none"}`), ReasonDuplicateClaim},
		{"a kid twice", header(`{"kid":"x","alg":"ES256","kid":"ec"}`), ReasonDuplicateClaim},
		{"roles twice", payload(`{"roles":["admin"],` + body), ReasonDuplicateClaim},
		{"roles twice, once escaped", payload(`{"\u0072oles":["admin"],` + body), ReasonDuplicateClaim},
		{"exp twice", payload(`{"exp":99999999999,` + body), ReasonDuplicateClaim},
		{"a name twice deep inside", payload(`{"x":[{"y":{"a":1,"a":1}}],` + body), ReasonDuplicateClaim},

		{"no iss", with(map[string]any{"iss": nil}), ReasonUnknownIssuer},
		{"another iss", with(map[string]any{"iss": "https://evil.example.com"}), ReasonUnknownIssuer},
		{"an iss with a slash more", with(map[string]any{"iss": testIssuer + "/"}), ReasonUnknownIssuer},
		{"an iss in capitals", with(map[string]any{"iss": strings.ToUpper(testIssuer)}), ReasonUnknownIssuer},
		{"an iss that is a list", with(map[string]any{"iss": []string{testIssuer}}), ReasonBadClaim},
		{"no aud", with(map[string]any{"aud": nil}), ReasonWrongAudience},
		{"another aud", with(map[string]any{"aud": "billing"}), ReasonWrongAudience},
		{"an aud that only begins right", with(map[string]any{"aud": testAudience + "-dev"}), ReasonWrongAudience},
		{"an empty list of aud", with(map[string]any{"aud": []string{}}), ReasonWrongAudience},
		{"an aud that is a number", with(map[string]any{"aud": 1}), ReasonBadClaim},
		{"an aud list with a number", with(map[string]any{"aud": []any{testAudience, 1}}), ReasonBadClaim},

		{"no exp", with(map[string]any{"exp": nil}), ReasonMissingExpiry},
		{"a null exp", payload(strings.Replace(claims(t, nil), `"exp":`, `"exp":null,"x":`, 1)), ReasonBadClaim},
		{"an exp in quotes", with(map[string]any{"exp": "99999999999"}), ReasonBadClaim},
		{"an exp beyond all calendars", payload(strings.Replace(claims(t, nil), `"exp":`, `"exp":1e300,"x":`, 1)), ReasonBadClaim},
		{"an exp beyond all numbers", payload(strings.Replace(claims(t, nil), `"exp":`, `"exp":1e999,"x":`, 1)), ReasonBadClaim},
		{"a negative exp", with(map[string]any{"exp": -1}), ReasonBadClaim},
		{"an exp in capitals only", payload(strings.Replace(claims(t, nil), `"exp"`, `"EXP"`, 1)), ReasonMissingExpiry},
		{"expired beyond leeway", with(map[string]any{"exp": noon.Unix() - 30}), ReasonExpired},
		{"exp 0", with(map[string]any{"exp": 0}), ReasonExpired},
		{"nbf beyond leeway", with(map[string]any{"nbf": noon.Unix() + 31}), ReasonNotYetValid},
		{"iat beyond leeway", with(map[string]any{"iat": noon.Unix() + 31}), ReasonNotYetValid},
		{"auth_time in the future", with(map[string]any{"auth_time": noon.Unix() + 31}), ReasonNotYetValid},
		{"mfa_time in the future", with(map[string]any{"mfa_verified": true, "mfa_time": noon.Unix() + 31}), ReasonNotYetValid},
		{"an auth_time in quotes", with(map[string]any{"auth_time": "1"}), ReasonBadClaim},
		{"an iat that is true", with(map[string]any{"iat": true}), ReasonBadClaim},

		{"no sub", with(map[string]any{"sub": nil}), ReasonBadClaim},
		{"an empty sub", with(map[string]any{"sub": ""}), ReasonBadClaim},
		{"a sub that is a number", with(map[string]any{"sub": 7}), ReasonBadClaim},
		{"a sub with a line break", with(map[string]any{"sub": "a\nb"}), ReasonBadClaim},
		{"a sub with NUL", with(map[string]any{"sub": "a\x00b"}), ReasonBadClaim},
		{"a sub that reads backwards", with(map[string]any{"sub": "a\u202eb"}), ReasonBadClaim},
		{"a sub with half a surrogate", payload(strings.Replace(claims(t, nil), `"user-1"`, `"\ud800"`, 1)), ReasonBadClaim},
		{"a sub of 256 bytes", with(map[string]any{"sub": strings.Repeat("a", 256)}), ReasonBadClaim},
		{"an empty jti", with(map[string]any{"jti": ""}), ReasonBadClaim},
		{"a sid that is a list", with(map[string]any{"sid": []string{"a"}}), ReasonBadClaim},

		{"no role", with(map[string]any{"roles": nil}), ReasonNoRole},
		{"no role in the list", with(map[string]any{"roles": []string{}}), ReasonNoRole},
		{"unknown roles only", with(map[string]any{"roles": []string{"superuser", "NURSE", "nurse "}}), ReasonNoRole},
		{"two roles in one word", with(map[string]any{"roles": "nurse admin"}), ReasonNoRole},
		{"roles and role", with(map[string]any{"role": "nurse"}), ReasonConflictingRoles},
		{"roles and a null role", payload(`{"role":null,` + body), ReasonConflictingRoles},
		{"roles that are an object", with(map[string]any{"roles": map[string]any{"nurse": true}}), ReasonBadClaim},
		{"roles that are a number", with(map[string]any{"roles": 1}), ReasonBadClaim},
		{"roles that are null", payload(strings.Replace(claims(t, nil), `"roles":["nurse"]`, `"roles":null`, 1)), ReasonBadClaim},
		{"a role that is null", with(map[string]any{"roles": []any{"nurse", nil}}), ReasonBadClaim},
		{"a list in the list of roles", with(map[string]any{"roles": []any{[]string{"nurse"}}}), ReasonBadClaim},
		{"an officer who is a nurse", with(map[string]any{"roles": []string{"officer", "nurse"}}), ReasonConflictingRoles},
		{"an officer who is a provider", with(map[string]any{"roles": []string{"provider", "officer"}}), ReasonConflictingRoles},
		{"an officer who is an admin", with(map[string]any{"roles": []string{"officer", "admin"}}), ReasonConflictingRoles},
		{"an officer who may break glass", with(map[string]any{"roles": []string{"officer", "break_glass"}}), ReasonConflictingRoles},

		{"two practices", with(map[string]any{"tenant_id": "practice-2"}), ReasonManyPractices},
		{"a list of practices", with(map[string]any{"practice_id": []string{"a", "b"}}), ReasonBadClaim},
		{"an empty practice", with(map[string]any{"practice_id": ""}), ReasonBadClaim},
		{"a practice that is a number", with(map[string]any{"practice_id": 1}), ReasonBadClaim},
		{"a practice that is no id", with(map[string]any{"practice_id": "a' OR 1=1"}), ReasonBadClaim},
		{"no practice", with(map[string]any{"practice_id": nil}), ReasonNoPractice},
		{"no practice for an admin", with(map[string]any{"practice_id": nil, "roles": []string{"admin"}}), ReasonNoPractice},
		{"no practice for break_glass and more", with(map[string]any{"practice_id": nil, "roles": []string{"break_glass", "nurse"}}), ReasonNoPractice},
		{"a patient_id that is no id", with(map[string]any{"patient_id": "*"}), ReasonBadClaim},
		{"a patient_id that is a list", with(map[string]any{"patient_id": []string{"p-1"}}), ReasonBadClaim},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := v.Verify(t.Context(), tt.raw)
			if c != nil {
				t.Fatal("the token was accepted")
			}
			wantReason(t, err, tt.reason)
			if Unavailable(err) {
				t.Error("a bad token is called unavailable")
			}
			var e *Error
			if !errors.As(err, &e) || e.cause != nil {
				t.Errorf("got %v; want a plain *Error", err)
			}
			for _, leak := range []string{"user-1", "evil", "practice-", testIssuer, "stranger"} {
				if strings.Contains(err.Error(), leak) {
					t.Errorf("the error %q tells %q", err, leak)
				}
			}
		})
	}
}

func TestLeeway(t *testing.T) {
	t.Parallel()
	v := verifier(t, nil)
	t.Run("29 seconds after expiry, before nbf and before iat pass", func(t *testing.T) {
		t.Parallel()
		mustVerify(t, v, nurseToken(t, map[string]any{"exp": noon.Unix() - 29, "nbf": noon.Unix() + 30, "iat": noon.Unix() + 30}))
	})
	t.Run("a lifetime of years is the issuer's business", func(t *testing.T) {
		t.Parallel()
		mustVerify(t, v, nurseToken(t, map[string]any{"exp": lastSecond}))
	})
	t.Run("a fraction of a second counts", func(t *testing.T) {
		t.Parallel()
		strict := verifier(t, func(c *Config) { c.Leeway = -1 })
		mustVerify(t, strict, nurseToken(t, map[string]any{"exp": float64(noon.Unix()) + 0.5}))
		_, err := strict.Verify(t.Context(), nurseToken(t, map[string]any{"exp": float64(noon.Unix()) - 0.5}))
		wantReason(t, err, ReasonExpired)
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	v := verifier(t, nil)
	t.Run("without sid the session is jti", func(t *testing.T) {
		t.Parallel()
		if c := mustVerify(t, v, nurseToken(t, map[string]any{"sid": nil})); c.Caller.Session != "token-1" {
			t.Fatalf("got %q", c.Caller.Session)
		}
	})
	t.Run("without sid and jti both are the hash of what was signed", func(t *testing.T) {
		t.Parallel()
		raw := nurseToken(t, map[string]any{"sid": nil, "jti": nil})
		sum := sha256.Sum256([]byte(raw[:strings.LastIndexByte(raw, '.')]))
		c := mustVerify(t, v, raw)
		if want := hex.EncodeToString(sum[:]); c.Caller.Session != want || c.Caller.TokenID != want {
			t.Fatalf("got %q and %q; want %q", c.Caller.Session, c.Caller.TokenID, want)
		}
	})
	t.Run("a respelled ES256 signature does not rename the token", func(t *testing.T) {
		t.Parallel()
		raw := nurseToken(t, map[string]any{"sid": nil, "jti": nil})
		dot := strings.LastIndexByte(raw, '.')
		sig, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
		if err != nil {
			t.Fatal(err)
		}
		s := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(sig[32:]))
		twin := raw[:dot+1] + b64(append(sig[:32:32], s.FillBytes(make([]byte, 32))...))
		one, two := mustVerify(t, v, raw), mustVerify(t, v, twin)
		if raw == twin || one.Caller.TokenID != two.Caller.TokenID || one.Hash == two.Hash {
			t.Fatal("the twin has another name, or the same hash")
		}
	})
}

func TestRoles(t *testing.T) {
	t.Parallel()
	v := verifier(t, nil)
	for _, tt := range []struct {
		name    string
		changes map[string]any
		want    []med.Role
	}{
		{"role as a string", map[string]any{"roles": nil, "role": "nurse"}, []med.Role{med.RoleNurse}},
		{"role as a list", map[string]any{"roles": nil, "role": []string{"nurse", "admin"}}, []med.Role{med.RoleNurse, med.RoleAdmin}},
		{"roles as a string", map[string]any{"roles": "clinician"}, []med.Role{med.RoleClinician}},
		{"provider is clinician, once", map[string]any{"roles": []string{"clinician", "provider"}}, []med.Role{med.RoleClinician}},
		{"unknown roles are left out", map[string]any{"roles": []string{"offline_access", "nurse"}}, []med.Role{med.RoleNurse}},
		{"an officer alone", map[string]any{"roles": []string{"officer"}}, []med.Role{med.RoleOfficer}},
		{"an officer may be a patient", map[string]any{"roles": []string{"officer", "patient"}}, []med.Role{med.RolePatient, med.RoleOfficer}},
		{"break_glass alone needs no practice", map[string]any{"roles": []string{"break_glass"}, "practice_id": nil}, []med.Role{med.RoleBreakGlass}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, mustVerify(t, v, nurseToken(t, tt.changes)).Caller.Roles); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIssuerSpeaksOnlyForItsOwn(t *testing.T) {
	t.Parallel()
	v := verifier(t, as(func(i *Issuer) {
		i.Practices, i.Roles = []med.PracticeID{"practice-1"}, []med.Role{med.RoleNurse, med.RoleBreakGlass}
	}))
	t.Run("its practice and role pass", func(t *testing.T) {
		t.Parallel()
		mustVerify(t, v, nurseToken(t, nil))
	})
	t.Run("another practice is refused", func(t *testing.T) {
		t.Parallel()
		_, err := v.Verify(t.Context(), nurseToken(t, map[string]any{"practice_id": "practice-2"}))
		wantReason(t, err, ReasonPracticeNotAllowed)
	})
	t.Run("another role is refused, beside an allowed one too", func(t *testing.T) {
		t.Parallel()
		_, err := v.Verify(t.Context(), nurseToken(t, map[string]any{"roles": []string{"nurse", "admin"}}))
		wantReason(t, err, ReasonRoleNotAllowed)
	})
	t.Run("a default practice it may not speak for is refused", func(t *testing.T) {
		t.Parallel()
		v := verifier(t, func(c *Config) {
			c.Issuers[0].Practices = []med.PracticeID{"practice-1"}
			c.DefaultPractice = func() med.PracticeID { return "practice-2" }
		})
		_, err := v.Verify(t.Context(), nurseToken(t, map[string]any{"practice_id": nil}))
		wantReason(t, err, ReasonPracticeNotAllowed)
	})
	t.Run("the keys of one issuer do not sign for another", func(t *testing.T) {
		t.Parallel()
		k := keysOnce()
		mine, theirs := keySet(t, jwk(t, k.ec.Public(), "ec", "")), keySet(t, jwk(t, k.other.Public(), "ec", ""))
		v := verifier(t, func(c *Config) {
			c.Issuers[0].JWKS, _ = serving(t, writing(mine))
			second := c.Issuers[0]
			second.Issuer = "https://second.example.com"
			second.JWKS, _ = serving(t, writing(theirs))
			c.Issuers = append(c.Issuers, second)
		})
		mustVerify(t, v, compact(t, k.other, esHeader, claims(t, map[string]any{"iss": "https://second.example.com"})))
		_, err := v.Verify(t.Context(), compact(t, k.other, esHeader, claims(t, nil)))
		wantReason(t, err, ReasonBadSignature)
	})
}

func TestDefaultPractice(t *testing.T) {
	t.Parallel()
	practice := med.PracticeID("only")
	v := verifier(t, func(c *Config) { c.DefaultPractice = func() med.PracticeID { return practice } })
	none := nurseToken(t, map[string]any{"practice_id": nil})

	c := mustVerify(t, v, none)
	if c.Caller.Practice != "only" {
		t.Errorf("got %q; want the default for a token without one", c.Caller.Practice)
	}
	if got := mustVerify(t, v, nurseToken(t, nil)).Caller.Practice; got != "practice-1" {
		t.Errorf("got %q; want the token's own", got)
	}
	glass := nurseToken(t, map[string]any{"practice_id": nil, "roles": []string{"break_glass"}})
	if got := mustVerify(t, v, glass).Caller.Practice; got != "" {
		t.Errorf("got %q; want none for break_glass alone", got)
	}
	if err := v.Recheck(c); err != nil {
		t.Errorf("got %v; want the remembered claims to hold", err)
	}
	practice = "" // a second practice was added
	_, err := v.Verify(t.Context(), none)
	wantReason(t, err, ReasonNoPractice)
	wantReason(t, v.Recheck(c), ReasonNoPractice)
}

func TestPatient(t *testing.T) {
	t.Parallel()
	plain := verifier(t, nil)
	subject := verifier(t, as(func(i *Issuer) { i.SubjectIsPatient = true }))
	for _, tt := range []struct {
		name    string
		v       *Verifier
		changes map[string]any
		want    med.PatientID
	}{
		{"patient_id wins", subject, map[string]any{"roles": "patient", "patient_id": "p-1"}, "p-1"},
		{"sub where the issuer says so", subject, map[string]any{"roles": "patient"}, "user-1"},
		{"not sub elsewhere", plain, map[string]any{"roles": "patient"}, ""},
		{"not sub for another role", subject, nil, ""},
		{"a nurse has a record too", plain, map[string]any{"patient_id": "p-1"}, "p-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := mustVerify(t, tt.v, nurseToken(t, tt.changes)).Caller.Patient; got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
	t.Run("a sub that is no id is refused as a patient", func(t *testing.T) {
		t.Parallel()
		_, err := subject.Verify(t.Context(), nurseToken(t, map[string]any{"roles": "patient", "sub": "auth0|1"}))
		wantReason(t, err, ReasonBadClaim)
	})
}

func TestMFA(t *testing.T) {
	t.Parallel()
	v := verifier(t, nil)
	recent, old := noon.Add(-time.Minute).Unix(), noon.Add(-6*time.Minute).Unix()
	for _, tt := range []struct {
		name    string
		changes map[string]any
		want    med.MFA
	}{
		{"nothing said", nil, med.MFANone},
		{"mfa_verified and recent", map[string]any{"mfa_verified": true, "auth_time": recent}, med.MFAFresh},
		{"exactly five minutes", map[string]any{"mfa_verified": true, "auth_time": noon.Unix() - 300}, med.MFAFresh},
		{"five minutes and a second", map[string]any{"mfa_verified": true, "auth_time": noon.Unix() - 301}, med.MFADone},
		{"mfa_verified without a time", map[string]any{"mfa_verified": true}, med.MFADone},
		{"mfa_time counts before auth_time", map[string]any{"mfa_verified": true, "auth_time": old, "mfa_time": recent}, med.MFAFresh},
		{"an old mfa_time is not made young by auth_time", map[string]any{"mfa_verified": true, "auth_time": recent, "mfa_time": old}, med.MFADone},
		{"the word true", map[string]any{"mfa_verified": "true", "auth_time": recent}, med.MFANone},
		{"the number 1", map[string]any{"mfa_verified": 1, "auth_time": recent}, med.MFANone},
		{"false", map[string]any{"mfa_verified": false, "auth_time": recent}, med.MFANone},
		{"false, whatever amr says", map[string]any{"mfa_verified": false, "amr": []string{"mfa"}, "auth_time": recent}, med.MFANone},
		{"amr mfa", map[string]any{"amr": []string{"mfa"}, "auth_time": recent}, med.MFAFresh},
		{"amr of two classes", map[string]any{"amr": []string{"pwd", "otp"}, "auth_time": recent}, med.MFAFresh},
		{"amr of possession and inherence", map[string]any{"amr": []string{"hwk", "fpt"}, "auth_time": recent}, med.MFAFresh},
		{"amr of one class twice", map[string]any{"amr": []string{"pwd", "pin"}, "auth_time": recent}, med.MFANone},
		{"amr of two possessions", map[string]any{"amr": []string{"otp", "sms"}, "auth_time": recent}, med.MFANone},
		{"amr of one", map[string]any{"amr": []string{"pwd"}, "auth_time": recent}, med.MFANone},
		{"amr of unknown words", map[string]any{"amr": []string{"pwd", "MFA", "geo", "user"}, "auth_time": recent}, med.MFANone},
		{"amr as a string", map[string]any{"amr": "mfa", "auth_time": recent}, med.MFANone},
		{"amr with a number", map[string]any{"amr": []any{"mfa", 1}, "auth_time": recent}, med.MFANone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := mustVerify(t, v, nurseToken(t, tt.changes))
			if c.Caller.MFA != tt.want || c.MFAState(noon) != tt.want {
				t.Errorf("got %s and %s; want %s", c.Caller.MFA, c.MFAState(noon), tt.want)
			}
		})
	}
	t.Run("fresh grows old while the claims are remembered", func(t *testing.T) {
		t.Parallel()
		c := mustVerify(t, v, nurseToken(t, map[string]any{"mfa_verified": true, "auth_time": noon.Unix()}))
		for at, want := range map[time.Duration]med.MFA{0: med.MFAFresh, 5 * time.Minute: med.MFAFresh, 5*time.Minute + 1: med.MFADone, -time.Minute: med.MFADone} {
			if got := c.MFAState(noon.Add(at)); got != want {
				t.Errorf("after %v: got %s; want %s", at, got, want)
			}
		}
	})
	t.Run("a factor of an earlier moment, and since", func(t *testing.T) {
		t.Parallel()
		c := mustVerify(t, v, nurseToken(t, map[string]any{"mfa_verified": true, "auth_time": noon.Unix()}))
		for at, want := range map[time.Duration]med.MFA{0: med.MFAFresh, 5 * time.Minute: med.MFAFresh, 5*time.Minute + 1: med.MFADone, -time.Hour: med.MFAFresh} {
			if got := c.FactorAt(noon.Add(at)); got != want {
				t.Errorf("at %v: got %s; want %s", at, got, want)
			}
		}
		if c := mustVerify(t, v, nurseToken(t, map[string]any{"mfa_verified": true, "auth_time": nil})); c.FactorAt(noon) != med.MFADone {
			t.Errorf("of no time: got %s", c.FactorAt(noon))
		}
		if c := mustVerify(t, v, nurseToken(t, map[string]any{"mfa_verified": nil, "auth_time": noon.Unix()})); c.FactorAt(noon) != med.MFANone {
			t.Errorf("of none: got %s", c.FactorAt(noon))
		}
	})
	t.Run("spaces around true do not matter", func(t *testing.T) {
		t.Parallel()
		raw := strings.Replace(claims(t, map[string]any{"mfa_verified": true}), `:true`, " : \t true \n", 1)
		if c := mustVerify(t, v, compact(t, keysOnce().ec, esHeader, raw)); c.Caller.MFA != med.MFADone {
			t.Errorf("got %s", c.Caller.MFA)
		}
	})
}

// Any byte changed to any other letter of the alphabet, in a token whose
// algorithm has one signature per message, must fail.
func TestAnyFlippedByteOfATokenFails(t *testing.T) {
	t.Parallel()
	v := verifier(t, nil)
	for _, good := range []string{nurseToken(t, nil), compact(t, keysOnce().ed, `{"alg":"EdDSA","kid":"ed"}`, claims(t, nil))} {
		mustVerify(t, v, good)
		for i := range len(good) {
			for _, mask := range []byte{0x01, 0x02, 0x20, 0x80} {
				bad := []byte(good)
				bad[i] ^= mask
				if _, err := v.Verify(t.Context(), string(bad)); err == nil {
					t.Fatalf("byte %d with %#x flipped still passes", i, mask)
				}
			}
		}
	}
}

func TestRecheck(t *testing.T) {
	t.Parallel()
	c := newClock()
	k := keysOnce()
	sets := &answers{}
	sets.set(keySet(t, jwk(t, k.ec.Public(), "ec", "")))
	v := verifier(t, func(cfg *Config) {
		cfg.Now = c.now
		cfg.Issuers[0].JWKS, _ = serving(t, sets.serve)
	})
	remembered := mustVerify(t, v, nurseToken(t, nil))
	if err := v.Recheck(remembered); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour + 29*time.Second)
	if err := v.Recheck(remembered); err != nil {
		t.Fatalf("got %v within leeway", err)
	}
	c.advance(time.Second)
	wantReason(t, v.Recheck(remembered), ReasonExpired)

	long := mustVerify(t, v, nurseToken(t, map[string]any{"exp": noon.Add(48 * time.Hour).Unix()}))
	sets.set(keySet(t, jwk(t, k.other.Public(), "new", "")))
	c.advance(30 * time.Minute)
	if _, err := v.JWKS(t.Context()); err != nil { // fetches, as a token would
		t.Fatal(err)
	}
	wantReason(t, v.Recheck(long), ReasonUnknownKey)
}

func TestNewVerifier(t *testing.T) {
	t.Parallel()
	valid := Issuer{Issuer: testIssuer, Audience: "a", JWKS: "https://idp.example.com/jwks"}
	get := verifierGet
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"no issuer", Config{Get: get}},
		{"no way to fetch", Config{Issuers: []Issuer{valid}}},
		{"no name", Config{Get: get, Issuers: []Issuer{{Audience: "a", JWKS: valid.JWKS}}}},
		{"no audience", Config{Get: get, Issuers: []Issuer{{Issuer: "i", JWKS: valid.JWKS}}}},
		{"no keys", Config{Get: get, Issuers: []Issuer{{Issuer: "i", Audience: "a"}}}},
		{"keys in a file", Config{Get: get, Issuers: []Issuer{{Issuer: "i", Audience: "a", JWKS: "file:///etc/keys"}}}},
		{"one issuer twice", Config{Get: get, Issuers: []Issuer{valid, valid}}},
		{"an unknown role", Config{Get: get, Issuers: []Issuer{{Issuer: "i", Audience: "a", JWKS: valid.JWKS, Roles: []med.Role{"root"}}}}},
		{"a practice that is no id", Config{Get: get, Issuers: []Issuer{{Issuer: "i", Audience: "a", JWKS: valid.JWKS, Practices: []med.PracticeID{"a b"}}}}},
	} {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			t.Parallel()
			if _, err := NewVerifier(tt.cfg); err == nil {
				t.Fatal("the config was taken")
			}
		})
	}
	if _, err := NewVerifier(Config{Get: get, Issuers: []Issuer{valid}}); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkVerify(b *testing.B) {
	k := keysOnce()
	for _, alg := range []struct {
		name, header string
		key          any
	}{{"RS256", `{"alg":"RS256","kid":"rsa"}`, k.rsa}, {"ES256", esHeader, k.ec}, {"EdDSA", `{"alg":"EdDSA","kid":"ed"}`, k.ed}} {
		b.Run(alg.name, func(b *testing.B) {
			v := verifier(b, nil)
			raw := compact(b, alg.key, alg.header, claims(b, nil))
			for b.Loop() {
				mustVerify(b, v, raw)
			}
		})
	}
}
