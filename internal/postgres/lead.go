// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrUsurped says that the lock of a leader is held by a session of another role.
// It may be somebody who wants the leader's work not done.
var ErrUsurped = errors.New("a session of another role holds the lock of who does this work: find out whose it is, and end it")

// Lead takes an advisory lock of two numbers for the session, and reports whether
// it is theirs now. That another session of the same role has it is no error:
// that one does the work. It reports ErrUsurped when one of another role has it,
// for that one does not.
func Lead(ctx context.Context, conn *pgx.Conn, high, low int32) (bool, error) {
	return lead(ctx, conn, high, low, 2, `select pg_try_advisory_lock($1::int, $2::int)`)
}

// LeadBy is Lead by a lock of one number.
func LeadBy(ctx context.Context, conn *pgx.Conn, key int32) (bool, error) {
	return lead(ctx, conn, 0, key, 1, `select pg_try_advisory_lock($1::bigint << 32 | $2::bigint)`)
}

func lead(ctx context.Context, conn *pgx.Conn, high, low int32, numbers int16, try string) (bool, error) {
	var ours bool
	if err := conn.QueryRow(ctx, try, high, low).Scan(&ours); err != nil || ours {
		return ours, Unavailable(err)
	}
	const q = `
select a.usename
  from pg_locks l join pg_stat_activity a using (pid)
 where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database())
   and l.classid = $1::int::oid and l.objid = $2::int::oid and l.objsubid = $3 and a.usename <> current_user
 limit 1`
	var role string
	switch err := conn.QueryRow(ctx, q, high, low, numbers).Scan(&role); {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, Unavailable(err)
	}
	return false, fmt.Errorf("%s: %w", role, ErrUsurped)
}
