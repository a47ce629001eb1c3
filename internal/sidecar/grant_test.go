// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// er is a token of the emergency room: a session of its own each time unless
// the claims say otherwise.
func (w *world) er(t *testing.T, c claims) string {
	t.Helper()
	all := claims{"sub": "er-1", "roles": []string{"break_glass"}, "practice_id": nil}
	for k, v := range c {
		all[k] = v
	}
	return w.token(t, all)
}

func (w *world) granted(t *testing.T, tok, patient string) *pb.Grant {
	t.Helper()
	g := w.one(t, emergency(tok, patient)).GetRuling().GetGrant()
	if g == nil {
		t.Fatal("no grant")
	}
	return g
}

func TestABreakGlassGrant(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.er(t, claims{"sid": "s-1"})
	a := w.one(t, emergency(tok, "p-001")).GetRuling()
	g := a.GetGrant()
	if !g.GetOpened() || g.GetExpiresAt()-g.GetOpenedAt() != 3600 || g.GetReasonCode() != "other" || g.GetPageP1() {
		t.Errorf("the first: got %v", g)
	}
	for rel, want := range map[string]bool{"same_practice": true, "other_practice": true} {
		if d := saidOf(a).GetDecisions()[rel]; d.GetAllow() != want || d.GetReasonCode() != "break_glass" || !slices.Contains(d.GetReveal(), "ssn") || !slices.Contains(d.GetNotify(), "officer") || len(d.GetWrite()) > 0 {
			t.Errorf("%s: got %v", rel, d)
		}
	}
	signed, err := token.VerifyGrant([]token.ContextKey{medtest.ContextKey}, g.GetSigned(), w.clock.Now())
	noError(t, err)
	want := token.GrantClaims{
		ID: g.GetId(), Issuer: issuer, Subject: "er-1", Session: "s-1", Patient: "p-001", ReasonCode: "other",
		OpenedAt: time.Unix(g.GetOpenedAt(), 0).UTC(), ExpiresAt: time.Unix(g.GetExpiresAt(), 0).UTC(),
	}
	if signed != want {
		t.Errorf("signed: got %+v, want %+v", signed, want)
	}
	c := contextOf(t, w, a)
	if c.Grant != g.GetId() || c.GrantExpires != g.GetExpiresAt()*1000 || c.Patient != "p-001" || c.Session != "s-1" || c.Practice != "" {
		t.Errorf("context: %+v", c)
	}

	if again := w.granted(t, w.er(t, claims{"sid": "s-1"}), "p-001"); again.GetId() != g.GetId() || again.GetOpened() || again.GetExpiresAt() != g.GetExpiresAt() {
		t.Errorf("the same session goes on: got %v", again)
	}
	for name, other := range map[string]*pb.Grant{
		"a new patient":   w.granted(t, tok, "p-002"),
		"a new session":   w.granted(t, w.er(t, claims{"sid": "s-2"}), "p-001"),
		"another person":  w.granted(t, w.er(t, claims{"sid": "s-1", "sub": "er-2"}), "p-001"),
		"without session": w.granted(t, w.er(t, claims{"sid": nil, "jti": "j-1"}), "p-001"),
	} {
		if other.GetId() == g.GetId() || !other.GetOpened() {
			t.Errorf("%s is a new grant: got %v", name, other)
		}
	}

	w.clock.advance(59 * time.Minute)
	fresh := claims{"sid": "s-1"}
	if again := w.granted(t, w.er(t, fresh), "p-001"); again.GetId() != g.GetId() || again.GetOpened() {
		t.Errorf("after 59 minutes it goes on: got %v", again)
	}
	w.restart(t)
	if again := w.granted(t, w.er(t, fresh), "p-001"); again.GetId() != g.GetId() || again.GetOpened() || again.GetSigned() != g.GetSigned() {
		t.Errorf("after a kill it goes on: got %v", again)
	}
	w.clock.advance(2 * time.Minute)
	if again := w.granted(t, w.er(t, fresh), "p-001"); again.GetId() == g.GetId() || !again.GetOpened() {
		t.Errorf("after an hour it is another: got %v", again)
	}
	if log := w.log.String(); strings.Count(log, "break-glass grant opened") != 6 || !strings.Contains(log, g.GetId()) {
		t.Errorf("want one line for each of 6 grants:\n%s", log)
	}
}

