// SPDX-License-Identifier: Apache-2.0

// Package medtest gives tests a real MediRecord: databases cloned from a
// migrated template, the sidecar, the door, and people to be. Everything runs
// as the application's roles, never as owner. No product code imports it.
package medtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/pglocal"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
)

// password is that of all roles in test clusters: they are reachable through a
// socket that only we can open.
const password = "medirecord-test"

// ContextKey signs contexts in tests.
var ContextKey = token.ContextKey{KID: "test1", Key: [32]byte{1, 2, 3, 4, 5, 6, 7, 8}}

const (
	clinicalTemplate = "medirecord_template"
	keysTemplate     = "medirecord_keys_template"
)

// cluster is one PostgreSQL for each test process, with the two templates.
var cluster = sync.OnceValues(func() (*pglocal.Cluster, error) {
	ctx := context.Background()
	c, done, err := pglocal.Scratch(ctx, pglocal.Config{Settings: map[string]string{"max_connections": "400"}})
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, done)
	return c, templates(ctx, c)
})

var cleanups []func()

// Main runs the tests of a package and takes the cluster down. Call it from
// TestMain.
func Main(m *testing.M) {
	code := m.Run()
	for _, f := range cleanups {
		f()
	}
	os.Exit(code)
}

func templates(ctx context.Context, c *pglocal.Cluster) error {
	super, err := pgx.Connect(ctx, c.SuperuserURL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(ctx) }()
	if c.External() { // another process may be at it
		if _, err := super.Exec(ctx, `select pg_advisory_lock(723748)`); err != nil {
			return err
		}
	}
	if err := postgres.Bootstrap(ctx, super, clinicalTemplate, keysTemplate); err != nil {
		return err
	}
	for _, r := range []string{"migrator", "app", "trail", "keys", "worker", "retention", "sealer", "auditor"} {
		if err := postgres.SetPassword(ctx, super, "medirecord_"+r, password); err != nil {
			return err
		}
	}
	clinical, err := postgres.Clinical()
	if err != nil {
		return err
	}
	keys, err := keystore.Migrations()
	if err != nil {
		return err
	}
	for db, steps := range map[string][]postgres.Step{clinicalTemplate: clinical, keysTemplate: keys} {
		conn, err := pgx.Connect(ctx, c.URL("medirecord_migrator", password, db))
		if err != nil {
			return err
		}
		err = postgres.Migrate(ctx, conn, steps, func(string) {})
		if err == nil {
			_, err = postgres.InstallContextKey(ctx, conn, ContextKey.KID, ContextKey.Key)
		}
		if err == nil && db == clinicalTemplate {
			_, err = conn.Exec(ctx, `select audit.make_partitions(6)`)
		}
		_ = conn.Close(ctx)
		if err != nil {
			return fmt.Errorf("template %s: %w", db, err)
		}
	}
	return nil
}

// Cluster returns the PostgreSQL of this test process. Without one the test is
// skipped, and fails when CI is set.
func Cluster(t testing.TB) *pglocal.Cluster {
	t.Helper()
	c, err := cluster()
	if errors.Is(err, pglocal.ErrNoPostgres) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Databases are the clinical database and the key store of one test: its own,
// dropped after it.
type Databases struct {
	cluster        *pglocal.Cluster
	Clinical, Keys string // names
}

// DB clones both databases from the migrated templates.
func DB(t testing.TB) *Databases {
	t.Helper()
	c := Cluster(t)
	var b [6]byte
	_, _ = rand.Read(b[:])
	d := &Databases{cluster: c, Clinical: "mr_" + hex.EncodeToString(b[:]), Keys: "mrk_" + hex.EncodeToString(b[:])}
	d.make(t, clinicalTemplate, keysTemplate)
	return d
}

// Clone copies both databases as they are. Nobody may be connected to them.
func (d *Databases) Clone(t testing.TB) *Databases {
	t.Helper()
	var b [6]byte
	_, _ = rand.Read(b[:])
	c := &Databases{cluster: d.cluster, Clinical: "mr_" + hex.EncodeToString(b[:]), Keys: "mrk_" + hex.EncodeToString(b[:])}
	c.make(t, d.Clinical, d.Keys)
	return c
}

func (d *Databases) make(t testing.TB, clinical, keys string) {
	t.Helper()
	c := d.cluster
	super := Connect(t, c.SuperuserURL("postgres"))
	for db, template := range map[string]string{d.Clinical: clinical, d.Keys: keys} {
		Exec(t, super, `create database `+db+` template `+template)
		Exec(t, super, `revoke all on database `+db+` from public`)
		Exec(t, super, `grant connect on database `+db+` to medirecord_migrator, medirecord_app, medirecord_trail, medirecord_keys, medirecord_worker, medirecord_retention, medirecord_sealer, medirecord_auditor`)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*Patience)
		defer cancel()
		conn, err := pgx.Connect(ctx, c.SuperuserURL("postgres"))
		if err != nil {
			return // the test took the server down
		}
		defer func() { _ = conn.Close(ctx) }()
		for _, db := range []string{d.Clinical, d.Keys} {
			_, _ = conn.Exec(ctx, `drop database if exists `+db+` with (force)`)
		}
	})
}

// URL returns the clinical database's address for one of our roles, without
// its prefix: app, trail, worker, migrator, retention.
func (d *Databases) URL(role string) string {
	return patiently(d.cluster.URL("medirecord_"+role, password, d.Clinical))
}

// KeysURL returns the key store's address for one of our roles.
func (d *Databases) KeysURL(role string) string {
	return patiently(d.cluster.URL("medirecord_"+role, password, d.Keys))
}

// patiently gives connecting time too: a server that forks on a busy machine.
func patiently(url string) string {
	mark := "?"
	if strings.Contains(url, "?") {
		mark = "&"
	}
	return url + mark + "connect_timeout=" + strconv.Itoa(int(Patience.Seconds()))
}

// Super connects to the clinical database as superuser: the attacker no role
// can stop, or the test's own eyes.
func (d *Databases) Super(t testing.TB) *pgx.Conn {
	t.Helper()
	return Connect(t, d.cluster.SuperuserURL(d.Clinical))
}

// SuperKeys is Super for the key store.
func (d *Databases) SuperKeys(t testing.TB) *pgx.Conn {
	t.Helper()
	return Connect(t, d.cluster.SuperuserURL(d.Keys))
}

// As connects to the clinical database as one of our roles.
func (d *Databases) As(t testing.TB, role string) *pgx.Conn {
	t.Helper()
	return Connect(t, d.URL(role))
}

// Connect opens a connection for the length of the test.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs SQL that must succeed.
func Exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Scan reads one row that must be there.
func Scan(t testing.TB, conn *pgx.Conn, dest []any, sql string, args ...any) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(dest...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Mint signs a context as the sidecar would.
func Mint(t testing.TB, c token.Context, ttl time.Duration) string {
	t.Helper()
	// By a clock that is some seconds before all others': a context lives ten, and
	// on a busy machine what is done with one takes longer.
	signed, _, _, err := token.NewMinter(ContextKey, func() time.Time { return time.Now().Add(20 * time.Second) }).Mint(c, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}
