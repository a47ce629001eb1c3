// SPDX-License-Identifier: Apache-2.0

// Package jobs does what happens later, unattended, under a service context
// that the sidecar signs for one action and one practice. It opens no patient
// data.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// partitionsAhead is how many months of the trail are made ahead.
const partitionsAhead = 6

// orphanAge is how old a key without a patient must be to be swept: longer
// than any import takes between the two.
const orphanAge = time.Hour

// Config is what the worker stands on.
type Config struct {
	Gate  *gate.Gate
	DB    *postgres.DB // as medirecord_worker
	Keys  *keystore.Store
	Log   *slog.Logger
	Every time.Duration
	Now   func() time.Time // time.Now, when nil
}

// Maintenance is the regular work of the worker. Two workers may run: each
// step takes its lock, or changes nothing the second time.
type Maintenance struct {
	cfg      Config
	suspects atomic.Uint64
}

// New returns the regular work.
func New(cfg Config) *Maintenance {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Maintenance{cfg: cfg}
}

// Run does the work now and then every so often, until the context ends. What
// fails is logged and tried again the next time.
func (m *Maintenance) Run(ctx context.Context) error {
	tick := time.NewTicker(m.cfg.Every)
	defer tick.Stop()
	for {
		m.Once(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Once does the work now.
func (m *Maintenance) Once(ctx context.Context) {
	if err := m.partitions(ctx); err != nil && ctx.Err() == nil {
		m.cfg.Log.ErrorContext(ctx, "partitions of the trail not made", slog.Any("error", err))
	}
	if err := m.sweep(ctx); err != nil && ctx.Err() == nil {
		m.cfg.Log.ErrorContext(ctx, "orphan keys not swept", slog.Any("error", err))
	}
}

func (m *Maintenance) partitions(ctx context.Context) error {
	made, err := m.cfg.DB.Q.MakePartitions(ctx, m.cfg.DB.Pool(), partitionsAhead)
	if err == nil && made > 0 {
		m.cfg.Log.InfoContext(ctx, "partitions of the trail made", slog.Int("made", int(made)))
	}
	return postgres.Unavailable(err)
}

// sweep does what each practice needs: it ends grants whose time is over and says
// which reviews are overdue, forgets old idempotency keys, settles keys whose
// patient came and deletes those whose did not, and compares manifests.
func (m *Maintenance) sweep(ctx context.Context) error {
	me := chart.Worker()
	list, err := m.cfg.Gate.Serve(ctx, &me, "practice.list", "")
	if err != nil {
		return err
	}
	var practices []med.PracticeID
	err = m.cfg.DB.InTx(ctx, list.Context, func(tx pgx.Tx) error {
		rows, err := m.cfg.DB.Q.Practices(ctx, tx)
		for _, r := range rows {
			practices = append(practices, med.PracticeID(r.ID))
		}
		return err
	})
	if err != nil {
		return err
	}
	err = m.cfg.DB.InTx(ctx, list.Context, func(tx pgx.Tx) error { return m.cfg.DB.Q.ForgetLookups(ctx, tx) })
	if err != nil && ctx.Err() == nil {
		m.cfg.Log.ErrorContext(ctx, "old lookups not forgotten", slog.Any("error", err))
	}
	for _, p := range practices {
		if err := m.sweepPractice(ctx, &me, p); err != nil {
			return fmt.Errorf("practice %s: %w", p, err)
		}
	}
	return nil
}

func (m *Maintenance) sweepPractice(ctx context.Context, me *med.Caller, practice med.PracticeID) error {
	ruling, err := m.cfg.Gate.Serve(ctx, me, "sweep", practice)
	if err != nil {
		return err
	}
	watch := chart.GlassWatch{DB: m.cfg.DB, Log: m.cfg.Log, Now: m.cfg.Now}
	if err := watch.Once(ctx, ruling, practice); err != nil && ctx.Err() == nil {
		m.cfg.Log.ErrorContext(ctx, "break-glass grants not looked after", slog.String("practice", string(practice)), slog.Any("error", err))
	}
	err = m.tidy(ctx, ruling, practice)
	// Last, for it may outlive the context, and asks for another by itself.
	if err := m.manifests(ctx, ruling, practice); err != nil && ctx.Err() == nil {
		m.cfg.Log.ErrorContext(ctx, "manifests not compared with the trail", slog.String("practice", string(practice)), slog.Any("error", err))
	}
	return err
}

// tidy takes away which requests were made once, a day after, and keys without a
// patient, and settles keys with one. Its entry is committed with the first, and
// before the second, which is in another database: what cannot be recorded is not
// done, and what a crash left undone is counted again by the next sweep.
func (m *Maintenance) tidy(ctx context.Context, ruling *med.Ruling, practice med.PracticeID) error {
	orphans, lost := m.cfg.Keys.Orphans(ctx, ruling.Context, practice, orphanAge, func(id med.PatientID) (there bool, err error) {
		err = m.cfg.DB.InTx(ctx, ruling.Context, func(tx pgx.Tx) (err error) {
			there, err = m.cfg.DB.Q.PatientExists(ctx, tx, string(id))
			return err
		})
		return there, err
	})
	swept := chart.Swept{}
	for _, o := range orphans {
		if o.Lives {
			swept.KeysSettled++
		} else {
			swept.KeysDeleted++
		}
	}
	err := m.cfg.DB.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
		n, err := m.cfg.DB.Q.ForgetOld(ctx, tx, string(practice))
		if err != nil {
			return err
		}
		swept.RequestsForgotten = int(n)
		return chart.RecordSweep(ctx, tx, ruling, practice, m.cfg.Now(), swept)
	})
	if err == nil {
		err = m.cfg.Keys.Sweep(ctx, ruling.Context, orphans)
	}
	if err == nil && len(orphans) > 0 {
		m.cfg.Log.InfoContext(ctx, "orphan keys swept", slog.String("practice", string(practice)),
			slog.Int("settled", swept.KeysSettled), slog.Int("deleted", swept.KeysDeleted))
	}
	return errors.Join(lost, err)
}
