// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// columns are what the writer says of an entry. The rest says the database.
const columns = `event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
   action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version`

// maxRows is how many entries one statement writes.
const maxRows = 50

// inserts has the statement for each number of rows. VALUES costs the server an
// eighth less for an entry than unnest of as many arrays does; COPY is refused
// under row security.
var inserts = func() (sql [maxRows + 1]string) {
	width := strings.Count(columns, ",") + 1
	rows := make([]string, maxRows)
	for i := range rows {
		places := make([]string, width)
		for j := range places {
			places[j] = "$" + strconv.Itoa(i*width+j+1)
		}
		rows[i] = "(" + strings.Join(places, ",") + ")"
		sql[i+1] = "insert into audit.event (" + columns + ") values " + strings.Join(rows[:i+1], ",")
	}
	return sql
}()

// unlessThere makes sending the same rows once more harmless; it needs no right to
// read. The first time a row whose id is there already is refused: it would be
// another entry.
const unlessThere = " on conflict do nothing"

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// AppendTx writes entries in the transaction of the change they tell of: both
// or neither. The transaction's context must be the entries' own actor's.
func AppendTx(ctx context.Context, tx pgx.Tx, entries ...*audit.Entry) error {
	for _, e := range entries {
		e.Clean()
	}
	return postgres.Unavailable(insertEvents(ctx, tx, entries))
}

// insertEvents writes entries, at most maxRows in a statement.
func insertEvents(ctx context.Context, db execer, entries []*audit.Entry) error {
	return insertRows(ctx, db, entries, "")
}

func insertRows(ctx context.Context, db execer, entries []*audit.Entry, suffix string) error {
	for some := range slices.Chunk(entries, maxRows) {
		args, err := values(some)
		if err != nil {
			return err
		}
		if _, err := db.Exec(ctx, inserts[len(some)]+suffix, args...); err != nil {
			return err
		}
	}
	return nil
}

// values are the places of a statement: of each entry its columns.
func values(entries []*audit.Entry) ([]any, error) {
	var args []any
	for _, e := range entries {
		detail, err := e.DetailJSON()
		if err != nil {
			return nil, err
		}
		args = append(args,
			string(e.ID), e.OccurredAt, orNull(e.Parent), e.Actor.Issuer, e.Actor.Subject, orNull(e.Actor.Practice), orNull(e.Patient), orNull(e.PatientPractice),
			e.Action, e.ResourceType, e.ResourceID, string(e.Outcome), orNull(e.Code), e.Detail.BreakGlass != nil, orNull(e.ContextNonce), orNull(e.ContextMAC),
			detail, e.Nonce[:], int16(audit.Version))
	}
	return args, nil
}

func orNull[S ~string](s S) any {
	if s == "" {
		return nil
	}
	return string(s)
}
