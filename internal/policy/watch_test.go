// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// policyDir is a policy directory with the default policy in it.
func policyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, FileName), defaultSource(t).Rego)
	return dir
}

// write replaces the file at once, as an editor that saves well does.
func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// watched runs a watcher until the test ends and hands over what it reports.
func watched(t *testing.T, path string) (w *Watcher, changed, refused <-chan string) {
	t.Helper()
	c, r := make(chan string, 16), make(chan string, 16)
	w, err := NewWatcher(t.Context(), WatchConfig{
		Path: path, Every: 5 * time.Millisecond,
		Changed: func(_ context.Context, revision string) { c <- revision },
		Refused: func(_ context.Context, reason string) { r <- reason },
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w, c, r
}

func next(t *testing.T, what string, from, other <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case s := <-other:
		t.Fatalf("waiting for a file to be %s, the opposite came: %s", what, s)
	case <-time.After(6 * time.Minute): // longer than a file has for its checks
		t.Fatalf("no file was %s within six minutes", what)
	}
	return ""
}

func TestAChangedFileComesIntoForce(t *testing.T) {
	t.Parallel()
	src := defaultSource(t)
	dir := policyDir(t)
	file := filepath.Join(dir, FileName)
	w, changed, refused := watched(t, dir)
	nurse := ask("read", "patient", med.RelationSamePractice, med.RoleNurse)
	strict := edit(t, src, `"diagnosis": "reveal",`, `"diagnosis": "hide",`)

	// Questions go on while files change.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				e := w.Engine()
				d, err := e.Decide(context.WithoutCancel(t.Context()), nurse)
				if err != nil || !d.Allow || d.View[med.FieldSSN] != med.Hide {
					t.Errorf("got %+v, error %v", d, err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	defer wg.Wait()
	defer close(stop)

	old := w.Engine().Revision()
	for _, step := range []struct {
		src  Source
		want med.Show
	}{{strict, med.Hide}, {src, med.Reveal}, {strict, med.Hide}} {
		write(t, file, step.src.Rego)
		revision := next(t, "taken", changed, refused)
		if revision == old || revision != w.Engine().Revision() {
			t.Errorf("revision %s after %s, in force is %s", revision, old, w.Engine().Revision())
		}
		if got := mustDecide(t, w.Engine(), nurse).View[med.FieldDiagnosis]; got != step.want {
			t.Errorf("diagnosis is %s, want %s", got, step.want)
		}
		old = revision
	}
	if taken, bad := w.Counts(); taken != 4 || bad != 0 {
		t.Errorf("taken %d, refused %d, want 4 and 0", taken, bad)
	}
}

func TestABadFileLeavesTheOldOneInForce(t *testing.T) {
	t.Parallel()
	src := defaultSource(t)
	dir := policyDir(t)
	file := filepath.Join(dir, FileName)
	w, changed, refused := watched(t, dir)
	good := w.Engine()
	failing := "title: A nurse sees all\ncases:\n  - {roles: [nurse], mfa: done, action: read, resource: patient, relation: same_practice, expect: {allow: true, reveal: [ssn]}}\n"
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"half a file", func() { write(t, file, src.Rego[:bytes.Index(src.Rego, []byte("\"record\": {"))]) }, "does not compile"},
		{"the clock", func() { write(t, file, []byte("package medirecord\n\ndecision := time.now_ns()\n")) }, "time.now_ns"},
		{"a broken rule", func() {
			write(t, file, edit(t, src, `"mfa": "done", "grant": true}`, `"mfa": "none", "grant": true}`).Rego)
		}, "compiled rule"},
		{"no file", func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, "reading the policy file"},
		{"a failing case", func() {
			if err := os.Mkdir(filepath.Join(dir, "cases"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "cases", "nurse.yaml"), []byte(failing))
			write(t, file, append(src.Rego[:len(src.Rego):len(src.Rego)], '\n'))
		}, "A nurse sees all"},
	}
	for _, step := range steps {
		step.do()
		if reason := next(t, "refused", refused, changed); !strings.Contains(reason, step.want) {
			t.Errorf("%s: refused because %q, want %q", step.name, reason, step.want)
		}
		if w.Engine() != good {
			t.Fatalf("%s: the old policy is no longer in force", step.name)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "cases")); err != nil {
		t.Fatal(err)
	}
	next(t, "taken", changed, refused) // the appended line is a new revision
	if _, bad := w.Counts(); bad != uint64(len(steps)) {
		t.Errorf("%d refusals are counted, want %d: one for each bad file", bad, len(steps))
	}
}

func TestNothingStartsWithoutAPolicy(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	bad := filepath.Join(t.TempDir(), "own.rego")
	write(t, bad, []byte("package medirecord\n"))
	for name, path := range map[string]string{
		"a missing file": filepath.Join(empty, "none.rego"), "an empty directory": empty, "a bad file": bad,
	} {
		if w, err := NewWatcher(t.Context(), WatchConfig{Path: path}); err == nil || w != nil {
			t.Errorf("%s: started with %v, error %v", name, w, err)
		}
	}
}

func TestTheEmbeddedPolicyIsTheDefault(t *testing.T) {
	t.Parallel()
	w, _, _ := watched(t, "")
	if got, want := w.Engine().Revision(), compiled(t, defaultSource(t)).Revision(); got != want {
		t.Errorf("revision %s, want %s", got, want)
	}
}

func TestASingleFileIsRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "practice.rego")
	write(t, path, defaultSource(t).Rego)
	src, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if src.Name != "practice.rego" || len(src.Cases) != 0 {
		t.Errorf("got %s with %d cases", src.Name, len(src.Cases))
	}
}
