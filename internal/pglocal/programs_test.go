// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// These tests set the environment, so they are not parallel.
func TestFind(t *testing.T) {
	t.Run("a folder without PostgreSQL is refused, and the error says what to install", func(t *testing.T) {
		t.Setenv("MEDIRECORD_PG_BIN", t.TempDir())
		_, err := find(t.Context(), 0)
		if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), "apt-get install -y postgresql") {
			t.Errorf("got %v, want ErrNoPostgres and what to install", err)
		}
	})
	t.Run("an old version is refused", func(t *testing.T) {
		t.Setenv("MEDIRECORD_PG_BIN", installation(t, "14.9 (Debian 14.9-1)"))
		_, err := find(t.Context(), 0)
		if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), "version 14.9 is older than 15") {
			t.Errorf("got %v, want ErrNoPostgres and the version", err)
		}
	})
	t.Run("a new version will do, betas too", func(t *testing.T) {
		dir := installation(t, "19beta2")
		t.Setenv("MEDIRECORD_PG_BIN", dir)
		pg, err := find(t.Context(), 0)
		if err != nil || pg.dir != dir || pg.major != 19 || pg.version != "19beta2" {
			t.Errorf("got %+v, %v, want 19beta2", pg, err)
		}
	})
	t.Run("data is for its own version only", func(t *testing.T) {
		t.Setenv("MEDIRECORD_PG_BIN", installation(t, "18.1"))
		_, err := find(t.Context(), 17)
		if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), "made by version 17") {
			t.Errorf("got %v, want ErrNoPostgres and both versions", err)
		}
	})
	t.Run("initdb is looked for where a link on PATH leads", func(t *testing.T) {
		dir, bin := installation(t, "99.1"), t.TempDir()
		if err := os.Symlink(filepath.Join(dir, "postgres"), filepath.Join(bin, "postgres")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin)
		t.Setenv("MEDIRECORD_PG_BIN", "")
		dirs := candidates()
		if got := dirs[len(dirs)-1]; got != dir {
			t.Errorf("got %s, want %s", got, dir)
		}
	})
}

func TestInitdbOptionsFollowTheVersion(t *testing.T) {
	t.Parallel()
	old, recent := programs{major: 15}, programs{major: 17}
	if got := strings.Join(old.initdbOptions(), " "); strings.Contains(got, "builtin") {
		t.Errorf("got %q for 15, which has no builtin locale provider", got)
	}
	if got := strings.Join(recent.initdbOptions(), " "); !strings.Contains(got, "--builtin-locale=C.UTF-8") {
		t.Errorf("got %q for 17, want the builtin locale", got)
	}
	if old.fingerprint() == recent.fingerprint() {
		t.Error("two versions have the same fingerprint")
	}
}

// installation makes a folder whose programs tell a version and do nothing else.
func installation(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		script := "#!/bin/sh\necho '" + name + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
