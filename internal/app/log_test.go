// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// stuck takes nothing until it is let go.
type stuck struct {
	mu  sync.Mutex
	let chan struct{}
	b   bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func TestALogThatNobodyReadsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := &stuck{let: make(chan struct{})}
	log, flush := newLogger(w, "info", time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20_000 {
			log.InfoContext(t.Context(), "a line", slog.String("filler", strings.Repeat("x", 200)))
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the log waits for its reader")
	}
	close(w.let)
	flush()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.b.String(); !strings.Contains(got, "log lines dropped") || !strings.Contains(got, "a line") {
		t.Errorf("got %d bytes that do not tell of dropped lines", len(got))
	}
}

func TestTheLastLinesAreWritten(t *testing.T) {
	t.Parallel()
	var w bytes.Buffer
	log, flush := newLogger(&w, "warn", time.Minute)
	log.InfoContext(t.Context(), "too quiet")
	log.ErrorContext(t.Context(), "the end")
	flush()
	if got := w.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "the end") {
		t.Errorf("got %q", got)
	}
}
