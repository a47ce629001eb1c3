// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/medirecord/medirecord/internal/children"
)

// ErrNoPostgres says that this machine has no PostgreSQL that will do. The
// error that wraps it says what to install.
var ErrNoPostgres = errors.New("no usable PostgreSQL on this machine")

// oldest is the first major version that works: 15 has the security invoker
// views and the schema permissions that the migrations build on.
const oldest = 15

const howToInstall = "install it with `apt-get install -y postgresql` (Debian 12, Ubuntu 24.04 or newer), " +
	"or set MEDIRECORD_PG_BIN to the folder that holds initdb and postgres"

// programs are the two programs of one installation.
type programs struct {
	dir     string
	version string // as in "15.18"
	major   int
}

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// find returns the installation to use: $MEDIRECORD_PG_BIN alone if set, else
// the newest in Debian's place, else the one on PATH. With a major version, only
// an installation of that version will do: a data folder is not for others. It
// reports ErrNoPostgres with what was looked at.
func find(ctx context.Context, major int) (programs, error) {
	var seen []string
	for _, dir := range candidates() {
		p, err := probe(ctx, dir)
		switch {
		case err != nil:
			seen = append(seen, fmt.Sprintf("%s: %v", dir, err))
		case p.major < oldest:
			seen = append(seen, fmt.Sprintf("%s: version %s is older than %d", dir, p.version, oldest))
		case major != 0 && p.major != major:
			seen = append(seen, fmt.Sprintf("%s: version %s, and the data folder was made by version %d", dir, p.version, major))
		default:
			return p, nil
		}
	}
	if len(seen) == 0 {
		seen = []string{"nothing in /usr/lib/postgresql and on PATH"}
	}
	want := max(major, oldest)
	return programs{}, fmt.Errorf("%w: PostgreSQL %d or newer is needed (%s): %s", ErrNoPostgres, want, strings.Join(seen, "; "), howToInstall)
}

func candidates() []string {
	if dir := os.Getenv("MEDIRECORD_PG_BIN"); dir != "" {
		return []string{dir}
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed
	slices.SortFunc(dirs, func(a, b string) int { return debianVersion(b) - debianVersion(a) })
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real // on PATH there may be a link to postgres only, without initdb beside it
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	return dirs
}

func debianVersion(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[.0-9a-z]*)`)

func probe(ctx context.Context, dir string) (programs, error) {
	p := programs{dir: dir}
	for _, name := range []string{"initdb", "postgres"} {
		cmd := exec.CommandContext(ctx, p.path(name), "--version") //nolint:gosec // the operator says where PostgreSQL is
		cmd.Env = childEnv()
		out, err := cmd.Output()
		if err != nil {
			return programs{}, fmt.Errorf("asking %s for its version: %w", name, err)
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return programs{}, fmt.Errorf("%s does not tell its version", name)
		}
		p.version = string(m[1])
		if p.major, err = strconv.Atoi(string(m[2])); err != nil {
			return programs{}, fmt.Errorf("%s does not tell its version: %w", name, err)
		}
	}
	return p, nil
}

// childEnv is all of the environment PostgreSQL's programs get. UTC keeps
// initdb from guessing a time zone, C keeps messages in English.
func childEnv() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}

// initdb makes a data folder in the empty folder data, owned by the account.
// The password of the superuser "postgres" reaches it in a file that is gone
// when initdb returns. Unless it is a scratch one, the folder is on disk by
// then. The lock is held by initdb and all it starts, until the last of them
// has ended.
func (p programs) initdb(ctx context.Context, data, password string, who account, held *os.File, scratch bool) error {
	pwfile, err := passwordFile(filepath.Dir(data), password, who)
	if err != nil {
		return err
	}
	defer os.Remove(pwfile) //nolint:errcheck //nolint:errcheck // it was there a moment ago, and its folder is ours alone
	args := append(p.initdbOptions(), "--pgdata="+data, "--pwfile="+pwfile)
	if scratch {
		args = append(args, scratchOptions...)
	}
	var said bytes.Buffer
	err = run(ctx, children.Spec{
		Name: "initdb", Path: p.path("initdb"), Args: args, Credential: who.credential(),
		Stdout: &said, Stderr: &said, ExtraFiles: []*os.File{held},
	})
	if err != nil {
		return fmt.Errorf("making the data folder %s: %w\n%s", data, err, lastLines(said.Bytes(), 10))
	}
	return nil
}

// run runs a program to its end, or to the end of the context.
func run(ctx context.Context, s children.Spec) error {
	s.Env, s.Dir, s.Raw = childEnv(), "/", true
	child, err := children.Start(ctx, s)
	if err != nil {
		return err
	}
	select {
	case <-child.Done():
		return child.Err()
	case <-ctx.Done():
		_ = child.Kill() // it may be gone by now
		<-child.Done()
		return ctx.Err()
	}
}

// scratchOptions make a folder that is quick to copy: 23 MB instead of 39.
var scratchOptions = []string{"--no-sync", "--wal-segsize=1"}

func (p programs) initdbOptions() []string {
	options := []string{
		"--username=" + superuser, "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums", "--no-instructions", "--lc-messages=C",
	}
	// From 17 on, the server brings its own C.UTF-8, the same on every machine.
	if p.major >= 17 {
		return append(options, "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
	}
	return append(options, "--locale=C.UTF-8")
}

// fingerprint names what decides how a new scratch folder looks.
func (p programs) fingerprint() string {
	all := slices.Concat(p.initdbOptions(), scratchOptions, []string{p.dir})
	sum := sha256.Sum256([]byte(strings.Join(all, "\x00")))
	return p.version + "-" + hex.EncodeToString(sum[:4])
}

// passwordFile writes the password where only the account can read it.
func passwordFile(dir, password string, who account) (string, error) {
	f, err := os.CreateTemp(dir, "pwfile-*")
	if err != nil {
		return "", fmt.Errorf("writing the password for initdb: %w", err)
	}
	_, err = f.WriteString(password + "\n")
	err = errors.Join(err, f.Chown(who.uid, who.gid), f.Close())
	if err != nil {
		return "", fmt.Errorf("writing the password for initdb: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return f.Name(), nil
}

// lastLines returns the end of a program's output.
func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
