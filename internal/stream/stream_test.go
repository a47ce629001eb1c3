// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/trail"
)

// hec is a receiver that takes everything, and the sink that it is.
func hec(t *testing.T, name string) (*sinkServer, Sink) {
	t.Helper()
	r := newSinkServer(t, nil, verifySigned, decodeHEC)
	return r, Sink{Name: name, Kind: HTTPS, Format: siem.MediRecord, Address: r.server.URL, RootCAs: r.pool, HMACKey: hmacKey, Token: "00000000-0000-0000-0000-000000000001", Batch: 1000}
}

func (s *sinkServer) text(leaf string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.took[leaf]
}

// TestEpochsFollowEachOther: what is left of one log goes out before the next.
func TestEpochsFollowEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, sink := hec(t, "siem")
	w.seal(t, 1, 50)
	run(t, w.config(sink))
	await(t, "the first epoch", func() bool { return w.caughtUp(t, "siem") })
	w.seal(t, 1, 5)
	w.begin(t, 2)
	w.seal(t, 2, 30)
	await(t, "the second epoch", func() bool { p := w.progress(t, "siem"); return p.Epoch == 2 && p.Next == 30 && p.Behind == 0 })
	if got := r.text("1/54"); !strings.Contains(got, w.ids[1][54]) {
		t.Errorf("the last of the first epoch: %q", got)
	}
	if got := r.text("2/0"); !strings.Contains(got, w.ids[2][0]) {
		t.Errorf("the first of the second epoch: %q", got)
	}
}

// TestANewSinkMayBeginNow: and has no lag then.
func TestANewSinkMayBeginNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 20)
	r, sink := hec(t, "siem")
	sink.FromNow = true
	run(t, w.config(sink))
	await(t, "the cursor", func() bool { return w.progress(t, "siem").Next == 20 })
	w.seal(t, 1, 1)
	await(t, "the entry that comes then", func() bool { return w.caughtUp(t, "siem") && r.text("1/20") != "" })
	if got := r.text("1/19"); got != "" {
		t.Errorf("what was before arrived too: %s", got)
	}
}

// TestAMissingEntryIsTold: somebody with the database in their hands takes an
// entry out. Whoever watches hears of it, in its place, and of all the others.
func TestAMissingEntryIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 20)
	gone := w.ids[1][7]
	medtest.Exec(t, w.super, `alter table audit.event disable trigger all`)
	medtest.Exec(t, w.super, `delete from audit.event where event_id = $1`, gone)
	r, sink := hec(t, "siem")
	run(t, w.config(sink))
	await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
	r.all(w.ids[1])
	if got := r.text("1/7"); !strings.Contains(got, `"action":"missing"`) || !strings.Contains(got, `"code":"entry_missing"`) {
		t.Errorf("got %s", got)
	}
	if !w.log.has("ALERT a sealed audit entry is missing") || !w.log.has(gone) {
		t.Error("the log does not name it")
	}
}

