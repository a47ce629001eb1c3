// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/medirecord/medirecord/internal/app"
)

// maxConns bounds -conns: PostgreSQL is started with room for it.
const maxConns = 256

// system is a `medirecord dev` of this benchmark's own.
type system struct {
	dir  string // --data
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	end  error         // how, then
	app.DevInfo
}

// programs returns the folder of PostgreSQL's programs.
func programs() (string, error) {
	if dir := os.Getenv("MEDIRECORD_PG_BIN"); dir != "" {
		return dir, nil
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	if len(dirs) > 0 {
		return dirs[0], nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("no PostgreSQL on this machine: apt-get install -y postgresql")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

func version(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// build builds the program that is measured.
func (b *bench) build(ctx context.Context) (string, error) {
	if b.binary != "" {
		return filepath.Abs(b.binary)
	}
	path := filepath.Join(b.dir, "medirecord")
	b.say("building medirecord")
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nomsgpack", "-o", path, "./cmd/medirecord").CombinedOutput() //nolint:gosec // our own program
	if err != nil {
		return "", fmt.Errorf("building medirecord (run this in the root of the repository): %w\n%s", err, out)
	}
	return path, nil
}

// roomy makes a folder of PostgreSQL's programs in which the server takes more
// connections: a development server's 60 are too few for pgbench beside it.
func (b *bench) roomy() (string, error) {
	from, err := programs()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "pg")
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
		return dir, nil // made for the server before
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user reads it
		return "", err
	}
	found, err := os.ReadDir(from)
	if err != nil {
		return "", err
	}
	for _, f := range found {
		if f.Name() != "postgres" {
			if err := os.Symlink(filepath.Join(from, f.Name()), filepath.Join(dir, f.Name())); err != nil {
				return "", err
			}
		}
	}
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && exec %[1]s --version\nexec %[1]s \"$@\" -c max_connections=%[2]d\n",
		filepath.Join(from, "postgres"), maxConns+60)
	return dir, os.WriteFile(filepath.Join(dir, "postgres"), []byte(script), 0o755) //nolint:gosec // PostgreSQL's user runs it
}

// start starts a development server, with these variables besides its own, and
// waits until it is ready. Several may run, each in a folder of its own.
func (b *bench) start(ctx context.Context, sample int, env ...string) (*system, error) {
	binary, err := b.build(ctx)
	if err != nil {
		return nil, err
	}
	pg, err := b.roomy()
	if err != nil {
		return nil, err
	}
	b.servers++
	s := &system{dir: filepath.Join(b.dir, fmt.Sprintf("data%d", b.servers)), done: make(chan struct{})}
	log, err := os.Create(s.dir + ".log") //nolint:gosec // our own folder
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the server has its own
	b.say("starting medirecord dev with %d sample patients", sample)
	s.cmd = exec.Command(binary, "dev", "--data", s.dir, "--sample", strconv.Itoa(sample), //nolint:gosec,noctx // stopped by SIGTERM, not by the context
		"--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--sidecar", "127.0.0.1:0")
	s.cmd.Env = slices.Concat(os.Environ(), []string{"MEDIRECORD_PG_BIN=" + pg}, env)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.end = s.cmd.Wait()
		close(s.done)
	}()
	if err := s.ready(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, tail(log.Name()))
	}
	return s, nil
}

func (s *system) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-s.done:
			return fmt.Errorf("medirecord dev ended: %w", s.end)
		case <-ctx.Done():
			return fmt.Errorf("medirecord dev did not become ready: %w", ctx.Err())
		case <-poll.C:
		}
		info, err := app.ReadDevInfo(s.dir)
		if err == nil {
			s.DevInfo = *info
			return nil
		}
	}
}

// stop stops the server and waits until nothing of it is left.
func (s *system) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path) //nolint:gosec // our own log
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// database returns the superuser's URL of a database of the cluster.
func (s *system) database(name string) string {
	return strings.Replace(s.Database.SuperuserURL, "/"+s.Database.Name+"?", "/"+name+"?", 1)
}

// sql runs statements as the superuser and returns what they print, unaligned.
func (s *system) sql(ctx context.Context, db, statements string) (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", s.database(db)) //nolint:gosec // found by us
	cmd.Stdin = strings.NewReader(statements)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, said.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// count runs a query for one number.
func (s *system) count(ctx context.Context, query string) (int64, error) {
	out, err := s.sql(ctx, s.Database.Name, query)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(out, 10, 64)
}
