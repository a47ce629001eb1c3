// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/pglocal"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

// wire stands between the trail and PostgreSQL and can cut or hold up what
// goes through.
type wire struct {
	dir  string
	hold sync.RWMutex // held for writing: nothing goes through
	// cut looks at each message, with where it comes from, and says whether the
	// connection ends there, before the message has gone on.
	cut atomic.Pointer[func(fromServer bool, kind byte, body []byte) bool]
}

func newWire(t *testing.T) *wire {
	t.Helper()
	c := medtest.Cluster(t)
	if c.External() {
		t.Skip("the server is not on a socket of ours")
	}
	dir, err := os.MkdirTemp("", "wire-") //nolint:usetesting // a socket's name has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	name := fmt.Sprintf(".s.PGSQL.%d", c.Port())
	l, err := net.Listen("unix", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{dir: dir}
	var group sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	group.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", filepath.Join(c.Socket(), name))
			if err != nil {
				_ = client.Close()
				continue
			}
			group.Go(func() { w.pass(server, client, false) })
			group.Go(func() { w.pass(client, server, true) })
		}
	})
	return w
}

// pass hands messages on until one side ends or a message is cut off.
func (w *wire) pass(to, from net.Conn, fromServer bool) {
	defer to.Close()
	defer from.Close()
	for first := true; ; first = false {
		head := make([]byte, 5)
		if first && !fromServer {
			head = head[1:] // a client begins with a message that has no kind
		}
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if f := w.cut.Load(); f != nil && len(head) == 5 && (*f)(fromServer, head[0], body) {
			return
		}
		w.hold.RLock()
		_, err := to.Write(append(head, body...))
		w.hold.RUnlock()
		if err != nil {
			return
		}
	}
}

// cutOnce ends one connection where the message is the one.
func (w *wire) cutOnce(is func(fromServer bool, kind byte, body []byte) bool) (done *atomic.Bool) {
	done = &atomic.Bool{}
	f := func(fromServer bool, kind byte, body []byte) bool {
		return is(fromServer, kind, body) && done.CompareAndSwap(false, true)
	}
	w.cut.Store(&f)
	return done
}

