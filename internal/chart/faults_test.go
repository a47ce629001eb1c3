// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/auth"
	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/httpapi"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// The promises F1 to F8 of the trail, kept under faults that are real.

func TestWithoutTheRightToInsertNothingIsDisclosed(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician, admin := s.Of(t, med.RoleClinician, medtest.North), s.Of(t, med.RoleAdmin, medtest.North)
	super := s.DB.Super(t)
	shown(t, s.Get(t, clinician, path(alice)))
	before := count(t, super, "audit.event")

	medtest.Exec(t, super, `revoke insert on audit.event from medirecord_trail`)
	undisclosed(t, s.Get(t, clinician, path(alice)), 503, "audit_unavailable")
	undisclosed(t, s.Get(t, admin, path(alice)+"/audit"), 503, "audit_unavailable")
	medtest.Exec(t, super, `revoke insert on audit.event from medirecord_app`) // who writes the start of a grant
	undisclosed(t, s.Get(t, er(t, s), path(alice), "X-Break-Glass-Reason", reason), 503, "audit_unavailable")
	if n := count(t, super, "medirecord.break_glass") + count(t, super, "medirecord.outbox"); n != 0 {
		t.Errorf("%d rows of a grant whose start was not recorded", n)
	}
	// A denial stays a denial, and says what it always says.
	south := s.Of(t, med.RoleClinician, medtest.South)
	unrecorded := s.Get(t, south, path(alice))
	undisclosed(t, unrecorded, 403, "other_practice")
	undisclosed(t, s.Get(t, s.PatientOf(t, "p-other", medtest.North), path(alice)), 403, "not_self")
	undisclosed(t, s.Get(t, er(t, s), path(alice)), 403, "break_glass_reason_required")
	// What is no denial must not be told either: that there is no such patient is a fact.
	undisclosed(t, s.Get(t, clinician, "/patients/nobody"), 503, "audit_unavailable")
	v, err := s.Chart.ReadPatient(t.Context(), s.Caller(t, clinician), alice)
	if v != nil || med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("at the door: got %v, %v", v, err)
	}
	if s.Trail.Healthy(t.Context()) == nil {
		t.Error("the trail says that it is well")
	}
	if n := strings.Count(s.Log.String(), "audit entry not written"); n != 8 {
		t.Errorf("%d alarms for 8 entries that were not written", n)
	}

	medtest.Exec(t, super, `grant insert on audit.event to medirecord_trail`)
	noError(t, s.Trail.Healthy(t.Context()))
	shown(t, s.Get(t, clinician, path(alice)))
	recorded := s.Get(t, south, path(alice))
	recorded.Header.Del("Audit-Event-Id")
	recorded.Header.Del("Content-Length")
	unrecorded.Header.Del("Content-Length")
	if a, b := normal(unrecorded), normal(recorded); a != b {
		t.Errorf("a denial that was not recorded is another:\n%s\n%s", a, b)
	}
	if n := count(t, super, "audit.event") - before; n != 2 {
		t.Errorf("%d entries more, want 2", n)
	}
}

func TestAWriteAndItsEntryAreBothOrNeither(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	medtest.Exec(t, super, `revoke insert on audit.event from medirecord_app`)
	door := s.Door(t, "import")
	done, err := door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("b", medtest.Alice(), observation(rid(1), "1")))
	if med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("got %v, want audit-unavailable", err)
	}
	for _, table := range []string{"patient", "record", "blind_index", "intake"} {
		if n := count(t, super, "medirecord."+table); n != 0 {
			t.Errorf("%d rows of %s are there without their entry", n, table)
		}
	}
	// That it was tried is recorded all the same: on the trail's own way.
	if e := entry(t, s, string(done.Event)); e.Outcome != "failure" || e.Action != "import" {
		t.Errorf("got %+v, want the failure", e)
	}
	medtest.Exec(t, super, `grant insert on audit.event to medirecord_app`)
	if done, err = door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("b", medtest.Alice(), observation(rid(1), "1"))); err != nil || done.Created != 1 {
		t.Errorf("afterwards: got %+v, %v", done, err)
	}
}