func TestWhoGetsNoGrant(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for _, tc := range []struct {
		name         string
		claim        claims
		code, detail string
	}{
		{"signed in more than 8 hours ago", claims{"auth_time": w.clock.unix(-8*time.Hour - time.Minute)}, "mfa_stale", "auth_time"},
		{"no word on when they signed in", claims{"auth_time": nil}, "mfa_stale", "auth_time"},
		{"no second factor", claims{"mfa_verified": nil}, "mfa_required", "mfa_required"},
		{"a second factor that is denied", claims{"mfa_verified": false, "amr": []string{"mfa"}}, "mfa_required", "mfa_required"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			refusedWith(t, w.one(t, emergency(w.er(t, tc.claim), "p-001")), tc.code, tc.detail)
		})
	}
	t.Run("a reason code nobody named", func(t *testing.T) {
		t.Parallel()
		for _, code := range []string{"", "because", "OTHER", "other "} {
			q := emergency(w.er(t, nil), "p-001")
			q.GetMay().Emergency.ReasonCode = code
			refusedWith(t, w.one(t, q), "invalid", "reason_code")
		}
	})
	t.Run("signed in just under 8 hours ago", func(t *testing.T) {
		t.Parallel()
		if g := w.granted(t, w.er(t, claims{"sub": "er-8", "auth_time": w.clock.unix(-8*time.Hour + time.Minute)}), "p-001"); !g.GetOpened() {
			t.Errorf("got %v", g)
		}
	})
	t.Run("an open grant does not outlive the sign-in", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{})
		at := w.clock.unix(-8*time.Hour + time.Minute)
		w.granted(t, w.er(t, claims{"sid": "s", "auth_time": at}), "p-001")
		w.clock.advance(2 * time.Minute)
		refusedWith(t, w.one(t, emergency(w.er(t, claims{"sid": "s", "auth_time": at}), "p-001")), "mfa_stale", "auth_time")
	})
	for _, role := range []med.Role{med.RoleNurse, med.RoleClinician, med.RoleAdmin, med.RoleOfficer} {
		t.Run("the role "+string(role), func(t *testing.T) {
			t.Parallel()
			// Without the role the header means nothing: the answer is the plain one.
			tok := w.of(t, role)
			r, plain := w.one(t, emergency(tok, "p-001")).GetRuling(), w.one(t, may(tok, "p-001")).GetRuling()
			if plain == nil || !proto.Equal(&pb.Said{Decisions: saidOf(r).GetDecisions()}, &pb.Said{Decisions: saidOf(plain).GetDecisions()}) {
				t.Errorf("got %v, want %v", r, plain)
			}
			if r.GetGrant() != nil || saidOf(r).GetDecisions()["other_practice"].GetAllow() || r.GetContext() != "" && contextOf(t, w, r).Grant != "" {
				t.Errorf("got %v: a grant", r)
			}
		})
	}
	if strings.Contains(readFile(t, w.state), `"Patient":"p-001","ID":""`) {
		t.Error("a grant without an id was kept")
	}
}

func TestGrantsLastAsConfiguredAndFourHoursAtMost(t *testing.T) {
	t.Parallel()
	for given, want := range map[time.Duration]int64{10 * time.Minute: 600, 0: 3600, -1: 3600, 4 * time.Hour: 4 * 3600, 24 * time.Hour: 4 * 3600} {
		t.Run(given.String(), func(t *testing.T) {
			t.Parallel()
			w := start(t, options{grantFor: given})
			if g := w.granted(t, w.er(t, nil), "p-001"); g.GetExpiresAt()-g.GetOpenedAt() != want {
				t.Errorf("got %d s, want %d", g.GetExpiresAt()-g.GetOpenedAt(), want)
			}
		})
	}
}

