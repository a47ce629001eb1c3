// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// folder is everything a cluster has on disk:
//
//	DIR/                 ours, and so that the server's account can pass through
//	DIR/lock             locked by the process that runs the cluster
//	DIR/server.lock      locked by the server's own processes, as long as one lives
//	DIR/pgdata           the server's
//	DIR/pgdata.tmp       an initdb that did not finish
//	DIR/pg_hba.conf      ours: the server cannot loosen it
//	DIR/postgres.log     the server's log, written through a file that we opened
//	DIR/secrets/superuser
//	DIR/socket           the server's, 0700; or elsewhere when the path is too long
//
// Nothing is ever written by us below a folder that the server's account owns:
// a link put there would be followed with our rights.
type folder struct {
	dir string
	who account
}

func (f folder) data() string     { return filepath.Join(f.dir, "pgdata") }
func (f folder) making() string   { return filepath.Join(f.dir, "pgdata.tmp") }
func (f folder) hba() string      { return filepath.Join(f.dir, "pg_hba.conf") }
func (f folder) log() string      { return filepath.Join(f.dir, "postgres.log") }
func (f folder) password() string { return filepath.Join(f.dir, "secrets", "superuser") }

// longestSocket is what fits into sockaddr_un with its closing zero.
const longestSocket = 107

// openFolder makes the folder if need be. It reports a folder that belongs to
// somebody else, and one that the server's account cannot reach.
func openFolder(ctx context.Context, dir string, who account) (folder, error) {
	if dir == "" {
		return folder{}, errors.New("a cluster needs a folder")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return folder{}, fmt.Errorf("the folder %s: %w", dir, err)
	}
	f := folder{dir: abs, who: who}
	if err := makeReachable(abs); err != nil {
		return folder{}, fmt.Errorf("the folder %s: %w", dir, err)
	}
	mode := fs.FileMode(0o700)
	if who.dropped {
		mode = 0o711 // the server passes through to its own folders, and sees nothing else
	}
	if err := os.Chmod(abs, mode); err != nil {
		return folder{}, fmt.Errorf("the folder %s: %w", dir, err)
	}
	return f, f.checkReach(ctx)
}

// makeReachable makes the folder and those above it that are missing. It
// refuses a folder of somebody else's.
func makeReachable(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if parent := filepath.Dir(dir); parent != dir {
			if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
				if err := makeReachable(parent); err != nil {
					return err
				}
			}
		}
		if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) { //nolint:gosec // see below
			return makeReachable(dir) // somebody was faster: look at what they made
		} else if err != nil {
			return err
		}
		// Whatever the umask says, the server must be able to pass through.
		return os.Chmod(dir, 0o755) //nolint:gosec // the folders with something in them are closed one by one
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link; name the folder itself")
	case !info.IsDir():
		return errors.New("it is not a folder")
	}
	if owner := ownerOf(info); owner != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d; choose another --data", owner)
	}
	return nil
}

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// checkReach lets the kernel say whether the server's account can enter the
// folder: a child that becomes the account and starts there.
func (f folder) checkReach(ctx context.Context) error {
	if !f.who.dropped {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/true")
	cmd.Dir, cmd.Env = f.dir, childEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.who.credential()}
	err := cmd.Run()
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("PostgreSQL runs as the user %s, who cannot enter %s: choose another --data, "+
			"below /var/lib or /srv for instance, or run as a user who is not root: %w", f.who.name, f.closedParent(), err)
	}
	if err != nil {
		return fmt.Errorf("becoming the user %s: %w", f.who.name, err)
	}
	return nil
}

// closedParent returns the first folder on the way that is closed to the
// server's account by its mode, for the error text; else the folder itself.
func (f folder) closedParent() string {
	for at := "/"; ; {
		info, err := os.Stat(at)
		if err != nil || info.Mode().Perm()&0o001 == 0 && ownerOf(info) != f.who.uid {
			return at
		}
		rest, err := filepath.Rel(at, f.dir)
		if err != nil || rest == "." {
			return f.dir
		}
		first, _, _ := strings.Cut(rest, string(filepath.Separator))
		at = filepath.Join(at, first)
	}
}

