// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
)

const (
	attempts    = 5 // for one bundle: about 4 s of waiting
	giveUpAfter = 3 // bundles in a row that failed all attempts
	firstPause  = 250 * time.Millisecond
)

// importing hands a bundle to the chart, again when the chart is not available
// for the moment. A bundle in flight is finished when the context ends, as half
// of the work is done; only the grace limits it.
func (r *run) importing(ctx context.Context, b chart.Bundle) (chart.Imported, error) {
	call, done := graceful(ctx, r.Grace)
	defer done()
	for try := 1; ; try++ {
		out, err := r.Chart.Import(call, r.Caller, r.Practice, b)
		if err == nil || !transient(err) || try == attempts {
			return out, err
		}
		if r.Wait(ctx, pause(try, err)) != nil {
			return chart.Imported{}, err // stopped while waiting: what failed is reported
		}
	}
}

// graceful returns a context that outlives ctx by the grace.
func graceful(ctx context.Context, grace time.Duration) (context.Context, func()) {
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unwatch := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-call.Done():
		}
	})
	return call, func() { unwatch(); cancel() }
}

// transient says whether the same bundle may well be taken a moment later.
func transient(err error) bool {
	var e *med.Error
	return errors.As(err, &e) && (e.Kind.Retryable || e.Code == "sidecar_unavailable" || e.Code == "imported_meanwhile")
}

// pause doubles with each attempt, with a random part so that workers do not
// come back together; never shorter than the chart asks for.
func pause(try int, err error) time.Duration {
	d := firstPause << (try - 1)
	d += time.Duration(rand.Int64N(int64(d)/2 + 1)) // #nosec G404 -- spreads load, guards nothing
	var e *med.Error
	if errors.As(err, &e) && e.RetryAfter > d {
		d = e.RetryAfter
	}
	return d
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
