// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/auth"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/sidecar"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// clock stands still until it is moved.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// service authenticates at the system's sidecar, more patiently than a server
// would: the machine may be busy.
func service(t *testing.T, s *medtest.System, now func() time.Time) *auth.Service {
	t.Helper()
	g, err := gate.Open(context.WithoutCancel(t.Context()), coresdk.Config{
		Addr: s.Sidecar.Addrs()[0].String(), Dev: true, Timeout: medtest.Patience, ConnectTimeout: medtest.Patience,
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return auth.New(g, s.Trail, now)
}

func from(ip string) med.Origin { return med.Origin{IP: ip, RequestID: med.NewUUID(time.Now())} }

func TestOnlyOneBearerTokenIsShownToTheSidecar(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	good := s.Of(t, med.RoleNurse, medtest.North)
	a := service(t, s, time.Now)
	for name, header := range map[string][]string{
		"none":                      nil,
		"empty":                     {""},
		"a scheme alone":            {"Bearer"},
		"a scheme and a space":      {"Bearer "},
		"a token alone":             {good},
		"another scheme":            {"Basic " + good},
		"Bearer in its beginning":   {"BearerX " + good},
		"two headers":               {"Bearer " + good, "Bearer " + good},
		"two headers, one empty":    {"Bearer " + good, ""},
		"two tokens by a comma":     {"Bearer " + good + "," + good},
		"two tokens by a space":     {"Bearer " + good + " " + good},
		"two spaces":                {"Bearer  " + good},
		"a tab":                     {"Bearer\t" + good},
		"a tab after it":            {"Bearer " + good + "\t"},
		"a space after it":          {"Bearer " + good + " "},
		"a space before":            {" Bearer " + good},
		"bytes that are not UTF-8":  {"Bearer \xff\xfe" + good},
		"letters beyond ASCII":      {"Bearer é" + good},
		"a control character":       {"Bearer " + good + "\x01"},
		"longer than 16 KiB":        {"Bearer " + strings.Repeat("a", 16<<10+1)},
		"16 KiB that are no token":  {"Bearer " + strings.Repeat("a", 16<<10)},
		"no token at all":           {"Bearer x"},
		"one byte of the signature": {"Bearer " + good[:len(good)-1]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := a.Authenticate(t.Context(), header, from("192.0.2.1"))
			if med.KindOf(err) != med.Unauthorized || med.CodeOf(err) != "unauthorized" {
				t.Errorf("got %v, want unauthorized", err)
			}
			if c.Subject != "" || len(c.Roles) > 0 || c.Origin != (med.Origin{}) {
				t.Errorf("a caller came with it: %+v", c)
			}
			if len(header) > 0 && len(header[0]) > 40 && strings.Contains(fmt.Sprint(err), header[0][10:40]) {
				t.Error("the error repeats the header")
			}
		})
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
		origin := from("192.0.2.7")
		c, err := a.Authenticate(t.Context(), []string{scheme + good}, origin)
		if err != nil || c.Subject != "the-nurse" || !c.Only(med.RoleNurse) || c.Practice != medtest.North || c.Origin != origin || c.Credential.Reveal() != good {
			t.Errorf("%q: got %+v, %v", scheme, c, err)
		}
	}
}

// A request whose token could not be sent must not break the stream on which
// the questions of all others travel.
func TestABadTokenHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	good := s.Of(t, med.RoleNurse, medtest.North)
	bad := make(chan struct{})
	a := service(t, s, time.Now)
	go func() {
		defer close(bad)
		for i := range 300 {
			_, _ = a.Authenticate(context.WithoutCancel(t.Context()), []string{"Bearer \xff" + strconv.Itoa(i)}, from("198.51.100.1"))
		}
	}()
	for i := range 300 {
		if _, err := a.Authenticate(t.Context(), []string{"Bearer " + good}, from("192.0.2.1")); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	<-bad
}

func TestWithoutTheSidecarNobodyIsKnown(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	good := []string{"Bearer " + s.Of(t, med.RoleNurse, medtest.North)}
	a := service(t, s, time.Now)
	if _, err := a.Authenticate(t.Context(), good, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	addr := s.Sidecar.Addrs()[0].String()
	s.Sidecar.Stop()
	// More often than an address may show bad tokens: theirs were not bad.
	for range 200 {
		if _, err := a.Authenticate(t.Context(), good, from("192.0.2.1")); med.KindOf(err) != med.Unauthorized || med.CodeOf(err) != "sidecar_unavailable" {
			t.Fatalf("got %v, want unauthorized with the code sidecar_unavailable", err)
		}
	}
	// What is no token is not even shown to it: nobody is missed.
	for _, header := range []string{"Bearer " + strings.Repeat("a", 16<<10+1), "Bearer \xff", "Bearer a,b", "Basic x", ""} {
		if _, err := a.Authenticate(t.Context(), []string{header}, from("192.0.2.1")); med.CodeOf(err) != "unauthorized" {
			t.Errorf("%.20q: got %v, want unauthorized", header, err)
		}
	}
	if got := s.Get(t, good[0][len("Bearer "):], "/patients/p-001"); got.Status != 401 || !strings.Contains(got.Body, `"code":"sidecar_unavailable"`) ||
		!strings.Contains(got.Body, `"detail":"Valid JWT required. Sidecar validation failed."`) {
		t.Errorf("over HTTP: got %d %s", got.Status, got.Body)
	}
	again, err := s.Service.Listening(t.Context(), sidecar.Listen{Addrs: []string{addr}, Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = again.Serve() }()
	t.Cleanup(func() { again.Stop(); <-done })
	other := []string{"Bearer " + s.Of(t, med.RoleClinician, medtest.North)} // one that never passed
	eventually(t, func() error { _, err := a.Authenticate(t.Context(), other, from("192.0.2.1")); return err })
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWhoHangsUpShowedNoBadToken(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	a := service(t, s, newClock().now)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	good := []string{"Bearer " + s.Of(t, med.RoleNurse, medtest.North)}
	for range 200 {
		if _, err := a.Authenticate(gone, good, from("192.0.2.1")); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	other := []string{"Bearer " + s.Of(t, med.RoleClinician, medtest.North)}
	if _, err := a.Authenticate(t.Context(), other, from("192.0.2.1")); err != nil {
		t.Errorf("after 200 that hung up: %v", err)
	}
}

func TestAFloodOfBadTokensFromOneAddress(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	now := newClock()
	a := service(t, s, now.now)
	const flooder, other = "198.51.100.1", "192.0.2.1"
	try := func(ip, tok string) error {
		_, err := a.Authenticate(t.Context(), []string{"Bearer " + tok}, from(ip))
		return err
	}
	passed, fresh := s.Of(t, med.RoleNurse, medtest.North), s.Of(t, med.RoleClinician, medtest.North)
	if err := try(flooder, passed); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if err := try(flooder, "bad"+strconv.Itoa(i)); med.KindOf(err) != med.Unauthorized {
			t.Fatalf("bad token %d: got %v, want unauthorized", i, err)
		}
	}
	limited := func(err error) {
		t.Helper()
		var e *med.Error
		if !errors.As(err, &e) || e.Kind != med.RateLimited || e.RetryAfter < time.Second || e.RetryAfter > time.Minute {
			t.Errorf("got %v, want rate-limited for a second to a minute", err)
		}
	}
	limited(try(flooder, "bad"))
	limited(try(flooder, fresh)) // nobody knows yet whether it is good
	if err := try(flooder, passed); err != nil {
		t.Errorf("a token that passed lately: %v", err)
	}
	if err := try(other, fresh); err != nil {
		t.Errorf("another address: %v", err)
	}
	if err := try(flooder, fresh); err != nil {
		t.Errorf("the token has passed elsewhere meanwhile: %v", err)
	}
	// One a second, and then it is full again.
	now.advance(time.Second)
	if err := try(flooder, "bad"); med.KindOf(err) != med.Unauthorized {
		t.Errorf("a second later: got %v, want unauthorized", err)
	}
	limited(try(flooder, "bad"))
	// Waiting as told is enough.
	var e *med.Error
	if errors.As(try(flooder, "bad"), &e) {
		now.advance(e.RetryAfter)
	}
	if err := try(flooder, s.Of(t, med.RoleAdmin, medtest.North)); err != nil {
		t.Errorf("after Retry-After: %v", err)
	}
	now.advance(2 * time.Minute)
	for i := range 60 {
		if err := try(flooder, "bad"); med.KindOf(err) != med.Unauthorized {
			t.Fatalf("after two quiet minutes, bad token %d: got %v", i, err)
		}
	}
	// What has passed and has expired since is let by no longer.
	now.advance(2 * time.Hour)
	for range 60 {
		_ = try(flooder, "bad")
	}
	limited(try(flooder, passed))
}

func TestAFloodOverHTTP(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	passed, fresh := s.Of(t, med.RoleClinician, medtest.North), s.Of(t, med.RoleNurse, medtest.North)
	if got := s.Get(t, passed, "/patients/"+string(alice)); got.Status != 200 {
		t.Fatalf("before: %d", got.Status)
	}
	n := map[int]int{}
	var last medtest.Answer
	tries := 0
	for i := 0; i < 90 || n[429] == 0 && i < 1000; i++ { // on a slow machine more are let by, one for each second
		tries++
		last = s.Get(t, "bad"+strconv.Itoa(i), "/patients/"+string(alice))
		n[last.Status]++
	}
	if n[401] < 60 || n[429] == 0 || n[401]+n[429] != tries {
		t.Errorf("got %v, want 60 times 401, then 429 but for one each second", n)
	}
	eventually(t, func() error { // unless a second has just passed
		if last = s.Get(t, fresh, "/patients/"+string(alice)); last.Status != 429 {
			_ = s.Get(t, "bad", "/patients/"+string(alice))
			fresh = s.Token(t, medtest.Claims{"roles": []string{"nurse"}, "practice_id": "north"})
			return fmt.Errorf("got %d, want 429", last.Status)
		}
		return nil
	})
	if after, err := strconv.Atoi(last.Header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
		t.Errorf("Retry-After: %q", last.Header.Get("Retry-After"))
	}
	if !strings.Contains(last.Body, `"code":"rate_limited"`) {
		t.Errorf("got %s", last.Body)
	}
	if got := s.Get(t, passed, "/patients/"+string(alice)); got.Status != 200 {
		t.Errorf("a token that passed lately: %d %s", got.Status, got.Body)
	}
}

func TestRefusalsAreCountedInOneEntryForEachAddress(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	now := newClock()
	a := service(t, s, now.now)
	try := func(ip string, header ...string) {
		_, _ = a.Authenticate(t.Context(), header, med.Origin{IP: ip, UserAgent: "curl\xff\x00", RequestID: "r-" + ip})
	}
	for range 70 {
		try("198.51.100.1", "Bearer bad")
	}
	try("198.51.100.2")
	try("198.51.100.2", "Bearer bad")
	try("192.0.2.1", "Bearer "+s.Of(t, med.RoleNurse, medtest.North)) // not refused, not counted
	s.Trail.FlushRefusals(t.Context())
	s.Trail.FlushRefusals(t.Context()) // nothing left to write
	try("198.51.100.2", "Bearer bad")  // of the next minute
	s.Trail.FlushRefusals(t.Context())

	got := map[string][]medtest.TrailRow{}
	for _, e := range s.TrailRows(t) {
		if e.Action == "authenticate" {
			got[e.Detail.IP] = append(got[e.Detail.IP], e)
		}
	}
	if len(got) != 2 || len(got["198.51.100.1"]) != 1 || len(got["198.51.100.2"]) != 2 {
		t.Fatalf("entries by address: %v", got)
	}
	if e := got["198.51.100.1"][0]; e.Actor != "unknown" || e.Outcome != "denied" || e.Code != "unauthorized" || e.Resource != "api/unknown" ||
		e.Detail.Counts["unauthorized"] != 60 || e.Detail.Counts["rate_limited"] != 10 || e.Patient != "" || e.Detail.UserAgent != "curl\uFFFD\uFFFD" {
		t.Errorf("the flood: got %+v", e)
	}
	for i, want := range []int{2, 1} {
		if e := got["198.51.100.2"][i]; e.Detail.Counts["unauthorized"] != want || len(e.Detail.Counts) != 1 {
			t.Errorf("minute %d: got %v, want %d", i, e.Detail.Counts, want)
		}
	}
}
