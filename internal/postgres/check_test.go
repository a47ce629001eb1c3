// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/pglocal"
	"github.com/medirecord/medirecord/internal/postgres"
)

// roleOf makes a role with the given attributes that is a member of the others,
// and returns the URL by which it logs in to the world's clinical database.
func roleOf(t testing.TB, w *world, attributes string, memberOf ...string) string {
	t.Helper()
	super := w.db.Super(t)
	name := "test_" + strings.ToLower(rand.Text()[:12])
	medtest.Exec(t, super, `create role `+name+` login password 'x' `+cmp.Or(attributes, "noinherit"))
	t.Cleanup(func() { // roles are the cluster's, and outlive the database
		ctx := context.WithoutCancel(t.Context())
		_, _ = super.Exec(ctx, `drop owned by `+name)
		_, _ = super.Exec(ctx, `drop role `+name)
	})
	medtest.Exec(t, super, `grant connect on database `+w.db.Clinical+` to `+name)
	for _, other := range memberOf {
		medtest.Exec(t, super, `grant `+other+` to `+name)
	}
	u, err := url.Parse(w.db.URL("app"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "x")
	return u.String()
}

// pool opens a pool for a URL, as the parts of the server do.
func pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	p, err := postgres.OpenPool(t.Context(), url, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// refusal checks that a start-up check said no, and why.
func refusal(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want a refusal because it %s", err, why)
	}
}

// What is checked is changed and changed back, by one test after the other.
func TestStartUpRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, check := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"a role", refusedRoles},
		{"a setting of the role", refusedSettings},
		{"tables without row security", openTables},
		{"partitions that are missing", missingPartitions},
		{"a schema of another program", otherSchema},
		{"clocks that differ", clockSkew},
		{"a database that is away", checksOfADatabaseThatIsAway},
	} {
		t.Run(check.name, func(t *testing.T) { check.run(t, w) })
	}
}

func refusedRoles(t *testing.T, w *world) {
	for _, role := range []string{"app", "trail", "worker", "keys", "retention"} {
		if err := postgres.CheckRole(t.Context(), pool(t, w.db.URL(role))); err != nil {
			t.Errorf("%s: got %v, want no objection", role, err)
		}
		if err := postgres.CheckRole(t.Context(), pool(t, w.db.KeysURL(role))); err != nil {
			t.Errorf("%s in the key store: got %v, want no objection", role, err)
		}
	}
	refusal(t, postgres.CheckRole(t.Context(), pool(t, w.db.URL("migrator"))), "owns or may become the owner")
	refusal(t, postgres.CheckRole(t.Context(), pool(t, w.db.KeysURL("migrator"))), "owns or may become the owner")

	for _, c := range []struct {
		attributes string
		memberOf   string
		why        string
	}{
		{"superuser", "", "is a superuser"},
		{"bypassrls", "", "bypasses row-level security"},
		{"createrole", "", "may create roles"},
		{"replication", "", "may replicate"},
		{"noinherit", "medirecord_owner", "owns or may become the owner"},
		{"inherit", "medirecord_owner", "owns or may become the owner"},
		{"noinherit", "medirecord_context", "owns or may become the owner"}, // of the verifying key
		{"noinherit", "medirecord_migrator", "owns or may become the owner"},
		{"noinherit", "postgres", "may become postgres"},
		{"noinherit", "pg_read_all_data", "may become pg_read_all_data"},
		{"inherit", "pg_write_all_data", "may become pg_write_all_data"},
		{"noinherit", "pg_execute_server_program", "may become pg_execute_server_program"},
		{"noinherit", "pg_read_server_files", "may become pg_read_server_files"},
		{"noinherit", "pg_write_server_files", "may become pg_write_server_files"},
	} {
		t.Run(strings.TrimSpace(c.attributes+" "+c.memberOf), func(t *testing.T) {
			var members []string
			if c.memberOf != "" {
				members = []string{c.memberOf}
			}
			refusal(t, postgres.CheckRole(t.Context(), pool(t, roleOf(t, w, c.attributes, members...))), c.why)
		})
	}
	for _, c := range []struct{ grant, why string }{
		{"temp on database " + w.db.Clinical, "may create temporary objects"},
		{"create on database " + w.db.Clinical, "may create schemas"},
		{"create on schema public", "may create objects in schema public"},
		{"create on schema medirecord", "may create objects in schema medirecord"},
		{"create on schema ctx", "may create objects in schema ctx"},
	} {
		t.Run(c.grant, func(t *testing.T) {
			url := roleOf(t, w, "")
			p := pool(t, url)
			if err := postgres.CheckRole(t.Context(), p); err != nil {
				t.Fatalf("before the grant: got %v, want no objection", err)
			}
			medtest.Exec(t, w.db.Super(t), `grant `+c.grant+` to `+p.Config().ConnConfig.User)
			refusal(t, postgres.CheckRole(t.Context(), p), c.why)
		})
	}
	t.Run("temporary objects for everybody", func(t *testing.T) {
		medtest.Exec(t, w.super, `grant temp on database `+w.db.Clinical+` to public`)
		defer medtest.Exec(t, w.super, `revoke temp on database `+w.db.Clinical+` from public`)
		refusal(t, postgres.CheckRole(t.Context(), pool(t, w.db.URL("app"))), "may create temporary objects")
	})
	t.Run("a database without a schema public is fine", func(t *testing.T) {
		medtest.Exec(t, w.super, `alter schema public rename to private`)
		defer medtest.Exec(t, w.super, `alter schema private rename to public`)
		if err := postgres.CheckRole(t.Context(), pool(t, w.db.URL("app"))); err != nil {
			t.Errorf("got %v, want no objection", err)
		}
	})
}

