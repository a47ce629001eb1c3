// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

// ExportTrail writes a month of the trail, one file an epoch, and tells of each
// when it is whole. A file has its name only then.
func ExportTrail(ctx context.Context, cfg *Config, start time.Time, out string, progress *os.File, said func(file string, entries int64, cosigned bool)) error {
	if err := cfg.need("exporting", "MEDIRECORD_AUDITOR_DATABASE_URL"); err != nil {
		return err
	}
	if err := postgres.CheckTransport("MEDIRECORD_AUDITOR_DATABASE_URL", cfg.AuditorDatabaseURL, cfg.Dev()); err != nil {
		return err
	}
	snap, err := trail.OpenSnapshot(ctx, cfg.AuditorDatabaseURL, 1)
	if err != nil {
		return err
	}
	defer snap.Close(ctx)
	months, err := monthsOf(ctx, snap, start)
	if err != nil {
		return err
	}
	if len(months) == 0 {
		return fmt.Errorf("the sealed trail has no entries of %s", start.Format("2006-01"))
	}
	st, err := os.Stat(out)
	folder := err == nil && st.IsDir()
	if !folder && len(months) > 1 {
		return errors.New("the month has entries of several epochs: --out must be a folder")
	}
	b := newBar(progress)
	defer b.end()
	for _, m := range months {
		path := out
		if folder {
			path = filepath.Join(out, exportName(m))
		}
		entries, err := exportTo(ctx, snap, m, path, b)
		if err != nil {
			return err
		}
		b.clear()
		said(path, entries, m.Cosigned)
	}
	return nil
}

// monthsOf returns what each epoch has of a month.
func monthsOf(ctx context.Context, snap *trail.Snapshot, start time.Time) (out []*trail.Month, err error) {
	logs, err := snap.Logs(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range logs {
		m, err := snap.Month(ctx, l, start)
		if err != nil {
			return nil, err
		}
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

func exportName(m *trail.Month) string {
	return fmt.Sprintf("audit-%s-epoch%d.ndjson.gz", m.Name(), m.Log.Epoch)
}

// exportTo writes a month to a file: under another name until it is whole and
// on disk.
func exportTo(ctx context.Context, snap *trail.Snapshot, m *trail.Month, path string, b *bar) (_ int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".audit-export-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	x, err := snap.Export(ctx, m, f, func(done, of int64) { b.show(filepath.Base(path), done, of) })
	if err != nil {
		return 0, err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, err
	}
	return x.Entries, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
