// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// ON CONFLICT DO NOTHING makes sending the same rows twice harmless; it needs
// no right to read. COPY is refused under row security.
const insertSQL = `
insert into audit.event
  (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
   action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
select e.id::uuid, e.occurred_at, nullif(e.parent, '')::uuid, e.issuer, e.subject, nullif(e.practice, ''), nullif(e.patient, ''),
       nullif(e.patient_practice, ''), e.action, e.resource_type, e.resource_id, e.outcome, nullif(e.code, ''), e.break_glass,
       nullif(e.ctx_nonce, ''), nullif(e.ctx_mac, ''), e.detail, e.nonce, $19
  from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::text[], $16::text[],
              $17::text[], $18::bytea[])
    as e(id, occurred_at, parent, issuer, subject, practice, patient, patient_practice,
         action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce)
on conflict do nothing`

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

func insertEvents(ctx context.Context, db execer, entries []*audit.Entry) error {
	n := len(entries)
	text := make([]string, 16*n)
	col := func(i int) []string { return text[i*n : (i+1)*n : (i+1)*n] }
	times, glass, nonces := make([]time.Time, n), make([]bool, n), make([][]byte, n)
	for i, e := range entries {
		detail, err := e.DetailJSON()
		if err != nil {
			return err
		}
		for c, s := range [...]string{
			string(e.ID), string(e.Parent), e.Actor.Issuer, e.Actor.Subject, string(e.Actor.Practice), string(e.Patient),
			string(e.PatientPractice), e.Action, e.ResourceType, e.ResourceID, string(e.Outcome), e.Code,
			e.ContextNonce, e.ContextMAC, detail,
		} {
			col(c)[i] = s
		}
		times[i], glass[i], nonces[i] = e.OccurredAt, e.Detail.BreakGlass != nil, e.Nonce[:]
	}
	_, err := db.Exec(ctx, insertSQL,
		col(0), times, col(1), col(2), col(3), col(4), col(5), col(6),
		col(7), col(8), col(9), col(10), col(11), glass, col(12), col(13), col(14), nonces, int16(audit.Version))
	return err
}