func refusedSettings(t *testing.T, w *world) {
	if err := postgres.CheckServer(t.Context(), pool(t, w.db.URL("trail"))); err != nil {
		t.Errorf("got %v, want no objection", err)
	}
	for setting, why := range map[string]string{"off": "synchronous_commit = off", "local": "synchronous_commit = local", "remote_write": "synchronous_commit = remote_write", "remote_apply": "", "on": ""} {
		t.Run("synchronous_commit "+setting, func(t *testing.T) {
			url := roleOf(t, w, "")
			name := pool(t, url).Config().ConnConfig.User
			medtest.Exec(t, w.db.Super(t), `alter role `+name+` set synchronous_commit = `+setting)
			err := postgres.CheckServer(t.Context(), pool(t, url))
			if why == "" && err != nil {
				t.Errorf("got %v, want no objection", err)
			}
			if why != "" {
				refusal(t, err, why)
			}
		})
	}
}

func TestAServerThatMustNotHoldTheTrail(t *testing.T) {
	t.Parallel()
	for setting, bad := range map[string]string{"fsync": "off", "full_page_writes": "off", "max_prepared_transactions": "2"} {
		c := cluster(t, map[string]string{setting: bad})
		refusal(t, postgres.CheckServer(t.Context(), pool(t, c.SuperuserURL("postgres"))), setting+" = "+bad)
	}
}

