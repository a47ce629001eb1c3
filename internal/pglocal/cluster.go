// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/medirecord/medirecord/internal/children"
)

const (
	// startWithin bounds a start, initdb and crash recovery included.
	startWithin = 2 * time.Minute
	// previousWithin bounds the wait for the server of a run before this one.
	previousWithin = 30 * time.Second
	// stopWithin bounds a stop before the server is killed.
	stopWithin = 30 * time.Second
	// logLimit is where the log of the run before is set aside.
	logLimit = 10 << 20
)

// Config says which cluster to start. Dir is required, and pglocal's alone.
type Config struct {
	Dir string
	// Name shows in the list of processes; "medirecord" when empty.
	Name string
	// Log takes a line for each thing that takes a while; nil discards it.
	Log io.Writer
	// Settings are PostgreSQL's, and win over the defaults. Those that say who
	// can connect cannot be set.
	Settings map[string]string
}

// Cluster is a running PostgreSQL. Its methods are safe for concurrent use.
type Cluster struct {
	child    *children.Child
	socket   string
	password string
	hold     *os.File // DIR/lock
	done     chan struct{}
	external *url.URL // a server that is not ours, instead of all the above
}

// Start starts the cluster in the folder, made the first time, and returns when
// it takes connections. The context bounds the start only; the cluster runs
// until it is stopped, and no longer than this process.
//
// It reports ErrNoPostgres when there is none; a folder that another process
// runs already; a folder that PostgreSQL's user cannot reach; and a server that
// does not come up, with the end of its log.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	f, err := openFolder(ctx, cfg.Dir, who)
	if err != nil {
		return nil, err
	}
	hold, err := lock(filepath.Join(f.dir, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("another medirecord runs the database in %s: stop it, or choose another --data: %w", f.dir, err)
	}
	if err != nil {
		return nil, err
	}
	c, err := startHeld(ctx, cfg, f, hold)
	if err != nil {
		unlock(hold)
		return nil, err
	}
	return c, nil
}

// startHeld starts the cluster for the holder of the folder's lock.
func startHeld(ctx context.Context, cfg Config, f folder, hold *os.File) (*Cluster, error) {
	args, err := arguments(f, cfg)
	if err != nil {
		return nil, err
	}
	servers, err := previousGone(ctx, f)
	if err != nil {
		return nil, err
	}
	// The server's processes inherit the lock; ours is given back when they have it.
	defer servers.Close() // nothing was written to it
	if err := f.own(f.socketDir()); err != nil {
		return nil, fmt.Errorf("the folder of the socket: %w", err)
	}
	major, err := f.madeBy()
	if err != nil {
		return nil, err
	}
	pg, err := find(ctx, major)
	if err != nil {
		return nil, err
	}
	password, err := f.secret()
	if err != nil {
		return nil, err
	}
	if major == 0 {
		say(cfg.Log, "making a PostgreSQL %s database in %s", pg.version, f.dir)
	}
	if err := f.prepare(ctx, pg, password, servers); err != nil {
		return nil, err
	}
	child, err := launch(ctx, f, pg, args, servers)
	if err != nil {
		return nil, err
	}
	c := &Cluster{child: child, socket: f.socketDir(), password: password, hold: hold, done: make(chan struct{})}
	go c.release()
	return c, nil
}

// previousGone returns the lock that a server's processes hold among them, once
// those of an earlier run have ended: a supervisor that was killed leaves a
// server that is still shutting down.
func previousGone(ctx context.Context, f folder) (*os.File, error) {
	path := filepath.Join(f.dir, "server.lock")
	servers, err := lock(path)
	if !errors.Is(err, errLocked) {
		return servers, err
	}
	// We have the folder's lock, so the server has no supervisor. Its death
	// signal may not have reached it: paused, or not on Linux.
	if pid := f.running(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGINT) // it may be gone by now, and we wait anyhow
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	ctx, cancel := context.WithTimeout(ctx, previousWithin)
	defer cancel()
	servers, err = lockWhenFree(ctx, path)
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("the PostgreSQL of an earlier run in %s is still there: %w", f.dir, err)
	}
	return servers, err
}

// launch starts the server, which holds the lock from then on, and returns when
// it is ready.
func launch(ctx context.Context, f folder, pg programs, args []string, servers *os.File) (*children.Child, error) {
	if err := errors.Join(f.writeHBA(), f.dropStale()); err != nil {
		return nil, err
	}
	log, err := f.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has its own
	child, err := children.Start(ctx, children.Spec{
		Name: "postgres", Path: pg.path("postgres"), Args: args, Env: childEnv(), Dir: "/",
		Credential: f.who.credential(), Stdout: log, Stderr: log, Raw: true,
		ExtraFiles: []*os.File{servers}, DeathSignal: syscall.SIGINT,
	})
	if err != nil {
		return nil, err
	}
	if err := f.ready(ctx, child); err != nil {
		_ = child.Kill() // it may be gone already
		<-child.Done()
		return nil, fmt.Errorf("PostgreSQL in %s did not start: %w\n%s", f.dir, err, f.endOfLog())
	}
	return child, nil
}