// url is the trail's address by way of the wire.
func (w *wire) url(t *testing.T, db *medtest.Databases) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(db.URL("trail"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d", cfg.User, cfg.Password, cfg.Database, w.dir, cfg.Port)
}

func openAt(t *testing.T, url string, cfg trail.Config) *trail.Trail {
	t.Helper()
	cfg.URL = url
	tr, err := trail.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// Whatever the moment in which the connection is lost, the entry is there
// exactly once, and the call is told so.
func TestALostConnectionLeavesExactlyOneRow(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super := db.Super(t)
	for _, c := range []struct {
		name string
		at   func(seen *atomic.Bool) func(fromServer bool, kind byte, body []byte) bool
	}{
		{"before the server has the rows", func(*atomic.Bool) func(bool, byte, []byte) bool {
			return func(fromServer bool, kind byte, _ []byte) bool { return !fromServer && kind == 'B' } // Bind
		}},
		{"after the server has inserted them and before we know", func(*atomic.Bool) func(bool, byte, []byte) bool {
			return func(fromServer bool, kind byte, body []byte) bool {
				return fromServer && kind == 'C' && strings.HasPrefix(string(body), "INSERT") // CommandComplete
			}
		}},
		{"after the commit and before we know", func(inserted *atomic.Bool) func(bool, byte, []byte) bool {
			return func(fromServer bool, kind byte, body []byte) bool {
				if fromServer && kind == 'C' && strings.HasPrefix(string(body), "INSERT") {
					inserted.Store(true)
				}
				return fromServer && kind == 'Z' && inserted.Load() // ReadyForQuery
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t)
			tr := openAt(t, w.url(t, db), trail.Config{Deadline: 20 * time.Second})
			if err := tr.Append(entry("first")); err != nil { // the statement is prepared
				t.Fatal(err)
			}
			for _, many := range []int{1, 30} {
				var inserted atomic.Bool
				cut := w.cutOnce(c.at(&inserted))
				entries := make([]*audit.Entry, many)
				var group sync.WaitGroup
				for i := range entries {
					entries[i] = entry("somebody")
					group.Go(func() {
						if err := tr.Append(entries[i]); err != nil {
							t.Errorf("got %v, want it written on another connection", err)
						}
					})
				}
				group.Wait()
				if !cut.Load() {
					t.Fatal("no connection was cut")
				}
				for _, e := range entries {
					if got := rows(t, super, e); !slices.Equal(got, []string{"success "}) {
						t.Errorf("of %d: got %q, want one row", many, got)
					}
				}
			}
		})
	}
}

// The same of a batch that the server refuses for one entry and that is split:
// wherever the connection is lost on that way, the others are there once.
func TestALostConnectionWhileABatchIsSplitLeavesExactlyOneRow(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super, look := db.Super(t), db.Super(t)
	w := newWire(t)
	tr := openAt(t, w.url(t, db), trail.Config{Flushers: 1, Batch: 8, Deadline: medtest.Patience})
	for n := int32(1); ; n++ {
		// The n-th Bind, end of a statement or end of its transaction.
		var seen atomic.Int32
		cut := w.cutOnce(func(fromServer bool, kind byte, _ []byte) bool {
			return (fromServer && (kind == 'C' || kind == 'Z') || !fromServer && kind == 'B') && seen.Add(1) == n
		})
		entries := make([]*audit.Entry, 8)
		for i := range entries {
			entries[i] = entry("somebody")
		}
		entries[3].OccurredAt = entries[3].OccurredAt.Add(-time.Hour)
		for i, err := range together(t, super, look, tr, entries) {
			wrong, got := i == 3, rows(t, super, entries[i])
			if wrong && (med.KindOf(err) != med.AuditUnavailable || len(got) > 0) || !wrong && (err != nil || !slices.Equal(got, []string{"success "})) {
				t.Errorf("cut at %d: entry %d: got %q and %v, want one row, and none of the wrong one", n, i, got, err)
			}
		}
		if !cut.Load() {
			if n < 20 {
				t.Errorf("only %d messages: nothing was split", n)
			}
			return
		}
	}
}

// A sink that accepts and never answers is the one that hangs others.
func TestASinkThatNeverAnswersIsRefusedInTime(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	w := newWire(t)
	const deadline = 3 * time.Second // less, and what comes before the silence might not be in time either
	tr := openAt(t, w.url(t, db), trail.Config{Flushers: 1, Deadline: deadline, Batch: 5})
	if err := tr.Append(entry("before")); err != nil {
		t.Fatal(err)
	}
	w.hold.Lock()
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			start := time.Now()
			err := tr.Append(entry("meanwhile"))
			if took := time.Since(start); med.KindOf(err) != med.AuditUnavailable || took > deadline+medtest.Patience { // one batch after the other would take two minutes
				t.Errorf("got %v after %s, want audit-unavailable within %s", err, took, deadline)
			}
		})
	}
	group.Wait()
	if err := tr.Healthy(t.Context()); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("health: got %v, want audit-unavailable", err)
	}
	w.hold.Unlock()
	waitFor(t, "the trail to be written again", func() bool { return tr.Append(entry("after")) == nil })
	waitFor(t, "the trail to be healthy again", func() bool { return tr.Healthy(t.Context()) == nil })
}

