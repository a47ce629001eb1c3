// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// benchDatabase is pgbench's, on the same cluster.
const benchDatabase = "bench"

// auditedReads measures, round by round on the same PostgreSQL and the same
// cores: pgbench reading (A), pgbench reading and auditing in a transaction
// (B), and our reads over HTTP (M).
func auditedReads(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, b.sample)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := b.prepare(ctx, s); err != nil {
		return err
	}
	ids, err := patientsOf(ctx, s, "practice-north")
	if err != nil {
		return err
	}
	b.say("warming up")
	if _, err := b.reads(ctx, s, ids, min(4, b.seconds)); err != nil {
		return err
	}
	m := &audited{bench: b, system: s, ids: ids, spent: usage{}}
	if err := m.run(ctx); err != nil {
		return err
	}
	m.report(r)
	if b.profile {
		return m.profile(ctx, r)
	}
	return nil
}

func (b *bench) prepare(ctx context.Context, s *system) error {
	bytes, err := s.count(ctx, "select round(avg(length(sealed))) from medirecord.patient")
	if err != nil {
		return err
	}
	if _, err := s.sql(ctx, s.Database.Name, "create database "+benchDatabase); err != nil {
		return err
	}
	script, err := loads.ReadFile("load/setup.sql")
	if err != nil {
		return err
	}
	_, err = s.sql(ctx, benchDatabase, fmt.Sprintf("\\set bytes %d\n\\set patients %d\n%s", bytes, b.sample, script))
	return err
}

func patientsOf(ctx context.Context, s *system, practice string) ([]string, error) {
	out, err := s.sql(ctx, s.Database.Name, "select id from medirecord.patient where practice_id = '"+practice+"' order by id")
	if err == nil && out == "" {
		err = errors.New("the practice has no patients")
	}
	return strings.Fields(out), err
}

// audited is the benchmark while it runs.
type audited struct {
	*bench
	system *system
	ids    []string

	a, b, bare, m   []load
	spent           usage
	busy            time.Duration // wall time of the M rounds
	served          int64
	entries         int64
	trailed, flushs float64
}

func (m *audited) run(ctx context.Context) error {
	url := m.system.database(benchDatabase)
	for round := range m.rounds {
		for _, step := range []struct {
			into *[]load
			run  func() (load, error)
		}{
			{&m.a, func() (load, error) {
				return m.counted(func() (load, error) { return m.pgbench(ctx, url, "select.pgb") })
			}},
			{&m.b, func() (load, error) {
				return m.counted(func() (load, error) { return m.pgbench(ctx, url, "audited.pgb") })
			}},
			{&m.bare, func() (load, error) {
				return m.counted(func() (load, error) { return m.pgbench(ctx, url, "bare.pgb") })
			}},
			{&m.m, func() (load, error) { return m.measured(ctx) }},
		} {
			l, err := step.run()
			if err != nil {
				return err
			}
			*step.into = append(*step.into, l)
		}
		a, b, own := m.a[round], m.b[round], m.m[round]
		m.say("round %d of %d: A %.0f/s, B %.0f/s, M %.0f/s (p50 %s, p99 %s): M/B %.2f, M/A %.3f", round+1, m.rounds,
			a.perSecond, b.perSecond, own.perSecond, own.p50, own.p99, own.perSecond/b.perSecond, own.perSecond/a.perSecond)
	}
	return nil
}

// counted adds what everything spent meanwhile.
func (m *audited) counted(run func() (load, error)) (load, error) {
	before := m.system.all()
	l, err := run()
	l.all = m.system.all() - before + l.cpu
	return l, err
}

// measured is one round of our own reads, held against the trail.
func (m *audited) measured(ctx context.Context) (load, error) {
	const committed = "select count(*) from audit.event where action = 'read' and outcome = 'success'"
	entries, err := m.system.count(ctx, committed)
	if err != nil {
		return load{}, err
	}
	trailed, err := m.system.metric(ctx, "medirecord_trail_entries_total")
	if err != nil {
		return load{}, err
	}
	flushes, err := m.system.metric(ctx, "medirecord_trail_flushes_total")
	if err != nil {
		return load{}, err
	}
	before, err := m.system.usage(ctx)
	if err != nil {
		return load{}, err
	}
	start := time.Now()
	l, err := m.counted(func() (load, error) { return m.reads(ctx, m.system, m.ids, m.seconds) })
	if err != nil {
		return load{}, err
	}
	elapsed := time.Since(start)
	after, err := m.system.usage(ctx)
	if err != nil {
		return load{}, err
	}
	m.spent.add(before, after)
	m.spent["load generator"] += l.cpu
	m.busy += elapsed
	return l, m.hold(ctx, l, committed, entries, trailed, flushes)
}

