// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
)

// patiently opens the database with one reader, which waits for locks longer
// than the role does, so that questions can be made to gather.
func patiently(t *testing.T, w *world) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{
		URL: w.db.URL("app") + "&lock_timeout=60s&statement_timeout=60s", Readers: 1, Conns: 4, Deadline: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// waiting counts the reads that wait for a lock. The connection must be in no
// transaction: pg_stat_activity stands still in one.
func waiting(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	medtest.Scan(t, conn, []any{&n}, `select count(*) from pg_locks l join pg_stat_activity a using (pid)
		where not granted and l.database = (select oid from pg_database where datname = current_database()) and a.query like '%read_patients%'`)
	return n
}

// gather holds the reader up with one question of its own, calls ask, waits
// until asked many questions are on their way, and lets the reader go.
func gather(t *testing.T, w *world, db *postgres.DB, asked *atomic.Int32, many int, ask func()) {
	t.Helper()
	blocker := w.db.Super(t)
	medtest.Exec(t, blocker, `begin`)
	medtest.Exec(t, blocker, `lock table medirecord.patient in access exclusive mode`)
	first := make(chan error, 1)
	signed := clinician("north", "north-1").signed(t)
	go func() { _, err := db.Patient(t.Context(), signed, "", "north-1"); first <- err }()
	eventually(t, "the reader to wait", func() bool {
		select {
		case err := <-first:
			t.Fatalf("the read that was to wait ended: %v", err)
		default:
		}
		return waiting(t, w.super) == 1
	})
	ask()
	eventually(t, "the questions to be asked", func() bool { return asked.Load() == int32(many) }) //nolint:gosec // few
	medtest.Exec(t, blocker, `commit`)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // for one test after the other: they lock and kill
	t.Run("show no context to other sessions", func(t *testing.T) { activityShowsNoContext(t, w) })
	t.Run("share a statement", func(t *testing.T) { sharedReads(t, w) })
	t.Run("outlive the connections that are killed", func(t *testing.T) { killedConnections(t, w) })
	t.Run("of a closed database are answered", func(t *testing.T) { closedDatabase(t, w) })
}

func sharedReads(t *testing.T, w *world) {
	t.Run("a context that is not valid refuses only itself", func(t *testing.T) {
		db := patiently(t, w)
		var group sync.WaitGroup
		var asked atomic.Int32
		const many = 40
		gather(t, w, db, &asked, many, func() {
			for i := range many {
				signed, bad := clinician("north", "north-1").signed(t), false
				switch i {
				case 3:
					signed, bad = caller{Context: importer("north").Context, ttl: -time.Second}.signed(t), true
				case 17:
					signed, bad = "x", true
				case 29:
					signed, bad = "", true
				}
				group.Go(func() {
					asked.Add(1)
					row, err := db.Patient(t.Context(), signed, "", "north-1")
					switch {
					case bad && (!postgres.Refused(err) || row != nil):
						t.Errorf("question %d: got %v and error %v, want a refusal", i, row, err)
					case !bad && (err != nil || string(row.Sealed) != secret("north-1")):
						t.Errorf("question %d: got error %v, want the row", i, err)
					}
				})
			}
		})
		group.Wait()
	})

	t.Run("one who hangs up hurts nobody", func(t *testing.T) {
		db := patiently(t, w)
		var group sync.WaitGroup
		var asked atomic.Int32
		const many = 40
		gone := make(chan error, many)
		ctx, hangUp := context.WithCancel(t.Context())
		defer hangUp()
		gather(t, w, db, &asked, many, func() {
			for i := range many {
				signed := clinician("north", "north-1").signed(t)
				group.Go(func() {
					asked.Add(1)
					if i%4 == 0 {
						_, err := db.Patient(ctx, signed, "", "north-1")
						gone <- err
						return
					}
					if _, err := db.Patient(t.Context(), signed, "", "north-1"); err != nil {
						t.Errorf("question %d: got %v, want the row", i, err)
					}
				})
			}
			eventually(t, "all to ask", func() bool { return asked.Load() == many })
			hangUp()
			for range many / 4 { // while the reader is still held up
				if err := <-gone; med.KindOf(err) != med.DatabaseUnavailable {
					t.Errorf("got %v for one who hung up, want database-unavailable", err)
				}
			}
		})
		group.Wait()
		if _, err := db.Patient(t.Context(), clinician("north", "north-1").signed(t), "", "north-1"); err != nil {
			t.Errorf("afterwards: got %v", err)
		}
	})

	t.Run("one who hangs up while being answered does not cancel the others", func(t *testing.T) {
		db := patiently(t, w)
		blocker := w.db.Super(t)
		medtest.Exec(t, blocker, `begin`)
		medtest.Exec(t, blocker, `lock table medirecord.patient in access exclusive mode`)
		ctx, hangUp := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		a, b := clinician("north", "north-1").signed(t), clinician("north", "north-1").signed(t)
		go func() { _, err := db.Patient(ctx, a, "", "north-1"); first <- err }()
		eventually(t, "the statement to wait", func() bool { return waiting(t, w.super) == 1 })
		go func() { _, err := db.Patient(t.Context(), b, "", "north-1"); second <- err }()
		hangUp()
		if err := <-first; med.KindOf(err) != med.DatabaseUnavailable {
			t.Errorf("got %v, want database-unavailable", err)
		}
		if waiting(t, w.super) != 1 {
			t.Error("the statement was cancelled")
		}
		medtest.Exec(t, blocker, `commit`)
		if err := <-second; err != nil {
			t.Errorf("got %v, want the row", err)
		}
	})

	t.Run("a queue that is full refuses at once", func(t *testing.T) {
		db := patiently(t, w)
		var group sync.WaitGroup
		var asked, full, fine atomic.Int32
		const many = 4096 + 500
		signed := clinician("north", "north-1").signed(t)
		gather(t, w, db, &asked, many, func() {
			for range many {
				group.Go(func() {
					_, err := db.Patient(t.Context(), signed, "", "north-1")
					switch {
					case err == nil:
						fine.Add(1)
					case med.KindOf(err) == med.DatabaseUnavailable:
						full.Add(1)
						asked.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			// Those that are refused have their answer while all others wait.
			eventually(t, "the refusals", func() bool { return full.Load() >= 500 || fine.Load() > 0 })
			asked.Store(many)
		})
		group.Wait()
		if full.Load() != 500 || fine.Load() != 4096 {
			t.Errorf("got %d refused and %d answered, want 500 and 4096", full.Load(), fine.Load())
		}
	})
}

func idsThatNobodyHas(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{})
	for _, id := range []med.PatientID{"nobody", "", "%", "north-2", "south-1", "north-gone", "' or true --"} {
		row, err := db.Patient(t.Context(), clinician("north", "north-1").signed(t), "", id)
		if med.KindOf(err) != med.NotFound || row != nil {
			t.Errorf("%q: got %v and error %v, want not found", id, row, err)
		}
	}
	t.Run("an id that is no text is an error of its own", func(t *testing.T) {
		other := make(chan error, 1)
		go func() {
			_, err := db.Patient(t.Context(), clinician("north", "north-1").signed(t), "", "north-1")
			other <- err
		}()
		if row, err := db.Patient(t.Context(), clinician("north", "north-1").signed(t), "", "north-1\x00"); err == nil || row != nil {
			t.Errorf("got %v, want an error", row)
		}
		if err := <-other; err != nil {
			t.Errorf("the other: got %v, want the row", err)
		}
	})
}

func killedConnections(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{Conns: 4})
	stop := make(chan struct{})
	var group sync.WaitGroup
	var fine, failed atomic.Int32
	for range 8 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				signed := clinician("north", "north-1").signed(t)
				_, err := db.Patient(t.Context(), signed, "", "north-1")
				if err == nil {
					err = db.InTx(t.Context(), signed, func(tx pgx.Tx) error { _, err := db.Q.PracticeOf(t.Context(), tx, "north-1"); return err })
				}
				switch {
				case err == nil:
					fine.Add(1)
				case med.KindOf(err) == med.DatabaseUnavailable:
					failed.Add(1)
				default:
					t.Errorf("got %v, want the row or database-unavailable", err)
				}
			}
		})
	}
	for range 20 {
		before := fine.Load()
		medtest.Exec(t, w.super, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename = 'medirecord_app'`)
		eventually(t, "reads after the connections were killed", func() bool { return fine.Load() > before+16 })
	}
	close(stop)
	group.Wait()
	t.Logf("%d fine, %d failed", fine.Load(), failed.Load())
}

func closedDatabase(t *testing.T, w *world) {
	db, err := postgres.Open(t.Context(), postgres.Config{URL: w.db.URL("app"), Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	signed := clinician("north", "north-1").signed(t)
	var group sync.WaitGroup
	var asked atomic.Int32
	for range 50 {
		group.Go(func() {
			for {
				_, err := db.Patient(t.Context(), signed, "", "north-1")
				asked.Add(1)
				if med.KindOf(err) == med.DatabaseUnavailable {
					return
				}
				if err != nil {
					t.Errorf("got %v, want the row or database-unavailable", err)
					return
				}
			}
		})
	}
	eventually(t, "reads", func() bool { return asked.Load() > 100 })
	db.Close()
	group.Wait()
	if err := db.InTx(t.Context(), signed, func(pgx.Tx) error { return nil }); med.KindOf(err) != med.DatabaseUnavailable {
		t.Errorf("a transaction: got %v, want database-unavailable", err)
	}
	if err := db.Ping(t.Context()); med.KindOf(err) != med.DatabaseUnavailable {
		t.Errorf("a ping: got %v, want database-unavailable", err)
	}
}

// A server that accepts and never answers is worse than one that is gone: only
// deadlines help.
func TestADatabaseThatHangsIsUnavailableInTime(t *testing.T) {
	t.Parallel()
	c := cluster(t, nil)
	db := c.SuperuserURL("clinical")
	super := medtest.Connect(t, c.SuperuserURL("postgres"))
	if err := postgres.Bootstrap(t.Context(), super, "clinical"); err != nil {
		t.Fatal(err)
	}
	conn := medtest.Connect(t, db)
	if err := postgres.Migrate(t.Context(), conn, clinical(t), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.InstallContextKey(t.Context(), conn, medtest.ContextKey.KID, medtest.ContextKey.Key); err != nil {
		t.Fatal(err)
	}
	if err := postgres.SetPassword(t.Context(), super, "medirecord_app", "p"); err != nil {
		t.Fatal(err)
	}
	medtest.Exec(t, conn, `insert into medirecord.practice (id, name, event_id) values ('north', 'x', gen_random_uuid())`)
	medtest.Exec(t, conn, `insert into medirecord.patient (id, practice_id, version, dek_version, sealed, event_id) values ('north-1', 'north', 1, 1, 'x', gen_random_uuid())`)
	const deadline = 300 * time.Millisecond
	app, err := postgres.Open(t.Context(), postgres.Config{URL: c.URL("medirecord_app", "p", "clinical"), Deadline: deadline, Conns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Close)
	ask := map[string]func() error{
		"a read": func() error {
			_, err := app.Patient(t.Context(), clinician("north", "north-1").signed(t), "", "north-1")
			return err
		},
		"a transaction": func() error {
			return app.InTx(t.Context(), clinician("north", "north-1").signed(t), func(tx pgx.Tx) error {
				_, err := app.Q.PatientExists(t.Context(), tx, "north-1")
				return err
			})
		},
		"a ping":        func() error { return app.Ping(t.Context()) },
		"a clock check": func() error { _, err := app.ClockSkew(t.Context(), time.Now); return err },
	}
	all := func(t *testing.T, rounds int, check func(t *testing.T, what string, took time.Duration, err error)) {
		t.Helper()
		var group sync.WaitGroup
		for what, f := range ask {
			for range 10 {
				group.Go(func() {
					for range rounds {
						start := time.Now()
						err := f()
						check(t, what, time.Since(start), err)
					}
				})
			}
		}
		group.Wait()
	}
	recovers := func(t *testing.T) {
		t.Helper()
		for what, f := range ask {
			eventually(t, what+" to work again", func() bool { return f() == nil })
		}
	}
	// The deadline, and what a machine with other work may add to it.
	unavailable := func(t *testing.T, what string, took time.Duration, err error) {
		t.Helper()
		if med.KindOf(err) != med.DatabaseUnavailable || took > deadline+time.Minute { // a server that is paused answers never
			t.Errorf("%s: got %v after %s, want database-unavailable within %s", what, err, took, deadline)
		}
	}
	recovers(t)
	t.Run("paused", func(t *testing.T) {
		resume := pause(t, c.PID())
		defer resume()
		all(t, 3, unavailable)
	})
	t.Run("and going on", recovers)
	t.Run("a server process that dies takes its connections with it, and is told from a refusal", func(t *testing.T) {
		stop := make(chan struct{})
		var group sync.WaitGroup
		for what, f := range ask {
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := f(); err != nil && med.KindOf(err) != med.DatabaseUnavailable {
						t.Errorf("%s: got %v, want database-unavailable", what, err)
					}
				}
			})
		}
		pids := childrenOf(t, c.PID(), "medirecord_app")
		if len(pids) == 0 {
			t.Fatal("no server process of the API found")
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil { // the server ends all others, and recovers
			t.Fatal(err)
		}
		recovers(t)
		close(stop)
		group.Wait()
	})
	t.Run("gone", func(t *testing.T) {
		if err := c.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Log(err) // it may have had to be killed
		}
		all(t, 2, unavailable)
	})
}

// pause stops a server and all its processes, and returns what lets them go on.
func pause(t *testing.T, postmaster int) (resume func()) {
	t.Helper()
	pids := append([]int{postmaster}, childrenOf(t, postmaster, "")...)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	var once sync.Once
	resume = func() {
		once.Do(func() {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGCONT) // it may be gone
			}
		})
	}
	t.Cleanup(resume)
	return resume
}

// childrenOf lists the processes that a server started, or those whose command
// line holds a word.
func childrenOf(t *testing.T, parent int, word string) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Skip("this system has no /proc to find a server's processes in")
	}
	var out []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(b), ") ") // the name may hold anything
		var state string
		var ppid int
		if _, err := fmt.Sscan(after, &state, &ppid); err != nil || ppid != parent {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if strings.Contains(string(line), word) {
			out = append(out, pid)
		}
	}
	return out
}
