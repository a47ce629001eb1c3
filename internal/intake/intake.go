// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// Chart takes in what was read, as chart.Service does: one patient's chart in
// one transaction, all or nothing, and a bundle that was imported before not
// again.
type Chart interface {
	Import(ctx context.Context, c med.Caller, practice med.PracticeID, in chart.Bundle) (chart.Imported, error)
}

// Options say what to import, as whom and where to. Paths, Practice, Caller and
// Chart are needed; the zero value of the rest is its default.
type Options struct {
	Paths    []string // files and directories
	Practice med.PracticeID
	Source   string // see chart.Bundle
	Caller   med.Caller
	Chart    Chart
	Workers  int          // bundles in flight; 2
	Limits   fhir.Limits  // of each bundle
	Progress io.Writer    // a bar on a terminal, plain lines elsewhere; nil: none
	Log      *slog.Logger // nil: none
	TempDir  string       // for the encrypted spool of large NDJSON sets; os.TempDir()
	// Grace is how long bundles in flight may take after the context ended; 30 s.
	Grace time.Duration
	Now   func() time.Time // time.Now
	// Wait sleeps between attempts; nil waits for the clock.
	Wait func(context.Context, time.Duration) error
}

// Run imports all charts it finds and returns what became of them. A bundle
// that cannot be read or imported is in Summary.Failed, and the others go on.
// It reports Invalid when the paths hold nothing to import; the context's error
// when that ended, after the bundles in flight; and the error of the chart when
// nothing more can succeed: the caller is refused, or the chart stayed
// unavailable through several bundles. Whatever the error, the summary holds.
func Run(ctx context.Context, o Options) (Summary, error) {
	o = o.withDefaults()
	start := o.Now()
	found, err := find(o.Paths)
	if err != nil {
		return Summary{}, err
	}
	runCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &run{Options: o, stop: stop, sum: newSummary(found), progress: progress{start: start, total: found.bytes}}
	shown := r.showProgress()
	err = r.all(runCtx, found)
	r.sum.Elapsed = o.Now().Sub(start)
	shown()
	return r.sum, err
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.Grace <= 0 {
		o.Grace = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	return o
}

// run is one import on its way.
type run struct {
	Options
	stop context.CancelCauseFunc

	mu       sync.Mutex // guards what follows
	sum      Summary
	progress progress
	down     int   // bundles in a row that the chart was not available for
	given    error // why the run was given up
}

// job is one chart to be read and imported.
type job struct {
	name  string // for the report
	bytes int64  // of the input, for the progress
	found bool   // in a directory, not named by the caller
	read  func() (*fhir.Bundle, [32]byte, error)
}

// errStopped ends the feeding of jobs; the context says why.
var errStopped = errors.New("import stopped")

func (r *run) all(ctx context.Context, f files) error {
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range r.Workers {
		workers.Go(func() {
			for j := range jobs {
				r.one(ctx, j)
			}
		})
	}
	err := r.feed(ctx, f, jobs)
	close(jobs)
	workers.Wait()
	switch cause := context.Cause(ctx); {
	case errors.Is(err, errStopped):
		r.sum.Interrupted = true
		return fmt.Errorf("importing: %w", cause)
	case err == nil && r.given != nil: // given up with the last bundles
		return fmt.Errorf("importing: %w", r.given)
	}
	return err
}

func (r *run) feed(ctx context.Context, f files, jobs chan<- job) error {
	for _, b := range f.bundles {
		if err := send(ctx, jobs, r.bundleJob(b)); err != nil {
			return err
		}
	}
	for _, s := range f.sets {
		if err := r.feedSet(ctx, s, jobs); err != nil {
			return err
		}
	}
	return nil
}

func send(ctx context.Context, jobs chan<- job, j job) error {
	if ctx.Err() != nil { // select would choose at random
		return errStopped
	}
	select {
	case jobs <- j:
		return nil
	case <-ctx.Done():
		return errStopped
	}
}

// one reads and imports one chart and notes what became of it.
func (r *run) one(ctx context.Context, j job) {
	b, hash, err := j.read()
	if err != nil {
		r.refused(ctx, j, err)
		return
	}
	done, err := r.importing(ctx, chart.Bundle{Patient: b.Patient, Records: b.Records, Hash: hash, Source: r.Source, Treatments: b.Treatments})
	if err != nil {
		r.failed(ctx, j, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = 0
	r.sum.add(b, done)
	r.progress.add(j.bytes, r.sum)
}

func (r *run) refused(ctx context.Context, j job, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.progress.add(j.bytes, r.sum) }()
	if j.found && errors.Is(err, fhir.ErrNotBundle) {
		r.sum.Ignored = append(r.sum.Ignored, j.name)
		return
	}
	f := failure(j.name, err)
	r.sum.Failed = append(r.sum.Failed, f)
	r.Log.WarnContext(ctx, "bundle refused", slog.String("place", string(f.Place)), slog.Int("index", f.Index), slog.String("reason", f.Reason))
}

// failed notes that the chart did not take a bundle, and ends the run when it
// will take no other either.
func (r *run) failed(ctx context.Context, j job, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Failed = append(r.sum.Failed, Failure{File: j.name, Reason: outside(err)})
	r.progress.add(j.bytes, r.sum)
	r.Log.ErrorContext(ctx, "bundle not imported", slog.String("kind", med.KindOf(err).Slug), slog.Any("error", err))
	switch {
	case transient(err):
		if r.down++; r.down >= giveUpAfter {
			r.giveUp(err)
		}
	case med.KindOf(err) == med.Unauthorized || med.KindOf(err) == med.MFARequired:
		r.giveUp(err)
	default:
		r.down = 0
	}
}

// giveUp ends the run; the caller holds the lock.
func (r *run) giveUp(err error) {
	if r.given == nil {
		r.given = err
		r.stop(err)
	}
}
