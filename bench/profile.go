// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profile runs one round more under perf and notes the functions in which each
// part spent its time. The parts carry no profiler of their own, on purpose.
func (m *audited) profile(ctx context.Context, r *result) error {
	perf, err := exec.LookPath("perf")
	if err != nil {
		r.note("No profile: perf is not on this machine (`apt-get install -y linux-perf`).")
		return nil
	}
	out, err := m.system.sql(ctx, m.system.Database.Name, "select usename, pid from pg_stat_activity where usename in ('medirecord_app', 'medirecord_trail')")
	if err != nil {
		return err
	}
	groups := []struct {
		name string
		pids []string
	}{
		{"API", []string{strconv.Itoa(m.system.PIDs["api"])}},
		{"sidecar", []string{strconv.Itoa(m.system.PIDs["sidecar"])}},
		{"PostgreSQL: reads", nil},
		{"PostgreSQL: trail", nil},
	}
	for line := range strings.Lines(out) {
		role, pid, _ := strings.Cut(strings.TrimSpace(line), "|")
		g := &groups[2]
		if role == "medirecord_trail" {
			g = &groups[3]
		}
		g.pids = append(g.pids, pid)
	}
	m.say("profiling")
	under, enough := context.WithCancel(ctx)
	defer enough()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.reads(under, m.system, m.ids, 10*m.seconds+60) // ended when we have enough, which it reports as an error
	}()
	time.Sleep(time.Second)
	for i, g := range groups {
		// A slice of the round for each, so that they do not count each other.
		file := filepath.Join(m.dir, fmt.Sprintf("perf.%d", i))
		slice := strconv.FormatFloat(float64(m.seconds)/float64(len(groups)), 'f', 2, 64)
		record := exec.CommandContext(ctx, perf, "record", "-q", "-F", "1997", "-e", "cpu-clock", "-g", "-o", file, "-p", strings.Join(g.pids, ","), "--", "sleep", slice) //nolint:gosec // found by us
		if out, err := record.CombinedOutput(); err != nil {
			r.note("No profile of %s: perf record: %v %s", g.name, err, out)
			continue
		}
		script, err := exec.CommandContext(ctx, perf, "script", "-i", file, "-F", "ip,sym").Output() //nolint:gosec // found by us
		if err != nil {
			r.note("No profile of %s: perf script: %v", g.name, err)
			continue
		}
		r.note("%s", tops(g.name, script))
	}
	enough()
	<-done
	return ctx.Err()
}

// longest is how many functions a profile names.
const longest = 30

// tops says in which functions the samples were, and below which.
func tops(name string, script []byte) string {
	self, under, samples := map[string]int{}, map[string]int{}, 0
	for sample := range strings.SplitSeq(string(script), "\n\n") {
		seen := map[string]bool{}
		for line := range strings.Lines(sample) {
			_, f, ok := strings.Cut(strings.TrimSpace(line), " ")
			if !ok || f == "" {
				continue
			}
			f = short(f)
			if len(seen) == 0 {
				self[f]++
				samples++
			}
			if !seen[f] {
				seen[f] = true
				under[f]++
			}
		}
	}
	if samples == 0 {
		return "No samples of " + name + "."
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d samples; in the function itself, and with what it calls:\n\n```\n", name, samples)
	left, right := ranked(self, samples), ranked(under, samples)
	for i := range min(longest, len(left), len(right)) {
		fmt.Fprintf(&b, "%-58s %s\n", left[i], right[i])
	}
	return b.String() + "```"
}

// short drops what makes a name of Go long: type arguments, and the path.
func short(f string) string {
	f, _, _ = strings.Cut(f, "[go.shape")
	if i := strings.LastIndexByte(f, '/'); i >= 0 {
		f = f[i+1:]
	}
	return f[:min(len(f), 48)]
}

func ranked(count map[string]int, of int) []string {
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(count[b]-count[a], strings.Compare(a, b))
	})
	for i, n := range names {
		names[i] = fmt.Sprintf("%5.1f %% %s", 100*float64(count[n])/float64(of), n)
	}
	return names
}