// What is recorded of a call that had its 503 before its entry was written.
func TestTheEntryOfAnAbandonedCallTellsWhatHappened(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{Flushers: 1, Batch: 1, Deadline: 6 * time.Second})
	super, look := db.Super(t), db.Super(t)
	medtest.Exec(t, super, `begin`)
	medtest.Exec(t, super, `lock table audit.event in access exclusive mode`)
	// The first two keep the writer busy for longer than the others wait.
	shown, denied, failed := entry("shown"), entry("denied"), entry("failed")
	shown.Detail.Clear, shown.Detail.Masked, shown.Detail.Hidden = []med.Field{"name"}, []med.Field{"ssn"}, []med.Field{"dob"}
	denied.Outcome, denied.Code = audit.Denied, "forbidden"
	failed.Outcome, failed.Code = audit.Failure, "keys_unavailable"
	var group sync.WaitGroup
	refuse := func(e *audit.Entry) {
		group.Go(func() {
			if err := tr.Append(e); med.KindOf(err) != med.AuditUnavailable {
				t.Errorf("%s: got %v, want audit-unavailable", e.Actor.Subject, err)
			}
		})
	}
	refuse(entry("first"))
	waitFor(t, "the first to be taken", func() bool { return waiting(t, look) == 1 })
	refuse(entry("second"))
	waitFor(t, "the second to be in the queue", func() bool { return tr.Stats().Waiting == 1 })
	for _, e := range []*audit.Entry{shown, denied, failed} {
		refuse(e)
	}
	group.Wait()
	medtest.Exec(t, super, `rollback`)
	for _, c := range []struct {
		e    *audit.Entry
		want string
	}{{shown, "failure audit_unavailable"}, {denied, "denied forbidden"}, {failed, "failure audit_unavailable"}} {
		waitFor(t, "the entry of "+c.e.Actor.Subject, func() bool { return len(rows(t, super, c.e)) > 0 })
		if got := rows(t, super, c.e); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: got %q, want %q", c.e.Actor.Subject, got, c.want)
		}
	}
	var detail string
	medtest.Scan(t, super, []any{&detail}, `select detail from audit.event where event_id = $1::text::uuid`, string(shown.ID))
	if d, err := audit.ParseDetail(detail); err != nil || len(d.Clear)+len(d.Masked)+len(d.Hidden) > 0 {
		t.Errorf("got %s (%v), want no fields: nothing was shown", detail, err)
	}
	if shown.Outcome != audit.Success || len(shown.Detail.Clear) != 1 {
		t.Error("the call's own entry was changed under its hands")
	}
}

// waiting counts the statements that wait for a lock of the trail.
func waiting(t *testing.T, look *pgx.Conn) (n int) {
	t.Helper()
	medtest.Scan(t, look, []any{&n}, `select count(*) from pg_locks where not granted and relation = 'audit.event'::regclass`)
	return n
}

