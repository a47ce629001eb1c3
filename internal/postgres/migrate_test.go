// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/pglocal"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
)

// migrations runs on a cluster of its own: roles and their settings are the
// cluster's, and here they are changed.
type migrations struct {
	cluster *pglocal.Cluster
	super   *pgx.Conn
	n       int
}

func newMigrations(t *testing.T) *migrations {
	t.Helper()
	c := cluster(t, nil)
	return &migrations{cluster: c, super: medtest.Connect(t, c.SuperuserURL("postgres"))}
}

// database makes an empty database and returns its name.
func (m *migrations) database(t *testing.T) string {
	t.Helper()
	m.n++
	name := fmt.Sprintf("clinical_%d", m.n)
	if err := postgres.Bootstrap(t.Context(), m.super, name); err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"migrator", "app"} {
		if err := postgres.SetPassword(t.Context(), m.super, "medirecord_"+r, "p"); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func (m *migrations) as(t *testing.T, role, db string) *pgx.Conn {
	t.Helper()
	return medtest.Connect(t, m.cluster.URL("medirecord_"+role, "p", db))
}

func clinical(t *testing.T) []postgres.Step {
	t.Helper()
	steps, err := postgres.Clinical()
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// migrate runs steps and returns those that were run now.
func migrate(t *testing.T, conn *pgx.Conn, steps []postgres.Step) ([]string, error) {
	t.Helper()
	var said []string
	err := postgres.Migrate(t.Context(), conn, steps, func(s string) { said = append(said, s) })
	return said, err
}

func names(steps []postgres.Step) []string {
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = s.Name
	}
	return out
}

func stepOf(name, sql string) postgres.Step { return postgres.Step{Name: name, SQL: sql} }

func TestMigrations(t *testing.T) {
	t.Parallel()
	m := newMigrations(t)
	t.Run("bootstrap", func(t *testing.T) { bootstrap(t, m) })
	steps := clinical(t)

	t.Run("each runs once", func(t *testing.T) {
		db := m.database(t)
		said, err := migrate(t, m.as(t, "migrator", db), steps)
		if err != nil || !slices.Equal(said, names(steps)) {
			t.Fatalf("got %q and error %v, want %q", said, err, names(steps))
		}
		said, err = migrate(t, m.as(t, "migrator", db), steps)
		if err != nil || len(said) > 0 {
			t.Errorf("the second time: got %q and error %v, want nothing", said, err)
		}
		if err := postgres.CheckSchema(t.Context(), pool(t, m.cluster.URL("medirecord_app", "p", db)), steps); err != nil {
			t.Error(err)
		}
	})
	t.Run("the patient map of a log from before its slices is kept", func(t *testing.T) {
		db := m.database(t)
		i := slices.Index(names(steps), "clinical/0022_map.sql")
		conn := m.as(t, "migrator", db)
		if _, err := migrate(t, conn, steps[:i]); err != nil {
			t.Fatal(err)
		}
		super := medtest.Connect(t, m.cluster.SuperuserURL(db))
		medtest.Exec(t, super, `
insert into audit.epoch (epoch, origin, system_id) values (1, 'log.example/1', 1);
insert into audit.map_row (epoch, first, roots)
select 1, f, (select string_agg(sha256((f || '/' || b)::bytea), ''::bytea order by b) from generate_series(0, 255) b) from unnest(array[0, 7, 255]) f`)
		if _, err := migrate(t, conn, steps); err != nil {
			t.Fatal(err)
		}
		var slices, right int
		medtest.Scan(t, super, []any{&slices, &right}, `
select count(*), count(*) filter (where roots = (select string_agg(sha256((slice / 16 || '/' || slice % 16 * 16 + b)::bytea), ''::bytea order by b) from generate_series(0, 15) b))
  from audit.map_slice where epoch = 1 and slice / 16 in (0, 7, 255)`)
		if slices != 48 || right != 48 {
			t.Errorf("got %d slices, %d of them right, want 48", slices, right)
		}
	})
	t.Run("what a sealer writes meanwhile is not left behind", func(t *testing.T) {
		db := m.database(t)
		i := slices.Index(names(steps), "clinical/0022_map.sql")
		conn := m.as(t, "migrator", db)
		if _, err := migrate(t, conn, steps[:i]); err != nil {
			t.Fatal(err)
		}
		sealer, look := medtest.Connect(t, m.cluster.SuperuserURL(db)), medtest.Connect(t, m.cluster.SuperuserURL(db))
		medtest.Exec(t, sealer, `
insert into audit.epoch (epoch, origin, system_id) values (1, 'log.example/1', 1);
insert into audit.map_row (epoch, first, roots) values (1, 7, decode(repeat('01', 8192), 'hex'))`)
		medtest.Exec(t, sealer, `begin`)
		medtest.Exec(t, sealer, `update audit.map_row set roots = decode(repeat('02', 8192), 'hex')`)
		done := make(chan error, 1)
		go func() { done <- postgres.Migrate(t.Context(), conn, steps, func(string) {}) }()
		waits := func() (n int) {
			medtest.Scan(t, look, []any{&n}, `select count(*) from pg_locks where not granted and relation = to_regclass('audit.map_row')`)
			return n
		}
		for waits() == 0 {
			select {
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			case <-time.After(5 * time.Millisecond):
			}
		}
		medtest.Exec(t, sealer, `commit`)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var right int
		medtest.Scan(t, look, []any{&right}, `select count(*) from audit.map_slice where roots = decode(repeat('02', 512), 'hex')`)
		if right != 16 {
			t.Errorf("%d slices hold what was sealed last, want 16", right)
		}
	})
	t.Run("two migrators at once wait for each other", func(t *testing.T) {
		db := m.database(t)
		type result struct {
			said []string
			err  error
		}
		results := make(chan result, 4)
		for range cap(results) {
			conn := m.as(t, "migrator", db)
			go func() {
				var r result
				r.err = postgres.Migrate(t.Context(), conn, steps, func(s string) { r.said = append(r.said, s) })
				results <- r
			}()
		}
		var said []string
		for range cap(results) {
			r := <-results
			if r.err != nil {
				t.Error(r.err)
			}
			said = append(said, r.said...)
		}
		if !slices.Equal(said, names(steps)) { // all by one, none by the others
			t.Errorf("got %q, want %q", said, names(steps))
		}
	})
	t.Run("one that has run and was changed is refused, by name", func(t *testing.T) {
		db := m.database(t)
		was := []postgres.Step{stepOf("a/1", `create schema one`), stepOf("a/2", `create schema two`)}
		conn := m.as(t, "migrator", db)
		if _, err := migrate(t, conn, was); err != nil {
			t.Fatal(err)
		}
		for name, now := range map[string][]postgres.Step{
			"its text":    {was[0], stepOf("a/2", `create schema three`)},
			"its name":    {was[0], stepOf("a/2b", `create schema two`)},
			"its place":   {was[1], was[0]},
			"one between": {was[0], stepOf("a/1b", `create schema between`), was[1]},
		} {
			said, err := migrate(t, conn, append(now, stepOf("a/9", `create schema nine`)))
			if !errors.Is(err, postgres.ErrChangedMigration) || len(said) > 0 {
				t.Errorf("%s: got %q and error %v, want a refusal", name, said, err)
			}
		}
		_, err := migrate(t, conn, []postgres.Step{was[0], stepOf("a/2", `create schema three`)})
		if err == nil || !strings.Contains(err.Error(), "a/2") {
			t.Errorf("got %v, want the name of the step", err)
		}
	})
	t.Run("a newer schema is refused, and left as it is", func(t *testing.T) {
		db := m.database(t)
		conn := m.as(t, "migrator", db)
		newer := []postgres.Step{stepOf("a/1", `create schema one`), stepOf("a/2", `create schema two`)}
		if _, err := migrate(t, conn, newer); err != nil {
			t.Fatal(err)
		}
		if said, err := migrate(t, conn, newer[:1]); !errors.Is(err, postgres.ErrNewerSchema) || len(said) > 0 {
			t.Errorf("got %q and error %v, want a refusal", said, err)
		}
	})
	t.Run("a step that fails leaves those before it done and itself undone", func(t *testing.T) {
		db := m.database(t)
		conn := m.as(t, "migrator", db)
		one := stepOf("a/1", `create schema one`)
		broken := stepOf("a/2", `set role medirecord_owner; create schema two; create table two.t (x int); select 1/0`)
		said, err := migrate(t, conn, []postgres.Step{one, broken, stepOf("a/3", `create schema three`)})
		if err == nil || !strings.Contains(err.Error(), "a/2") || !slices.Equal(said, []string{"a/1"}) {
			t.Fatalf("got %q and error %v, want a/1 done and a/2 named", said, err)
		}
		var schemas []string
		var role string
		medtest.Scan(t, conn, []any{&schemas, &role}, `select (select array_agg(nspname::text) from pg_namespace where nspname in ('one', 'two', 'three')), current_user::text`)
		if !slices.Equal(schemas, []string{"one"}) || role != "medirecord_migrator" {
			t.Errorf("got schemas %q as %s, want one as the migrator", schemas, role)
		}
		// The lock was given back: another can go on while we are still connected.
		said, err = migrate(t, m.as(t, "migrator", db), []postgres.Step{one, stepOf("a/2", `create schema two`), stepOf("a/3", `create schema three`)})
		if err != nil || !slices.Equal(said, []string{"a/2", "a/3"}) {
			t.Errorf("got %q and error %v, want a/2 and a/3", said, err)
		}
	})
	t.Run("a migrator that is killed in the middle is followed by another", func(t *testing.T) {
		db := m.database(t)
		first := m.as(t, "migrator", db)
		super := medtest.Connect(t, m.cluster.SuperuserURL(db))
		var pid int
		medtest.Scan(t, first, []any{&pid}, `select pg_backend_pid()`)
		one := stepOf("a/1", `create schema one`)
		died := make(chan error, 1)
		go func() {
			_, err := migrate(t, first, []postgres.Step{one, stepOf("a/2", `create schema two; select pg_sleep(600)`)})
			died <- err
		}()
		eventually(t, "the second step", func() bool {
			var there bool
			medtest.Scan(t, super, []any{&there}, `select exists (select from pg_stat_activity where pid = $1 and query like '%pg_sleep%' and state = 'active')`, pid)
			return there
		})
		medtest.Exec(t, super, `select pg_terminate_backend($1)`, pid)
		if err := <-died; err == nil {
			t.Error("got no error of the killed one")
		}
		said, err := migrate(t, m.as(t, "migrator", db), []postgres.Step{one, stepOf("a/2", `create schema two`)})
		if err != nil || !slices.Equal(said, []string{"a/2"}) {
			t.Errorf("got %q and error %v, want a/2", said, err)
		}
	})
	t.Run("only the migrator can", func(t *testing.T) {
		db := m.database(t)
		if said, err := migrate(t, m.as(t, "app", db), steps); err == nil || len(said) > 0 {
			t.Errorf("got %q and error %v, want a refusal", said, err)
		}
		if _, err := migrate(t, m.as(t, "migrator", db), steps); err != nil {
			t.Fatal(err)
		}
		if said, err := migrate(t, m.as(t, "app", db), append(steps, stepOf("x", `select 1`))); err == nil || len(said) > 0 {
			t.Errorf("after the migrator: got %q and error %v, want a refusal", said, err)
		}
	})
	t.Run("a context key is installed once, replaced by its id, and joined by another", func(t *testing.T) {
		db := m.database(t)
		conn := m.as(t, "migrator", db)
		if _, err := migrate(t, conn, steps); err != nil {
			t.Fatal(err)
		}
		app := m.as(t, "app", db)
		takes := func(key token.ContextKey) bool {
			var fact string
			signed := clinician("north", "north-1").signedWith(t, key, time.Now)
			err := pgx.BeginFunc(t.Context(), app, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `select set_config('medirecord.ctx', $1, true)`, signed); err != nil {
					return err
				}
				return tx.QueryRow(t.Context(), `select ctx.fact('practice')`).Scan(&fact)
			})
			if err != nil && !postgres.Refused(err) {
				t.Error(err)
			}
			return fact == "north"
		}
		first, other, replaced := token.ContextKey{KID: "k1", Key: [32]byte{1}}, token.ContextKey{KID: "k2", Key: [32]byte{2}}, token.ContextKey{KID: "k1", Key: [32]byte{3}}
		install := func(key token.ContextKey) {
			for range 2 { // again changes nothing
				if _, err := postgres.InstallContextKey(t.Context(), conn, key.KID, key.Key); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			install                   token.ContextKey
			first, other, replacement bool
		}{
			{first, true, false, false}, {other, true, true, false}, {replaced, false, true, true},
		} {
			install(c.install)
			if got, want := [3]bool{takes(first), takes(other), takes(replaced)}, [3]bool{c.first, c.other, c.replacement}; got != want {
				t.Errorf("with key %s installed: got taken %v, want %v", c.install.KID, got, want)
			}
		}
		super := medtest.Connect(t, m.cluster.SuperuserURL(db))
		medtest.Exec(t, super, `update ctx_private.key set not_after = now() where kid = 'k1'`)
		if takes(replaced) || !takes(other) {
			t.Error("a key that has ended still verifies, or ended another")
		}
		if _, err := postgres.InstallContextKey(t.Context(), conn, "NOT A KID", [32]byte{1}); err == nil {
			t.Error("a key id that is none was installed")
		}
		if _, err := postgres.InstallContextKey(t.Context(), app, "k3", [32]byte{1}); !postgres.Refused(err) {
			t.Errorf("as the API: got %v, want a refusal", err)
		}
	})
}