// TestAnAlteredEntryIsTold: a sealed entry is rewritten before the sink has it.
// The sink gets an event that says so, and not what somebody made of it.
func TestAnAlteredEntryIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 20)
	medtest.Exec(t, w.super, `alter table audit.event disable trigger all; alter table audit.event alter column outcome drop not null`)
	medtest.Exec(t, w.super, `update audit.event set actor_subject = 'somebody.else', patient_id = 'p-framed' where event_id = $1`, w.ids[1][7])
	medtest.Exec(t, w.super, `update audit.event set outcome = null where event_id = $1`, w.ids[1][9])
	r, sink := hec(t, "siem")
	cfg := w.config(sink)
	var mu sync.Mutex
	var raised []int64
	refuse := true // once: nothing goes on before the alarm is raised
	cfg.Altered = func(_ context.Context, s *trail.Sealed) error {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			refuse = false
			return errors.New("the database is away")
		}
		raised = append(raised, s.Index)
		return nil
	}
	run(t, cfg)
	await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
	r.all(w.ids[1])
	for leaf, id := range map[string]string{"1/7": w.ids[1][7], "1/9": w.ids[1][9]} {
		got := r.text(leaf)
		if !strings.Contains(got, `"action":"altered"`) || !strings.Contains(got, `"code":"entry_altered"`) || !strings.Contains(got, id) || strings.Contains(got, "somebody.else") || strings.Contains(got, "p-framed") {
			t.Errorf("%s: got %s", leaf, got)
		}
	}
	if got := r.text("1/8"); !strings.Contains(got, "dr.lee") {
		t.Errorf("the next: got %s", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(slices.Compact(slices.Sorted(slices.Values(raised))), []int64{7, 9}) || !w.log.has("ALERT a sealed audit entry was altered") {
		t.Errorf("got alarms for %v", raised)
	}
}

// TestOneReplicaServesASink: the others wait, and go on where it stopped.
func TestOneReplicaServesASink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 200)
	r, sink := hec(t, "siem")
	one, stopOne := run(t, w.config(sink))
	await(t, "the first to lead", func() bool { return one.Stats()[0].Leader })
	two, _ := run(t, w.config(sink))
	await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
	await(t, "the other to measure", func() bool { return two.Stats()[0].Lag == 0 && one.Stats()[0].Taken == 200 })
	if st := two.Stats()[0]; st.Leader || st.Sent != 0 {
		t.Errorf("both serve it: %+v", st)
	}
	// The leader's connection is cut: whoever takes the cursor next, one does.
	medtest.Exec(t, w.super, `select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.classid = 723749
		and l.database = (select oid from pg_database where datname = current_database())`)
	w.seal(t, 1, 50)
	await(t, "everything to be taken again", func() bool { return w.caughtUp(t, "siem") })
	stopOne()
	w.seal(t, 1, 50)
	await(t, "the other to go on", func() bool { return w.caughtUp(t, "siem") && two.Stats()[0].Leader })
	r.all(w.ids[1])
}

// TestASinkThatWasAwayForDays: it costs nobody else anything, is told aloud, and
// catches up.
func TestASinkThatWasAwayForDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, away := hec(t, "away")
	other, here := hec(t, "here")
	r.instead(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	for range 5 {
		w.seal(t, 1, 1000)
	}
	medtest.Exec(t, w.super, `alter table audit.batch disable trigger all`)
	medtest.Exec(t, w.super, `update audit.batch set sealed_at = sealed_at - interval '3 days'`)
	s, stop := run(t, w.config(away, here))
	await(t, "the other sink to have everything", func() bool { return w.caughtUp(t, "here") })
	await(t, "the lag to be measured", func() bool { return s.Stats()[0].Behind == 5000 && s.Stats()[0].Lag >= 72*time.Hour })
	await(t, "the alert", func() bool { return w.log.has("ALERT siem sink lags") })
	if st := s.Stats()[1]; st.Failures != 0 {
		t.Errorf("the other sink suffers: %+v", st)
	}
	if p := w.progress(t, "away"); p.Next != 0 || p.LastError != "status_502" {
		t.Errorf("got %+v", p)
	}
	stop() // and the worker was away as well
	r.instead(nil)
	start := time.Now()
	s, _ = run(t, w.config(away, here))
	await(t, "the sink to catch up", func() bool { return w.caughtUp(t, "away") })
	t.Logf("5000 entries in %s", time.Since(start).Round(time.Millisecond))
	r.all(w.ids[1])
	other.all(w.ids[1])
	await(t, "no lag", func() bool { return s.Stats()[0].Lag == 0 && s.Stats()[0].Behind == 0 })
}

