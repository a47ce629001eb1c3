// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

// strictReads measures what it costs that PostgreSQL gives a row only against
// an entry that is committed already: the same reads over HTTP, round by round,
// of two servers on the same machine that differ in MEDIRECORD_STRICT_READS
// only. The one that is not asked is idle.
func strictReads(ctx context.Context, b *bench, r *result) error {
	var sides [2]*audited
	for i, on := range []string{"false", "true"} {
		s, err := b.start(ctx, b.sample, "MEDIRECORD_STRICT_READS="+on)
		if err != nil {
			return err
		}
		defer s.stop()
		ids, err := patientsOf(ctx, s, "practice-north")
		if err != nil {
			return err
		}
		sides[i] = &audited{bench: b, system: s, ids: ids, spent: usage{}}
		b.say("warming up with strict reads %s", on)
		if _, err := b.reads(ctx, s, ids, min(4, b.seconds)); err != nil {
			return err
		}
	}
	off, on := sides[0], sides[1]
	for round := range b.rounds {
		for _, side := range sides {
			if err := side.strictRound(ctx, side == on); err != nil {
				return err
			}
		}
		a, c := off.m[round], on.m[round]
		b.say("round %d of %d: off %.0f/s (p50 %s), on %.0f/s (p50 %s): %.2f", round+1, b.rounds, a.perSecond, a.p50, c.perSecond, c.p50, c.perSecond/a.perSecond)
	}
	reportStrict(r, off, on)
	return nil
}

// strictRound is one round of reads, each held against its entry and, when it
// is strict, its ticket.
func (m *audited) strictRound(ctx context.Context, strict bool) error {
	const committed = "select count(*) from audit.event where action = 'read_ticket' and outcome = 'access_granted' and parent_id is not null"
	before, err := m.system.count(ctx, committed)
	if err != nil {
		return err
	}
	l, err := m.measured(ctx)
	if err != nil {
		return err
	}
	after, err := m.system.count(ctx, committed)
	if err != nil {
		return err
	}
	if n := after - before; strict && n < l.requests || !strict && n != 0 {
		return fmt.Errorf("%d answers, and %d committed tickets with strict reads %v", l.requests, n, strict)
	}
	m.m = append(m.m, l)
	return nil
}

func reportStrict(r *result, off, on *audited) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for _, side := range []struct {
		name string
		*audited
	}{{"off", off}, {"on", on}} {
		l := middle(side.m)
		r.figure(side.name+"_per_second", l.perSecond, "1/s", fmt.Sprintf("`GET /patients/{id}` with strict reads %s, %d connections", side.name, side.conns))
		r.figure(side.name+"_ms_p50", ms(l.p50), "ms", "")
		r.figure(side.name+"_ms_p99", ms(l.p99), "ms", "")
		r.figure(side.name+"_cpu_us", us(l.all)/float64(max(1, l.requests)), "µs", "CPU time of a read, everything and the load generator together")
		r.figure(side.name+"_entries_per_flush", side.trailed/max(1, side.flushs), "", "")
	}
	slower := make([]float64, len(on.m))
	for i := range on.m {
		slower[i] = ms(on.m[i].p50) / ms(off.m[i].p50)
	}
	r.spread("on_over_off", ratios(on.m, off.m), "strict reads ÷ reads: what is left of the rate")
	r.spread("p50_on_over_off", slower, "median latency of a strict read ÷ of a read")
}
