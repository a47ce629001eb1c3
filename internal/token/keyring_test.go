// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/outbound"
)

func writing(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
}

// answers is what a key server says now; nil says 500.
type answers struct{ body atomic.Pointer[[]byte] }

func (a *answers) set(body []byte) { a.body.Store(&body) }
func (a *answers) fail()           { a.body.Store(nil) }

func (a *answers) serve(w http.ResponseWriter, _ *http.Request) {
	body := a.body.Load()
	if body == nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(*body)
}

func verifierGet(context.Context, string) ([]byte, error) { return nil, errors.New("not asked") }

// rig is a verifier with a clock and a key server that the test moves.
type rig struct {
	*Verifier
	clock *clock
	sets  *answers
	count *atomic.Int32
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{clock: newClock(), sets: &answers{}}
	r.sets.set(keySet(t, jwk(t, keysOnce().ec.Public(), "ec", "")))
	r.Verifier = verifier(t, func(cfg *Config) {
		cfg.Now = r.clock.now
		cfg.Issuers[0].JWKS, r.count = serving(t, r.sets.serve)
	})
	return r
}

// forever is a nurse's token that does not expire while the clock is moved.
func forever(t *testing.T, key any, kid string) string {
	t.Helper()
	return compact(t, key, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, kid), claims(t, map[string]any{"exp": lastSecond}))
}

// landed waits until no fetch is under way.
func (r *rig) landed() {
	for _, i := range r.issuers {
		i.ring.mu.Lock()
		f := i.ring.flight
		i.ring.mu.Unlock()
		if f != nil {
			<-f.done
		}
	}
}

func TestKeysAreFetched(t *testing.T) {
	t.Parallel()
	k := keysOnce()

	t.Run("once, when first needed", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if r.count.Load() != 0 {
			t.Fatal("fetched before asked")
		}
		for range 20 {
			mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
		}
		if got := r.count.Load(); got != 1 {
			t.Fatalf("got %d fetches; want 1", got)
		}
	})

	t.Run("once, when many ask at once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		raw := forever(t, k.ec, "ec")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := r.Verify(t.Context(), raw); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := r.count.Load(); got != 1 {
			t.Fatalf("got %d fetches; want 1", got)
		}
	})

	t.Run("at once for a new key, and the old key is dropped", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
		r.sets.set(keySet(t, jwk(t, k.other.Public(), "new", "")))
		mustVerify(t, r.Verifier, forever(t, k.other, "new"))
		_, err := r.Verify(t.Context(), forever(t, k.ec, "ec"))
		wantReason(t, err, ReasonUnknownKey)
	})

	t.Run("at most twice for a flood of unknown keys, then once per interval", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		flood := func() {
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					_, err := r.Verify(t.Context(), forever(t, k.ec, fmt.Sprintf("stranger-%d", i)))
					if ReasonOf(err) != ReasonUnknownKey {
						t.Errorf("got %v; want unknown_key", err)
					}
				})
			}
			wg.Wait()
		}
		flood()
		flood()
		if got := r.count.Load(); got != 2 {
			t.Fatalf("got %d fetches; want 2", got)
		}
		r.clock.advance(5 * time.Second)
		flood()
		if got := r.count.Load(); got != 3 {
			t.Fatalf("got %d fetches after the interval; want 3", got)
		}
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
	})

	t.Run("again behind the caller's back when they are old", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
		r.clock.advance(11 * time.Minute)
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
		r.landed()
		if got := r.count.Load(); got != 2 {
			t.Fatalf("got %d fetches; want 2", got)
		}
	})

	t.Run("before the answer when nobody looked for long", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
		r.sets.set(keySet(t, jwk(t, k.other.Public(), "new", "")))
		r.clock.advance(21 * time.Minute)
		_, err := r.Verify(t.Context(), forever(t, k.ec, "ec"))
		wantReason(t, err, ReasonUnknownKey)
	})
}

