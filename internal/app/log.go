// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"cmp"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// NewLogger returns the structured log: JSON lines, ids and codes only, and
// what writes out its last lines. Lines are gathered and written aside: whoever
// reads the log too slowly, or not at all, holds up no request. What does not
// fit is dropped and counted; the trail, which drops nothing, is elsewhere.
func NewLogger(w io.Writer, level string) (log *slog.Logger, flush func()) {
	return newLogger(w, level, logLast)
}

// newLogger is NewLogger with a time of its own for the last lines.
func newLogger(w io.Writer, level string, last time.Duration) (log *slog.Logger, flush func()) {
	var l slog.Level
	if l.UnmarshalText([]byte(cmp.Or(level, "info"))) != nil {
		l = slog.LevelInfo
	}
	out := &aside{w: w, last: last, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go out.run()
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: l})), out.close
}

const (
	logGathered = 1 << 20                // bytes that wait at the most
	logEvery    = 50 * time.Millisecond  // between writes
	logLast     = 500 * time.Millisecond // for the last ones, when we end
)

// aside is a writer that never waits for the one behind it.
type aside struct {
	w       io.Writer
	last    time.Duration
	mu      sync.Mutex
	b       []byte
	dropped int
	wake    chan struct{}
	stop    chan struct{}
	done    chan struct{}
}

func (a *aside) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.b)+len(p) > logGathered {
		a.dropped++
		return len(p), nil
	}
	a.b = append(a.b, p...)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (a *aside) run() {
	defer close(a.done)
	for {
		select {
		case <-a.wake:
			a.write()
		case <-a.stop:
			a.write()
			return
		}
		pause := time.NewTimer(logEvery)
		select {
		case <-pause.C:
		case <-a.stop:
			pause.Stop()
		}
	}
}

func (a *aside) write() {
	a.mu.Lock()
	b, dropped := a.b, a.dropped
	a.b, a.dropped = nil, 0
	a.mu.Unlock()
	if dropped > 0 {
		b = append(bytes.Clone(b), `{"level":"WARN","msg":"log lines dropped","lines":`+strconv.Itoa(dropped)+"}\n"...)
	}
	if len(b) > 0 {
		_, _ = a.w.Write(b) // there is nowhere else to say that it failed
	}
}

// close writes the last lines, if the other side takes them in time.
func (a *aside) close() {
	close(a.stop)
	last := time.NewTimer(a.last)
	defer last.Stop()
	select {
	case <-a.done:
	case <-last.C:
	}
}
