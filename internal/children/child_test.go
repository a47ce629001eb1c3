// SPDX-License-Identifier: Apache-2.0

package children_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/medirecord/medirecord/internal/children"
)

// patience bounds every wait of these tests; a machine that is that slow fails.
const patience = 60 * time.Second

const roleVar = "CHILDREN_TEST_ROLE"

// TestMain lets this binary play the processes that the tests start.
func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVar); role {
	case "":
		os.Exit(m.Run())
	case "polite":
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGTERM)
		fmt.Println("ready")
		<-wait
		fmt.Println("bye")
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		stay()
	case "supervisor":
		supervise()
	case "talker":
		fmt.Print("one\ntw")
		fmt.Print("o\n\nlast without an end")
	case "lister":
		fmt.Println(strings.Join(os.Environ(), " "))
	case "sleeper":
		slack, err := os.ReadFile("/proc/self/timerslack_ns")
		fmt.Println(strings.TrimSpace(string(slack)), err)
	case "failing":
		os.Exit(3)
	default:
		fmt.Println("no such role:", role)
		os.Exit(2)
	}
}

// supervise starts three children who hold the pipe on descriptor 3, as this
// process does, then pauses one of them, and stays.
func supervise() {
	var group children.Group
	pipe := os.NewFile(3, "pipe")
	for i := range 3 {
		out := newHeard()
		c, err := group.Start(context.Background(), children.Spec{
			Name: "grandchild", Path: self(), Env: []string{roleVar + "=stubborn"},
			Stdout: out, ExtraFiles: []*os.File{pipe},
		})
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		<-out.line("ready")
		if i == 0 {
			if err := c.Pause(); err != nil {
				fmt.Println("failed:", err)
				os.Exit(1)
			}
		}
	}
	fmt.Println("ready")
	stay()
}

// stay blocks for good; a bare select would be reported as a deadlock.
func stay() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, syscall.SIGUSR1)
	<-never
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// heard is a writer that tells when a line containing some text has come.
type heard struct {
	mu   sync.Mutex
	all  bytes.Buffer
	want map[string]chan struct{}
}

func newHeard() *heard { return &heard{want: map[string]chan struct{}{}} }

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all.Write(p)
	h.tell()
	return len(p), nil
}

func (h *heard) tell() {
	for text, ch := range h.want {
		if strings.Contains(h.all.String(), text) {
			close(ch)
			delete(h.want, text)
		}
	}
}

func (h *heard) line(text string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := make(chan struct{})
	h.want[text] = ch
	h.tell()
	return ch
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.String()
}

// play starts this binary in a role and waits until it is ready.
func play(t *testing.T, role string) (*children.Child, *heard) {
	t.Helper()
	out := newHeard()
	c, err := children.Start(t.Context(), children.Spec{Name: role, Path: self(), Env: []string{roleVar + "=" + role}, Stdout: out, Stderr: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Kill(); <-c.Done() })
	await(t, out.line("ready"), role+" to be ready")
	return c, out
}

func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
		panic("not reached")
	}
}

func TestKill9OfTheSupervisorLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	supervisor := exec.Command(self())
	supervisor.Env = []string{roleVar + "=supervisor"}
	supervisor.ExtraFiles = []*os.File{write}
	out, err := supervisor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := supervisor.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("got %q (%v) from the supervisor, want ready", line, err)
	}
	_ = write.Close()
	if err := supervisor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := supervisor.Wait(); err == nil {
		t.Fatal("the supervisor ended by itself, want killed")
	}
	// The pipe ends when its last holder has: the supervisor and all three,
	// the paused one too.
	if err := read.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(read); err != nil {
		t.Errorf("somebody still holds the pipe: %v", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("a polite child ends by itself and its last words are kept", func(t *testing.T) {
		t.Parallel()
		c, out := play(t, "polite")
		if err := c.Stop(t.Context(), syscall.SIGTERM, patience); err != nil {
			t.Error(err)
		}
		if err := c.Err(); err != nil {
			t.Errorf("got %v, want a clean end", err)
		}
		if got, want := out.String(), "polite | ready\npolite | bye\n"; got != want {
			t.Errorf("got output %q, want %q", got, want)
		}
	})
	t.Run("a stubborn child is killed after the grace", func(t *testing.T) {
		t.Parallel()
		c, _ := play(t, "stubborn")
		err := c.Stop(t.Context(), syscall.SIGTERM, 10*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "was killed") {
			t.Errorf("got %v, want an error that says it was killed", err)
		}
		await(t, c.Done(), "the end")
	})
	t.Run("a context that is over shortens the grace", func(t *testing.T) {
		t.Parallel()
		c, _ := play(t, "stubborn")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Stop(ctx, syscall.SIGTERM, time.Hour); err == nil {
			t.Error("got nil, want an error that says it was killed")
		}
		await(t, c.Done(), "the end")
	})
	t.Run("a paused child is stopped as politely as another", func(t *testing.T) {
		t.Parallel()
		c, out := play(t, "polite")
		if err := c.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(t.Context(), syscall.SIGTERM, patience); err != nil {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "bye") {
			t.Errorf("got output %q, want a goodbye", out)
		}
	})
	t.Run("stopping twice is no error", func(t *testing.T) {
		t.Parallel()
		c, _ := play(t, "polite")
		for range 2 {
			if err := c.Stop(t.Context(), syscall.SIGTERM, patience); err != nil {
				t.Error(err)
			}
		}
		if err := c.Kill(); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("killing the dead: got %v, want %v", err, os.ErrProcessDone)
		}
	})
}

