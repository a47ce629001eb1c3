// SPDX-License-Identifier: Apache-2.0

package token

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// timing of a keyring. Tests shorten it.
type timing struct {
	every    time.Duration // refresh keys of this age
	least    time.Duration // one fetch per this time, and one more to begin with
	most     time.Duration // the longest back-off
	deadline time.Duration // of one fetch
	maxAge   time.Duration // keys not confirmed for this long are not used
}

// keyring holds the keys of one issuer. It fetches when first asked, when the
// keys grow old and when a token names a key it does not know, but never more
// often than timing says: tokens are made by strangers.
type keyring struct {
	timing
	issuer, url string
	get         func(context.Context, string) ([]byte, error)
	now         func() time.Time
	log         *slog.Logger

	mu        sync.Mutex
	keys      []*signingKey
	confirmed time.Time // the last good answer
	allowance time.Time // bucket of two fetches, as a theoretical arrival time
	failures  int       // in a row
	failure   error     // the last one
	retry     time.Time // not before, after a failure
	flight    *flight
	closed    bool
	wg        sync.WaitGroup
}

// flight is one fetch that any number of callers wait for.
type flight struct{ done chan struct{} }

func (f *flight) wait(ctx context.Context) {
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}

// find returns the one key that fits. It reports unknown_key, ambiguous_key,
// or keys_unavailable when there are none to look in.
func (r *keyring) find(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (*signingKey, error) {
	r.freshen(ctx)
	key, err := r.lookup(kid, alg)
	if reason := ReasonOf(err); reason != ReasonUnknownKey && reason != ReasonKeysUnavailable {
		return key, err
	}
	f := r.begin(ctx)
	if f == nil {
		return nil, err
	}
	f.wait(ctx)
	return r.lookup(kid, alg)
}

func (r *keyring) lookup(kid string, alg jose.SignatureAlgorithm) (*signingKey, error) {
	var found *signingKey
	keys, err := r.inForce()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if kid != "" && k.jwk.KeyID != kid || !k.fits(alg) {
			continue
		}
		if found != nil {
			return nil, refuse(ReasonAmbiguousKey)
		}
		found = k
	}
	if found == nil {
		return nil, refuse(ReasonUnknownKey)
	}
	return found, nil
}

// inForce returns the last good keys. The slice is never changed.
func (r *keyring) inForce() ([]*signingKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A revoked key must not live on because its issuer cannot be reached.
	if len(r.keys) == 0 || r.now().Sub(r.confirmed) > r.maxAge {
		return nil, &Error{Reason: ReasonKeysUnavailable, cause: r.failure}
	}
	return r.keys, nil
}

// freshen starts a refresh of old keys, and waits for it only when nobody
// looked after them for long: an issuer that is down costs one request its
// wait, the others go on with the keys there are.
func (r *keyring) freshen(ctx context.Context) {
	r.mu.Lock()
	age := r.now().Sub(r.confirmed)
	fresh := len(r.keys) == 0 || age <= r.every
	wait := age > 2*r.every && r.failures == 0
	r.mu.Unlock()
	if fresh {
		return
	}
	if f := r.begin(ctx); f != nil && wait {
		f.wait(ctx)
	}
}

// begin returns the fetch under way, or starts one, or returns nil when it is
// too early for another.
func (r *keyring) begin(ctx context.Context) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		return r.flight
	}
	now := r.now()
	if r.closed || now.Before(r.retry) || now.Before(r.allowance.Add(-r.least)) {
		return nil
	}
	if r.allowance.Before(now) {
		r.allowance = now
	}
	r.allowance = r.allowance.Add(r.least)
	f := &flight{done: make(chan struct{})}
	r.flight = f
	// The fetch serves everybody who waits, so it outlives who began it.
	ctx = context.WithoutCancel(ctx)
	r.wg.Go(func() { r.fetch(ctx, f) })
	return f
}

func (r *keyring) fetch(ctx context.Context, f *flight) {
	defer close(f.done)
	ctx, cancel := context.WithTimeout(ctx, r.deadline)
	defer cancel()
	var keys []*signingKey
	body, err := r.get(ctx, r.url)
	if err == nil {
		keys, err = parseKeySet(body)
	}
	r.settle(ctx, keys, err)
}

// settle takes the result of a fetch. After a failure the last good keys stay;
// after a good answer a key that is no longer in it is gone.
func (r *keyring) settle(ctx context.Context, keys []*signingKey, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flight = nil
	r.failure = err
	if err != nil {
		r.failures++
		r.retry = r.now().Add(r.backoff())
		r.log.WarnContext(ctx, "jwks fetch failed", slog.String("issuer", r.issuer),
			slog.Int("failures", r.failures), slog.Int("keys_kept", len(r.keys)), slog.String("error", err.Error()))
		return
	}
	if !sameKeys(r.keys, keys) {
		r.log.InfoContext(ctx, "jwks keys changed", slog.String("issuer", r.issuer),
			slog.Int("before", len(r.keys)), slog.Int("now", len(keys)))
	}
	r.keys, r.confirmed, r.failures, r.retry = keys, r.now(), 0, time.Time{}
}

// backoff doubles from the least to the most.
func (r *keyring) backoff() time.Duration {
	d := r.least
	for range r.failures - 1 {
		if d *= 2; d >= r.most {
			return r.most
		}
	}
	return d
}

func sameKeys(a, b []*signingKey) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].thumb != b[i].thumb || a[i].jwk.KeyID != b[i].jwk.KeyID {
			return false
		}
	}
	return true
}

// shortestWait keeps run from spinning when a clock stands still or goes back.
const shortestWait = 10 * time.Millisecond

// run keeps the keys fresh until ctx ends.
func (r *keyring) run(ctx context.Context) {
	for {
		if f := r.begin(ctx); f != nil {
			f.wait(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.untilDue()):
		}
	}
}

func (r *keyring) untilDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := r.retry
	if r.failures == 0 {
		due = r.confirmed.Add(r.every)
	}
	if allowed := r.allowance.Add(-r.least); due.Before(allowed) {
		due = allowed
	}
	return max(due.Sub(r.now()), shortestWait)
}

func (r *keyring) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}