// own makes a folder for the server's account alone. An existing one that
// belongs to anybody else is refused: in /tmp it could be a trap.
func (f folder) own(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner := ownerOf(info)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || owner != os.Geteuid() && owner != f.who.uid {
		return fmt.Errorf("%s is not a folder that the user %s has alone", dir, f.who.name)
	}
	if owner == f.who.uid {
		return nil // and nothing more: between two looks its owner could have put a link in its place
	}
	return os.Lchown(dir, f.who.uid, f.who.gid)
}

// socketDir returns where the socket is: below the folder, or in /tmp under a
// name made from the folder's, where that is too long for a socket or has a
// comma, which in an address separates two hosts.
func (f folder) socketDir() string {
	dir := filepath.Join(f.dir, "socket")
	if len(socketFile(dir)) <= longestSocket && !strings.Contains(dir, ",") {
		return dir
	}
	sum := sha256.Sum256([]byte(f.dir))
	return fmt.Sprintf("/tmp/medirecord-%s-%d", hex.EncodeToString(sum[:8]), os.Geteuid())
}

func socketFile(dir string) string { return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port)) }

// secret returns the superuser's password, and makes it the first time.
func (f folder) secret() (string, error) {
	b, err := os.ReadFile(f.password())
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the superuser's password: %w", err)
	}
	if _, err := os.Stat(f.data()); err == nil {
		return "", fmt.Errorf("%s is lost, and with it the way into the database: restore it, or start with another --data", f.password())
	}
	password := rand.Text() // 128 bits
	return password, f.keepPassword(password)
}

func (f folder) keepPassword(password string) error {
	if err := os.MkdirAll(filepath.Dir(f.password()), 0o700); err != nil {
		return fmt.Errorf("keeping the superuser's password: %w", err)
	}
	return writeWhole(f.password(), password+"\n", 0o600)
}

// writeWhole writes the file so that it is there whole or not at all.
func writeWhole(path, text string, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// writeHBA says who may connect: everybody with a password, by the socket, and
// nobody in any other way.
func (f folder) writeHBA() error {
	return writeWhole(f.hba(), "local all all scram-sha-256\n", 0o644)
}

// madeBy returns the major version that made the data; 0 when there is none.
func (f folder) madeBy() (int, error) {
	b, err := os.ReadFile(filepath.Join(f.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the version of the data: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s is not a PostgreSQL data folder: %w", f.data(), err)
	}
	return n, nil
}

// prepare makes the data folder unless it is there. It is made beside its
// place and moved when it is whole, so that one that was interrupted is made
// again.
func (f folder) prepare(ctx context.Context, pg programs, password string, servers *os.File) error {
	if _, err := os.Stat(f.data()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(f.making()); err != nil {
		return fmt.Errorf("clearing an unfinished initdb: %w", err)
	}
	if err := f.own(f.making()); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	if err := pg.initdb(ctx, f.making(), password, f.who, servers, false); err != nil {
		return err
	}
	if err := os.Rename(f.making(), f.data()); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	return syncFolder(f.dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// errLocked says that another process holds a lock.
var errLocked = errors.New("locked by another process")

// lock takes the file's lock. It reports errLocked at once when somebody else
// holds it. A child that was given the file holds the lock too; it is free when
// the last of them has ended or closed it.
func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errLocked
	}
	return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
}

// unlock gives the lock back for all who share it. Closing alone would not do
// at once: a fork on its way to another program has a copy for a moment.
func unlock(file *os.File) {
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
	_ = file.Close() // nothing was written to it
}

// lockWhenFree takes the lock as soon as it is free, until the context is over.
func lockWhenFree(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		file, err := lock(path)
		if !errors.Is(err, errLocked) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
