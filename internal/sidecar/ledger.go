// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// ledger is what was minted for persons and is not settled yet, numbered, in
// order. It has room for so many and drops the oldest beyond that, counting
// them: a worker that is away slows no answer, and what it missed is known.
type ledger struct {
	life string // of this counting

	mu    sync.Mutex
	room  int
	first uint64     // number of the oldest kept
	mints []*pb.Mint // a ring: number n is at n % len
	next  uint64     // number of the next
	lost  uint64     // dropped unsettled
	news  chan struct{}
	heard bool      // somebody waits for news
	told  time.Time // when the log was last told of a loss
}

func newLedger(room int, now time.Time) *ledger {
	return &ledger{life: med.NewUUID(now), room: room, first: 1, next: 1, news: make(chan struct{})}
}

// add numbers a mint and keeps it. It reports whether another was dropped for
// it.
func (l *ledger) add(m *pb.Mint) (dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next-l.first == uint64(len(l.mints)) {
		if len(l.mints) < l.room {
			l.grow()
		} else {
			l.first++
			l.lost++
			dropped = true
		}
	}
	m.Number = l.next
	l.mints[l.next%uint64(len(l.mints))] = m
	l.next++
	if l.heard {
		close(l.news)
		l.news, l.heard = make(chan struct{}), false
	}
	return dropped
}

// grow doubles the ring, up to its room: an idle sidecar keeps none of it.
func (l *ledger) grow() {
	bigger := make([]*pb.Mint, min(max(2*len(l.mints), 256), l.room))
	for n := l.first; n < l.next; n++ {
		bigger[n%uint64(len(bigger))] = l.mints[n%uint64(len(l.mints))]
	}
	l.mints = bigger
}

// settle forgets what is settled. Of another life it hears nothing.
func (l *ledger) settle(life string, through uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if life != l.life {
		return
	}
	for through = min(through, l.next-1); l.first <= through; l.first++ {
		l.mints[l.first%uint64(len(l.mints))] = nil
	}
}

// since returns what is kept from the number on, at most so many, how many
// were lost so far, the number to ask for next, and what tells of news.
func (l *ledger) since(n uint64, most int) (mints []*pb.Mint, lost, next uint64, news <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n = max(n, l.first); n < l.next && len(mints) < most; n++ {
		mints = append(mints, l.mints[n%uint64(len(l.mints))])
	}
	l.heard = true
	return mints, l.lost, n, l.news
}

// told keeps a minted context for the worker, and looks how many patients its
// person asked for.
func (s *Service) told(ctx context.Context, c *token.Context, nonce, event string) {
	now := s.cfg.Now()
	m := &pb.Mint{
		At: now.UnixMilli(), Nonce: nonce, EventId: event, Issuer: c.Issuer, Subject: c.Subject, PracticeId: string(c.Practice),
		PatientId: c.Patient, Action: c.Action, Excess: s.reach.count([2]string{c.Issuer, c.Subject}, c.Patient, now),
	}
	if m.Excess > 0 {
		s.cfg.Log.ErrorContext(ctx, "ALERT more patients within an hour than anybody's work needs", slog.String("issuer", c.Issuer),
			slog.String("subject", c.Subject), slog.String("practice", string(c.Practice)), slog.Int64("patients", m.Excess))
	}
	if s.ledger.add(m) {
		s.ledger.complain(ctx, s.cfg.Log, now)
	}
}

// complain logs, at most once a minute, that contexts are being dropped.
func (l *ledger) complain(ctx context.Context, log *slog.Logger, now time.Time) {
	l.mu.Lock()
	lost, quiet := l.lost, now.Sub(l.told) < time.Minute
	if !quiet {
		l.told = now
	}
	l.mu.Unlock()
	if !quiet {
		log.ErrorContext(ctx, "ALERT minted contexts dropped unsettled: the worker is away or too slow, and whether they were entered is not known",
			slog.Uint64("lost", lost), slog.Int("room", l.room))
	}
}
