// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
	"github.com/medirecord/medirecord/internal/worm"
)

// sinkEvery is how often a checkpoint and the tiles under it go to the
// write-once sinks.
const sinkEvery = time.Minute

// openSealer opens the sealing of the trail.
func (w *worker) openSealer(ctx context.Context) error {
	signers, err := readSigners(w.cfg.TrailKeyFile)
	if err != nil {
		return err
	}
	cfg := trail.SealerConfig{
		URL: w.cfg.SealerDatabaseURL, Origin: w.cfg.TrailOrigin, Signers: signers, State: w.cfg.SealerState, SinkEvery: sinkEvery, Log: w.log, Now: time.Now,
	}
	client, err := w.openWitnesses()
	if err != nil {
		return err
	}
	if client != nil {
		cfg.Witnesses = client
		w.closers = append(w.closers, client.Close)
	}
	if cfg.Sinks, err = w.openSinks(); err != nil {
		return err
	}
	s, err := trail.OpenSealer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	w.closers = append(w.closers, s.Close)
	if err := postgres.CheckRole(ctx, s.Pool()); err != nil {
		return err
	}
	w.parts = append(w.parts, s.Run)
	return w.metrics.Register(sealMetrics{s, client})
}

// openWitnesses returns the way to the witnesses; nil when no policy names any,
// which is said, since a log without a witness can be forked by who holds its
// key.
func (w *worker) openWitnesses() (*cosign.Client, error) {
	if w.cfg.TrailPolicy == "" {
		w.log.Warn("MEDIRECORD_TRAIL_POLICY names no witnesses: who holds the log's key can show two histories") //nolint:sloglint // start-up
		return nil, nil
	}
	text, err := os.ReadFile(w.cfg.TrailPolicy)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_TRAIL_POLICY: %w", err)
	}
	policy, err := cosign.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_TRAIL_POLICY: %w", err)
	}
	allow, err := prefixes("MEDIRECORD_OUTBOUND_ALLOW", w.cfg.OutboundAllow)
	if err != nil {
		return nil, err
	}
	return cosign.NewClient(cosign.ClientConfig{
		Policy: policy, Outbound: outbound.Config{Dev: w.cfg.Dev(), Allow: allow}, Now: time.Now,
		// Even when the quorum is met without it: somebody was shown another history.
		Refused: func(r *cosign.Refusal) {
			if errors.Is(r, cosign.ErrContradiction) {
				w.log.Error("ALERT a witness has cosigned another history of the trail", slog.String("witness", r.Witness), slog.Int("status", r.Status)) //nolint:sloglint // it belongs to no request
			}
		},
	})
}

// openSinks opens the write-once places of MEDIRECORD_TRAIL_SINKS.
func (w *worker) openSinks() (out []trail.Sink, err error) {
	allow, err := prefixes("MEDIRECORD_OUTBOUND_ALLOW", w.cfg.OutboundAllow)
	if err != nil {
		return nil, err
	}
	places := worm.Config{Outbound: outbound.Config{Dev: w.cfg.Dev(), Allow: allow, Timeout: sinkEvery}, Now: time.Now}
	for n, address := range strings.FieldsFunc(w.cfg.TrailSinks, func(r rune) bool { return r == ',' || r == ' ' }) {
		s, err := places.Open(address)
		if err != nil {
			return nil, fmt.Errorf("MEDIRECORD_TRAIL_SINKS, place %d: %w", n+1, err)
		}
		w.closers = append(w.closers, func() { _ = s.Close() })
		out = append(out, s)
	}
	return out, nil
}

// readSigners reads the log's keys, one a line.
func readSigners(path string) ([]note.Signer, error) {
	b, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_TRAIL_KEY_FILE: %w", err)
	}
	var out []note.Signer
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := note.NewSigner(line)
		if err != nil {
			return nil, errors.New("MEDIRECORD_TRAIL_KEY_FILE has a line that is no signing key; `medirecord audit key` makes them")
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("MEDIRECORD_TRAIL_KEY_FILE holds no key; `medirecord audit key` makes one")
	}
	return out, nil
}

// sealMetrics are the sealer's and the witnesses' numbers.
type sealMetrics struct {
	sealer    *trail.Sealer
	witnesses *cosign.Client
}

var (
	sealLeader    = prometheus.NewDesc("medirecord_seal_leader", "1 while this replica seals the trail.", nil, nil)
	sealSize      = prometheus.NewDesc("medirecord_seal_entries", "Entries sealed.", nil, nil)
	sealFailures  = prometheus.NewDesc("medirecord_seal_failures_total", "Times that sealing, cosigning or a sink failed.", []string{"step"}, nil)
	sealAge       = prometheus.NewDesc("medirecord_seal_age_seconds", "Time since the last batch was sealed, its head signed, cosigned, and kept in a sink.", []string{"step"}, nil)
	sealConflict  = prometheus.NewDesc("medirecord_seal_contradiction", "1 while the trail contradicts what was signed.", nil, nil)
	witnessLag    = prometheus.NewDesc("medirecord_witness_lag_seconds", "How long a witness has not cosigned what it was asked to.", []string{"witness"}, nil)
	witnessSplit  = prometheus.NewDesc("medirecord_witness_contradictions_total", "Times that a witness had cosigned another history.", []string{"witness"}, nil)
	witnessFailed = prometheus.NewDesc("medirecord_witness_failures_total", "Questions to a witness that got no cosignature.", []string{"witness"}, nil)
)

// Describe is prometheus.Collector's.
func (m sealMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sealLeader, sealSize, sealFailures, sealAge, sealConflict, witnessLag, witnessSplit, witnessFailed} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m sealMetrics) Collect(ch chan<- prometheus.Metric) {
	st := m.sealer.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(sealLeader, truth(st.Leader))
	gauge(sealConflict, truth(st.Contradiction))
	gauge(sealSize, float64(st.Size))
	counter(sealFailures, st.Failures, "seal")
	counter(sealFailures, st.CosignFailures, "cosign")
	counter(sealFailures, st.SinkFailures, "sink")
	for step, at := range map[string]time.Time{"seal": st.SealedAt, "sign": st.SignedAt, "cosign": st.CosignedAt, "sink": st.SunkAt} {
		if !at.IsZero() {
			gauge(sealAge, time.Since(at).Seconds(), step)
		}
	}
	if m.witnesses == nil {
		return
	}
	for _, w := range m.witnesses.Stats() {
		gauge(witnessLag, w.Lag.Seconds(), w.Witness)
		counter(witnessFailed, w.Failed, w.Witness)
		counter(witnessSplit, w.Contradicted, w.Witness)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
