// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/pglocal"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

// The hospital of this benchmark: its size is that of its trail's months, not
// of its rate. An entry is made by arithmetic, so that the questions know what
// there is to find.
const (
	benchPractices    = 20
	benchPatients     = 10_000 // 500 in each practice: 1,000 entries about each in 10 million
	benchUsers        = 500    // 25 in each practice
	benchPerDay       = 55_556 // 10 million in 180 days: 111 by each user a day
	benchPassword     = "medirecord-bench"
	benchIssuer       = "https://issuer.bench.invalid"
	lastAccesses      = 100
	appendersToReplay = 32
)

var benchKey = token.ContextKey{KID: "bench", Key: [32]byte{9, 8, 7, 6, 5, 4, 3, 2, 1}}

// trailReading measures what a reader of the trail waits for, at a tenth of the
// entries and at all of them, and what the indexes for it cost the writer.
func trailReading(ctx context.Context, b *bench, r *result) error {
	c, done, err := pglocal.Scratch(ctx, pglocal.Config{Settings: map[string]string{
		"max_connections": "100", "shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB", "checkpoint_timeout": "30min",
	}})
	if err != nil {
		return err
	}
	defer done()
	l := &library{bench: b, cluster: c, name: "reading", now: time.Now().UTC().Truncate(time.Millisecond)}
	if err := l.build(ctx); err != nil {
		return err
	}
	few := max(1, b.entries/10)
	if err := l.fill(ctx, 0, few); err != nil {
		return err
	}
	if err := l.appending(ctx, r); err != nil {
		return err
	}
	small, err := l.read(ctx, few)
	if err != nil {
		return err
	}
	if err := l.fill(ctx, few, b.entries); err != nil {
		return err
	}
	large, err := l.read(ctx, b.entries)
	if err != nil {
		return err
	}
	l.tell(r, few, small, large)
	return nil
}

// library is a trail of many entries.
type library struct {
	*bench
	cluster *pglocal.Cluster
	name    string
	now     time.Time // the newest entry
}

func (l *library) build(ctx context.Context) error {
	super, err := pgx.Connect(ctx, l.cluster.SuperuserURL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(context.WithoutCancel(ctx)) }()
	if err := postgres.Bootstrap(ctx, super, l.name); err != nil {
		return err
	}
	for _, role := range []string{"migrator", "app", "trail"} {
		if err := postgres.SetPassword(ctx, super, "medirecord_"+role, benchPassword); err != nil {
			return err
		}
	}
	steps, err := postgres.Clinical()
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, l.url("migrator", l.name))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := postgres.Migrate(ctx, conn, steps, func(string) {}); err != nil {
		return err
	}
	if _, err := postgres.InstallContextKey(ctx, conn, benchKey.KID, benchKey.Key); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `select audit.make_partitions(6)`); err != nil {
		return err
	}
	return l.super(ctx, l.name, olderMonths)
}

func (l *library) url(role, database string) string {
	return l.cluster.URL("medirecord_"+role, benchPassword, database)
}

// super runs statements as superuser, who fills what nobody else can.
func (l *library) super(ctx context.Context, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, l.cluster.SuperuserURL(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.60s: %w", s, err)
		}
	}
	return nil
}

// olderMonths makes the partitions of the past, as make_partitions made them
// when they were ahead.
const olderMonths = `
do $$
declare
  month date := date_trunc('month', now() at time zone 'UTC')::date - interval '7 months';
  name text;
begin
  set local role medirecord_owner;
  while month < now() loop
    name := 'event_' || to_char(month, 'YYYY_MM');
    if to_regclass('audit_part.' || name) is null then
      execute format('create table audit_part.%I (like audit.event including defaults including constraints)', name);
      execute format('alter table audit_part.%I enable row level security', name);
      execute format('alter table audit_part.%I force row level security', name);
      execute format('alter table audit.event attach partition audit_part.%I for values from (%L) to (%L)',
        name, month::timestamp at time zone 'UTC', (month + interval '1 month')::timestamp at time zone 'UTC');
    end if;
    month := month + interval '1 month';
  end loop;
end
$$`