func TestLastGoodKeysAreKept(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	private, err := json.Marshal(jose.JSONWebKey{Key: k.ec, KeyID: "ec", Algorithm: "ES256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		body []byte // nil: 500
	}{
		{"500", nil},
		{"garbage", []byte("<html>sign in</html>")},
		{"nothing", []byte{}},
		{"null", []byte("null")},
		{"an empty set", []byte(`{"keys":[]}`)},
		{"no set", []byte(`{}`)},
		{"keys for encryption only", []byte(strings.ReplaceAll(string(keySet(t, jwk(t, k.other.Public(), "x", ""))), `"sig"`, `"enc"`))},
		{"a symmetric key only", []byte(`{"keys":[{"kty":"oct","kid":"x","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`)},
		{"a private key only", keySet(t, private)},
		{"an RSA key of 1024 bits only", keySet(t, jwk(t, k.small.Public(), "x", ""))},
		{"a key of P-384 only", keySet(t, jwk(t, k.p384.Public(), "x", ""))},
		{"a body beyond the limit", bytes.Repeat([]byte(" "), 2<<20)},
		{"too many keys", []byte(`{"keys":[` + strings.Repeat(`{},`, maxKeys) + `{}]}`)},
	} {
		t.Run("when the answer is "+tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
			if tt.body == nil {
				r.sets.fail()
			} else {
				r.sets.set(tt.body)
			}
			r.clock.advance(21 * time.Minute)
			mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
			if got := r.count.Load(); got != 2 {
				t.Fatalf("got %d fetches; want 2", got)
			}

			r.clock.advance(24*time.Hour - 21*time.Minute)
			mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
			r.landed()
			r.clock.advance(time.Second)
			_, err := r.Verify(t.Context(), forever(t, k.ec, "ec"))
			if !Unavailable(err) {
				t.Fatalf("got %v after 24 h; want keys_unavailable", err)
			}
		})
	}

	t.Run("not one second before they are there, and the error says unavailable", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.sets.fail()
		_, err := r.Verify(t.Context(), forever(t, k.ec, "ec"))
		var status *outbound.StatusError
		if !Unavailable(err) || !errors.As(err, &status) || status.Code != http.StatusInternalServerError {
			t.Fatalf("got %v; want keys_unavailable because of a 500", err)
		}
		r.sets.set(keySet(t, jwk(t, k.ec.Public(), "ec", "")))
		r.clock.advance(5 * time.Second)
		mustVerify(t, r.Verifier, forever(t, k.ec, "ec"))
	})
}

func TestBackoffGrows(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	r := newRig(t)
	r.sets.fail()
	raw := forever(t, k.ec, "ec")
	var gaps []int
	last := -1
	for second := range 1500 {
		before := r.count.Load()
		_, err := r.Verify(t.Context(), raw)
		if !Unavailable(err) {
			t.Fatalf("got %v; want keys_unavailable", err)
		}
		if r.count.Load() != before {
			if last >= 0 {
				gaps = append(gaps, second-last)
			}
			last = second
		}
		r.clock.advance(time.Second)
	}
	want := []int{5, 10, 20, 40, 80, 160, 300, 300, 300}
	if fmt.Sprint(gaps) != fmt.Sprint(want) {
		t.Fatalf("got %v seconds between fetches; want %v", gaps, want)
	}
	r.sets.set(keySet(t, jwk(t, k.ec.Public(), "ec", "")))
	r.clock.advance(5 * time.Minute)
	mustVerify(t, r.Verifier, raw)
}