func TestALockedTrailIsNotWaitedForLongerThanItsDeadline(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{Trail: trail.Config{Deadline: 4 * time.Second}}) // less, and what is not locked might not be in time either
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	release := locked(t, s.DB.Super(t), "audit.event")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			begin := time.Now()
			undisclosed(t, s.Get(t, clinician, path(alice)), 503, "audit_unavailable")
			if took := time.Since(begin); took > medtest.Patience { // the lock is held until all have their answer
				t.Errorf("answered after %s", took)
			}
		})
	}
	all.Wait()
	release()
	eventually(t, "served again", func() bool { return s.Get(t, clinician, path(alice)).Status == 200 })
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	t.Parallel()
	// The deadline is far: who is refused before it was refused for the queue.
	s := medtest.New(t, medtest.Options{Trail: trail.Config{Flushers: 1, Queue: 1, Batch: 1, Deadline: 60 * time.Second}})
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	before := s.Trail.Stats().Failed
	release := locked(t, s.DB.Super(t), "audit.event")
	const readers = 10
	var refused, served atomic.Int64
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			v, err := s.Chart.ReadPatient(t.Context(), s.Caller(t, clinician), alice)
			switch {
			case err == nil && v != nil:
				served.Add(1)
			case med.KindOf(err) == med.AuditUnavailable && v == nil:
				refused.Add(1)
			default:
				t.Errorf("got %v, %v", v, err)
			}
		})
	}
	// One is in the batch and one in the queue: they wait, the others do not.
	eventually(t, "all others are refused", func() bool { return s.Trail.Stats().Failed-before >= readers-2 })
	if served.Load() != 0 {
		t.Error("served while the trail is locked")
	}
	release()
	all.Wait()
	if refused.Load() != readers-2 || served.Load() != 2 {
		t.Errorf("%d refused, %d served; want %d and 2", refused.Load(), served.Load(), readers-2)
	}
}

func TestKilledConnections(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	super, keys := s.DB.Super(t), s.DB.SuperKeys(t)
	var stop atomic.Bool
	var served, refused atomic.Int64
	var readers sync.WaitGroup
	for range 6 {
		readers.Go(func() {
			for !stop.Load() {
				switch got := s.Get(t, clinician, path(alice)); got.Status {
				case 200:
					served.Add(1)
				case 500, 503:
					if got.Status == 500 {
						t.Errorf("a killed connection is an internal error: %s", got.Body)
					}
					if strings.Contains(got.Body, "Alice") || strings.Contains(got.Body, "45-6789") || strings.Contains(got.Body, "**-6789") {
						t.Error("a refusal discloses")
					}
					refused.Add(1)
				default:
					t.Errorf("got %d %s", got.Status, got.Body)
				}
			}
		})
	}
	const kill = `select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and usename like 'medirecord_%'`
	killed := 0
	for range 12 {
		n, last := 0, served.Load()
		medtest.Scan(t, super, []any{&n}, kill)
		killed += n
		medtest.Scan(t, keys, []any{&n}, kill)
		eventually(t, "served again", func() bool { return served.Load() > last+3 || t.Failed() })
	}
	stop.Store(true)
	readers.Wait()
	if killed == 0 {
		t.Error("nothing was killed")
	}
	t.Logf("%d served, %d refused, %d connections killed", served.Load(), refused.Load(), killed)
} // that each 200 has its entry is checked at the end

func TestAClientThatHangsUpAfterTheReadIsRecorded(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{Trail: trail.Config{Deadline: 60 * time.Second}})
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	super := s.DB.Super(t)
	watch := s.DB.Super(t)
	release := locked(t, super, "audit.event")
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Server.URL+path(alice), nil)
	noError(t, err)
	req.Header.Set("Authorization", "Bearer "+clinician)
	req.Header.Set("X-Request-Id", "hung-up")
	answered := make(chan error, 1)
	go func() {
		res, err := s.Server.Client().Do(req)
		if err == nil {
			_ = res.Body.Close()
			err = errors.New("an answer came: " + res.Status)
		}
		answered <- err
	}()
	eventually(t, "the entry is under way", func() bool {
		return count(t, watch, "pg_stat_activity where datname = current_database() and usename = 'medirecord_trail' and wait_event_type = 'Lock'") > 0
	})
	hangUp()
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	eventually(t, "the entry", func() bool {
		for _, e := range s.TrailRows(t) {
			if e.Detail.ClientID == "hung-up" {
				if e.Outcome != "success" || e.Patient != string(alice) || len(e.Detail.Clear) == 0 {
					t.Errorf("got %+v", e)
				}
				return true
			}
		}
		return false
	})
}

func TestAPanicBehindTheDoorLeavesAnEntry(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	log := slog.New(slog.NewJSONHandler(s.Log, nil))
	// A key store that was never opened: its first use is a nil dereference.
	broken, err := chart.New(chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: &keystore.Store{}, Trail: s.Trail, Log: log})
	noError(t, err)
	api, err := httpapi.New(httpapi.Config{
		Auth: auth.New(s.Gate, s.Trail, time.Now), Chart: broken, Log: log, Now: time.Now, Ready: func(context.Context) []httpapi.Check { return nil },
	})
	noError(t, err)
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path(alice), nil)
	noError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.Of(t, med.RoleClinician, medtest.North))
	res, err := srv.Client().Do(req)
	noError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	noError(t, err)
	undisclosed(t, medtest.Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}, 500, "internal")
	e := entry(t, s, res.Header.Get("Audit-Event-Id"))
	if e.Outcome != "failure" || e.Code != "panic" || e.Action != "read" || e.Patient != string(alice) || len(e.Detail.Clear) > 0 {
		t.Errorf("got %+v", e)
	}
	if !strings.Contains(s.Log.String(), `"msg":"panic behind the door","event":"`+e.ID+`"`) {
		t.Error("the log does not tell of the panic")
	}
	if n := count(t, s.DB.Super(t), "audit.event where event_id = $1", e.ID); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}

	// In a write too: nothing written, one entry.
	door, err := chart.New(chart.Config{Gate: s.OpenGate(t, s.Sidecar.Addrs()[0].String(), "import"), DB: s.Postgres, Keys: &keystore.Store{}, Trail: s.Trail})
	noError(t, err)
	done, err := door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("b", medtest.Alice()))
	if med.KindOf(err) != med.Internal || med.CodeOf(err) != "panic" || done.Patient != "" {
		t.Errorf("Import: got %+v, %v", done, err)
	}
	if id, ok := med.EventOf(err); !ok || entry(t, s, string(id)).Code != "panic" {
		t.Error("Import: no entry")
	}
}

