// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

func testKey(kid string, fill byte) ContextKey {
	k := ContextKey{KID: kid}
	for i := range k.Key {
		k.Key[i] = fill
	}
	return k
}

func fullContext() Context {
	return Context{
		Issuer: testIssuer, Subject: `o"brien\ ünï <&> 李`, Roles: []string{"clinician", "break_glass"}, Practice: "practice-1",
		Action: "patient.read", Patient: "p-1", Self: "p-2", Grant: "g-1", GrantExpires: noon.Add(time.Hour).UnixMilli(),
		GrantMany: true, Factor: med.MFADone, Admin: true, Strict: true, MaxRows: 50, Session: "session-1",
	}
}

func mint(t testing.TB, m *Minter, c Context, ttl time.Duration) string {
	t.Helper()
	signed, _, _, err := m.Mint(c, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestMint(t *testing.T) {
	t.Parallel()
	key := testKey("k1", 7)
	m := NewMinter(key, atNoon)

	t.Run("what is minted verifies, whole", func(t *testing.T) {
		t.Parallel()
		want := fullContext()
		signed, nonce, mac, err := m.Mint(want, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Verify([]ContextKey{testKey("k0", 1), key}, signed, noon)
		if err != nil {
			t.Fatal(err)
		}
		want.Nonce, want.Expires = nonce, noon.Add(10*time.Second).UnixMilli()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if !regexp.MustCompile(`^v1\.k1\.[A-Za-z0-9_-]+\.[0-9a-f]{64}$`).MatchString(signed) || !strings.HasSuffix(signed, "."+mac) {
			t.Errorf("got the form %s with mac %s", signed, mac)
		}
		if raw, err := base64.RawURLEncoding.DecodeString(nonce); err != nil || len(raw) != 16 {
			t.Errorf("got nonce %q", nonce)
		}
	})

	// PostgreSQL reads these bytes with code of its own: they are a contract.
	t.Run("the bytes are these", func(t *testing.T) {
		t.Parallel()
		c := fullContext()
		c.Nonce, c.Expires = "AAAAAAAAAAAAAAAAAAAAAA", 1795435210000
		for _, tt := range []struct {
			c    Context
			want string
		}{
			{c, `{"use":"context","iss":"https://idp.example.com/realms/care","sub":"o\"brien\\ ünï <&> 李","roles":["clinician","break_glass"],` +
				`"practice":"practice-1","action":"patient.read","patient":"p-1","self":"p-2","grant":"g-1","grant_exp":1795438800000,` +
				`"many":true,"factor":"done","admin":true,"strict":true,"max_rows":50,"sid":"session-1","nonce":"AAAAAAAAAAAAAAAAAAAAAA","exp":1795435210000}`},
			{
				Context{Action: "import", Service: "import", Practice: "p", Patient: "*", Nonce: "n", Expires: 1},
				`{"use":"context","iss":"","sub":"","roles":[],"practice":"p","action":"import","patient":"*","svc":"import","nonce":"n","exp":1}`,
			},
		} {
			got, ok := tt.c.appendTo(nil)
			if !ok || !json.Valid(got) {
				t.Errorf("got %v, valid JSON %v", ok, json.Valid(got))
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		}
		// Computed once with openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07.
		s := &scratch{payload: []byte(`{"use":"context"}`)}
		s.mac = m.buffers.New().(*scratch).mac
		if got, want := m.sign(s), "v1.k1.eyJ1c2UiOiJjb250ZXh0In0."+opensslMAC; got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	})

	t.Run("no two nonces are alike, from many goroutines", func(t *testing.T) {
		t.Parallel()
		var mu sync.Mutex
		var wg sync.WaitGroup
		seen := map[string]bool{}
		for range 8 {
			wg.Go(func() {
				for range 200 {
					signed, nonce, _, err := m.Mint(fullContext(), time.Second)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := Verify([]ContextKey{key}, signed, noon); err != nil {
						t.Error(err)
					}
					mu.Lock()
					if seen[nonce] {
						t.Error("a nonce came twice")
					}
					seen[nonce] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
}

// The HMAC of "v1.k1." and the base64url of {"use":"context"}.
const opensslMAC = "e07f654caac26e21f908f414d7e2d6c4266e8d1f3e1df06ba003b6e1ef35a7de"

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	m := NewMinter(testKey("k1", 7), atNoon)
	for _, tt := range []struct {
		name   string
		ttl    time.Duration
		change func(*Context)
	}{
		{"a ttl of nothing", 0, func(*Context) {}},
		{"a negative ttl", -time.Second, func(*Context) {}},
		{"more than ten seconds for a person", 10*time.Second + 1, func(*Context) {}},
		{"more than a minute for a service", time.Minute + 1, func(c *Context) { c.Service = "import" }},
		{"no action", time.Second, func(c *Context) { c.Action = "" }},
		{"nobody", time.Second, func(c *Context) { c.Subject = "" }},
		{"negative rows", time.Second, func(c *Context) { c.MaxRows = -1 }},
		{"a grant before 1970", time.Second, func(c *Context) { c.GrantExpires = -1 }},
		{"every patient for a person", time.Second, func(c *Context) { c.Patient = "*" }},
		{"every patient of every practice", time.Second, func(c *Context) { c.Patient, c.Service, c.Practice = "*", "import", "" }},
		{"a patient that is no id", time.Second, func(c *Context) { c.Patient = "p-1,p-2" }},
		{"everybody as oneself", time.Second, func(c *Context) { c.Self = "*" }},
		{"a practice that is no id", time.Second, func(c *Context) { c.Practice = "a b" }},
		{"a hundred roles", time.Second, func(c *Context) { c.Roles = make([]string, 100) }},
		{"a line break in the subject", time.Second, func(c *Context) { c.Subject = "a\nb" }},
		{"NUL in the session", time.Second, func(c *Context) { c.Session = "a\x00" }},
		{"DEL in the action", time.Second, func(c *Context) { c.Action = "a\x7f" }},
		{"a C1 control in the issuer", time.Second, func(c *Context) { c.Issuer = "a\u0085" }},
		{"broken UTF-8 in a role", time.Second, func(c *Context) { c.Roles = []string{"nurse\xff"} }},
		{"broken UTF-8 in the grant", time.Second, func(c *Context) { c.Grant = "\xc3" }},
		{"an escape in the service", time.Second, func(c *Context) { c.Service = "\x1b[2J" }},
		{"a subject of 513 bytes", time.Second, func(c *Context) { c.Subject = strings.Repeat("a", 513) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := fullContext()
			tt.change(&c)
			if signed, nonce, mac, err := m.Mint(c, tt.ttl); err == nil || signed+nonce+mac != "" {
				t.Fatal("it was signed")
			}
		})
	}
	t.Run("a refusal leaves nothing behind for the next", func(t *testing.T) {
		t.Parallel()
		bad := fullContext()
		bad.Session = "\x00"
		for range 10 {
			if _, _, _, err := m.Mint(bad, time.Second); err == nil {
				t.Fatal("signed")
			}
			if _, err := Verify([]ContextKey{testKey("k1", 7)}, mint(t, m, fullContext(), time.Second), noon); err != nil {
				t.Fatal(err)
			}
		}
	})
	for name, key := range map[string]ContextKey{"without a name": testKey("", 7), "with a dot in its name": testKey("a.b", 7), "of zeros": testKey("k1", 0)} {
		t.Run("a key "+name+" signs nothing", func(t *testing.T) {
			t.Parallel()
			m := NewMinter(key, atNoon)
			if _, _, _, err := m.Mint(fullContext(), time.Second); err == nil {
				t.Error("it signed a context")
			}
			if _, err := m.SignGrant(aGrant()); err == nil {
				t.Error("it signed a grant")
			}
		})
	}
}

func TestVerifyContextRefuses(t *testing.T) {
	t.Parallel()
	key := testKey("k1", 7)
	keys := []ContextKey{key}
	m := NewMinter(key, atNoon)
	good := mint(t, m, fullContext(), 10*time.Second)
	parts := strings.Split(good, ".")
	forge := func(payload string) string { // by somebody who has the key
		s := m.buffers.New().(*scratch)
		s.payload = []byte(payload)
		return m.sign(s)
	}
	grant, err := m.SignGrant(aGrant())
	if err != nil {
		t.Fatal(err)
	}
	minimal := `{"use":"context","iss":"i","sub":"s","roles":[],"action":"a","nonce":"n","exp":9999999999999}`
	if _, err := Verify(keys, forge(minimal), noon); err != nil {
		t.Fatalf("got %v for the form the forgeries vary", err)
	}
	for _, tt := range []struct{ name, signed, reason string }{
		{"nothing", "", ReasonMalformed},
		{"dots", "...", ReasonMalformed},
		{"another version", "v2" + good[2:], ReasonMalformed},
		{"a part more", good + ".x", ReasonMalformed},
		{"a part less", parts[0] + "." + parts[1] + "." + parts[2], ReasonMalformed},
		{"too much", "v1.k1." + strings.Repeat("A", maxSigned) + "." + parts[3], ReasonMalformed},
		{"a short MAC", good[:len(good)-1], ReasonMalformed},
		{"no MAC", parts[0] + "." + parts[1] + "." + parts[2] + ".", ReasonMalformed},
		{"a MAC in capitals", strings.TrimSuffix(good, parts[3]) + strings.ToUpper(parts[3]), ReasonBadSignature},
		{"an unknown key", "v1.k2." + parts[2] + "." + parts[3], ReasonUnknownKey},
		{"a key without a name", "v1.." + parts[2] + "." + parts[3], ReasonUnknownKey},
		{"another key of that name", mint(t, NewMinter(testKey("k1", 8), atNoon), fullContext(), time.Second), ReasonBadSignature},
		{"a grant", grant, ReasonWrongUse},
		{"no use", forge(strings.Replace(minimal, `"use":"context",`, "", 1)), ReasonWrongUse},
		{"an unknown member", forge(strings.Replace(minimal, `"action"`, `"x":1,"action"`, 1)), ReasonMalformed},
		{"a member twice", forge(strings.Replace(minimal, `"sub":"s"`, `"sub":"t","sub":"s"`, 1)), ReasonMalformed},
		{"use twice", forge(strings.Replace(minimal, `"iss"`, `"use":"context","iss"`, 1)), ReasonMalformed},
		{"a member in capitals", forge(strings.Replace(minimal, `"sub"`, `"SUB"`, 1)), ReasonMalformed},
		{"spaces", forge(strings.Replace(minimal, `,`, `, `, 1)), ReasonMalformed},
		{"no exp", forge(strings.Replace(minimal, `,"exp":9999999999999`, ``, 1)), ReasonMalformed},
		{"an exp in quotes", forge(strings.Replace(minimal, `9999999999999`, `"9999999999999"`, 1)), ReasonMalformed},
		{"not JSON", forge("x"), ReasonWrongUse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := Verify(keys, tt.signed, noon)
			wantReason(t, err, tt.reason)
			if diff := cmp.Diff(Context{}, c); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("to the millisecond it expires", func(t *testing.T) {
		t.Parallel()
		if _, err := Verify(keys, good, noon.Add(10*time.Second-time.Millisecond)); err != nil {
			t.Errorf("got %v before", err)
		}
		_, err := Verify(keys, good, noon.Add(10*time.Second))
		wantReason(t, err, ReasonExpired)
	})
	t.Run("without keys nothing verifies", func(t *testing.T) {
		t.Parallel()
		_, err := Verify(nil, good, noon)
		wantReason(t, err, ReasonUnknownKey)
	})
	t.Run("a key of zeros verifies nothing", func(t *testing.T) {
		t.Parallel()
		zero := NewMinter(testKey("k1", 0), atNoon)
		s := zero.buffers.New().(*scratch)
		s.payload = []byte(minimal)
		_, err := Verify([]ContextKey{testKey("k1", 0)}, zero.sign(s), noon)
		wantReason(t, err, ReasonUnknownKey)
	})
}

func TestAnyFlippedBitOfAContextFails(t *testing.T) {
	t.Parallel()
	key := testKey("k1", 7)
	m := NewMinter(key, atNoon)
	grant, err := m.SignGrant(aGrant())
	if err != nil {
		t.Fatal(err)
	}
	context := mint(t, m, fullContext(), 10*time.Second)
	flip := func(good string, verify func(string) error) {
		if err := verify(good); err != nil {
			t.Fatal(err)
		}
		for i := range len(good) * 8 {
			bad := []byte(good)
			bad[i/8] ^= 1 << (i % 8)
			if verify(string(bad)) == nil {
				t.Fatalf("bit %d flipped still passes", i)
			}
		}
		for i := range len(good) {
			if verify(good[:i]) == nil || verify(good[:i]+good[i+1:]) == nil {
				t.Fatalf("cut at byte %d still passes", i)
			}
		}
	}
	flip(context, func(s string) error { _, err := Verify([]ContextKey{key}, s, noon); return err })
	flip(grant, func(s string) error { _, err := VerifyGrant([]ContextKey{key}, s, noon); return err })
}

func aGrant() GrantClaims {
	return GrantClaims{
		ID: "g-1", Issuer: testIssuer, Subject: `o"brien`, Session: "session-1", Patient: "p-1",
		ReasonCode: "emergency_treatment", OpenedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}
}

func TestGrant(t *testing.T) {
	t.Parallel()
	key := testKey("k1", 7)
	keys := []ContextKey{key}
	m := NewMinter(key, atNoon)
	signed, err := m.SignGrant(aGrant())
	if err != nil {
		t.Fatal(err)
	}

	t.Run("what is signed verifies, whole, until it ends", func(t *testing.T) {
		t.Parallel()
		got, err := VerifyGrant(keys, signed, noon.Add(time.Hour-time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(aGrant(), got); diff != "" {
			t.Error(diff)
		}
		_, err = VerifyGrant(keys, signed, noon.Add(time.Hour))
		wantReason(t, err, ReasonExpired)
	})
	t.Run("the bytes are these", func(t *testing.T) {
		t.Parallel()
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(signed, ".")[2])
		if err != nil {
			t.Fatal(err)
		}
		want := `{"use":"grant","id":"g-1","iss":"https://idp.example.com/realms/care","sub":"o\"brien","sid":"session-1","patient":"p-1",` +
			`"reason":"emergency_treatment","opened":1795435200000,"exp":1795438800000}`
		if diff := cmp.Diff(want, string(payload)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a context is no grant", func(t *testing.T) {
		t.Parallel()
		_, err := VerifyGrant(keys, mint(t, m, fullContext(), time.Second), noon)
		wantReason(t, err, ReasonWrongUse)
	})
	t.Run("another spelling by somebody with the key is refused", func(t *testing.T) {
		t.Parallel()
		form := `{"use":"grant","id":"g","iss":"i","sub":"s","sid":"x","patient":"p","reason":"other","opened":1,"exp":9999999999999}`
		for _, tt := range []struct{ payload, reason string }{
			{form, ""},
			{strings.Replace(form, `"id"`, `"x":1,"id"`, 1), ReasonMalformed},
			{strings.Replace(form, `"sub":"s"`, `"sub":"t","sub":"s"`, 1), ReasonMalformed},
			{strings.Replace(form, `"exp":9999999999999`, `"exp":"x"`, 1), ReasonMalformed},
			{strings.Replace(form, `"use":"grant"`, `"use":"context"`, 1), ReasonWrongUse},
		} {
			s := m.buffers.New().(*scratch)
			s.payload = []byte(tt.payload)
			_, err := VerifyGrant(keys, m.sign(s), noon)
			wantReason(t, err, tt.reason)
		}
	})
	for name, change := range map[string]func(*GrantClaims){
		"no id":                  func(g *GrantClaims) { g.ID = "" },
		"no issuer":              func(g *GrantClaims) { g.Issuer = "" },
		"no subject":             func(g *GrantClaims) { g.Subject = "" },
		"no session":             func(g *GrantClaims) { g.Session = "" },
		"no patient":             func(g *GrantClaims) { g.Patient = "" },
		"a patient that is none": func(g *GrantClaims) { g.Patient = "*" },
		"an unknown reason":      func(g *GrantClaims) { g.ReasonCode = "curiosity" },
		"an end at the start":    func(g *GrantClaims) { g.ExpiresAt = g.OpenedAt },
		"more than four hours":   func(g *GrantClaims) { g.ExpiresAt = g.OpenedAt.Add(4*time.Hour + 1) },
		"a control character":    func(g *GrantClaims) { g.Subject = "a\rb" },
	} {
		t.Run(name+" is not signed", func(t *testing.T) {
			t.Parallel()
			g := aGrant()
			change(&g)
			if _, err := m.SignGrant(g); err == nil {
				t.Fatal("it was signed")
			}
		})
	}
}

func TestParseContextKeys(t *testing.T) {
	t.Parallel()
	b := func(fill byte) string {
		k := testKey("x", fill)
		return base64.StdEncoding.EncodeToString(k.Key[:])
	}
	t.Run("the first key signs, all verify", func(t *testing.T) {
		t.Parallel()
		keys, err := ParseContextKeys([]byte("# made by medirecord\n\nnew2026:" + b(2) + "\r\n  old:" + b(1) + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) != 2 || keys[0].KID != "new2026" || keys[0].Key != testKey("", 2).Key || keys[1].KID != "old" || keys[1].Key != testKey("", 1).Key {
			t.Fatal("the keys differ")
		}
		if _, err := Verify(keys, mint(t, NewMinter(keys[1], atNoon), fullContext(), time.Second), noon); err != nil {
			t.Fatal(err)
		}
	})
	for name, file := range map[string]string{
		"empty":             "",
		"comments only":     "# nothing\n",
		"no colon":          b(1),
		"no kid":            ":" + b(1),
		"a kid in capitals": "K1:" + b(1),
		"a kid with a dot":  "k.1:" + b(1),
		"a long kid":        strings.Repeat("k", 17) + ":" + b(1),
		"a short key":       "k1:" + b(1)[:40],
		"a long key":        "k1:" + base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"no key":            "k1:",
		"not base64":        "k1:" + strings.Repeat("!", 44),
		"base64url":         "k1:" + strings.Repeat("_", 43) + "=",
		"loose bits":        "k1:" + b(1)[:42] + "F=",
		"zeros":             "k1:" + b(0),
		"a kid twice":       "k1:" + b(1) + "\nk1:" + b(2),
		"a whole disk":      strings.Repeat("#\n", maxKeyFile),
	} {
		t.Run(name+" is refused, and not quoted", func(t *testing.T) {
			t.Parallel()
			_, err := ParseContextKeys([]byte(file))
			if err == nil {
				t.Fatal("it was taken")
			}
			if strings.Contains(err.Error(), b(1)[:8]) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a key never prints", func(t *testing.T) {
		t.Parallel()
		k := testKey("k1", 7)
		j, err := json.Marshal(map[string]any{"k": k, "p": &k})
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).InfoContext(t.Context(), "x", slog.Any("key", k))
		for _, got := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %x %s %d", k, &k, k, []ContextKey{k}, k), string(j), log.String()} {
			if strings.Contains(got, "7 7") || strings.Contains(got, "0707") || strings.Contains(got, b(7)[:8]) || !strings.Contains(got, "[key]") {
				t.Errorf("got %s", got)
			}
		}
	})
}

func TestErrorsCompareByReason(t *testing.T) {
	t.Parallel()
	if got := ReasonOf(fmt.Errorf("asking: %w", badClaim("sub"))); got != ReasonBadClaim {
		t.Errorf("got %q", got)
	}
	if got := ReasonOf(med.NotFound.New("")); got != "" {
		t.Errorf("got %q for another package's error", got)
	}
}

func BenchmarkMint(b *testing.B) {
	m := NewMinter(testKey("k1", 7), nil)
	c := fullContext()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := m.Mint(c, time.Second); err != nil {
			b.Fatal(err)
		}
	}
}
