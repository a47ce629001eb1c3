// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed load
var loads embed.FS

// load is what one measurement under load found.
type load struct {
	perSecond          float64
	requests, bad      int64 // answered; not 200, or not answered
	p50, p90, p99, max time.Duration
	mean               time.Duration
	cpu                time.Duration // of the generator itself
	all                time.Duration // of everything: system and generator
}

// file writes an embedded file, with text in front of it, into the folder of
// the run.
func (b *bench) file(name, before string) (string, error) {
	body, err := loads.ReadFile("load/" + name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, append([]byte(before), body...), 0o600)
}

var (
	tps      = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	average  = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	executed = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	failures = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// pgbench runs one of our scripts for the given time.
func (b *bench) pgbench(ctx context.Context, url, script string) (load, error) {
	dir, err := programs()
	if err != nil {
		return load{}, err
	}
	path, err := b.file(script, "")
	if err != nil {
		return load{}, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "pgbench"), "-n", "-M", "prepared", "-c", strconv.Itoa(b.conns), "-j", "2", //nolint:gosec // found by us
		"-T", strconv.Itoa(b.seconds), "-D", "patients="+strconv.Itoa(b.sample), "-f", path, url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	var l load
	l.perSecond = find(tps, out)
	l.requests, l.bad = int64(find(executed, out)), int64(find(failures, out))
	l.mean = time.Duration(find(average, out) * float64(time.Millisecond))
	l.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if l.perSecond == 0 || l.bad != 0 {
		return l, fmt.Errorf("pgbench failed %d transactions:\n%s", l.bad, out)
	}
	return l, nil
}

func find(r *regexp.Regexp, in []byte) float64 {
	m := r.FindSubmatch(in)
	if m == nil {
		return 0
	}
	v, _ := strconv.ParseFloat(string(m[1]), 64)
	return v
}

// reads loads GET /patients/{id}, over the ids in turn, with wrk, or, where
// there is none, with a generator in this process.
func (b *bench) reads(ctx context.Context, s *system, ids []string, seconds int) (load, error) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return b.readsFromHere(ctx, s, ids, seconds)
	}
	quoted := make([]string, len(ids))
	for i, id := range ids {
		quoted[i] = strconv.Quote(id)
	}
	script, err := b.file("reads.lua", fmt.Sprintf("token = %q\nids = {%s}\n", s.Tokens["clinician"], strings.Join(quoted, ", ")))
	if err != nil {
		return load{}, err
	}
	cmd := exec.CommandContext(ctx, wrk, "-t", "1", "-c", strconv.Itoa(b.conns), "-d", strconv.Itoa(seconds)+"s", "--timeout", "10s", "-s", script, s.API) //nolint:gosec // found by us
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	_, line, found := strings.Cut(string(out), "RESULT ")
	var l load
	var us, status, broken, p999 int64
	var p [4]int64
	if found {
		_, err = fmt.Sscan(line, &l.requests, &us, &status, &broken, &p[0], &p[1], &p[2], &p999, &p[3])
	}
	if !found || err != nil || us == 0 {
		return load{}, fmt.Errorf("wrk said nothing of use:\n%s", out)
	}
	l.perSecond = float64(l.requests) / (float64(us) / 1e6)
	l.bad = status + broken
	for i, d := range []*time.Duration{&l.p50, &l.p90, &l.p99, &l.max} {
		*d = time.Duration(p[i]) * time.Microsecond
	}
	l.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return l, nil
}
