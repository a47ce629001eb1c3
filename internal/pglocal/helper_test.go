// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

const (
	roleVar = "PGLOCAL_TEST_ROLE"
	dirVar  = "PGLOCAL_TEST_DIR"
)

// TestMain lets this binary play another process that runs a cluster.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(context.Background(), role); err != nil {
		fmt.Println("failed:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// play starts a cluster, prints its superuser's URL, and stays until its input
// ends; then it leaves as a crash would, without stopping anything.
func play(ctx context.Context, role string) error {
	var c *Cluster
	var err error
	switch role {
	case "start":
		c, err = Start(ctx, Config{Dir: os.Getenv(dirVar)})
	case "scratch":
		c, _, err = Scratch(ctx, Config{})
	case "connect":
		_, err = pgx.Connect(ctx, os.Getenv(dirVar))
		return err
	default:
		err = errors.New("no such role")
	}
	if err != nil {
		return err
	}
	fmt.Println(c.SuperuserURL("postgres"))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is this test binary in a role.
type process struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

// other starts this binary in a role, as another user if one is given.
func other(t *testing.T, who *syscall.Credential, env ...string) *process {
	t.Helper()
	cmd := exec.Command(readable(t))
	cmd.Env = append(env, "TMPDIR="+os.Getenv("TMPDIR"), "MEDIRECORD_PG_BIN="+os.Getenv("MEDIRECORD_PG_BIN"), "PATH="+os.Getenv("PATH"))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

// line returns what the process says; "" when it ends without a word.
func (p *process) line() string {
	s, _ := p.out.ReadString('\n')
	return strings.TrimSuffix(s, "\n")
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// readable returns a copy of this binary that every user can run: the go tool
// builds it where only its user can.
func readable(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(room(t), "test")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// room returns a folder that every user can enter; the one of t.TempDir is
// closed.
func room(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pglocal-test-") //nolint:usetesting // the test's own is closed to PostgreSQL's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// needPostgres skips the test on a machine without one, except in CI.
func needPostgres(t *testing.T) programs {
	t.Helper()
	pg, err := find(t.Context(), 0)
	if errors.Is(err, ErrNoPostgres) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pg
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
}

// start starts a cluster that is stopped with the test.
func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	needPostgres(t)
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil { // t.Context() is over here
			t.Error(err)
		}
	})
	return c
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