// Readiness turns red while the trail cannot be written, whatever the reason,
// and green when it can.
func TestHealthTurnsRedAndGreenAgain(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super := db.Super(t)
	var columns, partition, bounds string
	medtest.Scan(t, super, []any{&columns}, `select string_agg(column_name, ', ') from information_schema.column_privileges
		where grantee = 'medirecord_trail' and table_schema = 'audit' and privilege_type = 'INSERT'`)
	medtest.Scan(t, super, []any{&partition, &bounds}, `select c.oid::regclass::text, pg_get_expr(relpartbound, c.oid)
		from pg_class c where relname = 'event_' || to_char(now() at time zone 'UTC', 'YYYY_MM')`)
	for _, c := range []struct{ name, breaks, mends string }{
		{"the right to insert revoked", `revoke insert on audit.event from medirecord_trail`, `grant insert (` + columns + `) on audit.event to medirecord_trail`},
		{"the right to the schema revoked", `revoke usage on schema audit from medirecord_trail`, `grant usage on schema audit to medirecord_trail`},
		{"no partition for today", `alter table audit.event detach partition ` + partition, `alter table audit.event attach partition ` + partition + ` ` + bounds},
		{"a column too few", `alter table audit.event rename column detail to other`, `alter table audit.event rename column other to detail`},
		{"a trigger that fails", `create function audit.fails() returns trigger language plpgsql as $$ begin raise exception 'x' using errcode = 'P0001'; end $$;
			create trigger fails before insert on audit.event for each row execute function audit.fails()`, `drop function audit.fails() cascade`},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := open(t, db, trail.Config{Deadline: medtest.Patience})
			if err := errors.Join(tr.Append(entry("before")), tr.Healthy(t.Context())); err != nil {
				t.Fatalf("before: %v", err)
			}
			medtest.Exec(t, super, c.breaks)
			e := entry("meanwhile")
			err, red := tr.Append(e), tr.Healthy(t.Context())
			medtest.Exec(t, super, c.mends)
			if med.KindOf(err) != med.AuditUnavailable {
				t.Errorf("an entry: got %v, want audit-unavailable", err)
			}
			if med.KindOf(red) != med.AuditUnavailable {
				t.Errorf("health: got %v, want audit-unavailable", red)
			}
			if got := rows(t, super, e); len(got) > 0 {
				t.Errorf("got %q for an entry that was refused, want none", got)
			}
			if err := errors.Join(tr.Healthy(t.Context()), tr.Append(entry("after"))); err != nil {
				t.Errorf("mended: %v", err)
			}
		})
	}
	t.Run("a bad entry is not a bad trail", func(t *testing.T) {
		tr := open(t, db, trail.Config{})
		bad := entry("bad")
		bad.OccurredAt = bad.OccurredAt.Add(-time.Hour)
		if err := tr.Append(bad); med.KindOf(err) != med.AuditUnavailable {
			t.Errorf("got %v, want audit-unavailable", err)
		}
		if err := tr.Healthy(t.Context()); err != nil {
			t.Errorf("health: got %v", err)
		}
	})
	t.Run("a probe leaves nothing", func(t *testing.T) {
		var n int
		medtest.Scan(t, super, []any{&n}, `select count(*) from audit.event where action = 'probe'`)
		if n != 0 {
			t.Errorf("got %d entries of probes, want none", n)
		}
	})
}

// Deadlines are measured, not read off a clock that may be set.
func TestAClockThatIsWrongDoesNotCutDeadlines(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		tr := open(t, db, trail.Config{Now: func() time.Time { return time.Now().Add(off) }, Deadline: medtest.Patience})
		e := entry("on time")
		if err := tr.Append(e); err != nil {
			t.Errorf("with a clock %s off: got %v", off, err)
		}
		if got := rows(t, db.Super(t), e); len(got) != 1 {
			t.Errorf("with a clock %s off: got %q, want the row", off, got)
		}
	}
}

func TestATrailThatCannotBeReachedIsNotOpened(t *testing.T) {
	t.Parallel()
	medtest.Cluster(t)
	for _, url := range []string{"postgres://medirecord_trail:hunter2@/x?host=" + t.TempDir(), "postgres://u:hunter2@[::1/x", "", "hunter2"} {
		if tr, err := trail.Open(t.Context(), trail.Config{URL: url}); med.KindOf(err) != med.AuditUnavailable || tr != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want audit-unavailable without the password", err)
		}
	}
}

