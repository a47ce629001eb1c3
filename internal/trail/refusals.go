// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
)

// maxAddresses bounds what a flood from many addresses costs in a minute; what
// comes from more is counted together.
const maxAddresses = 500

// refusals counts unauthenticated refusals: one entry for each address and
// minute, on a connection of their own, so that a flood of bad tokens costs no
// authenticated request its entry.
type refusals struct {
	trail   *Trail
	mu      sync.Mutex
	seen    map[string]*audit.Entry
	writing sync.Mutex // held while counts are written
}

func newRefusals(t *Trail) *refusals {
	return &refusals{trail: t, seen: map[string]*audit.Entry{}}
}

// Refused counts one refusal of a caller nobody knows, with the code of its
// problem. It never waits.
func (t *Trail) Refused(from med.Origin, code string) {
	r := t.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	key := med.Network(from.IP)
	e := r.seen[key]
	if e == nil {
		if len(r.seen) >= maxAddresses {
			key, from = "", med.Origin{}
			e = r.seen[key]
		}
		if e == nil {
			e = audit.New(t.cfg.Now(), &med.Caller{Issuer: "unknown", Subject: "unknown", Origin: from}, "authenticate", "api", "unknown")
			e.Outcome, e.Code = audit.Denied, code
			e.Detail.Counts = map[string]int{}
			r.seen[key] = e
		}
	}
	e.Detail.Counts[code]++
}

func (r *refusals) run() {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flush()
		case <-r.trail.stop:
			r.flush()
			return
		}
	}
}

func (r *refusals) flush() {
	r.writing.Lock() // whoever returns from here finds written what was counted before
	defer r.writing.Unlock()
	r.mu.Lock()
	seen := r.seen
	r.seen = map[string]*audit.Entry{}
	r.mu.Unlock()
	batch := make([]*audit.Entry, 0, r.trail.cfg.Batch)
	now := r.trail.cfg.Now()
	for _, e := range seen {
		e.Clean()
		e.OccurredAt, e.ID = now.UTC().Truncate(time.Millisecond), med.EventID(med.NewUUID(now)) // an id has the time of its entry
		if batch = append(batch, e); len(batch) == cap(batch) {
			r.write(batch)
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		r.write(batch)
	}
}

// write writes the counts; those that could not be written wait for the next
// minute.
func (r *refusals) write(batch []*audit.Entry) {
	ctx, cancel := r.trail.within()
	defer cancel()
	for i, err := range r.trail.insert(ctx, batch, "") {
		if err != nil {
			r.keep(batch[i])
		}
	}
}

func (r *refusals) keep(e *audit.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := med.Network(e.Detail.IP)
	if r.seen[key] == nil && len(r.seen) >= maxAddresses {
		key, e.Detail.IP, e.Detail.UserAgent, e.Detail.Origin = "", "", "", ""
	}
	now := r.seen[key]
	if now == nil {
		again := *e // it may have been written after all: it is not the same entry twice
		again.ID = med.EventID(med.NewUUID(r.trail.cfg.Now()))
		_, _ = rand.Read(again.Nonce[:])
		r.seen[key] = &again
		return
	}
	for code, n := range e.Detail.Counts {
		now.Detail.Counts[code] += n
	}
}

// FlushRefusals writes the counts so far without waiting for the minute.
func (t *Trail) FlushRefusals(_ context.Context) { t.refusals.flush() }