// receiverThat listens for syslog with TLS and does with each connection as it
// is told.
func receiverThat(t *testing.T, a *authority, do func(net.Conn)) (address string) {
	t.Helper()
	cert, _, _ := a.issue(t, "siem.example")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				if conn.(*tls.Conn).HandshakeContext(t.Context()) == nil { //nolint:forcetypeassert // what a TLS listener accepts
					do(conn)
				}
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// TestSyslogReceiversThatOnlySeemToTake: one that never reads, one that reads
// and never ends, one that ends at once, one that ends before we do. None of
// them moves the cursor, and none holds more of us than its own stream.
func TestSyslogReceiversThatOnlySeemToTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 1500)
	a := newAuthority(t)
	cert, _, _ := a.issue(t, "medirecord-stream")
	var sinks []Sink
	codes := []string{"timeout end_not_confirmed", "end_not_confirmed", "closed_early connection_lost", "closed_early connection_lost"}
	over := make(chan struct{})
	for i, do := range []func(net.Conn){
		func(net.Conn) { <-over },
		func(c net.Conn) { _, _ = io.Copy(io.Discard, c); <-over },
		func(net.Conn) {},
		func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 100_000)) },
	} {
		sinks = append(sinks, Sink{
			Name: "bad" + string(rune('0'+i)), Kind: Syslog, Address: receiverThat(t, a, do), Format: siem.MediRecord, RootCAs: a.pool, Certificate: reading(cert), Settle: 50 * time.Millisecond,
		})
	}
	var read sync.Map
	sinks = append(sinks, Sink{
		Name: "good", Kind: Syslog, Format: siem.MediRecord, RootCAs: a.pool, Certificate: reading(cert), Settle: 50 * time.Millisecond,
		Address: receiverThat(t, a, func(c net.Conn) {
			in := bufio.NewReader(c)
			for {
				head, err := in.ReadString(' ')
				if err != nil {
					return
				}
				n, err := strconv.Atoi(strings.TrimSuffix(head, " "))
				if err != nil {
					return
				}
				msg := make([]byte, n)
				if _, err := io.ReadFull(in, msg); err != nil {
					return
				}
				if m := sent.FindSubmatch(msg); m != nil {
					read.Store(string(m[3]), string(m[1]))
				}
			}
		}),
	})
	t.Cleanup(func() { close(over) }) // before the receivers are waited for
	cfg := w.config(sinks...)
	cfg.Wait = 5 * time.Second
	s, stop := run(t, cfg)
	await(t, "the good one to have everything", func() bool { return w.caughtUp(t, "good") })
	for i := range codes {
		await(t, "receiver "+sinks[i].Name+" to be found out", func() bool { return s.Stats()[i].Failures > 0 })
	}
	stop()
	for i, want := range codes {
		if p := w.progress(t, sinks[i].Name); p.Next != 0 || !strings.Contains(want, p.LastError) {
			t.Errorf("receiver %d: got %+v, want %s", i, p, want)
		}
	}
	n := 0
	read.Range(func(any, any) bool { n++; return true })
	if n != 1500 {
		t.Errorf("the good one has %d, want 1500", n)
	}
}

// TestTheCursorMovesOnOnly: and only the auditor moves it.
func TestTheCursorMovesOnOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 10)
	_, sink := hec(t, "siem")
	_, stop := run(t, w.config(sink))
	await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
	stop()
	auditor := w.db.As(t, "auditor")
	for _, sql := range []string{
		`update audit.sink set next_index = 9`,
		`update audit.sink set epoch = 0`,
		`delete from audit.sink`,
		`update audit.sink set name = 'other'`,
		`insert into audit.sink (name, epoch, next_index, last_error) values ('x', 1, 0, 'Alice Smith')`,
		`select audit.rewind_sink('siem', 1, 0)`,
		`alter table audit.sink disable trigger only_on`,
	} {
		if _, err := auditor.Exec(t.Context(), sql); err == nil {
			t.Errorf("the auditor may %s", sql)
		}
	}
	for _, role := range []string{"app", "trail", "worker", "sealer", "retention"} {
		conn := w.db.As(t, role)
		for _, sql := range []string{`select * from audit.sink`, `insert into audit.sink (name, epoch, next_index) values ('y', 1, 0)`, `update audit.sink set next_index = 100`} {
			if _, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s may %s", role, sql)
			}
		}
	}
	if p := w.progress(t, "siem"); p.Next != 10 {
		t.Errorf("got %+v", p)
	}
	medtest.Exec(t, w.db.As(t, "migrator"), `select audit.rewind_sink('siem', 1, 4)`)
	if p := w.progress(t, "siem"); p.Next != 4 || p.Behind != 6 {
		t.Errorf("after an operator's rewind: %+v", p)
	}
}
