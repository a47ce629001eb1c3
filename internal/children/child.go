// SPDX-License-Identifier: Apache-2.0

package children

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// drain is how long the output of a dead child is waited for, when something
// that it left behind still holds the pipe open.
const drain = 2 * time.Second

// Spec says what to start. Path and Name are required.
type Spec struct {
	// Name goes before each line of output and into errors.
	Name string
	Path string
	Args []string // without the program's own name
	// Env is the whole environment: nil is an empty one, so that no secret of
	// the supervisor's reaches a child by accident.
	Env        []string
	Dir        string
	Credential *syscall.Credential // nil: as the supervisor
	// Stdin is what the child reads; nil is nothing.
	Stdin io.Reader
	// Stdout and Stderr take the child's output line by line, each with Name
	// before it; nil discards it. A writer that has other uses meanwhile must
	// be safe for concurrent use, as files and Sync writers are.
	Stdout, Stderr io.Writer
	// Raw gives Stdout and Stderr to the child without the names.
	Raw bool
	// ExtraFiles are open in the child as file descriptors 3, 4, ...
	ExtraFiles []*os.File
	// TimerSlack is how late the kernel may wake the child from a sleep, so as to
	// wake it less often; 0 is as the supervisor itself. Only Linux has it.
	TimerSlack time.Duration
	// DeathSignal reaches the child when the supervisor dies; SIGKILL when zero.
	DeathSignal syscall.Signal
	// StopSignal and Grace are how a Group stops the child; SIGTERM and ten
	// seconds when zero.
	StopSignal syscall.Signal
	Grace      time.Duration
}

// Child is a started process. Its methods are safe for concurrent use.
type Child struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	err  error // written before done is closed, read after
}

// Start starts the process. The context bounds the start only: the child lives
// until it ends, is stopped, or its supervisor dies. It reports an error when
// the context is over or the process cannot be started.
func Start(ctx context.Context, s Spec) (*Child, error) {
	return start(ctx, s, func(*Child) {})
}

func start(ctx context.Context, s Spec, ended func(*Child)) (*Child, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.Name, err)
	}
	c := &Child{spec: s.withDefaults(), done: make(chan struct{})}
	flush := c.command()
	started := make(chan error)
	go func() {
		// The death signal is sent when the *thread* that started the child
		// ends, so that thread must be ours until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		loosely(c.spec.TimerSlack) // is inherited
		err := c.cmd.Start()
		loosely(0)
		started <- err
		if err != nil {
			return
		}
		c.err = c.outcome(c.cmd.Wait())
		flush()
		ended(c)
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.Name, err)
	}
	return c, nil
}

func (s Spec) withDefaults() Spec {
	if s.DeathSignal == 0 {
		s.DeathSignal = syscall.SIGKILL
	}
	if s.StopSignal == 0 {
		s.StopSignal = syscall.SIGTERM
	}
	if s.Grace == 0 {
		s.Grace = 10 * time.Second
	}
	return s
}

// command builds c.cmd and returns what writes out the last, unfinished lines.
func (c *Child) command() (flush func()) {
	s := c.spec
	c.cmd = &exec.Cmd{
		Path:        s.Path,
		Args:        append([]string{s.Path}, s.Args...),
		Env:         append([]string{}, s.Env...),
		Dir:         s.Dir,
		Stdin:       s.Stdin,
		Stdout:      s.Stdout,
		Stderr:      s.Stderr,
		ExtraFiles:  s.ExtraFiles,
		SysProcAttr: attributes(s),
		WaitDelay:   drain,
	}
	if s.Raw {
		return func() {}
	}
	out, errs := newLines(s.Stdout, s.Name), newLines(s.Stderr, s.Name)
	if s.Stdout != nil {
		c.cmd.Stdout = out
	}
	if s.Stderr != nil {
		c.cmd.Stderr = errs
	}
	return func() { out.flush(); errs.flush() }
}

func (c *Child) outcome(err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return fmt.Errorf("%s: %w", c.spec.Name, err)
}

// Name returns the name the child was started with.
func (c *Child) Name() string { return c.spec.Name }

// PID returns the process id. It stays the same after the child's end, when
// the system may give it to another.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the process has ended and its output is written.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err returns nil while the process runs and after it ended with status zero;
// otherwise how it ended, an *exec.ExitError within.
func (c *Child) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Signal sends a signal. It reports os.ErrProcessDone when there is nobody to
// receive it; a process that took its pid over never does.
func (c *Child) Signal(sig syscall.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("sending %s to %s: %w", sig, c.spec.Name, err)
	}
	return nil
}

// Kill ends the process at once, as a crash would.
func (c *Child) Kill() error { return c.Signal(syscall.SIGKILL) }

// Pause stops the process where it stands, until Resume. It is how a test
// makes a part of the system hang.
func (c *Child) Pause() error { return c.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (c *Child) Resume() error { return c.Signal(syscall.SIGCONT) }

// Stop asks the process to end with the signal and waits. When it is still
// there after the grace, or the context is over, it is killed, and Stop
// reports that. However it ends, it has ended when Stop returns.
func (c *Child) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	// A paused child hears nothing but SIGKILL and SIGCONT.
	if err := errors.Join(c.Signal(sig), c.Signal(syscall.SIGCONT)); err != nil {
		if !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	var why string
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		why = "did not stop within " + grace.String()
	case <-ctx.Done():
		why = "was not waited for: " + ctx.Err().Error()
	}
	if err := c.Kill(); errors.Is(err, os.ErrProcessDone) {
		<-c.done
		return nil
	} else if err != nil {
		return err
	}
	<-c.done
	return fmt.Errorf("%s %s and was killed", c.spec.Name, why)
}

// Group stops what it was given in reverse order, so that nobody loses what
// they stand on. The zero value is ready.
type Group struct {
	mu    sync.Mutex
	stops []func(context.Context) error
	ended chan *Child
}

// Start is Start for a member of the group.
func (g *Group) Start(ctx context.Context, s Spec) (*Child, error) {
	first := g.first()
	c, err := start(ctx, s, func(c *Child) {
		select {
		case first <- c:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	g.Add(func(ctx context.Context) error { return c.Stop(ctx, c.spec.StopSignal, c.spec.Grace) })
	return c, nil
}

// Add puts something else in line to be stopped, a database for instance.
func (g *Group) Add(stop func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops = append(g.stops, stop)
}

// Ended receives the first child to end, once. The child's Done may close a
// moment later.
func (g *Group) Ended() <-chan *Child { return g.first() }

func (g *Group) first() chan *Child {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended == nil {
		g.ended = make(chan *Child, 1)
	}
	return g.ended
}

// Stop stops every member, the last one first, and waits for each before the
// next. It reports what did not stop by itself; nothing is running after it.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	stops := g.stops
	g.stops = nil
	g.mu.Unlock()
	var errs []error
	for i := len(stops) - 1; i >= 0; i-- {
		errs = append(errs, stops[i](ctx))
	}
	return errors.Join(errs...)
}
