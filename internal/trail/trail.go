// SPDX-License-Identifier: Apache-2.0

// Package trail writes the durable audit trail. Append returns when the entry
// is committed and flushed, or not at all; it never drops an entry silently,
// never waits without a deadline, and never listens to a client that hung up.
package trail

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Config says how to reach the trail and how to share its flushes.
type Config struct {
	URL      string        // as the trail's own role
	Flushers int           // batches under way at once, when they are full; 0 means 2
	Batch    int           // entries in one insert, at most 50; 0 means 50
	Queue    int           // entries waiting; 0 means 4096. A full queue refuses at once
	Deadline time.Duration // how long an entry may wait to be durable; 0 means 2 s
	Log      *slog.Logger
	Now      func() time.Time
}

// Trail appends entries in groups.
type Trail struct {
	cfg      Config
	pool     *pgxpool.Pool
	queue    chan *waiting
	turn     chan struct{} // holds one: who gathers has it
	stop     chan struct{}
	group    sync.WaitGroup
	failing  atomic.Bool // the last batch was not written
	refusals *refusals

	appended, failed, flushes atomic.Uint64
}

// The life of a waiting entry.
const (
	pending   int32 = iota // in the queue
	taken                  // in a batch under way
	abandoned              // its call gave up and disclosed nothing
)

type waiting struct {
	entry *audit.Entry
	state atomic.Int32
	done  chan error // buffered: the flusher never waits for a call
}