// The entry of a change stands and falls with it.
func TestAnEntryInTheTransactionOfItsChange(t *testing.T) {
	t.Parallel()
	dbs := medtest.DB(t)
	super := dbs.Super(t)
	db, err := postgres.Open(t.Context(), postgres.Config{URL: dbs.URL("app"), Deadline: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	operator := med.Caller{Issuer: "medirecord", Subject: "service:operator", Service: "operator"}
	add := func(practice string, change func(*audit.Entry), work func(tx pgx.Tx, write func() error) error) (*audit.Entry, error) {
		signed, nonce, _, err := token.NewMinter(medtest.ContextKey, time.Now).Mint(token.Context{
			Issuer: operator.Issuer, Subject: operator.Subject, Service: "operator", Action: "practice.add", Practice: med.PracticeID(practice), Patient: "*",
		}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		e := audit.New(time.Now(), &operator, "practice_add", "practice", practice)
		e.Outcome, e.ContextNonce = audit.Success, nonce
		if change != nil {
			change(e)
		}
		return e, db.InTx(t.Context(), signed, func(tx pgx.Tx) error {
			return work(tx, func() error {
				if _, err := tx.Exec(t.Context(), `insert into medirecord.practice (id, name, event_id) values ($1, 'x', $2::text::uuid)`, practice, string(e.ID)); err != nil {
					return err
				}
				return trail.AppendTx(t.Context(), tx, e)
			})
		})
	}
	no := errors.New("no")
	for _, c := range []struct {
		name   string
		change func(*audit.Entry)
		work   func(tx pgx.Tx, write func() error) error
		there  bool
	}{
		{"both when it commits", nil, func(_ pgx.Tx, write func() error) error { return write() }, true},
		{"neither when it is rolled back", nil, func(_ pgx.Tx, write func() error) error { return errors.Join(write(), no) }, false},
		{"neither when something later fails", nil, func(tx pgx.Tx, write func() error) error {
			if err := write(); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `select 1/0`)
			return err
		}, false},
		{"neither when the entry names another actor", func(e *audit.Entry) { e.Actor.Subject = "somebody" }, func(_ pgx.Tx, write func() error) error { return write() }, false},
		{"neither when the entry is dated back", func(e *audit.Entry) { e.OccurredAt = e.OccurredAt.Add(-time.Hour) }, func(_ pgx.Tx, write func() error) error { return write() }, false},
		{"neither when the change is there already", nil, func(tx pgx.Tx, write func() error) error { return errors.Join(write(), write()) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			practice := med.NewUUID(time.Now())
			e, err := add(practice, c.change, c.work)
			if (err == nil) != c.there {
				t.Errorf("got %v, want it to succeed: %v", err, c.there)
			}
			var changes int
			medtest.Scan(t, super, []any{&changes}, `select count(*) from medirecord.practice where id = $1`, practice)
			if entries := len(rows(t, super, e)); (changes == 1) != c.there || (entries == 1) != c.there {
				t.Errorf("got %d changes and %d entries, want both: %v", changes, entries, c.there)
			}
		})
	}
	t.Run("what a client sent is made fit to store", func(t *testing.T) {
		if e, err := add(med.NewUUID(time.Now()), func(e *audit.Entry) { e.ResourceID, e.Detail.UserAgent = "x\x00\xff\n", "\xff\x00\n" }, func(_ pgx.Tx, write func() error) error { return write() }); err != nil || len(rows(t, super, e)) != 1 {
			t.Errorf("got %v, want it written", err)
		}
	})
}

func TestRefusalsWaitForATrailThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super := db.Super(t)
	tr := open(t, db, trail.Config{})
	counted := func() (n, sum int) {
		medtest.Scan(t, super, []any{&n, &sum}, `select count(distinct event_id), coalesce(sum((detail::jsonb -> 'counts' ->> 'unauthorized')::int), 0) from audit.event where action = 'authenticate'`)
		return n, sum
	}
	refuse := func(times int) {
		for i := range times {
			tr.Refused(med.Origin{IP: fmt.Sprintf("192.0.2.%d", i%2)}, "unauthorized")
		}
	}
	medtest.Exec(t, super, `revoke usage on schema audit from medirecord_trail`)
	refuse(10)
	for range 2 {
		tr.FlushRefusals(t.Context())
	}
	refuse(4)
	if n, sum := counted(); n != 0 || sum != 0 {
		t.Errorf("got %d entries of %d, want none yet", n, sum)
	}
	medtest.Exec(t, super, `grant usage on schema audit to medirecord_trail`)
	for range 2 {
		tr.FlushRefusals(t.Context())
	}
	if n, sum := counted(); n != 2 || sum != 14 {
		t.Errorf("got %d entries of %d, want 2 of 14", n, sum)
	}
	t.Run("and there are no more of them than of addresses in a minute", func(t *testing.T) {
		medtest.Exec(t, super, `revoke usage on schema audit from medirecord_trail`)
		for i := range 2000 {
			tr.Refused(med.Origin{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250)}, "unauthorized")
		}
		tr.FlushRefusals(t.Context())
		for i := range 2000 {
			tr.Refused(med.Origin{IP: fmt.Sprintf("10.1.%d.%d", i/250, i%250)}, "unauthorized")
		}
		tr.FlushRefusals(t.Context())
		medtest.Exec(t, super, `grant usage on schema audit to medirecord_trail`)
		tr.FlushRefusals(t.Context())
		if n, sum := counted(); sum != 4014 || n > 2+600 {
			t.Errorf("got %d entries of %d, want 4014 refusals in a few hundred", n, sum)
		}
	})
}

