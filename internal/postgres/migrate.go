// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations
var migrations embed.FS

// Step is one migration: a name and its SQL.
type Step struct{ Name, SQL string }

// Clinical returns the migrations of the clinical database, in order.
func Clinical() ([]Step, error) {
	return Steps(migrations, "migrations/context", migrations, "migrations/clinical")
}

// Steps returns the .sql files of pairs of (file system, folder), each folder
// in the order of its file names.
func Steps(folders ...any) ([]Step, error) {
	var out []Step
	for i := 0; i < len(folders); i += 2 {
		fsys, dir := folders[i].(fs.FS), folders[i+1].(string)
		names, err := fs.Glob(fsys, path.Join(dir, "*.sql"))
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, n := range names {
			text, err := fs.ReadFile(fsys, n)
			if err != nil {
				return nil, err
			}
			out = append(out, Step{Name: path.Join(path.Base(dir), path.Base(n)), SQL: string(text)})
		}
	}
	return out, nil
}

// ContextSteps returns the migrations that every database with a signed
// context begins with.
func ContextSteps() ([]Step, error) { return Steps(migrations, "migrations/context") }

// Bootstrap makes the roles and the two databases. The connection must be
// allowed to create both; running it again changes nothing.
func Bootstrap(ctx context.Context, conn *pgx.Conn, databases ...string) error {
	text, err := migrations.ReadFile("migrations/bootstrap.sql")
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, string(text)); err != nil {
		return fmt.Errorf("making the roles: %w", err)
	}
	for _, name := range databases {
		var there bool
		if err := conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1)`, name).Scan(&there); err != nil {
			return err
		}
		db := pgx.Identifier{name}.Sanitize()
		if !there {
			// Texts are compared as bytes: ids and codes have no language, and an
			// index of them costs a third less to write.
			if _, err := conn.Exec(ctx, `create database `+db+` template template0 encoding 'UTF8' lc_collate 'C'`); err != nil {
				return fmt.Errorf("creating database %s: %w", name, err)
			}
		}
		// No TEMP and no CREATE for anybody: a caller who could make a function
		// or an operator could make the verifier call it.
		for _, sql := range []string{
			`revoke all on database ` + db + ` from public`,
			`grant connect on database ` + db + ` to medirecord_migrator, medirecord_app, medirecord_trail, medirecord_keys, medirecord_worker, medirecord_retention, medirecord_sealer, medirecord_auditor`,
			`grant create on database ` + db + ` to medirecord_migrator`,
			`grant create on database ` + db + ` to medirecord_owner, medirecord_context`,
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("granting on database %s: %w", name, err)
			}
		}
		if err := bootstrapDatabase(ctx, conn, name); err != nil {
			return fmt.Errorf("granting in database %s: %w", name, err)
		}
	}
	return nil
}

// bootstrapDatabase takes from everybody what a database comes with, over a
// connection to it.
func bootstrapDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	text, err := migrations.ReadFile("migrations/bootstrap_database.sql")
	if err != nil {
		return err
	}
	cfg := conn.Config()
	cfg.Database = name
	inside, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close(context.WithoutCancel(ctx)) }()
	_, err = inside.Exec(ctx, string(text))
	return err
}

// SetPassword sets the password of one of our login roles.
func SetPassword(ctx context.Context, conn *pgx.Conn, role, password string) error {
	// ALTER ROLE takes no parameters; the server quotes for us.
	var sql string
	if err := conn.QueryRow(ctx, `select format('alter role %I password %L', $1::text, $2::text)`, role, password).Scan(&sql); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, sql)
	if err != nil {
		return fmt.Errorf("setting the password of %s: %w", role, plain(err))
	}
	return nil
}

// ErrNewerSchema says that the database was migrated by a newer program.
var ErrNewerSchema = errors.New("the database has migrations that this program does not know; run the newer program")

// ErrChangedMigration says that a migration that ran differs from the
// program's: migrations are added, never edited.
var ErrChangedMigration = errors.New("a migration that has run differs from this program's")

// Migrate runs the steps that the database has not yet run, each in a
// transaction of its own, and tells of each through said. Two migrators wait
// for each other; a failure leaves the steps before it done and itself undone.
func Migrate(ctx context.Context, conn *pgx.Conn, steps []Step, said func(step string)) error {
	if _, err := conn.Exec(ctx, `select pg_advisory_lock(7237486)`); err != nil {
		return Unavailable(err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock(7237486)`) }()
	done, err := ran(ctx, conn)
	if err != nil {
		return err
	}
	for i, s := range steps {
		sum := sha256.Sum256([]byte(s.SQL))
		if i < len(done) {
			if done[i].name != s.Name || done[i].sum != hex.EncodeToString(sum[:]) {
				return fmt.Errorf("%w: %s", ErrChangedMigration, s.Name)
			}
			continue
		}
		if err := run(ctx, conn, i+1, s, sum); err != nil {
			return fmt.Errorf("migration %s: %w", s.Name, err)
		}
		said(s.Name)
	}
	if len(done) > len(steps) {
		return ErrNewerSchema
	}
	return nil
}

type ranStep struct{ name, sum string }

func ran(ctx context.Context, conn *pgx.Conn) ([]ranStep, error) {
	_, err := conn.Exec(ctx, `
		create schema if not exists migration;
		create table if not exists migration.step (
			n integer primary key, name text not null, sha256 text not null, ran_at timestamptz not null default clock_timestamp());
		grant usage on schema migration to medirecord_app, medirecord_keys, medirecord_worker;
		grant select on migration.step to medirecord_app, medirecord_keys, medirecord_worker`)
	if err != nil {
		return nil, Unavailable(err)
	}
	rows, err := conn.Query(ctx, `select name, sha256 from migration.step order by n`)
	if err != nil {
		return nil, Unavailable(err)
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (s ranStep, err error) {
		return s, r.Scan(&s.name, &s.sum)
	})
}

func run(ctx context.Context, conn *pgx.Conn, n int, s Step, sum [32]byte) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.SQL); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into migration.step (n, name, sha256) values ($1, $2, $3)`, n, s.Name, hex.EncodeToString(sum[:]))
		return err
	})
}

// InstallContextKey gives the database a verifying key: the key XORed with
// HMAC's pads, and reports whether it was new. Installing it again changes
// nothing.
func InstallContextKey(ctx context.Context, conn *pgx.Conn, kid string, key [32]byte) (installed bool, err error) {
	ik, ok := make([]byte, 64), make([]byte, 64)
	for i := range 64 {
		var b byte
		if i < len(key) {
			b = key[i]
		}
		ik[i], ok[i] = b^0x36, b^0x5c
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local role medirecord_context`); err != nil {
			return Unavailable(err)
		}
		tag, err := tx.Exec(ctx, `insert into ctx_private.key as k (kid, ik, ok) values ($1, $2, $3)
			on conflict (kid) do update set ik = excluded.ik, ok = excluded.ok where (k.ik, k.ok) <> (excluded.ik, excluded.ok)`, kid, ik, ok)
		installed = tag.RowsAffected() > 0
		return Unavailable(err)
	})
	return installed, err
}
