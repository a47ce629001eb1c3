// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// Config says how to reach the clinical database as the application's role.
type Config struct {
	URL string
	// Conns is how many connections the pool may hold; 0 means 12.
	Conns int32
	// Readers is how many connections share the coalesced reads; 0 means 2.
	Readers int
	// Deadline bounds every statement and transaction; 0 means 2 s.
	Deadline time.Duration
}

// DB is the clinical database as the application's role.
type DB struct {
	pool     *pgxpool.Pool
	deadline time.Duration
	reads    *reader
	Q        *pgdb.Queries
}

// Open connects and returns the database. It reports DatabaseUnavailable when
// it cannot be reached; it does not check that it is safe to serve from: Check
// does.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	pool, err := OpenPool(ctx, cfg.URL, cmp.Or(cfg.Conns, 12))
	if err != nil {
		return nil, err
	}
	db := &DB{pool: pool, deadline: cmp.Or(cfg.Deadline, 2*time.Second), Q: pgdb.New()}
	db.reads = newReader(db, cmp.Or(cfg.Readers, 2))
	return db, nil
}

// OpenPool opens a pool of bound-parameter connections: the simple protocol,
// which would show a context in pg_stat_activity, is never used.
func OpenPool(ctx context.Context, url string, conns int32) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the database URL cannot be read; it must look like postgres://user:password@host/database")
	}
	pc.MaxConns = conns
	pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	pc.ConnConfig.ConnectTimeout = cmp.Or(pc.ConnConfig.ConnectTimeout, 2*time.Second) // the URL's connect_timeout wins
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, Unavailable(err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, Unavailable(err)
	}
	return pool, nil
}

// Close waits for reads under way and closes the pool.
func (db *DB) Close() {
	db.reads.close()
	db.pool.Close()
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.deadline)
	defer cancel()
	return Unavailable(db.pool.Ping(ctx))
}

// Pool is for checks and probes; patient data goes through InTx and Patient.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// InTx runs work in one transaction under a signed context, bounded by the
// deadline. Everything is rolled back unless work returns nil. It reports
// DatabaseUnavailable when the database cannot be reached in time.
func (db *DB) InTx(ctx context.Context, signed string, work func(pgx.Tx) error) error {
	return db.InTxWithin(ctx, db.deadline, signed, work)
}

// InTxWithin is InTx with a deadline of its own, for imports.
func (db *DB) InTxWithin(ctx context.Context, d time.Duration, signed string, work func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return InTx(ctx, db.pool, signed, work)
}

// InTx runs work in one transaction of the pool under a signed context.
func InTx(ctx context.Context, pool *pgxpool.Pool, signed string, work func(pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return Unavailable(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after Commit it does nothing
	if _, err := tx.Exec(ctx, `select set_config('medirecord.ctx', $1, true)`, signed); err != nil {
		return Unavailable(err)
	}
	if err := work(tx); err != nil {
		return Unavailable(err)
	}
	return Unavailable(tx.Commit(ctx))
}

// Unavailable gives an error of the connection, the deadline or the server's
// shutdown the kind DatabaseUnavailable, and leaves every other as it is.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	var known *med.Error
	if errors.As(err, &known) {
		return err
	}
	if unreachable(err) {
		return med.DatabaseUnavailable.Because(err)
	}
	return plain(err)
}

func unreachable(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		// Connection, resources, shutdown and cancel, system, read-only, locks.
		return len(pe.Code) == 5 && slices.Contains([]string{"08", "53", "57", "58", "25", "55"}, pe.Code[:2])
	}
	var ne net.Error
	var ce *pgconn.ConnectError
	return errors.As(err, &ne) || errors.As(err, &ce) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) || pgconn.SafeToRetry(err) || errors.Is(err, net.ErrClosed) ||
		pgconn.Timeout(err) || isClosed(err)
}

// isClosed reports whether the other side hung up, or we did.
func isClosed(err error) bool {
	// The pool's own error is of a package that we do not import; what it says is fixed.
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed) || err.Error() == "closed pool"
}

// plain strips a server error down to its code and the names of the things
// concerned: its detail and message can hold values of a row.
func plain(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return &ServerError{Code: pe.Code, Table: pe.TableName, Constraint: pe.ConstraintName}
	}
	return err
}

// ServerError is what may be said of an error of the server.
type ServerError struct{ Code, Table, Constraint string }

func (e *ServerError) Error() string {
	return fmt.Sprintf("postgres: SQLSTATE %s table %q constraint %q", e.Code, e.Table, e.Constraint)
}

// Refused reports whether row security or a privilege refused the statement,
// or the context was not valid (SQLSTATE 42501).
func Refused(err error) bool { return hasCode(err, "42501") }

// Duplicate reports whether a unique constraint refused the row.
func Duplicate(err error) bool { return hasCode(err, "23505") }

// Exhausted reports whether the database refused because a person has had as many
// as they may.
func Exhausted(err error) bool { return hasCode(err, "53400") }

func hasCode(err error, code string) bool {
	var pe *pgconn.PgError
	var se *ServerError
	return errors.As(err, &pe) && pe.Code == code || errors.As(err, &se) && se.Code == code
}
