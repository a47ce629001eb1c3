// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/trail"
)

// carrier takes events to one sink. It is used by one goroutine.
type carrier interface {
	// send gives the sink events, as many from the front as it takes at once,
	// and returns how many that were. None means: not now.
	send(ctx context.Context, events []siem.Event) (int, error)
	// taken returns how many of the events that were sent since the last reset
	// the sink is known to have.
	taken(ctx context.Context) (int64, error)
	// reset forgets everything that is not taken: it will be sent again.
	reset()
}

// stream serves one sink.
type stream struct {
	cfg  Config
	sink Sink

	saidCode string // of the failure that was logged last
	saidAt   time.Time

	mu    sync.Mutex
	stats Stats
}

func (w *stream) set(f func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.stats)
}

func (w *stream) get() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// lookAgain is how often a process that does not serve a sink asks whether
// nobody does.
const lookAgain = 4

// run serves the sink whenever no other process does.
func (w *stream) run(ctx context.Context) {
	for {
		cur, err := w.cfg.Reader.Lead(ctx, w.sink.Name, w.sink.FromNow)
		switch {
		case err == nil:
			w.lead(ctx, cur)
		case !errors.Is(err, trail.ErrLed) && ctx.Err() == nil:
			w.failed(ctx, err)
		}
		if !pause(ctx, lookAgain*w.cfg.Every) {
			return
		}
	}
}

// lead streams for as long as the cursor is ours, again and again from where
// the sink is known to be.
func (w *stream) lead(ctx context.Context, cur *trail.Cursor) {
	defer cur.Close()
	w.set(func(st *Stats) { st.Leader = true })
	defer w.set(func(st *Stats) { st.Leader = false })
	c := newCarrier(&w.cfg, &w.sink)
	defer c.reset()
	wait := w.cfg.Backoff
	for {
		epoch, next := cur.Epoch, cur.Next
		err := w.deliver(ctx, cur, c)
		c.reset()
		if ctx.Err() != nil {
			return
		}
		w.failed(ctx, err)
		if cur.Failed(ctx, codeOf(err)) != nil || errors.Is(err, errCursor) {
			return // the lock may be another's by now
		}
		if cur.Epoch != epoch || cur.Next != next {
			wait = w.cfg.Backoff // it did get somewhere
		}
		var later *laterError
		if errors.As(err, &later) {
			wait = max(wait, later.wait)
		}
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, time.Minute)
	}
}

// errCursor says that the cursor could not be moved.
var errCursor = errors.New("the cursor cannot be moved")

// deliver sends what is sealed, from the cursor on, and moves the cursor behind
// what is taken. It returns at the first thing that goes wrong.
func (w *stream) deliver(ctx context.Context, cur *trail.Cursor, c carrier) error {
	epoch, base := cur.Epoch, cur.Next // what the carrier counts from
	next := base
	for {
		events, err := w.read(ctx, epoch, next)
		if err != nil {
			return err
		}
		sent := 0
		if len(events) > 0 {
			if sent, err = c.send(ctx, events); err != nil {
				return err
			}
			next += int64(sent)
			w.set(func(st *Stats) { st.Sent += uint64(sent) })
		}
		n, err := c.taken(ctx)
		if err != nil {
			return err
		}
		if base+n > cur.Next {
			if err := w.advance(ctx, cur, epoch, base+n); err != nil {
				return err
			}
		}
		if sent > 0 {
			continue
		}
		if len(events) == 0 && cur.Next == next {
			newer, err := w.epochAfter(ctx, epoch, next)
			if err != nil {
				return err
			}
			if newer > epoch { // it begins where the other ended
				if err := w.advance(ctx, cur, newer, 0); err != nil {
					return err
				}
				c.reset()
				epoch, base, next = newer, 0, 0
				continue
			}
		}
		if !pause(ctx, w.cfg.Every) {
			return ctx.Err()
		}
	}
}