func TestAFloodOfBadTokensCostsNobodyTheirEntry(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{Trail: trail.Config{Queue: 16}})
	alice := s.Patient(t, medtest.North, medtest.Alice())
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	shown(t, s.Get(t, clinician, path(alice)))
	var stop atomic.Bool
	var flood sync.WaitGroup
	var bad atomic.Int64
	for range 4 {
		flood.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if got := s.Get(t, "bad"+strconv.Itoa(i), path(alice)); got.Status != 401 && got.Status != 429 {
					t.Errorf("a bad token: got %d", got.Status)
				}
				bad.Add(1)
			}
		})
	}
	for range 60 {
		shown(t, s.Get(t, clinician, path(alice)))
	}
	eventually(t, "a flood", func() bool { return bad.Load() > 200 })
	shown(t, s.Get(t, clinician, path(alice)))
	stop.Store(true)
	flood.Wait()
	s.Trail.FlushRefusals(t.Context())
	n, entries := 0, 0
	for _, e := range s.TrailRows(t) {
		if e.Action == "authenticate" {
			entries++
			for _, c := range e.Detail.Counts {
				n += c
			}
		}
	}
	if int64(n) != bad.Load() || entries > 3 { // one, and one more for each full minute that it took
		t.Errorf("%d entries count %d refusals of %d", entries, n, bad.Load())
	}
}

func TestWhatAClientSaysOfItselfCannotSpoilItsEntry(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Server.URL, "http://"))
	noError(t, err)
	defer func() { _ = conn.Close() }()
	noError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, "GET "+path(alice)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+s.Of(t, med.RoleClinician, medtest.North)+
		"\r\nUser-Agent: evil\xff\xfe \xc3\x28 \xed\xa0\x80"+strings.Repeat("u", 3000)+"\r\nOrigin: \xff\r\nX-Request-Id: \xf0\x28\x8c\x28\r\n\r\n")
	noError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	noError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	noError(t, err)
	shown(t, medtest.Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)})
	e := entry(t, s, res.Header.Get("Audit-Event-Id"))
	if !strings.HasPrefix(e.Detail.UserAgent, "evil\uFFFD \uFFFD( \uFFFD") || len(e.Detail.UserAgent) > 1024 || len(e.Detail.UserAgent) < 1000 || e.Detail.Origin != "\uFFFD" ||
		e.Detail.ClientID != "\uFFFD(\uFFFD(" {
		t.Errorf("got %q, %q, %q", e.Detail.UserAgent, e.Detail.Origin, e.Detail.ClientID)
	}
}

func TestTheDatabaseOrTheKeysAway(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{Deadline: 5 * time.Second}) // what the one read waits that finds a lock
	alice := s.Patient(t, medtest.North, medtest.Alice())
	bob := medtest.Alice()
	bob.Name.Text, bob.SourceID = "Bob Smith", "source-bob"
	never := s.Patient(t, medtest.North, bob)
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	last := func() medtest.TrailRow {
		rows := s.TrailRows(t)
		return rows[len(rows)-1]
	}

	release := locked(t, s.DB.Super(t), "medirecord.patient")
	undisclosed(t, s.Get(t, clinician, path(alice)), 503, "database_unavailable")
	release()
	if e := last(); e.Outcome != "failure" || e.Code != "database_unavailable" {
		t.Errorf("the database away: got %+v", e)
	}
	shown(t, s.Get(t, clinician, path(alice))) // her key is remembered now

	noError(t, os.Rename(s.Keeper, s.Keeper+".away"))
	shown(t, s.Get(t, clinician, path(alice)))
	undisclosed(t, s.Get(t, clinician, path(never)), 503, "keys_unavailable")
	if e := last(); e.Outcome != "failure" || e.Code != "keys_unavailable" || e.Patient != string(never) {
		t.Errorf("the keeper away: got %+v", e)
	}
	// Break-glass does not get around it.
	undisclosed(t, s.Get(t, er(t, s), path(never), "X-Break-Glass-Reason", reason), 503, "keys_unavailable")
	noError(t, os.Rename(s.Keeper+".away", s.Keeper))
	shown(t, s.Get(t, clinician, path(never)))
}