func TestIssuerThatHangs(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	// hanging serves nothing until the test is over. Waiting for the request's
	// end instead would answer a caller who just left.
	hanging := func(t *testing.T) string {
		t.Helper()
		over := make(chan struct{})
		address, _ := serving(t, func(http.ResponseWriter, *http.Request) { <-over })
		t.Cleanup(func() { close(over) }) // before the server's own, which waits for the handler
		return address
	}
	cut := func(v *Verifier) { v.issuers[0].ring.deadline = 50 * time.Millisecond }

	t.Run("is given up after the deadline", func(t *testing.T) {
		t.Parallel()
		v := verifier(t, func(cfg *Config) { cfg.Issuers[0].JWKS = hanging(t) })
		cut(v)
		_, err := v.Verify(t.Context(), forever(t, k.ec, "ec"))
		if !Unavailable(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v; want keys_unavailable by deadline", err)
		}
	})

	t.Run("has two seconds, whatever time the caller has", func(t *testing.T) {
		t.Parallel()
		left := make(chan time.Duration, 1)
		v := verifier(t, func(cfg *Config) {
			cfg.Get = func(ctx context.Context, _ string) ([]byte, error) {
				deadline, _ := ctx.Deadline()
				left <- time.Until(deadline)
				return nil, errors.New("down")
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := v.Verify(ctx, forever(t, k.ec, "ec")); !Unavailable(err) {
			t.Fatalf("got %v; want keys_unavailable", err)
		}
		if got := <-left; got <= 0 || got > 2*time.Second {
			t.Fatalf("got %v; want at most 2 s", got)
		}
	})

	t.Run("does not hold a caller who gives up", func(t *testing.T) {
		t.Parallel()
		v := verifier(t, func(cfg *Config) { cfg.Issuers[0].JWKS = hanging(t) })
		cut(v)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Verify(ctx, forever(t, k.ec, "ec")); !Unavailable(err) {
			t.Fatalf("got %v; want keys_unavailable", err)
		}
	})

	t.Run("costs one caller the wait, and the others nothing", func(t *testing.T) {
		t.Parallel()
		c := newClock()
		var down atomic.Bool
		over := make(chan struct{})
		set := keySet(t, jwk(t, k.ec.Public(), "ec", ""))
		v := verifier(t, func(cfg *Config) {
			cfg.Now = c.now
			cfg.Issuers[0].JWKS, _ = serving(t, func(w http.ResponseWriter, _ *http.Request) {
				if down.Load() {
					<-over
					return
				}
				_, _ = w.Write(set)
			})
			t.Cleanup(func() { close(over) })
		})
		cut(v)
		mustVerify(t, v, forever(t, k.ec, "ec"))
		down.Store(true)
		c.advance(30 * time.Minute)
		mustVerify(t, v, forever(t, k.ec, "ec")) // waits for the deadline once
		c.advance(time.Minute)
		v.issuers[0].ring.deadline = time.Minute // a second wait would not end in time
		v.issuers[0].ring.get = func(ctx context.Context, _ string) ([]byte, error) {
			<-t.Context().Done()
			return nil, ctx.Err()
		}
		mustVerify(t, v, forever(t, k.ec, "ec"))
	})

	t.Run("a caller who gives up does not end the fetch for the others", func(t *testing.T) {
		t.Parallel()
		release, asked := make(chan struct{}), make(chan struct{})
		set := keySet(t, jwk(t, k.ec.Public(), "ec", ""))
		v := verifier(t, func(cfg *Config) {
			cfg.Issuers[0].JWKS, _ = serving(t, func(w http.ResponseWriter, _ *http.Request) {
				close(asked) // a second fetch would panic the handler
				<-release
				_, _ = w.Write(set)
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		raw := forever(t, k.ec, "ec")
		go func() { _, err := v.Verify(ctx, raw); first <- err }()
		<-asked
		cancel()
		if err := <-first; !Unavailable(err) {
			t.Errorf("got %v; want keys_unavailable", err)
		}
		close(release)
		mustVerify(t, v, raw)
	})
}

func TestKeyChoice(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	with := func(t *testing.T, keys ...json.RawMessage) *Verifier {
		set := keySet(t, keys...)
		return verifier(t, as(func(i *Issuer) { i.JWKS, _ = serving(t, writing(set)) }))
	}
	without := `{"alg":"ES256"}`

	t.Run("a token without kid is refused when two keys fit", func(t *testing.T) {
		t.Parallel()
		v := with(t, jwk(t, k.ec.Public(), "a", ""), jwk(t, k.other.Public(), "b", ""))
		_, err := v.Verify(t.Context(), compact(t, k.ec, without, claims(t, nil)))
		wantReason(t, err, ReasonAmbiguousKey)
	})
	t.Run("two keys of one kid are refused", func(t *testing.T) {
		t.Parallel()
		v := with(t, jwk(t, k.ec.Public(), "a", ""), jwk(t, k.other.Public(), "a", ""))
		_, err := v.Verify(t.Context(), compact(t, k.ec, `{"alg":"ES256","kid":"a"}`, claims(t, nil)))
		wantReason(t, err, ReasonAmbiguousKey)
	})
	t.Run("one key listed twice is one key", func(t *testing.T) {
		t.Parallel()
		v := with(t, jwk(t, k.ec.Public(), "a", ""), jwk(t, k.ec.Public(), "a", ""))
		mustVerify(t, v, compact(t, k.ec, without, claims(t, nil)))
	})
	t.Run("the key's own alg is binding", func(t *testing.T) {
		t.Parallel()
		v := with(t, jwk(t, k.rsa.Public(), "r", "PS256"))
		mustVerify(t, v, compact(t, k.rsa, `{"alg":"PS256","kid":"r"}`, claims(t, nil)))
		_, err := v.Verify(t.Context(), compact(t, k.rsa, `{"alg":"RS256","kid":"r"}`, claims(t, nil)))
		wantReason(t, err, ReasonUnknownKey)
	})
	t.Run("a weak key beside a good one signs nothing", func(t *testing.T) {
		t.Parallel()
		v := with(t, jwk(t, k.small.Public(), "weak", ""), jwk(t, k.rsa.Public(), "good", ""))
		mustVerify(t, v, compact(t, k.rsa, `{"alg":"RS256","kid":"good"}`, claims(t, nil)))
		_, err := v.Verify(t.Context(), compact(t, k.small, `{"alg":"RS256","kid":"weak"}`, claims(t, nil)))
		wantReason(t, err, ReasonUnknownKey)
	})
	t.Run("a key for encryption, for other operations or for an HMAC signs nothing", func(t *testing.T) {
		t.Parallel()
		good := string(jwk(t, k.ec.Public(), "ec", ""))
		other := string(jwk(t, k.other.Public(), "bad", ""))
		for _, change := range [][2]string{
			{`"use":"sig"`, `"use":"enc"`},
			{`"use":"sig"`, `"use":7`},
			{`"use":"sig"`, `"key_ops":["sign"]`},
			{`"use":"sig"`, `"alg":"HS256"`},
			{`"use":"sig"`, `"alg":"ES384"`},
			{`"use":"sig"`, `"use":"enc","use":"sig"`},
			{`"use":"sig"`, `"k":"AAAA"`},
		} {
			bad := strings.Replace(other, change[0], change[1], 1)
			if bad == other {
				t.Fatal("the change changes nothing")
			}
			v := with(t, json.RawMessage(good), json.RawMessage(other))
			mustVerify(t, v, compact(t, k.other, `{"alg":"ES256","kid":"bad"}`, claims(t, nil)))
			keys, err := parseKeySet([]byte(`{"keys":[` + good + `,` + bad + `]}`))
			if err != nil || len(keys) != 1 || keys[0].jwk.KeyID != "ec" {
				t.Errorf("%s: got %d keys, %v; want the good one only", change[1], len(keys), err)
			}
		}
	})
	t.Run("certificates beside a key are left aside", func(t *testing.T) {
		t.Parallel()
		raw := strings.Replace(string(jwk(t, k.ec.Public(), "ec", "")), `"use":"sig"`, `"use":"sig","x5c":["not a certificate"],"x5t":"!"`, 1)
		v := with(t, json.RawMessage(raw))
		mustVerify(t, v, nurseToken(t, nil))
	})
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	k := keysOnce()

	t.Run("is the union of all issuers' public keys", func(t *testing.T) {
		t.Parallel()
		one := keySet(t, jwk(t, k.ec.Public(), "ec", "ES256"), jwk(t, k.rsa.Public(), "rsa", ""))
		two := keySet(t, jwk(t, k.ec.Public(), "ec", "ES256"), jwk(t, k.ed.Public(), "ed", "EdDSA"))
		v := verifier(t, func(cfg *Config) {
			base := cfg.Issuers[0]
			cfg.Issuers = nil
			for i, h := range []http.HandlerFunc{writing(one), writing(two), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }} {
				base.Issuer = fmt.Sprintf("https://issuer-%d.example.com", i)
				base.JWKS, _ = serving(t, h)
				cfg.Issuers = append(cfg.Issuers, base)
			}
		})
		body, err := v.JWKS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(body, &set); err != nil {
			t.Fatal(err)
		}
		var kids []string
		for _, key := range set.Keys {
			if !key.IsPublic() || !key.Valid() {
				t.Errorf("%s is not a valid public key", key.KeyID)
			}
			kids = append(kids, key.KeyID)
		}
		if got := strings.Join(kids, " "); got != "ec rsa ed" {
			t.Fatalf("got %q; want ec rsa ed", got)
		}
	})

	t.Run("is unavailable when no issuer answers", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.sets.fail()
		if _, err := r.JWKS(t.Context()); !Unavailable(err) {
			t.Fatalf("got %v; want keys_unavailable", err)
		}
	})
}

func TestRunKeepsKeysFresh(t *testing.T) {
	t.Parallel()
	k := keysOnce()
	fetched := make(chan struct{}, 100)
	set := keySet(t, jwk(t, k.ec.Public(), "ec", ""))
	v := verifier(t, func(cfg *Config) {
		cfg.Now, cfg.RefreshEvery, cfg.FetchInterval = nil, 20*time.Millisecond, time.Millisecond
		cfg.Issuers[0].JWKS, _ = serving(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(set)
			fetched <- struct{}{}
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); v.Run(ctx) }()
	for range 3 { // without a token
		<-fetched
	}
	cancel()
	<-done
}

func TestCloseStartsNoMoreFetches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Close()
	if _, err := r.Verify(t.Context(), forever(t, keysOnce().ec, "ec")); !Unavailable(err) || r.count.Load() != 0 {
		t.Fatalf("got %v after %d fetches; want keys_unavailable after none", err, r.count.Load())
	}
}
