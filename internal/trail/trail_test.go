// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

func TestMain(m *testing.M) { medtest.Main(m) }

func open(t *testing.T, db *medtest.Databases, cfg trail.Config) *trail.Trail {
	t.Helper()
	cfg.URL, cfg.Deadline = db.URL("trail"), cmp.Or(cfg.Deadline, medtest.Patience)
	tr, err := trail.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func entry(subject string) *audit.Entry {
	e := audit.New(time.Now(), &med.Caller{Issuer: "test", Subject: subject}, "read", "patient", "p-1")
	e.Outcome = audit.Success
	return e
}

// rows returns outcome and code of the entry's rows.
func rows(t *testing.T, super *pgx.Conn, e *audit.Entry) []string {
	t.Helper()
	r, err := super.Query(t.Context(), `select outcome || ' ' || coalesce(code, '') from audit.event where event_id = $1::text::uuid`, string(e.ID))
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // polling for the thing itself
	}
}

func TestAppendReturnsWhenTheEntryIsCommitted(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	entries := make([]*audit.Entry, 200)
	var group sync.WaitGroup
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("user-%d", i))
		group.Go(func() {
			if err := tr.Append(entries[i]); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	super := db.Super(t)
	for _, e := range entries {
		if got := rows(t, super, e); len(got) != 1 || got[0] != "success " {
			t.Errorf("entry %s: got %v, want one success", e.ID, got)
		}
	}
	if s := tr.Stats(); s.Appended != 200 || s.Flushes >= 200 {
		t.Errorf("got %+v: nothing was grouped", s)
	}
}

// together appends entries while the trail is locked, so that they wait and are
// written as one batch, and returns what each got.
func together(t *testing.T, super, look *pgx.Conn, tr *trail.Trail, entries []*audit.Entry) []error {
	t.Helper()
	medtest.Exec(t, super, `begin`)
	medtest.Exec(t, super, `lock table audit.event in access exclusive mode`)
	errs := make([]error, len(entries))
	var group sync.WaitGroup
	group.Go(func() {
		if err := tr.Append(entry("before them")); err != nil {
			t.Errorf("before them: %v", err)
		}
	})
	waitFor(t, "the writer to be busy", func() bool { return waiting(t, look) == 1 })
	for i, e := range entries {
		group.Go(func() { errs[i] = tr.Append(e) })
	}
	waitFor(t, "all to be in the queue", func() bool { return tr.Stats().Waiting == uint64(len(entries)) })
	medtest.Exec(t, super, `rollback`)
	group.Wait()
	return errs
}

func TestABadEntryFailsAlone(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	wrong := func(i int) bool { return i%13 == 5 }
	entries := make([]*audit.Entry, 40)
	for i := range entries {
		entries[i] = entry("somebody")
		if wrong(i) {
			entries[i].OccurredAt = entries[i].OccurredAt.Add(-time.Hour) // row security refuses what is back-dated
		}
	}
	super := db.Super(t)
	errs := together(t, super, db.Super(t), tr, entries)
	for i, e := range entries {
		want := 1
		if wrong(i) {
			want = 0
		}
		if err := errs[i]; wrong(i) != (med.KindOf(err) == med.AuditUnavailable) || !wrong(i) && err != nil {
			t.Errorf("wrong %v: got %v", wrong(i), err)
		}
		if n := len(rows(t, super, e)); n != want {
			t.Errorf("entry %d: %d rows, want %d", i, n, want)
		}
	}
}

// What a change tells of more than one statement holds is there with it, or not
// at all.
func TestManyEntriesOfOneChangeAreAllOrNone(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super := db.Super(t)
	for name, c := range map[string]struct{ bad, want int }{"all": {-1, 120}, "none for the last": {119, 0}} {
		entries := make([]*audit.Entry, 120)
		for i := range entries {
			entries[i] = entry(name)
			if i == c.bad {
				entries[i].OccurredAt = entries[i].OccurredAt.Add(-time.Hour)
			}
		}
		err := pgx.BeginFunc(t.Context(), db.As(t, "trail"), func(tx pgx.Tx) error { return trail.AppendTx(t.Context(), tx, entries...) })
		if (err == nil) != (c.bad < 0) {
			t.Errorf("%s: got %v", name, err)
		}
		var n int
		medtest.Scan(t, super, []any{&n}, `select count(*) from audit.event where actor_subject = $1`, name)
		if n != c.want {
			t.Errorf("%s: got %d rows, want %d", name, n, c.want)
		}
	}
}

func TestALockedTrailRefusesInTimeAndTellsLater(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{Deadline: 700 * time.Millisecond})
	super := db.Super(t)
	medtest.Exec(t, super, `begin`)
	medtest.Exec(t, super, `lock table audit.event in access exclusive mode`)
	first, second := entry("first"), entry("second")
	start := time.Now()
	var group sync.WaitGroup
	for _, e := range []*audit.Entry{first, second} {
		group.Go(func() {
			if err := tr.Append(e); med.KindOf(err) != med.AuditUnavailable {
				t.Errorf("got %v, want audit-unavailable", err)
			}
		})
	}
	group.Wait()
	if took := time.Since(start); took > medtest.Patience { // the lock is held until both have their answer
		t.Errorf("it took %s", took)
	}
	medtest.Exec(t, super, `commit`)
	third := entry("third")
	waitFor(t, "the trail to be well again", func() bool { return tr.Append(third) == nil })
	for _, e := range []*audit.Entry{first, second} {
		// Whether it was still written or not, it must not tell of a disclosure
		// that a waiting call had given up before its batch was taken.
		for _, got := range rows(t, super, e) {
			if got != "failure audit_unavailable" && got != "success " {
				t.Errorf("got %q", got)
			}
		}
	}
	waitFor(t, "the trail to be healthy again", func() bool { return tr.Healthy(t.Context()) == nil })
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{Flushers: 1, Batch: 1, Queue: 1, Deadline: 2 * time.Minute})
	super, look := db.Super(t), db.Super(t)
	medtest.Exec(t, super, `begin`)
	medtest.Exec(t, super, `lock table audit.event in access exclusive mode`)
	var group sync.WaitGroup
	var ended atomic.Int32
	wait := func() {
		group.Go(func() {
			_ = tr.Append(entry("waiting"))
			ended.Add(1)
		})
	}
	wait()
	waitFor(t, "the first to be under way", func() bool { return waiting(t, look) == 1 })
	wait()
	waitFor(t, "the queue to fill", func() bool { return tr.Stats().Waiting == 1 })
	if err := tr.Append(entry("too many")); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("got %v, want audit-unavailable", err)
	}
	if n := ended.Load(); n > 0 {
		t.Errorf("it waited until %d of those before it had their answer", n)
	}
	medtest.Exec(t, super, `commit`)
	group.Wait()
}

func TestKilledConnectionsLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{Deadline: 15 * time.Second})
	super := db.Super(t)
	var group sync.WaitGroup
	entries := make([]*audit.Entry, 300)
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(15 * time.Millisecond):
				_, _ = super.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'medirecord_trail' and datname = current_database()`)
			}
		}
	})
	fine := make([]bool, len(entries))
	for i := range entries {
		entries[i] = entry("somebody")
		group.Go(func() { fine[i] = tr.Append(entries[i]) == nil })
		if i%10 == 0 {
			time.Sleep(2 * time.Millisecond) //nolint:forbidigo // spread over some kills
		}
	}
	group.Wait()
	close(stop)
	killer.Wait()
	for i, e := range entries {
		if n := len(rows(t, super, e)); n > 1 || fine[i] && n != 1 {
			t.Errorf("entry %d: said %v, and there are %d rows", i, fine[i], n)
		}
	}
}

func TestRevokedInsertIsNoticed(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	super := db.Super(t)
	medtest.Exec(t, super, `revoke insert on audit.event from medirecord_trail`)
	medtest.Exec(t, super, `alter table audit.event owner to postgres`) // column grants go with the owner's
	medtest.Exec(t, super, `revoke all on audit.event from medirecord_trail cascade`)
	if err := tr.Append(entry("somebody")); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("got %v, want audit-unavailable", err)
	}
	if err := tr.Healthy(t.Context()); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("health: got %v, want audit-unavailable", err)
	}
}

func TestAFloodOfRefusalsCostsNoEntry(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for n := range 5000 {
				tr.Refused(med.Origin{IP: fmt.Sprintf("10.%d.%d.%d", i, n/250, n%250), UserAgent: "\xff\x00bad"}, "unauthorized")
			}
		})
	}
	for range 50 {
		if err := tr.Append(entry("a good one")); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	tr.FlushRefusals(t.Context())
	var entries, counted int
	medtest.Scan(t, db.Super(t), []any{&entries, &counted}, `
		select count(*), coalesce(sum((detail::jsonb -> 'counts' ->> 'unauthorized')::int), 0) from audit.event where action = 'authenticate'`)
	if counted != 20_000 || entries > 600 {
		t.Errorf("%d entries count %d refusals, want 20000 in a few hundred", entries, counted)
	}
}

func TestCloseWritesWhatWaits(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr, err := trail.Open(t.Context(), trail.Config{Flushers: 1, URL: db.URL("trail"), Batch: 2, Deadline: medtest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var fine atomic.Int32
	for range 60 {
		group.Go(func() {
			if tr.Append(entry("last")) == nil {
				fine.Add(1)
			}
		})
	}
	waitFor(t, "the first", func() bool { return fine.Load() > 0 })
	tr.Close()
	group.Wait()
	var n int32
	medtest.Scan(t, db.Super(t), []any{&n}, `select count(*) from audit.event where actor_subject = 'last'`)
	if n < fine.Load() {
		t.Errorf("%d entries were said to be durable, %d are there", fine.Load(), n)
	}
	if err := tr.Append(entry("too late")); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("after Close: got %v, want audit-unavailable", err)
	}
}

func TestWhatAClientSendsCannotFailItsEntry(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	e := audit.New(time.Now(), &med.Caller{Issuer: "test", Subject: "s\x00\xff", Origin: med.Origin{UserAgent: "\xff\xfe\x00" + strings.Repeat("é", 4000), Origin: "\r\n"}}, "read", "patient", "p\x00")
	if err := tr.Append(e); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, db.Super(t), e); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
