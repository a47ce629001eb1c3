// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/jobs"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

var errBadURL = errors.New("a database URL cannot be read; it must look like postgres://user:password@host/database")

// worker is the unattended work while it runs: parts that share a log, metrics,
// and the way to the sidecar.
type worker struct {
	cfg     *Config
	log     *slog.Logger
	metrics *prometheus.Registry
	keeper  envelope.Keeper
	gate    *gate.Gate
	parts   []func(context.Context) error // each runs until its context ends
	closers []func()
	altered func(context.Context, *trail.Sealed) error // flags a sealed entry that was rewritten
}

// Worker runs unattended work until the context ends: the trail's partitions
// ahead of time, the sweeping of keys that no patient came for, the sealing of
// the trail, the watch over it, and its streaming.
func Worker(ctx context.Context, cfg *Config, log *slog.Logger, ready func(ops string)) error {
	relaxGC()
	w := &worker{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	defer w.close()
	if err := w.check(); err != nil {
		return err
	}
	for _, open := range []func(context.Context) error{w.openKeeper, w.openGate, w.openJobs, w.openSealer, w.openWatch, w.openStreams} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	ops, err := w.openOps(ctx)
	if err != nil {
		return err
	}
	ready(ops)
	return w.run(ctx)
}

func (w *worker) check() error {
	if err := w.cfg.checkFailMode(); err != nil {
		return err
	}
	if err := w.cfg.need("the worker", "CORESDK_SIDECAR_ADDR", "MEDIRECORD_WORKER_DATABASE_URL", "MEDIRECORD_KEYSTORE_DATABASE_URL", "MEDIRECORD_KEY_KEEPER",
		"MEDIRECORD_SEALER_DATABASE_URL", "MEDIRECORD_AUDITOR_DATABASE_URL", "MEDIRECORD_TRAIL_ORIGIN", "MEDIRECORD_TRAIL_KEY_FILE", "MEDIRECORD_SEALER_STATE"); err != nil {
		return err
	}
	for name, url := range map[string]string{
		"MEDIRECORD_WORKER_DATABASE_URL": w.cfg.WorkerDatabaseURL, "MEDIRECORD_KEYSTORE_DATABASE_URL": w.cfg.KeystoreDatabaseURL,
		"MEDIRECORD_SEALER_DATABASE_URL": w.cfg.SealerDatabaseURL, "MEDIRECORD_AUDITOR_DATABASE_URL": w.cfg.AuditorDatabaseURL,
	} {
		if err := postgres.CheckTransport(name, url, w.cfg.Dev()); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// run runs the parts until the context ends; one that fails takes the others
// with it, since a supervisor starts them again together.
func (w *worker) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(w.parts))
	var group sync.WaitGroup
	for i, part := range w.parts {
		group.Go(func() {
			if errs[i] = part(ctx); errs[i] != nil {
				stop()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (w *worker) openKeeper(context.Context) (err error) {
	w.keeper, err = openKeeper(w.cfg)
	return err
}

func (w *worker) openGate(ctx context.Context) (err error) {
	if w.gate, err = openGate(ctx, w.cfg); err == nil {
		w.closers = append(w.closers, func() { _ = w.gate.Close() })
	}
	return err
}

func (w *worker) openJobs(ctx context.Context) error {
	db, err := postgres.Open(ctx, postgres.Config{URL: w.cfg.WorkerDatabaseURL, Conns: 2, Readers: 1})
	if err != nil {
		return fmt.Errorf("clinical database: %w", err)
	}
	w.closers = append(w.closers, db.Close)
	if err := postgres.CheckRole(ctx, db.Pool()); err != nil {
		return err
	}
	keys, err := keystore.Open(ctx, keystore.Config{URL: w.cfg.KeystoreDatabaseURL, Keeper: w.keeper})
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	w.closers = append(w.closers, keys.Close)
	maintenance := jobs.New(jobs.Config{Gate: w.gate, DB: db, Keys: keys, Log: w.log, Every: 10 * time.Minute})
	w.parts = append(w.parts, maintenance.Run)
	return w.metrics.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "medirecord_sweep_suspects_total", Help: "Charts whose manifest was not the one that the trail told of last, each as often as it was looked at.",
	}, func() float64 { return float64(maintenance.Suspects()) }))
}

// openOps opens the worker's operations listener, if it shall have one:
// /healthz and /metrics, no caller, no PHI.
func (w *worker) openOps(ctx context.Context) (addr string, err error) {
	if w.cfg.WorkerOpsListen == "" {
		return "", nil
	}
	if err := errors.Join(w.metrics.Register(collectors.NewGoCollector()),
		w.metrics.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return "", err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", w.cfg.WorkerOpsListen)
	if err != nil {
		return "", fmt.Errorf("MEDIRECORD_WORKER_OPS_LISTEN: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{"alive":true}` + "\n")) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.metrics, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	w.parts = append(w.parts, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return ln.Addr().String(), nil
}