// hold reports a read that was not answered 200, and an answer without its
// committed entry.
func (m *audited) hold(ctx context.Context, l load, committed string, entries int64, trailed, flushes float64) error {
	now, err := m.system.count(ctx, committed)
	if err != nil {
		return err
	}
	t, err := m.system.metric(ctx, "medirecord_trail_entries_total")
	if err != nil {
		return err
	}
	f, err := m.system.metric(ctx, "medirecord_trail_flushes_total")
	if err != nil {
		return err
	}
	m.trailed, m.flushs = m.trailed+t-trailed, m.flushs+f-flushes
	m.served += l.requests
	m.entries += now - entries
	if l.bad != 0 {
		return fmt.Errorf("%d of %d reads were not answered 200", l.bad, l.requests)
	}
	if now-entries < l.requests {
		return fmt.Errorf("%d answers with 200, and only %d committed entries", l.requests, now-entries)
	}
	return nil
}

func (m *audited) report(r *result) {
	each := func(of []load, f func(load) float64) float64 {
		v := make([]float64, len(of))
		for i, l := range of {
			v[i] = f(l)
		}
		return median(v)
	}
	rate := func(l load) float64 { return l.perSecond }
	r.figure("select_per_second", each(m.a, rate), "1/s", fmt.Sprintf("A: pgbench, point select by primary key, prepared, %d clients", m.conns))
	r.figure("select_insert_per_second", each(m.b, rate), "1/s", "B: pgbench, `BEGIN; SELECT; INSERT audit; COMMIT`, into a trail with the columns and indexes of ours")
	r.figure("select_insert_bare_per_second", each(m.bare, rate), "1/s", "the same into a trail with a primary key and no other index, in which nothing can be found")
	r.figure("reads_per_second", each(m.m, rate), "1/s", fmt.Sprintf("M: `GET /patients/{id}`, %d connections, load generator on the same cores", m.conns))
	r.figure("select_insert_ms_mean", each(m.b, func(l load) float64 { return ms(l.mean) }), "ms", "B: mean latency")
	r.figure("reads_ms_p50", each(m.m, func(l load) float64 { return ms(l.p50) }), "ms", "M: median latency")
	r.figure("reads_ms_p90", each(m.m, func(l load) float64 { return ms(l.p90) }), "ms", "M")
	r.figure("reads_ms_p99", each(m.m, func(l load) float64 { return ms(l.p99) }), "ms", "M")
	r.figure("reads_ms_max", each(m.m, func(l load) float64 { return ms(l.max) }), "ms", "M: slowest of a round")
	r.figure("answered_200", float64(m.served), "", "M: all rounds together; any other answer fails the benchmark")
	r.figure("entries_committed", float64(m.entries), "", "audit entries of successful reads found in the table; fewer than answers fail the benchmark")
	r.figure("flushes_per_second", m.flushs/m.busy.Seconds(), "1/s", "commits of the trail")
	r.figure("entries_per_flush", m.trailed/max(1, m.flushs), "", "")
	cost := func(l load) float64 { return us(l.all) / float64(max(1, l.requests)) }
	r.figure("select_insert_cpu_us", each(m.b, cost), "µs", "B: CPU time of a transaction, PostgreSQL and pgbench together")
	r.figure("read_cpu_us", each(m.m, cost), "µs", "M: CPU time of a read, everything and the load generator together")
	r.spread("m_over_b", ratios(m.m, m.b), "audited reads over HTTP ÷ pgbench with audit")
	r.spread("m_over_a", ratios(m.m, m.a), "audited reads over HTTP ÷ pgbench point select")
	r.spread("m_over_bare", ratios(m.m, m.bare), "audited reads over HTTP ÷ pgbench with the bare trail")
	byCPU := make([]float64, len(m.m))
	for i := range m.m {
		byCPU[i] = cost(m.b[i]) / cost(m.m[i])
	}
	r.spread("m_over_b_by_cpu", byCPU, "CPU time of B's transaction ÷ of a read: what M/B is on a machine with nothing else to do")
	r.spread("b_over_a", ratios(m.b, m.a), "what the audit row costs pgbench")
	r.note("%s", m.spent.table(m.served, m.busy, m.machine.cores))
}

func ratios(of, to []load) []float64 {
	out := make([]float64, len(of))
	for i := range of {
		out[i] = of[i].perSecond / to[i].perSecond
	}
	return out
}

// metric reads one number of the operations listener.
func (s *system) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}
