// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/token"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func named(id string, expires time.Time) *token.Claims {
	return &token.Claims{Caller: med.Caller{Issuer: "i", TokenID: id, ExpiresAt: expires}}
}

func opened(t *testing.T, path string, now time.Time) *state {
	t.Helper()
	s, err := openState(path, at(now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func TestAStateFileThatDoesNotReadStopsTheStart(t *testing.T) {
	t.Parallel()
	good := fmt.Sprintf("{\"revoked\":\"i\\u001fa\",\"expires\":%d}\n", noon.Add(time.Hour).Unix())
	for name, tc := range map[string]struct{ content, says string }{
		"garbage":                     {"garbage\n", "line 1"},
		"garbage after a good line":   {good + "\x00\x00\n", "line 2"},
		"garbage before a good line":  {"{\n" + good, "line 1"},
		"a good line cut in between":  {good[:20] + good, "line 1"},
		"an expiry that is no number": {`{"revoked":"x","expires":"soon"}` + "\n", "line 1"},
		"a list":                      {"[]\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := openState(path, at(noon))
			if err == nil || s != nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want it to name the file and %s", err, tc.says)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tc.content {
				t.Error("the file was changed: what could be restored is lost")
			}
		})
	}
	t.Run("no path", func(t *testing.T) {
		t.Parallel()
		if _, err := openState("", at(noon)); err == nil || !strings.Contains(err.Error(), "MEDIRECORD_SIDECAR_STATE") {
			t.Errorf("got %v, want it to name the setting", err)
		}
	})
	t.Run("a folder that cannot be", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openState(filepath.Join(file, "state"), at(noon)); err == nil {
			t.Error("opened")
		}
	})
}

func TestALastLineThatWasBeingWrittenIsDropped(t *testing.T) {
	t.Parallel()
	whole := fmt.Sprintf("{\"revoked\":\"i\\u001fa\",\"expires\":%d}\n", noon.Add(time.Hour).Unix())
	torn := strings.Replace(whole, "1fa", "1fb", 1)
	for cut := range len(torn) { // without its end, a line was never answered for
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, []byte(whole+torn[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		s := opened(t, path, noon)
		if !s.revoked(named("a", noon)) || s.revoked(named("b", noon)) {
			t.Fatalf("cut at %d: a %v, b %v; want a alone", cut, s.revoked(named("a", noon)), s.revoked(named("b", noon)))
		}
		// And the file is whole again: what comes next does not stick to the rest.
		if err := s.revoke(named("c", noon.Add(time.Hour))); err != nil {
			t.Fatal(err)
		}
		if again := opened(t, path, noon); !again.revoked(named("a", noon)) || !again.revoked(named("c", noon)) {
			t.Fatalf("cut at %d: lost at the next start", cut)
		}
	}
}

func TestARevocationCountsUntilTheTokenHasExpired(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	s := opened(t, path, noon)
	expires := noon.Add(time.Hour)
	for id, exp := range map[string]time.Time{"a": expires, "b": noon.Add(24 * time.Hour)} {
		if err := s.revoke(named(id, exp)); err != nil {
			t.Fatal(err)
		}
	}
	// Said again with an earlier end, as another token of the same id could:
	// nothing is taken back.
	if err := s.revoke(named("a", noon.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	if s := opened(t, path, expires.Add(30*time.Second)); !s.revoked(named("a", expires)) {
		t.Error("within the leeway of the token's end it is forgotten")
	}
	// Two lines of one token, as two who revoked it at once could leave: the
	// later end counts.
	two := filepath.Join(t.TempDir(), "two")
	lines := fmt.Sprintf("{\"revoked\":\"i\\u001fc\",\"expires\":%d}\n{\"revoked\":\"i\\u001fc\",\"expires\":%d}\n", expires.Unix(), noon.Add(time.Minute).Unix())
	if err := os.WriteFile(two, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = opened(t, two, noon).close() // written anew
	if !opened(t, two, noon.Add(2*time.Minute)).revoked(named("c", expires)) {
		t.Error("a line took a revocation back")
	}
	s = opened(t, path, expires.Add(time.Hour))
	if s.revoked(named("a", expires)) || !s.revoked(named("b", expires)) {
		t.Error("an expired one stays, or another goes")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(b), "\n") != 1 {
		t.Errorf("the file keeps what no longer counts:\n%s", b)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 600", info.Mode(), err)
	}
}

// tornEnv makes this test binary a process whose disk is full.
const tornEnv = "MEDIRECORD_TEST_TORN_STATE"

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(tornEnv); path != "" {
		onAFullDisk(t, path)
		return
	}
	// The limit is the process's, so it is another one.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAFullDisk$", "-test.v") //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), tornEnv+"="+filepath.Join(t.TempDir(), "state"))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestAFullDisk") {
		t.Errorf("%v\n%s", err, out)
	}
}

func onAFullDisk(t *testing.T, path string) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	expires := noon.Add(time.Hour)
	s := opened(t, path, noon)
	if err := s.revoke(named("before", expires)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var free syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &free); err != nil {
		t.Fatal(err)
	}
	full := syscall.Rlimit{Cur: uint64(info.Size()) + 10, Max: free.Max} //nolint:gosec // a size
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	if err := s.revoke(named("during", expires)); err == nil {
		t.Error("revoked though it could not be written down")
	}
	if s.revoked(named("during", expires)) {
		t.Error("remembered though it was not written down: after a restart it would be forgotten")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &free); err != nil {
		t.Fatal(err)
	}
	if err := s.revoke(named("after", expires)); err != nil {
		t.Fatal(err)
	}
	again, err := openState(path, at(noon))
	if err != nil {
		t.Fatal("half a line stands in the middle of the file:", err)
	}
	for id, want := range map[string]bool{"before": true, "during": false, "after": true} {
		if got := again.revoked(named(id, expires)); got != want {
			t.Errorf("%s: revoked %v, want %v", id, got, want)
		}
	}
}