// cluster starts a PostgreSQL of the test's own.
func cluster(t *testing.T, settings map[string]string) *pglocal.Cluster {
	t.Helper()
	if medtest.Cluster(t).External() {
		t.Skip("the server is not ours to start")
	}
	c, done, err := pglocal.Scratch(t.Context(), pglocal.Config{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	return c
}

func openTables(t *testing.T, w *world) {
	db := w.db
	var partition string
	medtest.Scan(t, db.Super(t), []any{&partition}, `select min(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf`)
	check := func(t *testing.T, super *pgx.Conn, p *pgxpool.Pool, done, undone, names string) {
		t.Helper()
		if err := postgres.CheckForced(t.Context(), p); err != nil {
			t.Fatalf("before: got %v, want no objection", err)
		}
		medtest.Exec(t, super, done)
		err := postgres.CheckForced(t.Context(), p)
		medtest.Exec(t, super, undone)
		if names == "" && err != nil {
			t.Errorf("got %v, want no objection", err)
		}
		if names != "" {
			refusal(t, err, names)
		}
	}
	p := pool(t, db.URL("app"))
	for _, c := range []struct{ name, sql, undo, names string }{
		{"a table where it is off", `alter table medirecord.record disable row level security`, `alter table medirecord.record enable row level security`, "medirecord.record"},
		{"a table where it is not forced", `alter table medirecord.patient no force row level security`, `alter table medirecord.patient force row level security`, "medirecord.patient"},
		{"the trail", `alter table audit.event no force row level security`, `alter table audit.event force row level security`, "audit.event"},
		{"one partition", `alter table ` + partition + ` disable row level security`, `alter table ` + partition + ` enable row level security`, partition},
		{"one partition where it is not forced", `alter table ` + partition + ` no force row level security`, `alter table ` + partition + ` force row level security`, partition},
		{"a new table", `create table medirecord.fresh (x int)`, `drop table medirecord.fresh`, "medirecord.fresh"},
		{"a partition somewhere else", `create table public.elsewhere partition of audit.event default`, `drop table public.elsewhere`, "public.elsewhere"},
		{"a child of a table somewhere else", `create table public.child () inherits (medirecord.patient)`, `drop table public.child`, "public.child"},
		{"a materialised view", `create materialized view medirecord.kept as select * from medirecord.patient`, `drop materialized view medirecord.kept`, "medirecord.kept"},
		{"a superuser's view", `create view medirecord.passing as select * from medirecord.patient`, `drop view medirecord.passing`, "medirecord.passing"},
		{"a table that is not ours to judge", `create table public.theirs (x int)`, `drop table public.theirs`, ""},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, db.Super(t), p, c.sql, c.undo, c.names) })
	}
	t.Run("a table of the key store", func(t *testing.T) {
		check(t, db.SuperKeys(t), pool(t, db.KeysURL("keys")),
			`alter table keys.patient_key no force row level security`, `alter table keys.patient_key force row level security`, "keys.patient_key")
	})
}

func missingPartitions(t *testing.T, w *world) {
	p, super := pool(t, w.db.URL("app")), w.super
	for _, c := range []struct {
		name      string
		months    int // from this one
		sql, undo string
		missing   bool
	}{
		{"this month's", 0, `alter table audit_part.TABLE rename to gone`, `alter table audit_part.gone rename to TABLE`, true},
		{"next month's", 1, `alter table audit_part.TABLE rename to gone`, `alter table audit_part.gone rename to TABLE`, true},
		{"the month after's", 2, `alter table audit_part.TABLE rename to gone`, `alter table audit_part.gone rename to TABLE`, true},
		{"one of later", 3, `alter table audit_part.TABLE rename to gone`, `alter table audit_part.gone rename to TABLE`, false},
		{"one that is there but not attached", 1, `alter table audit.event detach partition audit_part.TABLE`, `alter table audit.event attach partition audit_part.TABLE BOUNDS`, true},
		{"one that was taken elsewhere", 1, `alter table audit_part.TABLE set schema public`, `alter table public.TABLE set schema audit_part`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := postgres.CheckPartitions(t.Context(), p); err != nil {
				t.Fatalf("before: got %v, want no objection", err)
			}
			var table, month, bounds string
			medtest.Scan(t, super, []any{&table, &month, &bounds}, `
select relname, to_char(m, 'YYYY-MM'), pg_get_expr(relpartbound, c.oid)
  from (select date_trunc('month', now() at time zone 'UTC') + make_interval(months => $1) as m) x
  join pg_class c on c.relname = 'event_' || to_char(m, 'YYYY_MM')`, c.months)
			fill := strings.NewReplacer("TABLE", table, "BOUNDS", bounds)
			medtest.Exec(t, super, fill.Replace(c.sql))
			err := postgres.CheckPartitions(t.Context(), p)
			medtest.Exec(t, super, fill.Replace(c.undo))
			if !c.missing && err != nil {
				t.Errorf("got %v, want no objection", err)
			}
			if c.missing {
				refusal(t, err, "no partition for "+month)
			}
		})
	}
}