func bootstrap(t *testing.T, m *migrations) {
	db := m.database(t)
	state := func() (s string) {
		medtest.Scan(t, m.super, []any{&s}, `select md5(string_agg(line, e'\n' order by line collate "C")) from (
			select r::text from pg_roles r union all select m::text from pg_auth_members m union all select s::text from pg_db_role_setting s
			union all select concat_ws(' ', datname, datacl, datdba) from pg_database) as l (line)`)
		return s
	}
	t.Run("texts compare as bytes", func(t *testing.T) {
		var collate string
		medtest.Scan(t, m.super, []any{&collate}, `select datcollate from pg_database where datname = $1`, db)
		if collate != "C" {
			t.Errorf("got the rules of %s", collate)
		}
	})
	t.Run("again changes nothing", func(t *testing.T) {
		before := state()
		for range 2 {
			if err := postgres.Bootstrap(t.Context(), m.super, db); err != nil {
				t.Fatal(err)
			}
		}
		if after := state(); after != before {
			t.Error("it changed something")
		}
	})
	t.Run("again pins what a role has changed of its own settings", func(t *testing.T) {
		before := state()
		medtest.Exec(t, m.as(t, "app", db), `alter role current_user set synchronous_commit = off`)
		medtest.Exec(t, m.as(t, "app", db), `alter role current_user set search_path = public`)
		if err := postgres.Bootstrap(t.Context(), m.super, db); err != nil {
			t.Fatal(err)
		}
		if after := state(); after != before {
			t.Error("something is left of it")
		}
	})
	t.Run("nobody but our roles connects, and none of them may make anything", func(t *testing.T) {
		var others []string
		medtest.Scan(t, m.super, []any{&others}, `
select coalesce(array_agg(r.rolname || ' ' || p), '{}') from pg_roles r, (values ('connect'), ('temp'), ('create')) v (p)
 where not r.rolsuper and has_database_privilege(r.oid, $1, p)
   and not (p = 'connect' and r.rolname in ('medirecord_migrator', 'medirecord_app', 'medirecord_trail', 'medirecord_keys', 'medirecord_worker', 'medirecord_retention', 'medirecord_sealer', 'medirecord_auditor'))
   and not (p = 'create' and r.rolname in ('medirecord_migrator', 'medirecord_owner', 'medirecord_context'))`, db)
		if len(others) > 0 {
			t.Errorf("got %q, want none", others)
		}
	})
	t.Run("a name is quoted", func(t *testing.T) {
		odd := `a "name"; drop database ` + db + `; --`
		if err := postgres.Bootstrap(t.Context(), m.super, odd); err != nil {
			t.Fatal(err)
		}
		var n int
		medtest.Scan(t, m.super, []any{&n}, `select count(*) from pg_database where datname in ($1, $2)`, odd, db)
		if n != 2 {
			t.Errorf("got %d databases, want both", n)
		}
	})
	t.Run("a password is quoted, and told to nobody", func(t *testing.T) {
		odd := `it's \a "p" $1 %s`
		if err := postgres.SetPassword(t.Context(), m.super, "medirecord_worker", odd); err != nil {
			t.Fatal(err)
		}
		medtest.Connect(t, m.cluster.URL("medirecord_worker", odd, db))
		for _, conn := range []*pgx.Conn{m.super, m.as(t, "app", db)} {
			err := postgres.SetPassword(t.Context(), conn, "nobody", "hunter2")
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want an error without the password", err)
			}
		}
	})
	t.Run("by one who may not make roles is refused", func(t *testing.T) {
		if err := postgres.Bootstrap(t.Context(), m.as(t, "app", db), "another"); err == nil {
			t.Error("got no error")
		}
	})
}