func TestMoreGrantsThanAnybodyNeedsPageAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("more than 5 open", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{})
		tok := w.er(t, claims{"sid": "s"})
		for i := range 7 {
			if i == 3 {
				w.restart(t) // what was opened before a restart counts
			}
			g := w.granted(t, tok, fmt.Sprint("p-", i))
			if g.GetPageP1() != (i >= 5) {
				t.Errorf("grant %d: page %v", i+1, g.GetPageP1())
			}
		}
		if g := w.granted(t, tok, "p-0"); g.GetPageP1() || g.GetOpened() {
			t.Errorf("going on under the first: %v", g)
		}
		// Until it is written down, whoever asks again must not make it quieter.
		again := w.one(t, emergency(tok, "p-6")).GetRuling()
		if g := again.GetGrant(); !g.GetPageP1() || g.GetOpened() || !contextOf(t, w, again).GrantMany {
			t.Errorf("going on under the last: %v", g)
		}
		w.restart(t)
		if c := contextOf(t, w, w.one(t, may(tok, "p-6")).GetRuling()); !c.GrantMany || c.Factor != med.MFAFresh {
			t.Errorf("after a restart, without the header: %+v", c)
		}
		if g := w.granted(t, w.er(t, claims{"sub": "er-2"}), "p-0"); g.GetPageP1() {
			t.Errorf("another person: %v", g)
		}
	})
	t.Run("more than 10 new in an hour", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{grantFor: time.Minute})
		for i := range 12 {
			// Each is over before the next: never more than one open.
			g := w.granted(t, w.er(t, nil), fmt.Sprint("p-", i))
			if g.GetPageP1() != (i >= 10) {
				t.Errorf("grant %d: page %v", i+1, g.GetPageP1())
			}
			w.clock.advance(2 * time.Minute)
		}
		w.clock.advance(time.Hour)
		if g := w.granted(t, w.er(t, nil), "p-0"); g.GetPageP1() {
			t.Error("an hour later it pages still")
		}
	})
}

// Whoever has more grants than care needs is asked for a second factor of the
// last five minutes, is not kept waiting for it, and is not asked twice.
func TestBeyondCareAFreshFactorIsAskedFor(t *testing.T) {
	t.Parallel()
	stale := func(w *world) claims {
		return claims{"sid": "s", "auth_time": w.clock.unix(-5*time.Minute - time.Second)}
	}
	fill := func(t *testing.T, w *world, tok string, n int) {
		t.Helper()
		for i := range n {
			if g := w.granted(t, tok, fmt.Sprint("p-", i)); g.GetMaxAge() != 0 || g.GetPageP1() {
				t.Errorf("grant %d: %v", i+1, g)
			}
		}
	}
	t.Run("not fresh", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{})
		tok := w.er(t, stale(w))
		fill(t, w, tok, 5)
		a := w.one(t, emergency(tok, "p-5")).GetRuling()
		if g, c := a.GetGrant(), contextOf(t, w, a); g.GetMaxAge() != 300 || !g.GetPageP1() || c.Factor != med.MFADone || !c.GrantMany {
			t.Errorf("the sixth: %v, %+v", g, c)
		}
		if g := w.granted(t, tok, "p-5"); g.GetMaxAge() != 300 || g.GetOpened() {
			t.Errorf("going on: %v", g)
		}
		// Without the header too, where another role reads on.
		if g := w.one(t, may(tok, "p-5")).GetRuling().GetGrant(); g.GetMaxAge() != 300 {
			t.Errorf("going on without the header: %v", g)
		}
		if g := w.granted(t, tok, "p-0"); g.GetMaxAge() != 0 {
			t.Errorf("under one from before: %v", g)
		}
		w.restart(t)
		if g := w.granted(t, tok, "p-5"); g.GetMaxAge() != 300 {
			t.Errorf("after a restart: %v", g)
		}
		w.clock.advance(10 * time.Minute)
		proved := w.er(t, claims{"sid": "s", "auth_time": w.clock.unix(0)})
		a = w.one(t, emergency(proved, "p-5")).GetRuling()
		if g, c := a.GetGrant(), contextOf(t, w, a); g.GetMaxAge() != 0 || g.GetOpened() || c.Factor != med.MFAFresh {
			t.Errorf("with a new factor: %v, %+v", g, c)
		}
		w.clock.advance(20 * time.Minute)
		if g := w.granted(t, proved, "p-5"); g.GetMaxAge() != 0 {
			t.Errorf("asked for once more: %v", g)
		}
		if g := w.granted(t, proved, "p-6"); g.GetMaxAge() != 300 || !g.GetOpened() {
			t.Errorf("of the next grant: %v", g)
		}
		w.clock.advance(31 * time.Minute)
		if g := w.granted(t, proved, "p-7"); g.GetMaxAge() != 0 || g.GetPageP1() {
			t.Errorf("when the others are over: %v", g)
		}
	})
	t.Run("fresh", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{})
		tok := w.er(t, claims{"sid": "s", "auth_time": w.clock.unix(-5 * time.Minute)})
		fill(t, w, tok, 5)
		a := w.one(t, emergency(tok, "p-5")).GetRuling()
		if g, c := a.GetGrant(), contextOf(t, w, a); g.GetMaxAge() != 0 || !g.GetPageP1() || c.Factor != med.MFAFresh {
			t.Errorf("the sixth: %v, %+v", g, c)
		}
		w.clock.advance(30 * time.Minute)
		if g := w.granted(t, tok, "p-5"); g.GetMaxAge() != 0 {
			t.Errorf("half an hour later: %v", g)
		}
	})
	t.Run("by the hour", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{grantFor: time.Minute})
		tok := w.er(t, claims{"sid": "s", "auth_time": w.clock.unix(-time.Hour)})
		for i := range 11 { // never more than one open
			if g := w.granted(t, tok, fmt.Sprint("p-", i)); (g.GetMaxAge() == 300) != (i >= 10) {
				t.Errorf("grant %d of the hour: %v", i+1, g)
			}
			w.clock.advance(2 * time.Minute)
		}
	})
}