func otherSchema(t *testing.T, w *world) {
	steps, err := postgres.Clinical()
	if err != nil {
		t.Fatal(err)
	}
	p := pool(t, w.db.URL("app"))
	if err := postgres.CheckSchema(t.Context(), p, steps); err != nil {
		t.Errorf("got %v, want no objection", err)
	}
	if err := postgres.CheckSchema(t.Context(), p, steps[:1]); err != nil {
		t.Errorf("yesterday's program: got %v, want no objection", err)
	}
	refusal(t, postgres.CheckSchema(t.Context(), p, append(steps, postgres.Step{Name: "x"}, postgres.Step{Name: "y"})), "lacks 2 migrations")
	medtest.Exec(t, w.super, `alter schema migration rename to elsewhere`)
	defer medtest.Exec(t, w.super, `alter schema elsewhere rename to migration`)
	refusal(t, postgres.CheckSchema(t.Context(), p, steps), "has not been migrated")
}

func clockSkew(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{})
	for _, c := range []struct {
		ahead    time.Duration
		min, max time.Duration
	}{
		{0, 0, 2 * time.Second}, // one machine, one clock; a loaded one takes its time
		{time.Hour, 59 * time.Minute, 61 * time.Minute},
		{-time.Hour, 59 * time.Minute, 61 * time.Minute},
	} {
		got, err := db.ClockSkew(t.Context(), func() time.Time { return time.Now().Add(c.ahead) })
		if err != nil || got < c.min || got > c.max {
			t.Errorf("with a clock %s ahead: got %s and error %v, want %s to %s", c.ahead, got, err, c.min, c.max)
		}
	}
	db.Pool().Close()
	if _, err := db.ClockSkew(t.Context(), time.Now); med.KindOf(err) != med.DatabaseUnavailable {
		t.Errorf("got %v of a closed pool, want database-unavailable", err)
	}
}

func checksOfADatabaseThatIsAway(t *testing.T, w *world) {
	p := pool(t, w.db.URL("app"))
	p.Close()
	for name, err := range map[string]error{
		"role": postgres.CheckRole(t.Context(), p), "server": postgres.CheckServer(t.Context(), p), "forced": postgres.CheckForced(t.Context(), p),
		"partitions": postgres.CheckPartitions(t.Context(), p), "schema": postgres.CheckSchema(t.Context(), p, nil),
	} {
		if med.KindOf(err) != med.DatabaseUnavailable {
			t.Errorf("%s: got %v, want database-unavailable", name, err)
		}
	}
}

