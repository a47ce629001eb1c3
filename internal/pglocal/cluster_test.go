// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/medirecord/medirecord/internal/children"
)

func TestRowsSurvive(t *testing.T) {
	t.Parallel()
	ends := map[string]func(t *testing.T, c *Cluster){
		"a stop": func(t *testing.T, c *Cluster) {
			t.Helper()
			if err := c.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"kill -9 of the server": func(t *testing.T, c *Cluster) {
			t.Helper()
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			if c.Err() == nil {
				t.Error("got no error of a killed server")
			}
		},
		"kill -9 of every process of the server": func(t *testing.T, c *Cluster) {
			t.Helper()
			for _, pid := range processesOf(t, c) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
			}
			<-c.Done()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(room(t), "db")
			first := start(t, Config{Dir: dir})
			conn := connect(t, first.SuperuserURL("postgres"))
			exec1(t, conn, "create table kept (n int)")
			exec1(t, conn, "insert into kept select generate_series(1, 1000)")
			end(t, first)
			<-first.Done()
			second := start(t, Config{Dir: dir})
			if first.PID() == second.PID() {
				t.Error("the second server has the first one's pid")
			}
			if got := value(t, connect(t, second.SuperuserURL("postgres")), "select count(*)::text from kept"); got != "1000" {
				t.Errorf("got %s rows, want 1000", got)
			}
		})
	}
}

// processesOf returns the server and its children, the server first.
func processesOf(t *testing.T, c *Cluster) []int {
	t.Helper()
	pid := strconv.Itoa(c.PID())
	b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		t.Skip("this kernel does not list children")
	}
	pids := []int{c.PID()}
	for _, word := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, n)
	}
	return pids
}

func TestKill9OfTheSupervisor(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	cases := map[string]func(t *testing.T, c *process, pid int){
		"the server shuts down, and the next start finds the rows": func(*testing.T, *process, int) {},
		"the server was killed before": func(t *testing.T, _ *process, pid int) {
			t.Helper()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		"the server was paused before": func(t *testing.T, _ *process, pid int) {
			t.Helper()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, before := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(room(t), "db")
			supervisor := other(t, nil, roleVar+"=start", dirVar+"="+dir)
			url := supervisor.line()
			conn := connect(t, url)
			exec1(t, conn, "create table kept as select 'here' as word")
			pid, _ := (folder{dir: dir}).postmaster()
			before(t, supervisor, pid)
			supervisor.kill()
			// Start waits until nothing of the old server is left.
			c := start(t, Config{Dir: dir})
			if got := value(t, connect(t, c.SuperuserURL("postgres")), "select word from kept"); got != "here" {
				t.Errorf("got %q, want here", got)
			}
			if _, err := conn.Exec(t.Context(), "select 1"); err == nil {
				t.Error("the old server still answers")
			}
		})
	}
}

func TestASecondInstanceIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), "db")
	c := start(t, Config{Dir: dir})
	t.Run("in the same process", func(t *testing.T) {
		_, err := Start(t.Context(), Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "another medirecord runs the database") {
			t.Errorf("got %v, want a refusal that says why", err)
		}
	})
	t.Run("in another process", func(t *testing.T) {
		if got := other(t, nil, roleVar+"=start", dirVar+"="+dir).line(); !strings.Contains(got, "another medirecord runs the database") {
			t.Errorf("got %q, want a refusal that says why", got)
		}
	})
	if got := value(t, connect(t, c.SuperuserURL("postgres")), "select 'fine'"); got != "fine" {
		t.Errorf("the first one: got %q, want fine", got)
	}
}

func TestAServerStartedByHandIsLeftAlone(t *testing.T) {
	t.Parallel()
	pg := needPostgres(t)
	dir := filepath.Join(room(t), "db")
	c := start(t, Config{Dir: dir})
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	f := folder{dir: dir, who: who}
	byHand, err := children.Start(t.Context(), children.Spec{
		Name: "by hand", Path: pg.path("postgres"), Env: childEnv(), Dir: "/", Credential: who.credential(),
		Args: []string{"-D", f.data(), "-c", "listen_addresses=", "-c", "unix_socket_directories=" + f.socketDir()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = byHand.Stop(context.Background(), syscall.SIGQUIT, stopWithin) })
	if err := f.ready(t.Context(), byHand); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "was not started by medirecord") {
		t.Errorf("got %v, want a refusal that says why", err)
	}
}

func TestAStalePidOfAnotherProcessIsNoHindrance(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), "db")
	c := start(t, Config{Dir: dir})
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	// After a restart of the machine the pid may be anybody's: this test's.
	f := folder{dir: dir}
	b, err := os.ReadFile(f.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile(f.pidFile(), []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Config{Dir: dir})
}

func TestAnInterruptedInitdbIsDoneAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), "db")
	if err := os.MkdirAll(filepath.Join(dir, "pgdata.tmp", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pgdata.tmp", "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{Dir: dir})
	if got := value(t, connect(t, c.SuperuserURL("postgres")), "select 'fine'"); got != "fine" {
		t.Errorf("got %q, want fine", got)
	}
}

func TestTwoSideBySide(t *testing.T) {
	t.Parallel()
	one := start(t, Config{Dir: filepath.Join(room(t), "db")})
	two := start(t, Config{Dir: filepath.Join(room(t), "db")})
	exec1(t, connect(t, one.SuperuserURL("postgres")), "create table mine ()")
	got := value(t, connect(t, two.SuperuserURL("postgres")), "select count(*)::text from pg_class where relname = 'mine'")
	if got != "0" {
		t.Error("the second cluster has the first one's table")
	}
}

func TestAFolderWhoseNameIsNoSocketAddress(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{"too long": strings.Repeat("long", 40), "a comma": "a,b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, Config{Dir: filepath.Join(room(t), last)})
			t.Cleanup(func() { _ = os.RemoveAll(c.Socket()) })
			if !strings.HasPrefix(c.Socket(), "/tmp/medirecord-") {
				t.Errorf("got the socket in %s, want /tmp/medirecord-...", c.Socket())
			}
			if got := value(t, connect(t, c.SuperuserURL("postgres")), "select 'fine'"); got != "fine" {
				t.Errorf("got %q, want fine", got)
			}
		})
	}
	t.Run("blanks, quotes and letters of the world are one", func(t *testing.T) {
		t.Parallel()
		c := start(t, Config{Dir: filepath.Join(room(t), `a "b" 'c' & ñ?`)})
		if got := value(t, connect(t, c.SuperuserURL("postgres")), "select 'fine'"); got != "fine" {
			t.Errorf("got %q, want fine", got)
		}
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Dir: filepath.Join(room(t), "db"), Name: "mine", Settings: map[string]string{"max_connections": "23"}})
	conn := connect(t, c.SuperuserURL("postgres"))
	for setting, want := range map[string]string{
		"listen_addresses": "", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on",
		"server_encoding": "UTF8", "max_connections": "23", "jit": "off", "password_encryption": "scram-sha-256",
		"unix_socket_permissions": "0700", "cluster_name": "mine", "log_statement": "none", "TimeZone": "UTC", "wal_level": "replica",
	} {
		if got := value(t, conn, "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s: got %q, want %q", setting, got, want)
		}
	}
	if got := value(t, conn, "select upper('ñ')"); got != "Ñ" {
		t.Errorf("upper('ñ'): got %q, want Ñ", got)
	}
	for _, setting := range []string{"listen_addresses", "hba_file", "unix_socket_directories", "unix_socket_permissions", "port"} {
		_, err := Start(t.Context(), Config{Dir: room(t), Settings: map[string]string{setting: "x"}})
		if err == nil || !strings.Contains(err.Error(), "not for the caller to change") {
			t.Errorf("%s: got %v, want a refusal", setting, err)
		}
	}
}

func TestTheLogCarriesNoValues(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), "db")
	c := start(t, Config{Dir: dir})
	conn := connect(t, c.SuperuserURL("postgres"))
	exec1(t, conn, "create table people (ssn text primary key, born date check (born > '1800-01-01'))")
	exec1(t, conn, "insert into people values ('LEAK-1', '1999-01-01')")
	leaks := []struct {
		sql  string
		args []any
	}{
		{"insert into people values ('LEAK-1', '1999-01-01')", nil},
		{"insert into people values ('LEAK-2', '1700-01-01')", nil},
		{"select 'LEAK-3'::date", nil},
		{"select $1::text::date", []any{"LEAK-4"}},
		{"select 'LEAK-5' frm people", nil},
		{"do $$ begin raise warning 'LEAK-6'; raise exception 'LEAK-7'; end $$", nil},
		{"select 1/0, $1::text", []any{"LEAK-8"}},
	}
	for _, l := range leaks {
		if _, err := conn.Exec(t.Context(), l.sql, l.args...); err == nil {
			t.Errorf("%s: got no error, want one", l.sql)
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "LEAK") || strings.Contains(string(log), "people") {
		t.Errorf("the log tells a value or a statement:\n%s", log)
	}
	if !strings.Contains(string(log), "shut down") {
		t.Errorf("the log does not even tell the shutdown:\n%s", log)
	}
}

