// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"crypto/sha256"
	"sync/atomic"
	"time"
)

// WatchConfig says which policy file to keep in force.
type WatchConfig struct {
	// Path is what Read takes; the built-in policies never change.
	Path string
	// Every is how often the files are looked at; zero means 300 ms, which
	// leaves room to try a file within the 2 s that it may take.
	Every time.Duration
	// Refused, if set, is told once of each changed file that was not taken.
	Refused func(ctx context.Context, reason string)
	// Changed, if set, is told of each new revision in force.
	Changed func(ctx context.Context, revision string)
}

// Watcher keeps the newest good policy file in force. It is safe for concurrent
// use.
type Watcher struct {
	cfg     WatchConfig
	engine  atomic.Pointer[Engine]
	taken   atomic.Uint64
	refused atomic.Uint64

	// Only Run touches these.
	tried [sha256.Size]byte // the state of the files last tried
	seen  [sha256.Size]byte // the state of the files last seen
}

// NewWatcher loads the policy at the path. It reports an error when there is
// none or it is refused: without a policy nothing starts.
func NewWatcher(ctx context.Context, cfg WatchConfig) (*Watcher, error) {
	if cfg.Every <= 0 {
		cfg.Every = 300 * time.Millisecond
	}
	t, err := readPath(cfg.Path)
	if err != nil {
		return nil, err
	}
	e, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	w := &Watcher{cfg: cfg, tried: t.fingerprint(), seen: t.fingerprint()}
	w.engine.Store(e)
	w.taken.Store(1)
	return w, nil
}

// Engine returns the engine in force. Take it once per question, so that the
// decision and the revision belong together.
func (w *Watcher) Engine() *Engine { return w.engine.Load() }

// Counts returns how many policy files were taken and refused since the start.
func (w *Watcher) Counts() (taken, refused uint64) { return w.taken.Load(), w.refused.Load() }

// Run looks at the files until the context ends and then returns nil.
//
// It polls: a notification can be lost, and is on network file systems and when
// a mounted secret is swapped; the files are small.
func (w *Watcher) Run(ctx context.Context) error {
	if IsBuiltIn(w.cfg.Path) {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look(ctx)
		}
	}
}

// look takes the files if they changed and have come to rest.
func (w *Watcher) look(ctx context.Context) {
	t, err := readPath(w.cfg.Path)
	state := t.fingerprint()
	if err != nil {
		state = sha256.Sum256([]byte("unreadable: " + err.Error()))
	}
	rests := state == w.seen
	w.seen = state
	// A file seen for the first time may still be half-written.
	if !rests || state == w.tried {
		return
	}
	if err != nil {
		w.tried = state
		w.refuse(ctx, err)
		return
	}
	e, err := t.load(ctx)
	if ctx.Err() != nil {
		return // shutting down: the file was not at fault
	}
	w.tried = state
	if err != nil {
		w.refuse(ctx, err)
		return
	}
	if e.revision == w.engine.Swap(e).revision {
		return // only its cases changed, or the old text came back
	}
	w.taken.Add(1)
	if w.cfg.Changed != nil {
		w.cfg.Changed(ctx, e.revision)
	}
}

func (w *Watcher) refuse(ctx context.Context, why error) {
	w.refused.Add(1)
	if w.cfg.Refused != nil {
		w.cfg.Refused(ctx, why.Error())
	}
}

func (t *texts) load(ctx context.Context) (*Engine, error) {
	src, err := t.source()
	if err != nil {
		return nil, err
	}
	return Load(ctx, src)
}
