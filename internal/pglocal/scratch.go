// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/medirecord/medirecord/internal/children"
)

// Scratch starts an empty cluster that is thrown away by cleanup, for the tests
// of one process: in TestMain, as one start takes a fraction of a second. Each
// call makes another, and they do not see each other. Config.Dir is not used.
//
// It is made from a copy of one that initdb made for this user before, kept in
// the temporary folder. One that is left by a killed process is removed by the
// next call. With MEDIRECORD_TEST_DATABASE_URL set it returns that server
// instead, by its superuser's URL, and cleanup leaves it alone.
//
// It reports what Start reports; ErrNoPostgres is a reason to skip, unless CI=true.
func Scratch(ctx context.Context, cfg Config) (*Cluster, func(), error) {
	if address := os.Getenv("MEDIRECORD_TEST_DATABASE_URL"); address != "" {
		c, err := externalCluster(address)
		return c, func() {}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	pg, err := find(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	f, hold, err := unpack(ctx, pg)
	if err != nil {
		return nil, nil, fmt.Errorf("making a database for tests: %w", err)
	}
	c, err := startHeld(ctx, scratchConfig(cfg), f, hold)
	if err != nil {
		f.remove()
		unlock(hold)
		return nil, nil, err
	}
	stopping := context.WithoutCancel(ctx) // a cleanup runs when the test's context is over
	return c, func() { c.throwAway(stopping, f) }, nil
}

// externalCluster never repeats the address in an error: it holds a password.
func externalCluster(address string) (*Cluster, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("MEDIRECORD_TEST_DATABASE_URL is not a postgres:// URL")
	}
	return &Cluster{external: u, done: make(chan struct{})}, nil
}

// scratchConfig keeps the memory of many test processes small; fsync stays on,
// for the server refuses to start without.
func scratchConfig(cfg Config) Config {
	settings := map[string]string{"shared_buffers": "32MB", "autovacuum_naptime": "1h", "max_wal_size": "1GB"}
	for k, v := range cfg.Settings {
		settings[k] = v
	}
	if cfg.Name == "" {
		cfg.Name = "medirecord-test"
	}
	cfg.Settings = settings
	return cfg
}

// throwAway ends the server without a checkpoint and removes what it had. What
// cannot be removed now is removed by a later Scratch.
func (c *Cluster) throwAway(ctx context.Context, f folder) {
	_ = c.stop(ctx, syscall.SIGQUIT)
	f.remove()
}

func (f folder) remove() {
	_ = os.RemoveAll(f.socketDir())
	_ = os.RemoveAll(f.dir)
}

// unpack makes the folder of a new cluster and locks it.
func unpack(ctx context.Context, pg programs) (folder, *os.File, error) {
	who, err := serverAccount()
	if err != nil {
		return folder{}, nil, err
	}
	base, err := openFolder(ctx, filepath.Join(os.TempDir(), "medirecord-test-"+strconv.Itoa(os.Geteuid())), who)
	if err != nil {
		return folder{}, nil, fmt.Errorf("TMPDIR says where: %w", err)
	}
	f, a, hold, err := reserve(ctx, base, pg)
	if err != nil {
		return folder{}, nil, err
	}
	if err := a.unpackInto(ctx, f); err != nil {
		f.remove()
		unlock(hold)
		return folder{}, nil, err
	}
	return f, hold, nil
}

// reserve makes a locked folder while no other process makes or removes one.
func reserve(ctx context.Context, base folder, pg programs) (folder, archive, *os.File, error) {
	gate, err := lockWhenFree(ctx, filepath.Join(base.dir, "lock"))
	if err != nil {
		return folder{}, archive{}, nil, err
	}
	defer gate.Close() // nothing was written to it; an initdb that outlives us keeps the lock
	base.sweep()
	a, err := packed(ctx, base, pg, gate)
	if err != nil {
		return folder{}, archive{}, nil, err
	}
	dir, err := os.MkdirTemp(base.dir, "scratch-")
	if err != nil {
		return folder{}, archive{}, nil, err
	}
	f, err := openFolder(ctx, dir, base.who)
	if err != nil {
		return folder{}, archive{}, nil, err
	}
	hold, err := lock(filepath.Join(f.dir, "lock"))
	return f, a, hold, err
}

// sweep removes the clusters of processes that were killed, unless the server
// is still shutting down.
func (f folder) sweep() {
	dirs, _ := filepath.Glob(filepath.Join(f.dir, "scratch-*")) // the pattern is well formed
	for _, dir := range dirs {
		old := folder{dir: dir, who: f.who}
		if old.unused() {
			old.remove()
		}
	}
}

func (f folder) unused() bool {
	for _, name := range []string{"lock", "server.lock"} {
		file, err := lock(filepath.Join(f.dir, name))
		if err != nil {
			return false
		}
		defer unlock(file)
	}
	return true
}

// archive is an untouched data folder in one file: a file is there or it is
// not, while those who tidy /tmp take folders apart.
type archive struct{ path, password string }

// packed returns the archive of this version, and makes it the first time. The
// gate is the lock of the base folder, held.
func packed(ctx context.Context, base folder, pg programs, gate *os.File) (archive, error) {
	a := archive{path: filepath.Join(base.dir, "initdb-"+pg.fingerprint()+".tar")}
	password, err := os.ReadFile(a.passwordFile())
	if _, missing := os.Stat(a.path); err == nil && missing == nil {
		a.password = strings.TrimSpace(string(password))
		return a, nil
	}
	a.password = rand.Text() // 128 bits
	return a, a.pack(ctx, base, pg, gate)
}

func (a archive) passwordFile() string { return a.path + ".password" }

func (a archive) pack(ctx context.Context, base folder, pg programs, gate *os.File) error {
	temporary := filepath.Join(base.dir, "packing")
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	defer os.RemoveAll(temporary) //nolint:errcheck // the next one removes it
	f, err := openFolder(ctx, temporary, base.who)
	if err != nil {
		return err
	}
	if err := f.own(f.data()); err != nil {
		return err
	}
	if err := pg.initdb(ctx, f.data(), a.password, f.who, gate, true); err != nil {
		return err
	}
	tar, err := os.Create(filepath.Join(temporary, "tar"))
	if err != nil {
		return err
	}
	err = errors.Join(f.tar(ctx, nil, tar, "-C", f.data(), "-cf", "-", "."), tar.Close())
	if err != nil {
		return err
	}
	if err := writeWhole(a.passwordFile(), a.password+"\n", 0o600); err != nil {
		return err
	}
	return os.Rename(tar.Name(), a.path)
}

func (a archive) unpackInto(ctx context.Context, f folder) error {
	if err := errors.Join(f.keepPassword(a.password), f.own(f.making())); err != nil {
		return err
	}
	tar, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer tar.Close() // only read
	if err := f.tar(ctx, tar, nil, "-C", f.making(), "-xf", "-"); err != nil {
		return err
	}
	return os.Rename(f.making(), f.data())
}

// tar runs tar as the server's account, which so owns what it unpacks. The
// archive itself it sees only through the file that we opened.
func (f folder) tar(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	path, err := exec.LookPath("tar")
	if err != nil {
		return err
	}
	var said bytes.Buffer
	err = run(ctx, children.Spec{
		Name: "tar", Path: path, Args: args, Credential: f.who.credential(), Stdin: in, Stdout: out, Stderr: &said,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(said.Bytes(), 5))
	}
	return nil
}