func TestGrantsAskedForAtOnceAreOne(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.er(t, claims{"sid": "s"})
	var mu sync.Mutex
	ids, opened := map[string]bool{}, 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			g := w.one(t, emergency(tok, "p-001")).GetRuling().GetGrant()
			mu.Lock()
			defer mu.Unlock()
			ids[g.GetId()] = true
			if g.GetOpened() {
				opened++
			}
		})
	}
	all.Wait()
	if len(ids) != 1 || opened != 1 {
		t.Errorf("got %d grants, opened %d times; want one, once", len(ids), opened)
	}
	if n := strings.Count(readFile(t, w.state), `"grant":`); n != 1 {
		t.Errorf("%d lines of grants in the state file, want 1", n)
	}
}

// A search through the ids comes to an end; care goes on under what is open.
func TestGrantsBeyondCareAreRefused(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.er(t, claims{"sid": "s"})
	var qs []*pb.Question
	for i := range uint64(230) {
		q := emergency(tok, fmt.Sprint("p-", i))
		q.Id = i
		qs = append(qs, q)
	}
	opened := 0
	for i, a := range w.ask(t, qs...) {
		if a.GetRuling().GetGrant().GetOpened() {
			opened++
		} else if i < 200 {
			t.Errorf("question %d: got %v", i, a)
		} else {
			refusedWith(t, a, "rate_limited", "grants")
		}
	}
	if opened != 200 || !strings.Contains(w.log.String(), "ALERT break-glass grants beyond care") {
		t.Errorf("%d grants were opened, want 200 and an alert", opened)
	}
	if g := w.granted(t, tok, "p-7"); g.GetOpened() {
		t.Errorf("an open one goes on: got %v", g)
	}
	w.restart(t)
	refusedWith(t, w.one(t, emergency(w.er(t, claims{"sid": "another"}), "p-7")), "rate_limited", "grants")
	w.granted(t, w.er(t, claims{"sub": "er-2"}), "p-7")
	w.clock.advance(61 * time.Minute)
	w.granted(t, w.er(t, nil), "p-7")
}