// entriesSQL makes the entries from the first number up to the second, the
// newest first: of 100, 96 by a practice's own people, two by those of another
// on a grant, two by an import. Numbers count back in time from now.
const entriesSQL = `
insert into audit.event (event_id, occurred_at, recorded_at, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
                         action, resource_type, resource_id, outcome, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(m, 1, 3) || '8' || substr(m, 4, 15))::uuid,
       at, at + interval '4 ms', case when kind < 98 then '%[1]s' else 'medirecord' end,
       case when kind < 98 then 'user-' || u else 'service:import' end, case when kind < 96 then 'practice-' || p when kind < 98 then 'practice-' || (p + 1) %% %[2]d end,
       'patient-' || p + %[2]d * q, 'practice-' || p, case when kind < 98 then 'read' else 'import' end, 'patient', 'patient-' || p + %[2]d * q, 'success',
       kind in (96, 97), substr(m, 1, 22), 'e1.bench.1795839136.patient.read.' || m || m,
       '{"roles":["clinician"],"session":"' || m || '","token_id":"' || m || '","mfa":"fresh","clear":["name","ssn","dob","diagnosis"],"reason":"permitted",' ||
       '"ip":"192.0.2.1","user_agent":"Mozilla/5.0 (X11; Linux x86_64) Chart/2.0","request_id":"' || m || '","policy_revision":"6426092c6d12"}',
       decode(m, 'hex'), 1
  from (select at, m, h %% 100 as kind, h / 100 %% %[2]d as p, h / 10000 %% (%[3]d / %[2]d) as q,
               h / 100 %% %[2]d + %[2]d * (h / 10000000 %% (%[4]d / %[2]d)) as u
          from (select date_trunc('milliseconds', $1::timestamptz - i * interval '1 day' / %[5]d) as at, md5(i::text) as m,
                       ('x' || substr(md5('h' || i), 1, 15))::bit(60)::bigint as h
                  from generate_series($2::bigint, $3::bigint - 1) i) a) b`

// droppedIndexes notes and drops the indexes that are made after the filling: as good as grown,
// and much faster.
const droppedIndexes = `
create table if not exists public.index_made (name text, def text);
insert into public.index_made
  select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index i
   where i.indrelid = 'audit.event'::regclass and not i.indisprimary;
do $$
declare d record;
begin
  for d in select * from public.index_made loop execute 'drop index ' || d.name; end loop;
end
$$`

const madeIndexes = `
set role medirecord_owner;
do $$
declare d record;
begin
  for d in select * from public.index_made loop execute replace(d.def, ' ON ONLY ', ' ON '); end loop;
end
$$;
reset role;
drop table public.index_made`

const (
	fillStep = 100_000
	fillers  = 4
)

