// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A second verifier, in another language, comes to the same verdicts.
func TestASecondVerifierAgrees(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	text := read(t, "verify.py")
	if n := strings.Count(text, "\n"); n > 150 {
		t.Errorf("verify.py has %d lines; 150 is what somebody reads", n)
	}
	dir := "../internal/audit/testdata/export"
	for _, c := range []struct {
		policy, file string
		code         int
		says         string
	}{
		{"trail.policy", "audit-2026-11-epoch1.ndjson.gz", 0, "clean, entries 0 to 59 of example.test/audit/1"},
		{"trail.policy", "audit-2026-12-epoch1.ndjson.gz", 0, "clean, entries 60 to 199"},
		{"trail.policy", "altered.ndjson.gz", 3, "entry 100, id "},
		{"trail.policy", "redated.ndjson.gz", 3, "entry 100, id "},
		{"trail.policy", "missing.ndjson.gz", 3, "entry 100: stands 101 in its place"},
		{"trail.policy", "forged.ndjson.gz", 1, "too few witnesses"},
		{"log-alone.policy", "forged.ndjson.gz", 0, "clean"}, // it agrees with itself: that is what witnesses are for
		{"trail.policy", "trail.policy", 1, "could not be verified"},
		{"trail.policy", "twice.ndjson.gz", 1, "says two things"},
		{"trail.policy", "kept-back.ndjson.gz", 3, "entry 100: kept back as one of 2025-07"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, python, "verify.py", filepath.Join(dir, c.policy), filepath.Join(dir, c.file)) //nolint:gosec // of this test
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
		out, _ := cmd.Output()
		cancel()
		if got := cmd.ProcessState.ExitCode(); got != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%s, %s: got exit code %d and %q, want %d and %q", c.policy, c.file, got, out, c.code, c.says)
		}
	}
}