// The settings that make a commit durable are pinned to the role.
func TestTheWritersCommitsAreSynchronousWhateverTheDatabaseSays(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	medtest.Exec(t, db.Super(t), `alter database `+db.Clinical+` set synchronous_commit = off`)
	for _, role := range []string{"trail", "app"} {
		var sync string
		medtest.Scan(t, db.As(t, role), []any{&sync}, `select current_setting('synchronous_commit')`)
		if sync != "on" {
			t.Errorf("%s: got synchronous_commit %s, want on", role, sync)
		}
	}
}

// Every entry whose Append returned nil is there after PostgreSQL was killed
// and has recovered; none is there twice.
func TestEntriesSurviveACrash(t *testing.T) {
	t.Parallel()
	if medtest.Cluster(t).External() {
		t.Skip("the server is not ours to kill")
	}
	// Not t.TempDir: PostgreSQL's own user must be able to enter.
	dir, err := os.MkdirTemp("", "crash-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	start := func() *pglocal.Cluster {
		c, err := pglocal.Start(t.Context(), pglocal.Config{Dir: dir, Settings: map[string]string{"shared_buffers": "32MB"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	t.Cleanup(func() { _ = c.Stop(context.WithoutCancel(t.Context())) })
	prepare(t, c)
	sure := map[med.EventID]bool{}
	for range 2 {
		tr, err := trail.Open(t.Context(), trail.Config{URL: c.URL("medirecord_trail", "p", "clinical"), Deadline: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var group sync.WaitGroup
		var fine atomic.Int32
		killed := make(chan struct{})
		for range 16 {
			group.Go(func() {
				for {
					e := entry("somebody")
					err := tr.Append(e)
					if err == nil {
						mu.Lock()
						sure[e.ID] = true
						mu.Unlock()
						fine.Add(1)
						continue
					}
					select {
					case <-killed:
						return
					default:
						t.Errorf("before the crash: %v", err)
						return
					}
				}
			})
		}
		waitFor(t, "entries", func() bool { return fine.Load() > 200 })
		close(killed)
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		tr.Close()
		c = start()
		conn := medtest.Connect(t, c.SuperuserURL("clinical"))
		there := map[med.EventID]int{}
		r, err := conn.Query(t.Context(), `select event_id::text from audit.event`)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := pgx.CollectRows(r, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			there[med.EventID(id)]++
		}
		for id := range sure {
			if there[id] != 1 {
				t.Errorf("entry %s, which was said to be durable: got %d rows, want 1", id, there[id])
			}
		}
		t.Logf("%d entries were sure, %d are there", len(sure), len(ids))
	}
}

// prepare makes the clinical database of a cluster of one's own.
func prepare(t *testing.T, c *pglocal.Cluster) {
	t.Helper()
	super := medtest.Connect(t, c.SuperuserURL("postgres"))
	if err := postgres.Bootstrap(t.Context(), super, "clinical"); err != nil {
		t.Fatal(err)
	}
	if err := postgres.SetPassword(t.Context(), super, "medirecord_trail", "p"); err != nil {
		t.Fatal(err)
	}
	steps, err := postgres.Clinical()
	if err != nil {
		t.Fatal(err)
	}
	conn := medtest.Connect(t, c.SuperuserURL("clinical"))
	if err := postgres.Migrate(t.Context(), conn, steps, func(string) {}); err != nil {
		t.Fatal(err)
	}
	medtest.Exec(t, conn, `select audit.make_partitions(1)`)
	_ = conn.Close(t.Context())
	_ = super.Close(t.Context())
}