// insert makes the entries, several steps at once.
func (l *library) insert(ctx context.Context, sql string, from, to int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	began := time.Now()
	var next atomic.Int64
	next.Store(int64(from))
	var group sync.WaitGroup
	for range fillers {
		group.Go(func() {
			conn, err := pgx.Connect(ctx, l.cluster.SuperuserURL(l.name))
			if err != nil {
				stop(err)
				return
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			_, err = conn.Exec(ctx, `set synchronous_commit = off`)
			for at := int(next.Add(fillStep)) - fillStep; at < to && err == nil; at = int(next.Add(fillStep)) - fillStep {
				_, err = conn.Exec(ctx, sql, l.now, at, min(at+fillStep, to))
				l.say("%d of %d entries, %s", min(at+fillStep, to), to, time.Since(began).Round(time.Second))
			}
			if err != nil {
				stop(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// fill makes the entries of these numbers.
func (l *library) fill(ctx context.Context, from, to int) error {
	began := time.Now()
	conn, err := pgx.Connect(ctx, l.cluster.SuperuserURL(l.name))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	insert := fmt.Sprintf(entriesSQL, benchIssuer, benchPractices, benchPatients, benchUsers, benchPerDay)
	if _, err := conn.Exec(ctx, droppedIndexes); err != nil {
		return err
	}
	if err := l.insert(ctx, insert, from, to); err != nil {
		return err
	}
	for _, s := range []string{`grant select on public.index_made to medirecord_owner`, madeIndexes, `vacuum analyze audit.event`, `checkpoint`} {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.60s: %w", s, err)
		}
	}
	l.say("%d entries with their indexes, %s", to, time.Since(began).Round(time.Second))
	return nil
}

// readings are what one size of the trail took.
type readings struct {
	accesses, day, practice load
	touched, rows           map[string]float64          // 8 KiB pages and entries of one reading, by kind
	cpu                     map[string][2]time.Duration // of the server for one reading, p50 and p99
	bytes                   int64
}

// question is one reading of the trail, as whom, and how many rows there can be.
type question struct {
	as   token.Context
	q    postgres.TrailQuery
	most int
}

// read measures the three readings, one caller after another's answer.
func (l *library) read(ctx context.Context, entries int) (readings, error) {
	// One connection: what its server process does is what the readings do.
	db, err := postgres.Open(ctx, postgres.Config{URL: l.url("app", l.name), Conns: 1})
	if err != nil {
		return readings{}, err
	}
	defer db.Close()
	var pid int
	if err := db.Pool().QueryRow(ctx, `select pg_backend_pid()`).Scan(&pid); err != nil {
		return readings{}, err
	}
	minter := token.NewMinter(benchKey, time.Now)
	days := max(1, entries/benchPerDay)
	out := readings{touched: map[string]float64{}, rows: map[string]float64{}, cpu: map[string][2]time.Duration{}}
	for _, kind := range []struct {
		name string
		into *load
		ask  func(r *rand.Rand) question
	}{
		{"accesses", &out.accesses, l.accessesOf},
		{"day", &out.day, func(r *rand.Rand) question { return l.dayOf(r, days) }},
		{"practice", &out.practice, l.practiceOf},
	} {
		r := rand.New(rand.NewPCG(uint64(entries), 1)) //nolint:gosec // which questions are asked is no secret
		var busy []time.Duration
		work := func(int, int) error {
			before, known := cpuOf(pid)
			_, err := l.ask(ctx, db, minter, kind.ask(r))
			if after, _ := cpuOf(pid); known {
				busy = append(busy, after-before)
			}
			return err
		}
		if _, err := loop(ctx, 1, time.Second, work); err != nil { // connections, plans
			return out, err
		}
		busy = nil
		if *kind.into, err = loop(ctx, 1, time.Duration(l.seconds)*time.Second, work); err != nil {
			return out, err
		}
		slices.Sort(busy)
		out.cpu[kind.name] = [2]time.Duration{quantile(busy, .5), quantile(busy, .99)}
		if out.touched[kind.name], out.rows[kind.name], err = l.touched(ctx, db, minter, kind.ask, r); err != nil {
			return out, err
		}
		l.say("%d entries, %s: p50 %.2f ms, p99 %.2f ms, of the server's time p99 %.2f ms, %.0f pages", entries, kind.name, us(kind.into.p50)/1e3,
			us(kind.into.p99)/1e3, us(out.cpu[kind.name][1])/1e3, out.touched[kind.name])
	}
	return out, db.Pool().QueryRow(ctx, `select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('audit.event')`).Scan(&out.bytes)
}

// cpuOf returns how long a process has been on a processor. It knows that of
// processes of this Linux only.
func cpuOf(pid int) (time.Duration, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(b), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns), err == nil
}

func (l *library) accessesOf(r *rand.Rand) question {
	patient := fmt.Sprintf("patient-%d", r.IntN(benchPatients))
	return question{
		as:   token.Context{Issuer: benchIssuer, Subject: "self-" + patient, Roles: []string{"patient"}, Practice: "practice-0", Patient: patient, Self: patient},
		q:    postgres.TrailQuery{Whose: patient, Until: l.now.Add(time.Hour), Limit: lastAccesses},
		most: lastAccesses,
	}
}

func (l *library) officer(practice int) token.Context {
	return token.Context{Issuer: benchIssuer, Subject: "officer", Roles: []string{"officer"}, Practice: med.PracticeID(fmt.Sprintf("practice-%d", practice))}
}

func (l *library) dayOf(r *rand.Rand, days int) question {
	user := r.IntN(benchUsers)
	until := l.now.AddDate(0, 0, -r.IntN(days))
	as := l.officer(user % benchPractices)
	return question{as: as, most: med.MaxLimit, q: postgres.TrailQuery{
		Practice: string(as.Practice), Who: fmt.Sprintf("user-%d", user), Since: until.AddDate(0, 0, -1), Until: until, Limit: med.MaxLimit,
	}}
}

func (l *library) practiceOf(r *rand.Rand) question {
	as := l.officer(r.IntN(benchPractices))
	return question{as: as, most: med.DefaultLimit, q: postgres.TrailQuery{Practice: string(as.Practice), Until: l.now.Add(time.Hour), Limit: med.DefaultLimit}}
}

// ask is one reading as the product does it: a context of its own, a
// transaction under it, the query, and the details taken apart.
func (l *library) ask(ctx context.Context, db *postgres.DB, minter *token.Minter, ask question) (rows int, err error) {
	ask.as.Action = "audit.read"
	signed, _, _, err := minter.Mint(ask.as, token.MaxContextTTL)
	if err != nil {
		return 0, err
	}
	err = db.InTx(ctx, signed, func(tx pgx.Tx) error {
		page, err := db.Trail(ctx, tx, ask.q)
		if err != nil {
			return err
		}
		rows += len(page.Rows)
		if len(page.Rows) > ask.most {
			return fmt.Errorf("a reading with %d rows", len(page.Rows))
		}
		for i := range page.Rows {
			if _, err := audit.ParseDetail(page.Rows[i].Detail); err != nil {
				return err
			}
		}
		return nil
	})
	return rows, err
}

// touched returns how many pages one reading touches, in memory or not: the
// figure that a busy machine does not change.
func (l *library) touched(ctx context.Context, db *postgres.DB, minter *token.Minter, ask func(*rand.Rand) question, r *rand.Rand) (pagesEach, rowsEach float64, err error) {
	const times = 100
	conn, err := pgx.Connect(ctx, l.cluster.SuperuserURL(l.name))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var before, after int64
	pages := func(n *int64) error {
		// A backend tells what it did when it likes, unless it is told to.
		if _, err := db.Pool().Exec(ctx, `select pg_stat_force_next_flush()`); err != nil {
			return err
		}
		return conn.QueryRow(ctx, `select blks_hit + blks_read from pg_stat_database where datname = $1`, l.name).Scan(n)
	}
	if err := pages(&before); err != nil {
		return 0, 0, err
	}
	rows := 0
	for range times {
		n, err := l.ask(ctx, db, minter, ask(r))
		if err != nil {
			return 0, 0, err
		}
		rows += n
	}
	if err := pages(&after); err != nil {
		return 0, 0, err
	}
	return float64(after-before) / times, float64(rows) / times, nil
}

// appending measures the product's writer with and without the indexes of
// reading, on two databases that are otherwise the same.
func (l *library) appending(ctx context.Context, r *result) error {
	const lean = "lean"
	if err := l.super(ctx, "postgres", `create database `+lean+` template `+l.name); err != nil {
		return err
	}
	if err := l.super(ctx, lean, `grant connect on database `+lean+` to medirecord_trail`,
		`drop index audit.event_practice, audit.event_actor, audit.event_visit, audit.event_visitor, audit.event_glass, audit.event_glass_visit`, `checkpoint`); err != nil {
		return err
	}
	var with, without []load
	for round := range l.rounds {
		for _, step := range []struct {
			into     *[]load
			database string
		}{{&without, lean}, {&with, l.name}} {
			got, err := l.appendTo(ctx, step.database)
			if err != nil {
				return err
			}
			*step.into = append(*step.into, got)
		}
		l.say("round %d of %d: without the indexes %.0f/s, with them %.0f/s", round+1, l.rounds, without[round].perSecond, with[round].perSecond)
	}
	if err := l.inserting(ctx, r, lean); err != nil {
		return err
	}
	r.figure("append_without_per_second", middle(without).perSecond, "1/s", fmt.Sprintf("%d callers of trail.Append, without the indexes of reading", appendersToReplay))
	r.figure("append_with_per_second", middle(with).perSecond, "1/s", "with them")
	r.spread("append_with_over_without", ratios(with, without), "what the writer keeps of its rate")
	return l.super(ctx, "postgres", `drop database `+lean+` with (force)`)
}

// inserting measures what a busy machine does not change: how long PostgreSQL is
// on a processor for one entry, in batches of a group commit's size, with and
// without the indexes of reading. What it inserts is rolled back.
func (l *library) inserting(ctx context.Context, r *result, lean string) error {
	cost := map[string][]float64{}
	for range l.rounds {
		for _, database := range []string{lean, l.name} {
			us, err := l.insertCost(ctx, database)
			if err != nil {
				return err
			}
			cost[database] = append(cost[database], us)
		}
	}
	without, with := median(cost[lean]), median(cost[l.name])
	if without <= 0 {
		return nil // not Linux
	}
	r.figure("insert_without_us", without, "µs", "of PostgreSQL's time on a processor for one entry in a batch of 32, making it up aside, without the indexes of reading")
	r.figure("insert_with_us", with, "µs", "with them")
	r.ratio("insert_with_over_without", with/without, "what the indexes cost the writer of the server's time, median")
	return nil
}

func (l *library) insertCost(ctx context.Context, database string) (float64, error) {
	const batch, batches = 32, 400
	conn, err := pgx.Connect(ctx, l.cluster.SuperuserURL(database))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	insert := fmt.Sprintf(entriesSQL, benchIssuer, benchPractices, benchPatients, benchUsers, benchPerDay)
	invent := "select count(*), max(length(e::text)) from (" + insert[strings.Index(insert, "select (lpad"):] + ") e"
	spent := func(sql string, from int) (time.Duration, error) {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return 0, err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		var before time.Duration
		for i := range batches {
			if i == batches/10 { // plans and pages are there by now
				before, _ = cpuOf(int(conn.PgConn().PID()))
			}
			// Numbers below zero are the time ahead.
			if _, err := tx.Exec(ctx, sql, l.now, from-batch*(i+1), from-batch*i); err != nil {
				return 0, err
			}
		}
		after, _ := cpuOf(int(conn.PgConn().PID()))
		return (after - before) / (batch * batches * 9 / 10), nil
	}
	inserted, err := spent(insert, 0)
	if err != nil {
		return 0, err
	}
	invented, err := spent(invent, 0)
	return us(inserted - invented), err
}

func (l *library) appendTo(ctx context.Context, database string) (load, error) {
	t, err := trail.Open(ctx, trail.Config{URL: l.url("trail", database)})
	if err != nil {
		return load{}, err
	}
	defer t.Close()
	return loop(ctx, appendersToReplay, time.Duration(l.seconds)*time.Second, func(int, int) error {
		e := readEntry()
		p := rand.IntN(benchPractices)                                                                 //nolint:gosec // whose entry it is
		patient := fmt.Sprintf("patient-%d", p+benchPractices*rand.IntN(benchPatients/benchPractices)) //nolint:gosec // the same
		e.Actor.Practice = med.PracticeID(fmt.Sprintf("practice-%d", p))
		e.Actor.Subject = fmt.Sprintf("user-%d", p+benchPractices*rand.IntN(benchUsers/benchPractices)) //nolint:gosec // the same
		e.Patient, e.ResourceID, e.PatientPractice = med.PatientID(patient), patient, e.Actor.Practice
		return t.Append(e)
	})
}

func (l *library) tell(r *result, few int, small, large readings) {
	for _, size := range []struct {
		n  int
		of readings
	}{{few, small}, {l.entries, large}} {
		for _, kind := range []struct {
			name, what string
			l          load
		}{
			{"accesses", fmt.Sprintf("a patient's last %d accesses", lastAccesses), size.of.accesses},
			{"day", "a user's day, up to 200 entries", size.of.day},
			{"practice", "a practice's newest 50", size.of.practice},
		} {
			at := fmt.Sprintf("%s_%s", kind.name, people(size.n))
			r.figure(at+"_ms_p50", us(kind.l.p50)/1e3, "ms", kind.what)
			r.figure(at+"_ms_p99", us(kind.l.p99)/1e3, "ms", fmt.Sprintf("of %d readings, of %.0f entries on average", kind.l.requests, size.of.rows[kind.name]))
			if busy := size.of.cpu[kind.name]; busy[1] > 0 {
				r.figure(at+"_server_ms_p50", us(busy[0])/1e3, "ms", "of PostgreSQL's time on a processor")
				r.figure(at+"_server_ms_p99", us(busy[1])/1e3, "ms", "the same: what a busy machine does not change")
			}
			r.figure(at+"_pages", size.of.touched[kind.name], "8 KiB", "pages touched by one reading, transaction and all")
		}
		r.figure("bytes_per_entry_"+people(size.n), float64(size.of.bytes)/float64(size.n), "B", "with all indexes")
	}
	for _, kind := range []struct {
		name         string
		small, large load
	}{{"accesses", small.accesses, large.accesses}, {"day", small.day, large.day}, {"practice", small.practice, large.practice}} {
		r.ratio(kind.name+"_p50_growth", float64(kind.large.p50)/float64(max(1, kind.small.p50)), "ten times the entries over one, median")
		r.ratio(kind.name+"_server_p50_growth", float64(large.cpu[kind.name][0])/float64(max(1, small.cpu[kind.name][0])), "the same, of the server's time")
		r.ratio(kind.name+"_pages_growth", large.touched[kind.name]/max(1, small.touched[kind.name]), "the same, pages touched")
	}
	r.note("Measured: one caller; each reading signs a context, begins a transaction under it as `medirecord_app`, runs the product's own query under row "+
		"security, takes the details apart and commits. %d practices, %d patients, %d users, %d entries a day.", benchPractices, benchPatients, benchUsers, benchPerDay)
}

// people writes a number of entries as people say it.
func people(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dm", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

var errEntries = errors.New("-entries must be 1000 to 100000000")
