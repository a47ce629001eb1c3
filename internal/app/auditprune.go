// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

// PruneOptions say what of the trail may go, and where its exports are.
type PruneOptions struct {
	Out      string // folder of exports
	Years    int    // 0: as configured; never less than six
	DryRun   bool
	Policy   string
	Patience time.Duration // how long to wait for an entry to be sealed; 0 means 2 minutes
	Progress *os.File
	Now      func() time.Time
}

// PruneTrail drops the months of the trail that are older than the policy, the
// oldest first: each is exported, the file read back and verified, an entry that
// says what goes is written and sealed, and only then does the database drop it,
// after checks of its own. Whatever stops it, running it again goes on.
func PruneTrail(ctx context.Context, cfg *Config, opt PruneOptions, said func(format string, args ...any)) error {
	if err := cfg.need("pruning", "MEDIRECORD_AUDITOR_DATABASE_URL", "MEDIRECORD_RETENTION_DATABASE_URL"); err != nil {
		return err
	}
	for name, url := range map[string]string{"MEDIRECORD_AUDITOR_DATABASE_URL": cfg.AuditorDatabaseURL, "MEDIRECORD_RETENTION_DATABASE_URL": cfg.RetentionDatabaseURL} {
		if err := postgres.CheckTransport(name, url, cfg.Dev()); err != nil {
			return err
		}
	}
	years := max(opt.Years, cfg.TrailRetention, trail.LeastRetention)
	if st, err := os.Stat(opt.Out); err != nil || !st.IsDir() {
		return fmt.Errorf("%s must be a folder for the exports", opt.Out)
	}
	text, err := os.ReadFile(opt.Policy)
	if err != nil {
		return fmt.Errorf("the policy, which says whose signatures count: %w", err)
	}
	policy, err := cosign.ParsePolicy(text)
	if err != nil {
		return fmt.Errorf("the policy %s: %w", opt.Policy, err)
	}
	r, err := trail.OpenRetention(ctx, cfg.RetentionDatabaseURL)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	p := &pruner{cfg: cfg, opt: opt, policy: policy, years: years, r: r, said: said}
	months, err := p.due(ctx)
	if err != nil {
		return err
	}
	if len(months) == 0 {
		said("nothing is older than %d years", years)
	}
	for _, m := range months {
		if err := p.month(ctx, m); err != nil {
			return fmt.Errorf("%s: %w", m.Format("2006-01"), err)
		}
	}
	return nil
}

type pruner struct {
	cfg    *Config
	opt    PruneOptions
	policy *cosign.Policy
	years  int
	r      *trail.Retention
	said   func(format string, args ...any)
}

func (p *pruner) snapshot(ctx context.Context, work func(*trail.Snapshot) error) error {
	snap, err := trail.OpenSnapshot(ctx, p.cfg.AuditorDatabaseURL, 1)
	if err != nil {
		return err
	}
	defer snap.Close(ctx)
	return work(snap)
}

// due returns the months that ended longer ago than the policy.
func (p *pruner) due(ctx context.Context) (out []time.Time, err error) {
	err = p.snapshot(ctx, func(snap *trail.Snapshot) error {
		months, err := snap.Months(ctx)
		for _, m := range months {
			if !m.AddDate(p.years, 1, 0).After(p.opt.Now().UTC()) {
				out = append(out, m)
			}
		}
		return err
	})
	return out, err
}

// month exports, verifies, announces and drops one month.
func (p *pruner) month(ctx context.Context, start time.Time) error {
	var parts []*trail.Pruning
	ids := []string{}
	if err := p.snapshot(ctx, func(snap *trail.Snapshot) error {
		months, err := monthsOf(ctx, snap, start)
		if err != nil {
			return err
		}
		for _, m := range months {
			if p.opt.DryRun {
				p.said("%s, epoch %d: entries %d to %d would be exported, verified and dropped", m.Name(), m.Log.Epoch, m.From, m.To-1)
				continue
			}
			part, err := p.exported(ctx, snap, m)
			if err != nil {
				return err
			}
			id, err := snap.Announced(ctx, part)
			if err != nil {
				return err
			}
			parts, ids = append(parts, part), append(ids, id)
		}
		if p.opt.DryRun && len(months) == 0 {
			p.said("%s: nothing was recorded; its empty partition would be dropped", start.Format("2006-01"))
		}
		return nil
	}); err != nil || p.opt.DryRun {
		return err
	}
	for i, part := range parts {
		if ids[i] != "" {
			continue // an earlier run got this far
		}
		var err error
		if ids[i], err = p.r.Announce(ctx, p.opt.Now(), operatorName(), part); err != nil {
			return err
		}
	}
	if err := p.sealed(ctx, ids); err != nil {
		return err
	}
	n, err := p.r.Prune(ctx, start, p.years, parts, ids)
	if err != nil {
		return err
	}
	p.said("%s: %d entries dropped; their hashes and proofs stay", start.Format("2006-01"), n)
	return nil
}

