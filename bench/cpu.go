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
var parts = []string{"load generator", "API", "sidecar", "PostgreSQL: reads", "PostgreSQL: trail", "PostgreSQL: other", "worker", "supervisor"}

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
		"supervisor": spent(strconv.Itoa(s.cmd.Process.Pid)),
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

// spent returns the CPU time of a process and of its children that have ended;
// 0 when it has ended itself.
func spent(pid string) time.Duration {
	b, err := os.ReadFile("/proc/" + pid + "/stat") //nolint:gosec // of /proc
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, field := range f[11:15] { // user and system, its own and its children's
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// all returns what the whole system has spent.
func (s *system) all() time.Duration {
	total := spent(strconv.Itoa(s.cmd.Process.Pid))
	for _, part := range []string{"api", "sidecar", "worker"} {
		total += spent(strconv.Itoa(s.PIDs[part]))
	}
	for _, pid := range s.postgres() {
		total += spent(pid)
	}
	return total
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
