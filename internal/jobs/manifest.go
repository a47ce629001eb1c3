// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
)

// manifestBatch is how many charts one statement compares.
const manifestBatch = 512

// manifests holds the manifest of each chart of a practice against what the
// trail told of it last: a chart that was put back together with its manifest
// still opens, and is found here. It compares hashes and opens nothing. What
// does not match is an alarm, told once until somebody has been told.
func (m *Maintenance) manifests(ctx context.Context, ruling *med.Ruling, practice med.PracticeID) error {
	after := med.PatientID("")
	asked := m.cfg.Now()
	for {
		if m.cfg.Now().Sub(asked) > contextAge { // a practice may take longer than one context lives
			me := chart.Worker()
			var err error
			if ruling, err = m.cfg.Gate.Serve(ctx, &me, "sweep", practice); err != nil {
				return err
			}
			asked = m.cfg.Now()
		}
		n, last, err := m.manifestsAfter(ctx, ruling, practice, after)
		if err != nil || n < manifestBatch {
			return err
		}
		after = last
	}
}

// contextAge is when the context of a long sweep is asked for anew.
const contextAge = 20 * time.Second

func (m *Maintenance) manifestsAfter(ctx context.Context, ruling *med.Ruling, practice med.PracticeID, after med.PatientID) (n int, last med.PatientID, err error) {
	err = m.cfg.DB.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
		rows, err := m.cfg.DB.Manifests(ctx, tx, after, manifestBatch)
		if err != nil {
			return err
		}
		for i := range rows {
			r := &rows[i]
			n, last = n+1, r.Patient
			if !r.Differs() {
				continue
			}
			m.suspects.Add(1)
			m.cfg.Log.ErrorContext(ctx, "ALERT a chart's manifest is not the one that the trail told of last",
				slog.String("patient", string(r.Patient)), slog.String("told_in", string(r.ToldIn)), slog.String("found_in", string(r.Since)))
			if err := m.cfg.DB.TellIntegrity(ctx, tx, med.NewUUID(m.cfg.Now()), practice, r.Patient, r.ToldIn); err != nil {
				return err
			}
		}
		return nil
	})
	return n, last, err
}

// Suspects is how many charts were found whose manifest is not the one that the
// trail told of last, each as often as it was looked at.
func (m *Maintenance) Suspects() uint64 { return m.suspects.Load() }