// release gives the folder back when the server has ended.
func (c *Cluster) release() {
	<-c.child.Done()
	unlock(c.hold)
	close(c.done)
}

// ready waits until postmaster.pid names this child, and says it is ready. The
// pid matters: a file of another server would say ready too.
func (f folder) ready(ctx context.Context, child *children.Child) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, status := f.postmaster(); pid == child.PID() && status == "ready" {
			return nil
		}
		select {
		case <-child.Done():
			return fmt.Errorf("it ended: %w", child.Err())
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// postmaster returns the first and the eighth line of postmaster.pid; zeros
// when there is none.
func (f folder) postmaster() (pid int, status string) {
	b, err := os.ReadFile(f.pidFile())
	if err != nil {
		return 0, ""
	}
	lines := strings.Split(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return 0, ""
	}
	if len(lines) >= 8 {
		status = strings.TrimSpace(lines[7])
	}
	return pid, status
}

func (f folder) pidFile() string { return filepath.Join(f.data(), "postmaster.pid") }

// running returns the pid of the server that runs in this folder, known by its
// working folder; 0 when there is none, or no way to know.
func (f folder) running() int {
	pid, _ := f.postmaster()
	real, err := filepath.EvalSymlinks(f.data())
	if err != nil || pid <= 1 {
		return 0
	}
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	if err != nil || cwd != real {
		return 0
	}
	return pid
}

// dropStale removes the files in which a server that was killed left its pid.
// Whoever holds the server's lock knows that no process of it is left, though
// another may have that pid by now, which PostgreSQL would take for the server.
// One that was started by hand holds no lock and is left alone.
func (f folder) dropStale() error {
	if pid := f.running(); pid != 0 {
		return fmt.Errorf("process %d runs the database in %s, and was not started by medirecord: stop it first", pid, f.dir)
	}
	for _, path := range []string{f.pidFile(), socketFile(f.socketDir()) + ".lock"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what a killed PostgreSQL left: %w", err)
		}
	}
	return nil
}

// openLog opens the server's log, and sets a long one of earlier runs aside.
func (f folder) openLog() (*os.File, error) {
	if info, err := os.Stat(f.log()); err == nil && info.Size() > logLimit {
		if err := os.Rename(f.log(), f.log()+".1"); err != nil {
			return nil, fmt.Errorf("setting the old log aside: %w", err)
		}
	}
	log, err := os.OpenFile(f.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return log, nil
}

func (f folder) endOfLog() string {
	b, err := os.ReadFile(f.log())
	if err != nil {
		return ""
	}
	return lastLines(bytes.ToValidUTF8(b, nil), 8)
}

func say(w io.Writer, format string, a ...any) {
	if w != nil {
		_, _ = fmt.Fprintf(w, format+"\n", a...) // whoever lost their output still gets a database
	}
}

// URL returns the address of a database for a user, in the form that pgx and
// psql take. It holds the password: it is for connecting, not for printing.
func (c *Cluster) URL(user, password, db string) string {
	if c.external != nil {
		u := *c.external
		u.User, u.Path = url.UserPassword(user, password), "/"+db
		return u.String()
	}
	query := url.Values{"host": {c.socket}, "port": {strconv.Itoa(port)}}.Encode()
	// Neither pgx nor libpq reads a plus as a blank.
	query = strings.ReplaceAll(query, "+", "%20")
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Path: "/" + db, RawQuery: query}
	return u.String()
}

// SuperuserURL is URL for the superuser.
func (c *Cluster) SuperuserURL(db string) string {
	if c.external != nil {
		u := *c.external
		u.Path = "/" + db
		return u.String()
	}
	return c.URL(superuser, c.password, db)
}

// External reports whether the server is not ours but the one that
// MEDIRECORD_TEST_DATABASE_URL names: other test processes use it too.
func (c *Cluster) External() bool { return c.external != nil }

// Socket returns the folder of the unix socket; "" for an external server.
func (c *Cluster) Socket() string { return c.socket }

// Port returns the number in the socket's name.
func (c *Cluster) Port() int { return port }

// PID returns the process id of the server; 0 for an external one.
func (c *Cluster) PID() int {
	if c.external != nil {
		return 0
	}
	return c.child.PID()
}

// Stop ends the server: transactions in the air are rolled back, the rest is on
// disk when Stop returns. It reports a server that had to be killed, which is
// no loss of data either.
func (c *Cluster) Stop(ctx context.Context) error { return c.stop(ctx, syscall.SIGINT) }

func (c *Cluster) stop(ctx context.Context, sig syscall.Signal) error {
	if c.external != nil {
		return nil
	}
	err := c.child.Stop(ctx, sig, stopWithin)
	<-c.done
	return err
}

// Kill ends the server as a crash would, and returns when it has ended. The
// next Start recovers.
func (c *Cluster) Kill() error {
	if c.external != nil {
		return errors.New("an external PostgreSQL is not ours to kill")
	}
	if err := c.child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.done
	return nil
}

// Done is closed when the server has ended and its folder is free. It never is
// for an external one.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Err returns nil while the server runs and after it ended well, otherwise how
// it ended.
func (c *Cluster) Err() error {
	if c.external != nil {
		return nil
	}
	return c.child.Err()
}