// Open connects as the trail's role. It reports AuditUnavailable when the
// trail cannot be reached.
func Open(ctx context.Context, cfg Config) (*Trail, error) {
	cfg.Flushers = or(cfg.Flushers, 2)
	cfg.Batch = min(or(cfg.Batch, maxRows), maxRows) // one statement, so all or none
	cfg.Queue = or(cfg.Queue, 4096)
	cfg.Deadline = or(cfg.Deadline, 2*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// One connection more, for the refusals, so that a flood of them takes none
	// of the entries' own.
	pool, err := postgres.OpenPool(ctx, cfg.URL, int32(cfg.Flushers)+1) //nolint:gosec // a handful
	if err != nil {
		return nil, med.AuditUnavailable.Because(err)
	}
	t := &Trail{cfg: cfg, pool: pool, queue: make(chan *waiting, cfg.Queue), turn: make(chan struct{}, 1), stop: make(chan struct{})}
	t.turn <- struct{}{}
	t.refusals = newRefusals(t)
	for range cfg.Flushers {
		t.group.Go(t.flush)
	}
	t.group.Go(t.refusals.run)
	return t, nil
}

func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Close writes what waits and closes the connections. Entries that come after
// are refused.
func (t *Trail) Close() {
	close(t.stop)
	t.group.Wait()
	t.pool.Close()
}

// Pool is for checks of the trail's role.
func (t *Trail) Pool() *pgxpool.Pool { return t.pool }

// Healthy reports whether the last batch was written and the trail answers:
// readiness turns red with it.
func (t *Trail) Healthy(ctx context.Context) error {
	if t.failing.Load() {
		// The last batch failed; only another that succeeds says otherwise.
		return t.probe(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Deadline)
	defer cancel()
	if err := t.pool.Ping(ctx); err != nil {
		return med.AuditUnavailable.Because(err)
	}
	return nil
}

// Stats are counts since the start.
type Stats struct{ Appended, Failed, Flushes, Waiting uint64 }

// Stats returns the counts.
func (t *Trail) Stats() Stats {
	return Stats{t.appended.Load(), t.failed.Load(), t.flushes.Load(), uint64(len(t.queue))}
}

// Append returns when the entry is durable: committed with synchronous_commit
// on. It reports AuditUnavailable when that did not happen within the deadline
// or the queue is full, and then nothing may be disclosed. A caller who hangs
// up does not cancel the entry: there is no context to cancel it by.
func (t *Trail) Append(e *audit.Entry) error {
	e.Clean()
	w := &waiting{entry: e, done: make(chan error, 1)}
	select {
	case <-t.stop:
		return t.refuse(errors.New("closing"))
	default:
	}
	select {
	case t.queue <- w:
	default:
		return t.refuse(errors.New("queue full"))
	}
	timer := time.NewTimer(t.cfg.Deadline)
	defer timer.Stop()
	select {
	case err := <-w.done:
		if err != nil {
			return t.refuse(err)
		}
		return nil
	case <-timer.C:
		// Not yet taken: it will be written as the failure it now is. Taken: it
		// may yet be written as it stands; the trail then tells of a disclosure
		// that did not happen, never the other way round.
		w.state.CompareAndSwap(pending, abandoned)
		return t.refuse(context.DeadlineExceeded)
	}
}

func (t *Trail) refuse(cause error) error {
	t.failed.Add(1)
	return med.AuditUnavailable.Because(cause)
}

// flush writes batch after batch. While one is under way, entries gather for the
// next; a full one does not keep the next waiting.
func (t *Trail) flush() {
	batch := make([]*waiting, 0, t.cfg.Batch)
	for {
		<-t.turn // comes back from whoever has it, in the end too
		batch = batch[:0]
		select {
		case w := <-t.queue:
			batch = append(batch, w)
		case <-t.stop:
			select {
			case w := <-t.queue: // written before we close
				batch = append(batch, w)
			default:
				t.turn <- struct{}{}
				return
			}
		}
		batch = t.fill(batch)
		full := len(batch) == t.cfg.Batch
		if full {
			t.turn <- struct{}{}
		}
		t.write(batch)
		if !full {
			t.turn <- struct{}{}
		}
	}
}

// fill takes what waits, and nothing that would have to be waited for: the next
// batch gathers while this one is flushed, which is wait enough.
func (t *Trail) fill(batch []*waiting) []*waiting {
	runtime.Gosched() // who is ready to enter does so now, and shares the flush
	for len(batch) < t.cfg.Batch {
		select {
		case w := <-t.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (t *Trail) write(batch []*waiting) {
	entries := make([]*audit.Entry, 0, len(batch))
	for _, w := range batch {
		if w.state.CompareAndSwap(pending, taken) {
			entries = append(entries, w.entry)
		} else {
			entries = append(entries, late(w.entry))
		}
	}
	ctx, cancel := t.within()
	defer cancel()
	errs := t.insert(ctx, entries, "")
	for i, w := range batch {
		w.done <- errs[i]
	}
}

// late is the entry of a call that gave up waiting and answered 503 already:
// that, and nothing disclosed, is what is recorded. A denial was a denial all
// the same. It is a copy, since the call may still look at its own.
func late(e *audit.Entry) *audit.Entry {
	if e.Outcome == audit.Denied {
		return e
	}
	c := *e
	c.Outcome, c.Code = audit.Failure, "audit_unavailable"
	c.Detail.Clear, c.Detail.Masked, c.Detail.Hidden, c.Detail.Changed = nil, nil, nil, nil
	return &c
}

// within bounds a batch by the deadline, whatever the clock says.
func (t *Trail) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), t.cfg.Deadline) //nolint:forbidigo // a batch belongs to no request
}

// insert inserts the entries and says of each whether it is durable. A lost
// connection leaves the outcome unknown, so the same rows are sent again, which
// is harmless, until the deadline. A batch that the server refuses is split
// until only the bad entry fails. suffix is unlessThere when they were sent before.
func (t *Trail) insert(ctx context.Context, entries []*audit.Entry, suffix string) []error {
	var err error
	for {
		err = insertRows(ctx, t.pool, entries, suffix)
		if err == nil || ctx.Err() != nil || med.KindOf(postgres.Unavailable(err)) != med.DatabaseUnavailable {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		suffix = unlessThere
	}
	t.flushes.Add(1)
	errs := make([]error, len(entries))
	if err == nil {
		t.failing.Store(false)
		t.appended.Add(uint64(len(entries)))
		return errs
	}
	if len(entries) > 1 && ctx.Err() == nil {
		half := len(entries) / 2
		copy(errs, t.insert(ctx, entries[:half], suffix))
		copy(errs[half:], t.insert(ctx, entries[half:], suffix))
		return errs
	}
	t.failing.Store(true) // be it this entry or the trail: a probe will tell
	t.cfg.Log.ErrorContext(ctx, "audit entries not written", slog.Int("entries", len(entries)), slog.Any("error", postgres.Unavailable(err)))
	for i := range errs {
		errs[i] = postgres.Unavailable(err)
	}
	return errs
}

// probe tells whether an entry could be written now, by writing one and taking
// it back.
func (t *Trail) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Deadline)
	defer cancel()
	tx, err := t.pool.Begin(ctx)
	if err != nil {
		return med.AuditUnavailable.Because(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	e := audit.New(t.cfg.Now(), &med.Caller{Issuer: "medirecord", Subject: "service:probe"}, "probe", "audit", "probe")
	if err := insertEvents(ctx, tx, []*audit.Entry{e}); err != nil {
		return med.AuditUnavailable.Because(postgres.Unavailable(err))
	}
	t.failing.Store(false)
	return nil
}
