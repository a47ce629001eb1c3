// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is a clock tick of /proc/<pid>/stat: 10 ms on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// usage is the CPU time so far, by what spent it.
type usage map[string]time.Duration

// parts are the names of usage, in the order of a request's way.
var parts = []string{"load generator", "API", "sidecar", "PostgreSQL: reads", "PostgreSQL: trail", "PostgreSQL: other", "worker"}

// usage returns what each part of the system has spent. Backends are told
// apart by the role they run as.
func (s *system) usage(ctx context.Context) (usage, error) {
	out, err := s.sql(ctx, s.Database.Name, "select pid, coalesce(usename, '') from pg_stat_activity")
	if err != nil {
		return nil, err
	}
	role := map[string]string{}
	for line := range strings.Lines(out) {
		pid, name, _ := strings.Cut(strings.TrimSpace(line), "|")
		role[pid] = name
	}
	u := usage{
		"API": spent(strconv.Itoa(s.PIDs["api"])), "sidecar": spent(strconv.Itoa(s.PIDs["sidecar"])), "worker": spent(strconv.Itoa(s.PIDs["worker"])),
	}
	for _, pid := range s.postgres() {
		switch role[pid] {
		case "medirecord_app":
			u["PostgreSQL: reads"] += spent(pid)
		case "medirecord_trail":
			u["PostgreSQL: trail"] += spent(pid)
		default:
			u["PostgreSQL: other"] += spent(pid)
		}
	}
	return u, nil
}

// postgres returns the pids of the server and its processes.
func (s *system) postgres() []string {
	main := strconv.Itoa(s.PIDs["postgres"])
	out := []string{main}
	tasks, _ := filepath.Glob("/proc/" + main + "/task/*/children")
	for _, t := range tasks {
		out = append(out, strings.Fields(text(t))...)
	}
	return out
}

// spent returns the CPU time of a process, 0 when it has ended.
func spent(pid string) time.Duration {
	b, err := os.ReadFile("/proc/" + pid + "/stat") //nolint:gosec // of /proc
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tick
}

// add adds what was spent between two readings.
func (u usage) add(before, after usage) {
	for name := range after {
		u[name] += max(0, after[name]-before[name])
	}
}

// table says what one request cost each part.
func (u usage) table(requests int64, elapsed time.Duration, cores int) string {
	var b strings.Builder
	b.WriteString("| CPU time of one read | µs | of the machine |\n|---|---:|---:|\n")
	var total time.Duration
	row := func(name string, d time.Duration) {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f %% |\n", name, float64(d.Microseconds())/float64(max(1, requests)), 100*d.Seconds()/(elapsed.Seconds()*float64(cores)))
	}
	for _, name := range parts {
		total += u[name]
		row(name, u[name])
	}
	row("together", total)
	return strings.TrimSuffix(b.String(), "\n")
}