func TestOnlyThePasswordOpens(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), "db")
	c := start(t, Config{Dir: dir})
	for _, url := range []string{c.URL("postgres", "wrong", "postgres"), c.URL("postgres", "", "postgres"), c.URL("nobody", "", "postgres")} {
		_, err := pgconn.Connect(t.Context(), url)
		if err == nil {
			t.Error("got in without the password")
		}
	}
	exec1(t, connect(t, c.SuperuserURL("postgres")), "create role app login password 'it''s @/?&=:'")
	if got := value(t, connect(t, c.URL("app", "it's @/?&=:", "postgres")), "select current_user::text"); got != "app" {
		t.Errorf("got in as %q, want app", got)
	}
	for path, want := range map[string]os.FileMode{"secrets": 0o700, "secrets/superuser": 0o600, "pgdata": 0o700, "socket": 0o700, "postgres.log": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got mode %o, want %o", path, got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pwfile*")); len(left) != 0 {
		t.Errorf("the password was left in %v", left)
	}
	t.Run("nobody else reaches the socket, whatever they know", func(t *testing.T) {
		needRoot(t)
		stranger := other(t, &syscall.Credential{Uid: nobody, Gid: nobody}, roleVar+"=connect", dirVar+"="+c.SuperuserURL("postgres"))
		if got := stranger.line(); !strings.Contains(got, "permission denied") {
			t.Errorf("got %q, want permission denied", got)
		}
	})
}

func TestAsAUserWhoIsNotRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needPostgres(t)
	home := room(t)
	if err := errors.Join(os.Chown(home, nobody, nobody), os.Chmod(home, 0o700)); err != nil {
		t.Fatal(err)
	}
	env := []string{roleVar + "=start", dirVar + "=" + filepath.Join(home, "db")}
	who := &syscall.Credential{Uid: nobody, Gid: nobody}
	for range 2 { // made, then started again
		p := other(t, who, env...)
		url := p.line()
		if got := value(t, connect(t, url), "select current_user::text"); got != "postgres" {
			t.Errorf("got %q, want postgres", got)
		}
		_ = p.in.Close()
		_ = p.cmd.Wait()
	}
	info, err := os.Stat(filepath.Join(home, "db"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("got mode %o, want 700", got)
	}
}

func TestBadFolders(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	refused := func(t *testing.T, dir string, want ...string) {
		t.Helper()
		c, err := Start(t.Context(), Config{Dir: dir})
		if err == nil {
			_ = c.Stop(context.Background())
			t.Fatal("got a cluster, want a refusal")
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("got %q, want it to say %q", err, w)
			}
		}
	}
	t.Run("none", func(t *testing.T) { refused(t, "", "needs a folder") })
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(room(t), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "not a folder")
	})
	t.Run("a link", func(t *testing.T) {
		path := filepath.Join(room(t), "link")
		if err := os.Symlink(room(t), path); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "symbolic link")
	})
	t.Run("one below a folder that PostgreSQL's user cannot enter", func(t *testing.T) {
		needRoot(t)
		closed := filepath.Join(room(t), "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, filepath.Join(closed, "db"), "cannot enter "+closed+":", "choose another --data")
	})
	t.Run("somebody else's", func(t *testing.T) {
		needRoot(t)
		dir := room(t)
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "belongs to uid 65534", "choose another --data")
	})
	t.Run("a socket folder that is somebody else's", func(t *testing.T) {
		needRoot(t)
		dir := filepath.Join(room(t), "db")
		if err := os.MkdirAll(filepath.Join(dir, "socket"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, "socket"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if who, err := serverAccount(); err != nil || who.uid == nobody {
			t.Skip("there is no user postgres here")
		}
		refused(t, dir, "is not a folder that the user postgres has alone")
	})
	t.Run("data of another version", func(t *testing.T) {
		dir := filepath.Join(room(t), "db")
		if err := os.MkdirAll(filepath.Join(dir, "pgdata"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pgdata", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "made by version 9")
	})
	t.Run("data without its password", func(t *testing.T) {
		dir := filepath.Join(room(t), "db")
		if err := start(t, Config{Dir: dir}).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "secrets", "superuser")); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "is lost")
	})
}

func TestAFailedStart(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	dir := filepath.Join(room(t), "db")
	_, err := Start(t.Context(), Config{Dir: dir, Settings: map[string]string{"shared_buffers": "plenty"}})
	if err == nil || !strings.Contains(err.Error(), "did not start") || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("got %v, want an error with the server's own words", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	start(t, Config{Dir: dir}) // the folder is free again
}
