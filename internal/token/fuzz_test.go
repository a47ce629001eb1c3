// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzVerify throws tokens at the parser. No token but the signed one is
// accepted, nothing panics, and every refusal has a reason.
func FuzzVerify(f *testing.F) {
	good := compact(f, keysOnce().ed, `{"alg":"EdDSA","kid":"ed"}`, claims(f, nil))
	v := verifier(f, nil)
	mustVerify(f, v, good)
	f.Add(good)
	f.Add(compact(f, keysOnce().ec, `{"alg":"ES256","kid":"ec","crit":["x"]}`, claims(f, nil)))
	f.Add(compact(f, nil, `{"alg":"none"}`, `{"iss":"`+testIssuer+`"}`))
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := v.Verify(t.Context(), raw)
		if err == nil && raw != good {
			t.Fatalf("accepted %q", raw)
		}
		if (err == nil) == (c == nil) || err != nil && ReasonOf(err) == "" {
			t.Fatalf("got %v, %v", c, err)
		}
	})
}

// FuzzClaims signs whatever payload it is given: behind a good signature the
// claims are still somebody's input. What is accepted keeps the promises.
func FuzzClaims(f *testing.F) {
	v := verifier(f, nil)
	f.Add(claims(f, nil))
	f.Add(claims(f, map[string]any{"roles": []string{"break_glass"}, "practice_id": nil, "amr": []string{"pwd", "otp"}, "auth_time": noon.Unix()}))
	f.Add(claims(f, map[string]any{"exp": 1e15, "mfa_verified": "true", "patient_id": "p-1", "tenant_id": "practice-1"}))
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := v.Verify(t.Context(), compact(t, keysOnce().ed, `{"alg":"EdDSA","kid":"ed"}`, payload))
		if err != nil {
			if ReasonOf(err) == "" {
				t.Fatalf("got %v without a reason", err)
			}
			return
		}
		who := c.Caller
		if who.Subject == "" || who.Session == "" || who.TokenID == "" || len(who.Roles) == 0 || !clean(who.Subject+who.Session+who.TokenID) {
			t.Fatalf("accepted a caller with gaps: %q %q %q %v", who.Subject, who.Session, who.TokenID, who.Roles)
		}
		if who.Practice == "" && !who.Only("break_glass") {
			t.Fatal("accepted without a practice")
		}
		if !noon.Before(who.ExpiresAt.Add(30 * time.Second)) {
			t.Fatal("accepted after expiry")
		}
		for _, r := range who.Roles {
			if notBesideOfficer(r) && who.Is("officer") {
				t.Fatal("accepted an officer with another duty")
			}
		}
	})
}

// FuzzContext throws text at the context and grant parsers.
func FuzzContext(f *testing.F) {
	key := testKey("k1", 7)
	m := NewMinter(key, atNoon)
	full := fullContext()
	full.Nonce, full.Expires = "AAAAAAAAAAAAAAAAAAAAAA", noon.Add(time.Second).UnixMilli() // the same in every process
	s := m.buffers.New().(*scratch)
	s.payload, _ = full.appendTo(nil)
	good := m.sign(s)
	if _, err := Verify([]ContextKey{key}, good, noon); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(string(s.payload))
	f.Add("v1.k1..")
	f.Fuzz(func(t *testing.T, signed string) {
		if _, err := Verify([]ContextKey{key}, signed, noon); err == nil && signed != good {
			t.Fatalf("accepted %q", signed)
		}
		if _, err := VerifyGrant([]ContextKey{key}, signed, noon); err == nil {
			t.Fatalf("accepted %q as a grant", signed)
		}
		// The same text as a payload that somebody with the key signed.
		s := m.buffers.New().(*scratch)
		s.payload = []byte(signed)
		c, err := Verify([]ContextKey{key}, m.sign(s), noon)
		if err != nil {
			return
		}
		if again, ok := c.appendTo(nil); !ok || string(again) != signed {
			t.Fatalf("read %q as something else", signed)
		}
	})
}

// FuzzMint signs strangers' strings: they come back whole, or are refused.
func FuzzMint(f *testing.F) {
	key := testKey("k1", 7)
	m := NewMinter(key, atNoon)
	f.Add("user-1", "session")
	f.Add(`","patient":"*`, "\\")
	f.Add("\u2028\ufffd", "\xff")
	f.Fuzz(func(t *testing.T, subject, session string) {
		c := Context{Subject: subject, Session: session, Roles: []string{}, Action: "patient.read"}
		signed, nonce, _, err := m.Mint(c, time.Second)
		if err != nil {
			return
		}
		if !utf8.ValidString(subject + session) {
			t.Fatal("signed broken UTF-8")
		}
		got, err := Verify([]ContextKey{key}, signed, noon)
		if err != nil {
			t.Fatal(err)
		}
		c.Nonce, c.Expires = nonce, noon.Add(time.Second).UnixMilli()
		want, _ := json.Marshal(c)
		have, _ := json.Marshal(got)
		if string(want) != string(have) {
			t.Fatalf("got %s; want %s", have, want)
		}
	})
}