func TestAPausedChildDoesNothingUntilItIsResumed(t *testing.T) {
	t.Parallel()
	c, out := play(t, "polite")
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := state(t, c.PID()); got != "T" {
		t.Errorf("got state %q, want T, stopped", got)
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	await(t, out.line("bye"), "the goodbye")
	await(t, c.Done(), "the end")
}

// state returns the letter of the process's state once it is settled: the
// kernel stops a process a moment after the signal was sent.
func state(t *testing.T, pid int) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); { // when it is next run, that is
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Skip("no /proc here")
		}
		letter := string(stat[bytes.LastIndexByte(stat, ')')+2])
		if letter != "R" && letter != "S" && letter != "D" {
			return letter
		}
	}
	return "running"
}

func TestAChildThatEndsByItself(t *testing.T) {
	t.Parallel()
	t.Run("its exit status is in Err, under its name", func(t *testing.T) {
		t.Parallel()
		c, err := children.Start(t.Context(), children.Spec{Name: "api", Path: self(), Env: []string{roleVar + "=failing"}})
		if err != nil {
			t.Fatal(err)
		}
		await(t, c.Done(), "the end")
		var exit *exec.ExitError
		if !errors.As(c.Err(), &exit) || exit.ExitCode() != 3 || !strings.HasPrefix(c.Err().Error(), "api: ") {
			t.Errorf("got %v, want exit status 3 of api", c.Err())
		}
	})
	t.Run("a crash is in Err too", func(t *testing.T) {
		t.Parallel()
		c, _ := play(t, "polite")
		if err := c.Err(); err != nil {
			t.Errorf("got %v of a running child, want nil", err)
		}
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		await(t, c.Done(), "the end")
		if c.Err() == nil {
			t.Error("got nil, want the signal")
		}
	})
}

func TestOutputCarriesTheName(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, raw bool, role string) string {
		t.Helper()
		out := newHeard()
		c, err := children.Start(t.Context(), children.Spec{Name: "sidecar", Path: self(), Env: []string{roleVar + "=" + role}, Stdout: out, Raw: raw})
		if err != nil {
			t.Fatal(err)
		}
		await(t, c.Done(), "the end")
		return out.String()
	}
	got := run(t, false, "talker")
	if diff := cmp.Diff("sidecar | one\nsidecar | two\nsidecar | \nsidecar | last without an end\n", got); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if got, want := run(t, true, "talker"), "one\ntwo\n\nlast without an end"; got != want {
		t.Errorf("raw: got %q, want %q", got, want)
	}
	if got, want := run(t, true, "lister"), roleVar+"=lister\n"; got != want {
		t.Errorf("environment: got %q, want nothing but what was given: %q", got, want)
	}
}

func TestTimerSlack(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/timerslack_ns"); err != nil {
		t.Skip("this kernel has no timer slack:", err)
	}
	for _, c := range []struct {
		slack time.Duration
		want  string
	}{{3 * time.Millisecond, "3000000 <nil>\n"}, {0, "50000 <nil>\n"}} {
		out := newHeard()
		child, err := children.Start(t.Context(), children.Spec{
			Name: "sleeper", Path: self(), Env: []string{roleVar + "=sleeper"}, Stdout: out, Raw: true, TimerSlack: c.slack,
		})
		if err != nil {
			t.Fatal(err)
		}
		await(t, child.Done(), "the end")
		if got := out.String(); got != c.want {
			t.Errorf("slack %s: the child has %q, want %q", c.slack, got, c.want)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	if _, err := children.Start(t.Context(), children.Spec{Name: "api", Path: "/does/not/exist"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := children.Start(ctx, children.Spec{Name: "api", Path: self()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	t.Run("stops in reverse order, each before the next", func(t *testing.T) {
		t.Parallel()
		var group children.Group
		out := newHeard()
		group.Add(func(context.Context) error { _, err := io.WriteString(out, "database stopped\n"); return err })
		for _, name := range []string{"sidecar", "api"} {
			_, err := group.Start(t.Context(), children.Spec{Name: name, Path: self(), Env: []string{roleVar + "=polite"}, Stdout: out, Grace: patience})
			if err != nil {
				t.Fatal(err)
			}
			await(t, out.line(name+" | ready"), name)
		}
		if err := group.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		want := "sidecar | ready\napi | ready\napi | bye\nsidecar | bye\ndatabase stopped\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
	t.Run("goes on after one that would not stop, and says so", func(t *testing.T) {
		t.Parallel()
		var group children.Group
		stopped := false
		group.Add(func(context.Context) error { stopped = true; return nil })
		group.Add(func(context.Context) error { return io.ErrUnexpectedEOF })
		if err := group.Stop(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
		}
		if !stopped {
			t.Error("the first member was not stopped")
		}
	})
	t.Run("tells which child ended first", func(t *testing.T) {
		t.Parallel()
		var group children.Group
		for _, role := range []string{"stubborn", "failing"} {
			if _, err := group.Start(t.Context(), children.Spec{Name: role, Path: self(), Env: []string{roleVar + "=" + role}, Grace: time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		if got := await(t, group.Ended(), "an end"); got.Name() != "failing" {
			t.Errorf("got %s, want failing", got.Name())
		}
		_ = group.Stop(t.Context()) // the stubborn one may or may not have set its ears yet
	})
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	out := newHeard()
	const size = 200 << 10
	c, err := children.Start(t.Context(), children.Spec{
		Name: "n", Path: "/bin/sh", Env: []string{"PATH=/usr/bin:/bin"}, Stdout: children.Sync(out),
		Args: []string{"-c", "head -c " + strconv.Itoa(size) + " /dev/zero | tr '\\0' x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, c.Done(), "the end")
	if got := strings.Count(out.String(), "x"); got != size {
		t.Errorf("got %d bytes, want all %d", got, size)
	}
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "n | ") || len(line) > 64<<10+1 {
			t.Errorf("got a line of %d bytes, prefix %q", len(line), line[:4])
		}
	}
}