func TestStepsAreInTheOrderOfTheirNames(t *testing.T) {
	t.Parallel()
	fsys := fstest.MapFS{
		"m/b/0002_b.sql": {Data: []byte("B")}, "m/b/0001_a.sql": {Data: []byte("A")}, "m/b/notes.txt": {Data: []byte("no")},
		"m/a/0003_c.sql": {Data: []byte("C")},
	}
	steps, err := postgres.Steps(fsys, "m/b", fsys, "m/a")
	if err != nil {
		t.Fatal(err)
	}
	want := []postgres.Step{stepOf("b/0001_a.sql", "A"), stepOf("b/0002_b.sql", "B"), stepOf("a/0003_c.sql", "C")}
	if !slices.Equal(steps, want) {
		t.Errorf("got %v, want %v", steps, want)
	}
	if first, err := postgres.ContextSteps(); err != nil || len(first) == 0 || !slices.Equal(clinical(t)[:len(first)], first) {
		t.Errorf("got %v, want the clinical database to begin with the context", err)
	}
}

// What both databases ask of a context is the same, word for word: 0001 is one
// file, and what replaces a part of it is not.
func TestBothDatabasesVerifyAContextAlike(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	verifiers := func(conn *pgx.Conn) map[string]string {
		var names, words []string
		medtest.Scan(t, conn, []any{&names, &words}, `
select array_agg(p.oid::regprocedure::text), array_agg(concat_ws(' ', p.proowner::regrole, pg_get_functiondef(p.oid), coalesce(p.proacl::text, '')))
  from pg_proc p where p.oid::regprocedure::text in ('ctx_private.signed(text[])', 'ctx_private.verified()')`)
		out := map[string]string{}
		for i, name := range names {
			out[name] = words[i]
		}
		return out
	}
	clinical, keys := verifiers(db.Super(t)), verifiers(db.SuperKeys(t))
	for _, name := range []string{"ctx_private.signed(text[])", "ctx_private.verified()"} {
		if clinical[name] == "" || clinical[name] != keys[name] {
			t.Errorf("%s is\n%s\nin the clinical database, and in the key store\n%s", name, clinical[name], keys[name])
		}
	}
}

