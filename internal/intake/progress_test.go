// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	for want, p := range map[string]progress{
		" 25%  3 patients, 500 resources  50 resources/s  30s left": {start: start, total: 400, done: 100, patients: 3, resources: 500},
		"100%  3 patients, 500 resources, 2 failed  50 resources/s": {start: start, total: 400, done: 400, patients: 3, resources: 500, failed: 2},
		"  0%  0 patients, 0 resources  0 resources/s":              {start: start, total: 400},
	} {
		if got := p.line(start.Add(10 * time.Second)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	p := progress{start: start, total: 3, done: 1}
	if got, want := p.bar(start), "[##########--------------------]  33%  0 patients, 0 resources  0s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
