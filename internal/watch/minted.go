// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

// Config is what the watch stands on. Gate, DB and Trail are needed.
type Config struct {
	Gate  *gate.Gate    // as service:worker
	DB    *postgres.DB  // as medirecord_worker
	Trail *trail.Reader // as medirecord_auditor
	Every time.Duration // between two looks at the trail; 0 means 500 ms
	// Patience is how long a minted context may go without an entry; 0 means a
	// minute.
	Patience time.Duration
	Log      *slog.Logger
	Now      func() time.Time
}

// Minted is the watch that minted equals entered. Every worker runs one; the
// one that holds the database's advisory lock does the work.
type Minted struct {
	cfg Config

	mu      sync.Mutex
	waiting waiting
	noticed []flag // by the feed, not written down yet
	flagged map[kind]uint64
	life    string // of the sidecar that the feed is of
	lost    uint64 // in that life, as far as noticed

	at      cursor // only Once touches it
	checked atomic.Uint64
	behind  atomic.Int64 // entries sealed and not looked at
	upToNow atomic.Int64 // Unix milliseconds of the last look that left none
}

// cursor is how far the trail has been looked at.
type cursor struct {
	loaded bool
	epoch  int32
	next   int64
	since  time.Time
}

// batch is how many entries are held against their contexts at a time.
const batch = 1000

// NewMinted returns the watch. It reports an error when a part is missing.
func NewMinted(cfg Config) (*Minted, error) {
	if cfg.Gate == nil || cfg.DB == nil || cfg.Trail == nil {
		return nil, errors.New("the watch needs the gate, the worker's database and the auditor's view of the trail")
	}
	cfg.Every = cmp.Or(cfg.Every, 500*time.Millisecond)
	cfg.Patience = cmp.Or(cfg.Patience, time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Minted{cfg: cfg, waiting: newWaiting(), flagged: map[kind]uint64{}}
	m.upToNow.Store(cfg.Now().UnixMilli())
	return m, nil
}

// Stats are what metrics tell of the watch.
type Stats struct {
	Checked uint64            // entries
	Flagged map[string]uint64 // by kind
	Waiting int               // contexts that no entry carries yet
	Behind  int64             // entries sealed and not looked at yet
	Lag     time.Duration     // since the last look that left none
}

// Stats returns them as of now.
func (m *Minted) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	flagged := map[string]uint64{}
	for _, k := range kinds {
		flagged[string(k)] = m.flagged[k]
	}
	return Stats{
		Checked: m.checked.Load(), Flagged: flagged, Waiting: len(m.waiting.open), Behind: m.behind.Load(),
		Lag: m.cfg.Now().Sub(time.UnixMilli(m.upToNow.Load())),
	}
}

// watchLock is the advisory lock of the one that watches. Two that did would
// flag each cause once all the same.
const watchLock = 7237489

// lagAlarm is how far behind the watch may be before that is an alarm.
const lagAlarm = time.Minute

// Run watches until the context ends. What fails is tried again: nothing is
// lost meanwhile, since the trail keeps its entries and the sidecar what it
// minted.
func (m *Minted) Run(ctx context.Context) error {
	complaint := time.Time{}
	for ctx.Err() == nil {
		err := m.lead(ctx)
		if err != nil && ctx.Err() == nil && m.cfg.Now().Sub(complaint) >= time.Minute {
			complaint = m.cfg.Now()
			level := slog.LevelWarn
			if m.Stats().Lag > lagAlarm {
				level = slog.LevelError
			}
			m.cfg.Log.LogAttrs(ctx, level, "ALERT the trail is not watched: entries wait to be held against their contexts",
				slog.Duration("for", m.Stats().Lag), slog.Any("error", err))
		}
		pause(ctx, time.Second)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// lead does the work while this is the one that does, and returns what ended
// it.
func (m *Minted) lead(ctx context.Context) error {
	conn, err := m.cfg.DB.Pool().Acquire(ctx)
	if err != nil {
		return postgres.Unavailable(err)
	}
	defer func() {
		// Closed, not given back: the lock goes with it.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Conn().Close(end)
		conn.Release()
	}()
	ours, err := postgres.LeadBy(ctx, conn.Conn(), watchLock)
	if err != nil {
		return err
	}
	if !ours { // another watches, and tells of its lag
		m.upToNow.Store(m.cfg.Now().UnixMilli())
		pause(ctx, 5*time.Second)
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	var feeding sync.WaitGroup
	feed := &feed{m: m}
	feeding.Go(func() { feed.run(ctx) })
	defer feeding.Wait()
	defer stop()
	m.at = cursor{}
	for {
		if err := m.Once(ctx); err != nil {
			return err
		}
		feed.settle(ctx)
		pause(ctx, m.cfg.Every)
		if err := conn.Ping(ctx); err != nil {
			return postgres.Unavailable(err)
		}
	}
}

// Once looks at all that is sealed and not looked at yet, and at the contexts
// that have waited too long.
func (m *Minted) Once(ctx context.Context) error {
	if err := m.load(ctx); err != nil {
		return err
	}
	for {
		n, err := m.entries(ctx)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	if err := m.overdue(ctx); err != nil {
		return err
	}
	if err := m.write(ctx); err != nil {
		return err
	}
	m.upToNow.Store(m.cfg.Now().UnixMilli())
	return nil
}

// load reads where the watch left off, the first time.
func (m *Minted) load(ctx context.Context) error {
	if m.at.loaded {
		return nil
	}
	w, err := m.cfg.DB.Q.Watch(ctx, m.cfg.DB.Pool())
	if err != nil {
		return postgres.Unavailable(err)
	}
	m.at = cursor{loaded: true, epoch: w.Epoch, next: w.NextIndex, since: w.Since}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == "" {
		m.life, m.lost = w.Life, uint64(w.Lost) //nolint:gosec // a count
	}
	return nil
}

// next moves on to the next epoch when there is one, and reports whether there
// was. Else it notes how many entries are left.
func (m *Minted) next(ctx context.Context) (bool, error) {
	logs, err := m.cfg.Trail.Logs(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range logs {
		switch {
		case l.Epoch == m.at.epoch:
			m.behind.Store(max(0, l.Size-m.at.next))
			if l.Size > m.at.next { // sealed since we looked
				return true, nil
			}
		case l.Epoch > m.at.epoch:
			m.at.epoch, m.at.next = l.Epoch, 0
			return true, nil
		}
	}
	return false, nil
}

// id makes one for a row.
func (m *Minted) id() string { return med.NewUUID(m.cfg.Now()) }
