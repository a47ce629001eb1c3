// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scratch starts a scratch cluster; its folder is the second result.
func scratch(t *testing.T) (*Cluster, string) {
	t.Helper()
	needPostgres(t)
	c, cleanup, err := Scratch(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cleanup)
	return c, filepath.Dir(c.Socket())
}

// These tests set the environment, so they are not parallel.
func TestScratch(t *testing.T) {
	t.Setenv("TMPDIR", room(t))
	t.Setenv("MEDIRECORD_TEST_DATABASE_URL", "")
	var folder string
	t.Run("two do not see each other", func(t *testing.T) {
		one, dir := scratch(t)
		two, _ := scratch(t)
		folder = dir
		exec1(t, connect(t, one.SuperuserURL("postgres")), "create table mine ()")
		if got := value(t, connect(t, two.SuperuserURL("postgres")), "select count(*)::text from pg_class where relname = 'mine'"); got != "0" {
			t.Error("the second cluster has the first one's table")
		}
		if got := value(t, connect(t, two.SuperuserURL("postgres")), "select current_setting('fsync')"); got != "on" {
			t.Errorf("got fsync %s, want on", got)
		}
	})
	t.Run("nothing is left but the archive", func(t *testing.T) {
		if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(folder), "*"))
		for _, path := range left {
			if name := filepath.Base(path); name != "lock" && !strings.HasPrefix(name, "initdb-") {
				t.Errorf("%s was left", name)
			}
		}
	})
	t.Run("what a killed process left is removed by the next", func(t *testing.T) {
		p := other(t, nil, roleVar+"=scratch")
		conn := connect(t, p.line())
		left := filepath.Dir(conn.Config().Host)
		p.kill()
		f := folderAt(left)
		gone, err := lockWhenFree(t.Context(), filepath.Join(f.dir, "server.lock")) // until the server is gone too
		if err != nil {
			t.Fatal(err)
		}
		_ = gone.Close()
		scratch(t)
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
	})
	t.Run("one that is running is not", func(t *testing.T) {
		p := other(t, nil, roleVar+"=scratch")
		conn := connect(t, p.line())
		scratch(t)
		if got := value(t, conn, "select 'fine'"); got != "fine" {
			t.Errorf("got %q, want fine", got)
		}
	})
	t.Run("an archive that lost its password is made again", func(t *testing.T) {
		lost, _ := filepath.Glob(filepath.Join(filepath.Dir(folder), "*.password"))
		if len(lost) != 1 {
			t.Fatalf("got %d passwords, want one", len(lost))
		}
		if err := os.Remove(lost[0]); err != nil {
			t.Fatal(err)
		}
		c, _ := scratch(t)
		connect(t, c.SuperuserURL("postgres"))
	})
	t.Run("a server of somebody's choice is used and left alone", func(t *testing.T) {
		c, _ := scratch(t)
		t.Setenv("MEDIRECORD_TEST_DATABASE_URL", c.SuperuserURL("postgres"))
		external, cleanup, err := Scratch(t.Context(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		if !external.External() || external.PID() != 0 {
			t.Error("got a server of our own")
		}
		conn := connect(t, external.SuperuserURL("template1"))
		if got := value(t, conn, "select current_database()::text"); got != "template1" {
			t.Errorf("got %q, want template1", got)
		}
		exec1(t, conn, "create role outsider login password 'x'")
		if got := value(t, connect(t, external.URL("outsider", "x", "postgres")), "select current_user::text"); got != "outsider" {
			t.Errorf("got %q, want outsider", got)
		}
		cleanup()
		if err := external.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := external.Kill(); err == nil {
			t.Error("an external server was killed")
		}
		if got := value(t, conn, "select 'fine'"); got != "fine" {
			t.Errorf("got %q, want fine", got)
		}
	})
	t.Run("an address that is none is refused without repeating it", func(t *testing.T) {
		t.Setenv("MEDIRECORD_TEST_DATABASE_URL", "host=/tmp password=hunter2")
		if _, _, err := Scratch(t.Context(), Config{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want a refusal without the password", err)
		}
	})
}

func folderAt(dir string) folder { return folder{dir: dir} }
