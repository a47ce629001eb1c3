// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
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
		{"API", []string{strconv.Itoa(m.system.PIDs["api"])}}, {"sidecar", []string{strconv.Itoa(m.system.PIDs["sidecar"])}},
		{"PostgreSQL: reads", nil}, {"PostgreSQL: trail", nil},
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
	done := make(chan error, 1)
	go func() {
		_, err := m.reads(ctx, m.system, m.ids, m.seconds+2)
		done <- err
	}()
	time.Sleep(time.Second)
	for _, g := range groups {
		// All at once would count each other's interrupts; a slice of the round each.
		file := filepath.Join(m.dir, "perf."+strconv.Itoa(len(g.name)))
		slice := strconv.FormatFloat(float64(m.seconds)/float64(len(groups)), 'f', 2, 64)
		record := exec.CommandContext(ctx, perf, "record", "-q", "-F", "997", "-e", "cpu-clock", "-g", "-o", file, "-p", strings.Join(g.pids, ","), "--", "sleep", slice) //nolint:gosec // found by us
		if out, err := record.CombinedOutput(); err != nil {
			r.note("No profile of %s: perf record: %v %s", g.name, err, out)
			continue
		}
		for _, view := range []struct{ what, flag string }{{"in the function itself", "--no-children"}, {"with what it calls", "--children"}} {
			top, err := m.top(ctx, perf, file, view.flag)
			if err != nil {
				r.note("No profile of %s: %v", g.name, err)
				break
			}
			r.note("%s, %s:\n\n```\n%s\n```", g.name, view.what, top)
		}
	}
	return <-done
}

// longest is how many functions a profile names.
const longest = 25

func (m *audited) top(ctx context.Context, perf, file, flag string) (string, error) {
	cmd := exec.CommandContext(ctx, perf, "report", "-i", file, flag, "-g", "none", "--stdio", "-q", "-F", "overhead,sym", "--percent-limit", "0.7") //nolint:gosec // found by us
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("perf report: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimRight(line, " \n"); line != "" && len(lines) < longest {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), nil
}