func TestTransportInTheClearIsRefused(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, []byte(someRoot), 0o600); err != nil {
		t.Fatal(err)
	}
	const password = "hunter2"
	for _, c := range []struct {
		url       string
		fine, dev bool // fine outside dev; fine in dev
	}{
		{"postgres://u:hunter2@/db?host=/run/postgresql", true, true},
		{"postgres://u:hunter2@/db?host=/run/a,/run/b", true, true},
		{"postgres://u:hunter2@db.example.com/db?sslmode=verify-full", true, true},
		{"postgres://u:hunter2@db.example.com/db?sslmode=verify-full&sslrootcert=" + root, true, true},
		{"postgres://u:hunter2@db.example.com/db?sslmode=verify-ca&sslrootcert=" + root, true, true},
		{"postgres://u:hunter2@a.example.com,b.example.com/db?sslmode=verify-full", true, true},
		{"postgres://u:hunter2@db.example.com/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@db.example.com/db?sslmode=allow", false, false},
		{"postgres://u:hunter2@db.example.com/db?sslmode=prefer", false, false},
		{"postgres://u:hunter2@db.example.com/db", false, false},
		{"postgres://u:hunter2@db.example.com/db?sslmode=require", false, false},
		{"host=db.example.com user=u password=hunter2 sslmode=disable", false, false},
		{"host=db.example.com user=u password=hunter2 sslmode=verify-full", true, true},
		{"postgres://u:hunter2@/db?host=/run/postgresql,db.example.com&sslmode=disable", false, false},
		{"postgres://u:hunter2@/db?host=db.example.com,/run/postgresql&sslmode=prefer", false, false},
		{"postgres://u:hunter2@127.0.0.1/db?sslmode=disable", false, true},
		{"postgres://u:hunter2@127.9.9.9/db?sslmode=disable", false, true},
		{"postgres://u:hunter2@[::1]/db?sslmode=disable", false, true},
		{"postgres://u:hunter2@localhost/db?sslmode=disable", false, true},
		{"postgres://u:hunter2@localhost.example.com/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@127.0.0.1.example.com/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@127.0.0.1,db.example.com/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@0.0.0.0/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@10.0.0.1/db?sslmode=disable", false, false},
		{"postgres://u:hunter2@127.0.0.1/db?sslmode=verify-full", true, true},
		{"postgres://u:hunter2@db.example.com/db?sslmode=hunter2", false, false},
		{"postgres://u:hunter2@db.example.com:hunter2/db", false, false},
		{"hunter2", false, false},
	} {
		for dev, fine := range map[bool]bool{false: c.fine, true: c.dev} {
			err := postgres.CheckTransport("MEDIRECORD_X_URL", c.url, dev)
			if (err == nil) != fine {
				t.Errorf("%s, dev %v: got %v, want fine %v", c.url, dev, err, fine)
			}
			if err != nil && (strings.Contains(err.Error(), password) || !strings.Contains(err.Error(), "MEDIRECORD_X_URL")) {
				t.Errorf("%s: the error %q must name the setting and not the password", c.url, err)
			}
		}
	}
}

// An URL that cannot be read is refused without being repeated.
func TestOpeningAnUnreadableURLTellsNoPassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://u:hunter2@host:port/db", "hunter2", "postgres://u:hunter2@host/db?sslmode=x", "postgres://u:hunter2@[::1/db"} {
		if _, err := postgres.OpenPool(t.Context(), url, 1); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want a refusal without the password", err)
		}
	}
	t.Run("nor does one where nobody answers", func(t *testing.T) {
		_, err := postgres.OpenPool(t.Context(), "postgres://u:hunter2@/db?host="+t.TempDir(), 1)
		if med.KindOf(err) != med.DatabaseUnavailable || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want database-unavailable without the password", err)
		}
	})
}

// someRoot is a certificate that nothing was ever signed with.
const someRoot = `-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUcfagb9erHKrOd1Xzjh3QXq2HWzowCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJdGVzdCByb290MCAXDTI2MTEyMzA4MDUxOVoYDzIxMjYxMDMw
MDgwNTE5WjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATUbPkVpUrNxAk7GISri3+w8Vvyl7iMDVUroymZblJRb4a+MwEypdXI
6vLirm5HxKCAzd4vmSwotg0C86PgP2LFo1MwUTAdBgNVHQ4EFgQUL57LiO5AWtSW
kxCa9S/G2TmtPDAwHwYDVR0jBBgwFoAUL57LiO5AWtSWkxCa9S/G2TmtPDAwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA1/zywVUIbj5+oR7g+kSb
fEQxviennZIAlLXDZlsl3jACIQDuLZdb7Ixb68TDoXY/88k6ZL951C54ij8Ik2XX
rDndMg==
-----END CERTIFICATE-----
`