// exported makes sure that a verified export of the month is on disk: the one
// that is there, or a new one. What is there and does not verify stops it.
func (p *pruner) exported(ctx context.Context, snap *trail.Snapshot, m *trail.Month) (*trail.Pruning, error) {
	path := filepath.Join(p.opt.Out, exportName(m))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		b := newBar(p.opt.Progress)
		defer b.end()
		if _, err := exportTo(ctx, snap, m, path, b); err != nil {
			return nil, err
		}
		p.said("%s: written", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	var found []audit.Finding
	res, err := audit.VerifyExport(io.TeeReader(f, sum), func(x audit.Finding) { found = append(found, x) }, trail.Trust(p.policy), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(found) > 0 || !res.Proved {
		return nil, fmt.Errorf("%s does not verify, so nothing is dropped: move it away and run this again, or see `medirecord audit verify`; the first of %d findings: %v", path, len(found), first(found))
	}
	if h := res.Header; h.Origin != m.Log.Origin || h.Month != m.Name() || h.From != m.From || h.To != m.To {
		return nil, fmt.Errorf("%s is of %s of %s, entries %d to %d, and not of what would be dropped: move it away", path, h.Month, h.Origin, h.From, h.To-1)
	}
	if _, err := io.Copy(sum, f); err != nil { // what gzip did not read
		return nil, err
	}
	m.Size = res.Header.Size // of the checkpoint in the file
	return &trail.Pruning{Month: m, Entries: res.Rows, Export: [32]byte(sum.Sum(nil))}, nil
}

func first(found []audit.Finding) any {
	if len(found) == 0 {
		return "its hashes lead to no root"
	}
	return found[0]
}

// sealed waits until the entries that say what goes are sealed and cosigned.
func (p *pruner) sealed(ctx context.Context, ids []string) error {
	patience := p.opt.Patience
	if patience <= 0 {
		patience = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for _, id := range ids {
		for {
			ok, err := p.r.Sealed(ctx, id)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if ok {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the entry %s, which says what is dropped, is not sealed and cosigned yet: is `medirecord worker` running? Nothing was dropped; run this again", id)
			case <-tick.C:
			}
		}
	}
	return nil
}

// withRetention runs work as medirecord_retention.
func withRetention(ctx context.Context, cfg *Config, work func(*trail.Retention) error) error {
	if err := cfg.need("holds", "MEDIRECORD_RETENTION_DATABASE_URL"); err != nil {
		return err
	}
	if err := postgres.CheckTransport("MEDIRECORD_RETENTION_DATABASE_URL", cfg.RetentionDatabaseURL, cfg.Dev()); err != nil {
		return err
	}
	r, err := trail.OpenRetention(ctx, cfg.RetentionDatabaseURL)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	return work(r)
}

// Hold keeps what the policy would let go.
type Hold = trail.Hold

// PlaceHold keeps what the policy would let go.
func PlaceHold(ctx context.Context, cfg *Config, now time.Time, h trail.Hold) error {
	return withRetention(ctx, cfg, func(r *trail.Retention) error { return r.PlaceHold(ctx, now, operatorName(), h) })
}

// EndHold ends a hold.
func EndHold(ctx context.Context, cfg *Config, now time.Time, name string) error {
	return withRetention(ctx, cfg, func(r *trail.Retention) error { return r.EndHold(ctx, now, operatorName(), name) })
}

// Holds lists the holds.
func Holds(ctx context.Context, cfg *Config) (out []trail.Hold, err error) {
	err = withRetention(ctx, cfg, func(r *trail.Retention) (err error) {
		out, err = r.Holds(ctx)
		return err
	})
	return out, err
}
