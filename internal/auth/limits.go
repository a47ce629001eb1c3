// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// An address may show this many bad tokens at once, and then one a second.
const (
	burst        = 60
	refill       = time.Second
	maxAddresses = 50_000
	maxPassed    = 50_000
)

// limits slows an address that shows bad tokens, so that a flood of them does
// not keep the sidecar from others. A token that has passed lately is let by,
// to be asked about as always: who shares the address with an attacker is not
// locked out. What is remembered is a hash, and lets nobody in.
type limits struct {
	now    func() time.Time
	mu     sync.Mutex
	bad    map[string]bucket
	known  map[[sha256.Size]byte]time.Time
	sweeps time.Time
}

// bucket fills as time goes by: it is empty until `until` lies burst ahead.
type bucket struct{ until time.Time }

func newLimits(now func() time.Time) *limits {
	return &limits{now: now, bad: map[string]bucket{}, known: map[[sha256.Size]byte]time.Time{}}
}

// wait returns how long the address must wait before it may show this token; 0
// means not at all.
func (l *limits) wait(ip string, token med.Credential) time.Duration {
	ip = med.Network(ip)
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.bad[ip]
	if !ok || b.until.Sub(now) < burst*refill {
		return 0
	}
	if until, ok := l.known[sha256.Sum256([]byte(token.Reveal()))]; ok && now.Before(until) {
		return 0
	}
	return max(b.until.Sub(now)-(burst-1)*refill, refill)
}

func (l *limits) failed(ip string) {
	ip = med.Network(ip)
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	b := l.bad[ip]
	if b.until.Before(now) {
		b.until = now
	}
	if b.until.Sub(now) < burst*refill {
		b.until = b.until.Add(refill)
	}
	if len(l.bad) < maxAddresses || l.bad[ip].until.After(now) {
		l.bad[ip] = b
	}
}

func (l *limits) passed(token med.Credential, expires time.Time) {
	key := sha256.Sum256([]byte(token.Reveal()))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) < maxPassed {
		l.known[key] = expires
	}
}

// sweep forgets what no longer counts, once a minute.
func (l *limits) sweep(now time.Time) {
	if now.Sub(l.sweeps) < time.Minute {
		return
	}
	l.sweeps = now
	for ip, b := range l.bad {
		if b.until.Before(now) {
			delete(l.bad, ip)
		}
	}
	for k, until := range l.known {
		if until.Before(now) {
			delete(l.known, k)
		}
	}
}
