// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine is where a benchmark ran, and what else ran there.
type machine struct {
	cores            int
	cpu, kernel      string
	postgres, golang string
	load             string // the load average before the run
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores %s, Linux %s, %s, %s · load average before: %s", m.cores, m.cpu, m.kernel, m.postgres, m.golang, m.load)
}

func thisMachine(ctx context.Context) machine {
	m := machine{cores: runtime.NumCPU(), golang: runtime.Version(), cpu: "unknown CPU", postgres: "PostgreSQL not found"}
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			m.cpu = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
			break
		}
	}
	m.kernel = strings.TrimSpace(text("/proc/sys/kernel/osrelease"))
	if f := strings.Fields(text("/proc/loadavg")); len(f) >= 3 {
		m.load = strings.Join(f[:3], " ")
	}
	if dir, err := programs(); err == nil {
		if out, err := exec.CommandContext(ctx, dir+"/postgres", "--version").Output(); err == nil { //nolint:gosec // found by us
			_, v, _ := strings.Cut(string(out), "(PostgreSQL) ")
			if f := strings.Fields(v); len(f) > 0 {
				m.postgres = "PostgreSQL " + f[0]
			}
		}
	}
	return m
}

func text(path string) string {
	b, _ := os.ReadFile(path) //nolint:gosec // of /proc; empty when it is not there
	return string(b)
}
