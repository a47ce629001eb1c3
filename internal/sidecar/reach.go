// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"hash/maphash"
	"sync"
	"time"
)

// reach counts the different patients that each person asks for within an
// hour (rules.md section 6): a taken-over API can read only patients for whom
// a live caller asks, and a caller who asks for a thousand is not at work. It
// counts hashes, in memory; the hour is that of the clock, begun anew.
type reach struct {
	limit int
	seed  maphash.Seed

	mu   sync.Mutex
	hour int64
	by   map[[2]string]map[uint64]struct{}
}

func newReach(limit int) *reach {
	return &reach{limit: limit, seed: maphash.MakeSeed(), by: map[[2]string]map[uint64]struct{}{}}
}

// count notes that the person asked for the patient. It returns how many it
// now was within the hour when that went above the limit, or above it again by
// as many, and 0 otherwise: one alarm, and not one for each further patient.
func (r *reach) count(who [2]string, patient string, now time.Time) int64 {
	if patient == "" || r.limit < 0 {
		return 0
	}
	id := maphash.String(r.seed, patient)
	r.mu.Lock()
	defer r.mu.Unlock()
	if hour := now.Unix() / 3600; hour != r.hour {
		r.hour = hour
		clear(r.by)
	}
	seen := r.by[who]
	if seen == nil {
		seen = map[uint64]struct{}{}
		r.by[who] = seen
	}
	if _, again := seen[id]; again {
		return 0
	}
	seen[id] = struct{}{}
	if n := len(seen); n%(r.limit+1) == 0 {
		return int64(n)
	}
	return 0
}