// What the migrations leave behind, as a reader of the catalog sees it.
func schemaGivesAway(t *testing.T, w *world) {
	for name, conn := range map[string]*pgx.Conn{"clinical database": w.db.Super(t), "key store": w.db.SuperKeys(t)} {
		for what, q := range map[string]string{
			"functions that run as another and take the caller's search path": `
				select p.oid::regprocedure::text from pg_proc p where p.prosecdef and p.oid >= 16384
				 and not exists (select from unnest(p.proconfig) c where c = 'search_path=pg_catalog')`,
			"functions that everybody may run": `
				select p.oid::regprocedure::text from pg_proc p where p.oid >= 16384 and p.prorettype <> 'trigger'::regtype
				 and (p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0))`,
			"tables that everybody may use": `
				select c.oid::regclass::text from pg_class c where c.oid >= 16384 and exists (select from aclexplode(c.relacl) a where a.grantee = 0)`,
			"columns that everybody may use": `
				select attrelid::regclass::text from pg_attribute, aclexplode(attacl) a where attrelid >= 16384 and a.grantee = 0`,
			"schemas of ours that everybody may use": `
				select nspname::text from pg_namespace, aclexplode(nspacl) a where oid >= 16384 and a.grantee = 0`,
			"schemas in which everybody may make things": `
				select nspname::text from pg_namespace, aclexplode(nspacl) a where a.grantee = 0 and a.privilege_type = 'CREATE'`,
			"policies for everybody": `
				select polrelid::regclass || ' ' || polname from pg_policy where 0 = any(polroles)`,
			"things of ours that the superuser owns": `
				select c.oid::regclass::text from pg_class c where c.oid >= 16384 and c.relowner = 10
				union all select p.oid::regprocedure::text from pg_proc p where p.oid >= 16384 and p.proowner = 10`,
			"rights that may be given on": `
				select c.oid::regclass::text from pg_class c, aclexplode(c.relacl) a where c.oid >= 16384 and a.is_grantable and a.grantee <> c.relowner`,
			"rights of roles that only serve on the schemas that guard": `
				select r.rolname || ' ' || n.nspname from pg_namespace n, pg_roles r
				 where n.nspname in ('ctx_private', 'audit_part') and r.rolname ~ '^medirecord_(app|trail|keys|worker|retention|sealer|auditor|locator|migrator)$'
				   and has_schema_privilege(r.oid, n.oid, 'USAGE')`,
			"row triggers of the trail that a replica passes by": `
				select t.tgrelid::regclass || ' ' || tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
				 where n.nspname in ('audit', 'audit_part') and not t.tgisinternal and t.tgenabled <> 'A'`,
			"tables of the trail without both guards": `
				select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
				 where (n.nspname = 'audit_part' or n.nspname = 'audit' and c.relname in ('event', 'batch')) and c.relkind in ('r', 'p') and (select count(*) from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal) <> 2`,
		} {
			rows, err := conn.Query(t.Context(), q)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if len(found) > 0 {
				t.Errorf("%s: %s: %q", name, what, found)
			}
		}
	}
}