func (w *stream) advance(ctx context.Context, cur *trail.Cursor, epoch int32, next int64) error {
	moved := next - cur.Next
	if epoch != cur.Epoch {
		moved = 0
	}
	if err := cur.Advance(ctx, epoch, next); err != nil {
		return errors.Join(errCursor, err)
	}
	w.set(func(st *Stats) { st.Taken += uint64(moved); st.Code = "" })
	return nil
}

// read returns the next sealed entries as events. One that was sealed and is
// gone is an event too: whoever watches should know, and the stream goes on.
func (w *stream) read(ctx context.Context, epoch int32, next int64) ([]siem.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Wait)
	defer cancel()
	sealed, err := w.cfg.Reader.Sealed(ctx, epoch, next, w.sink.Batch)
	switch {
	case errors.Is(err, trail.ErrMissing) && len(sealed) > 0:
	case errors.Is(err, trail.ErrMissing):
		id, err := w.cfg.Reader.IDAt(ctx, epoch, next)
		if err != nil {
			return nil, err
		}
		w.cfg.Log.ErrorContext(ctx, "ALERT a sealed audit entry is missing", slog.String("event", id), slog.Int64("leaf", next), slog.Int("epoch", int(epoch)))
		return []siem.Event{broken("missing", id, epoch, next, w.cfg.Now())}, nil
	case err != nil:
		return nil, err
	}
	events := make([]siem.Event, len(sealed))
	for i := range sealed {
		s := &sealed[i]
		if !s.Altered {
			events[i] = siem.Of(s.Index, &s.Record)
			continue
		}
		if err := w.altered(ctx, s); err != nil {
			return nil, err
		}
		events[i] = broken("altered", s.Record.ID, epoch, s.Index, w.cfg.Now())
	}
	return events, nil
}

// altered raises the alarm of an entry that is not the one that was sealed. No
// word of it is sent on; but that it was altered is: a stream that stopped here
// would be stopped by whoever altered one.
func (w *stream) altered(ctx context.Context, s *trail.Sealed) error {
	w.cfg.Log.ErrorContext(ctx, "ALERT a sealed audit entry was altered", slog.String("event", s.Record.ID), slog.Int64("leaf", s.Index))
	if w.cfg.Altered == nil {
		return nil
	}
	return w.cfg.Altered(ctx, s)
}

// broken stands in the place of an entry that is no longer there, or no longer
// the one that was sealed.
func broken(how, id string, epoch int32, index int64, now time.Time) siem.Event {
	return siem.Event{Epoch: epoch, Index: index, RecordedAt: now, Entry: audit.Entry{
		ID: med.EventID(id), OccurredAt: now, Actor: audit.Actor{Issuer: "medirecord", Subject: "service:stream"},
		Action: how, ResourceType: "audit", ResourceID: id, Outcome: audit.Failure, Code: "entry_" + how,
	}}
}

// epochAfter returns the next epoch that has entries, when nothing is left in
// this one, and otherwise this one.
func (w *stream) epochAfter(ctx context.Context, epoch int32, next int64) (int32, error) {
	logs, err := w.cfg.Reader.Logs(ctx)
	if err != nil {
		return epoch, err
	}
	for _, l := range logs {
		if l.Epoch == epoch && l.Size > next {
			return epoch, nil // something came in the meantime
		}
		if l.Epoch > epoch && l.Size > 0 {
			return l.Epoch, nil
		}
	}
	return epoch, nil
}

// failed counts a failure, and logs it by its code: an error's text may repeat
// what the other side said. The same one again is logged once a minute.
func (w *stream) failed(ctx context.Context, err error) {
	code, now := codeOf(err), w.cfg.Now()
	w.set(func(st *Stats) { st.Failures++; st.Code = code })
	if code == w.saidCode && now.Sub(w.saidAt) < time.Minute {
		return
	}
	w.saidCode, w.saidAt = code, now
	w.cfg.Log.WarnContext(ctx, "siem sink failed", slog.String("sink", w.sink.Name), slog.String("code", code), slog.Int64("leaf", leafOf(err)))
}
