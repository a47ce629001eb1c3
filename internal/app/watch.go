// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
	"github.com/medirecord/medirecord/internal/watch"
)

// openWatch opens the watch that what was minted was entered. It has
// connections of its own: one holds its lock, and no other part waits for it.
func (w *worker) openWatch(ctx context.Context) error {
	db, err := postgres.Open(ctx, postgres.Config{URL: w.cfg.WorkerDatabaseURL, Conns: 3, Readers: 1})
	if err != nil {
		return fmt.Errorf("clinical database: %w", err)
	}
	w.closers = append(w.closers, db.Close)
	reader, err := trail.OpenReader(ctx, w.cfg.AuditorDatabaseURL)
	if err != nil {
		return fmt.Errorf("the trail as its auditor: %w", err)
	}
	w.closers = append(w.closers, reader.Close)
	if err := postgres.CheckRole(ctx, reader.Pool()); err != nil {
		return err
	}
	m, err := watch.NewMinted(watch.Config{Gate: w.gate, DB: db, Trail: reader, Log: w.log, Now: time.Now})
	if err != nil {
		return err
	}
	w.parts, w.altered = append(w.parts, m.Run), m.Altered
	return w.metrics.Register(watchMetrics{m})
}

// watchMetrics are the watch's numbers.
type watchMetrics struct{ minted *watch.Minted }

var (
	watchChecked = prometheus.NewDesc("medirecord_watch_entries_total", "Sealed entries held against their contexts.", nil, nil)
	watchFlagged = prometheus.NewDesc("medirecord_watch_flags_total", "Flags raised: entries not of their context, contexts without an entry, and what could not be told.", []string{"kind"}, nil)
	watchWaiting = prometheus.NewDesc("medirecord_watch_waiting", "Minted contexts that no sealed entry carries yet.", nil, nil)
	watchBehind  = prometheus.NewDesc("medirecord_watch_behind_entries", "Sealed entries not looked at yet.", nil, nil)
	watchLag     = prometheus.NewDesc("medirecord_watch_lag_seconds", "Time since the watch last had looked at all there was.", nil, nil)
)

// Describe is prometheus.Collector's.
func (m watchMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{watchChecked, watchFlagged, watchWaiting, watchBehind, watchLag} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m watchMetrics) Collect(ch chan<- prometheus.Metric) {
	st := m.minted.Stats()
	ch <- prometheus.MustNewConstMetric(watchChecked, prometheus.CounterValue, float64(st.Checked))
	for kind, n := range st.Flagged {
		ch <- prometheus.MustNewConstMetric(watchFlagged, prometheus.CounterValue, float64(n), kind)
	}
	ch <- prometheus.MustNewConstMetric(watchWaiting, prometheus.GaugeValue, float64(st.Waiting))
	ch <- prometheus.MustNewConstMetric(watchBehind, prometheus.GaugeValue, float64(st.Behind))
	ch <- prometheus.MustNewConstMetric(watchLag, prometheus.GaugeValue, st.Lag.Seconds())
}