func TestUnavailableIsToldApartFromRefused(t *testing.T) {
	t.Parallel()
	if postgres.Unavailable(nil) != nil {
		t.Error("got an error of none")
	}
	known := med.NotFound.New("")
	if got := postgres.Unavailable(fmt.Errorf("x: %w", known)); !errors.Is(got, known) || med.KindOf(got) != med.NotFound {
		t.Errorf("got %v, want what it was", got)
	}
	if got := postgres.Unavailable(pgx.ErrNoRows); !errors.Is(got, pgx.ErrNoRows) {
		t.Errorf("got %v, want %v", got, pgx.ErrNoRows)
	}
	conn := medtest.Connect(t, medtest.Cluster(t).SuperuserURL("postgres"))
	for code, unavailable := range map[string]bool{
		"08006": true, "53100": true, "53300": true, "57014": true, "57P01": true, "57P03": true, "58030": true, "25006": true, "55P03": true,
		"42501": false, "23505": false, "23503": false, "22021": false, "42601": false, "P0001": false, "XX000": false,
	} {
		_, err := conn.Exec(t.Context(), `do $$ begin raise exception 'x' using errcode = '`+code+`'; end $$`)
		if got := med.KindOf(postgres.Unavailable(err)) == med.DatabaseUnavailable; got != unavailable {
			t.Errorf("%s: got unavailable %v, want %v", code, got, unavailable)
		}
		if got, want := postgres.Refused(postgres.Unavailable(err)), code == "42501"; got != want {
			t.Errorf("%s: got refused %v, want %v", code, got, want)
		}
		if got, want := postgres.Duplicate(err), code == "23505"; got != want {
			t.Errorf("%s: got duplicate %v, want %v", code, got, want)
		}
	}
}
