// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// recordColumns are all columns of audit.event, as scanRecord reads them.
const recordColumns = `e.epoch, e.tx, e.event_id, e.occurred_at, e.recorded_at, e.parent_id, e.actor_issuer, e.actor_subject, e.actor_practice,
       e.patient_id, e.patient_practice, e.action, e.resource_type, e.resource_id, e.outcome, e.code, e.break_glass, e.ctx_nonce, e.ctx_mac,
       e.detail, e.nonce, e.version`

// scanRecord reads recordColumns.
func scanRecord(row pgx.CollectableRow) (r audit.Record, err error) {
	err = row.Scan(&r.Epoch, &r.TX, &r.ID, &r.OccurredAt, &r.RecordedAt, &r.Parent, &r.ActorIssuer, &r.ActorSubject, &r.ActorPractice,
		&r.Patient, &r.PatientPractice, &r.Action, &r.ResourceType, &r.ResourceID, &r.Outcome, &r.Code, &r.BreakGlass, &r.ContextNonce, &r.ContextMAC,
		&r.Detail, &r.Nonce, &r.Version)
	return r, err
}

// Reader reads the sealed trail as medirecord_auditor, whatever the practice:
// to export, verify and stream it.
type Reader struct{ pool *pgxpool.Pool }

// OpenReader connects as the auditor.
func OpenReader(ctx context.Context, url string) (*Reader, error) {
	pool, err := postgres.OpenPool(ctx, url, 4)
	if err != nil {
		return nil, err
	}
	return &Reader{pool}, nil
}

// Close closes the connections.
func (r *Reader) Close() { r.pool.Close() }

// Pool is for the auditor's other statements, and for checks of its role.
func (r *Reader) Pool() *pgxpool.Pool { return r.pool }

// Log is one epoch of the trail, as far as it is sealed.
type Log struct {
	Epoch    int32
	Origin   string
	Size     int64     // entries sealed
	SealedAt time.Time // of the last batch; zero when there is none
}

// Logs returns the epochs, the oldest first.
func (r *Reader) Logs(ctx context.Context) ([]Log, error) {
	rows, err := r.pool.Query(ctx, `
select p.epoch, p.origin, coalesce(b.first_index + b.n, 0), coalesce(b.sealed_at, '0001-01-01 00:00:00Z')
  from audit.epoch p left join lateral (select first_index, n, sealed_at from audit.batch b where b.epoch = p.epoch order by batch desc limit 1) b on true
 order by p.epoch`)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Log, err error) {
		return l, row.Scan(&l.Epoch, &l.Origin, &l.Size, &l.SealedAt)
	})
	return out, postgres.Unavailable(err)
}

// Sealed is an entry with its place in the log.
type Sealed struct {
	Index  int64
	Record audit.Record
	At     time.Time // when its batch was sealed
	// Altered says that the entry is not the one whose hash was sealed in this
	// place: nothing in the record but its id can be believed.
	Altered bool

	hash tlog.Hash
}

// ErrMissing says that an entry was sealed and is not there any more: pruned by
// the retention policy, or taken out.
var ErrMissing = errors.New("a sealed entry is missing")

// Sealed returns the entries of an epoch from an index on, in the order of the
// log: at most max, and no more than their batch holds, each held against its
// leaf. None are left when it returns none. It reports ErrMissing, with the id,
// for one that is gone.
func (r *Reader) Sealed(ctx context.Context, epoch int32, from int64, most int) ([]Sealed, error) {
	var ids []byte
	var at time.Time
	var b batchPlaces
	err := r.pool.QueryRow(ctx, `
select $2 - b.first_index, substr(b.ids, 16 * ($2 - b.first_index)::integer + 1, 16 * $3), b.sealed_at,
       coalesce(p.hi_epoch, 0), coalesce(p.hi_tx, '0'::xid8)::text, coalesce(p.hi_id, '00000000-0000-0000-0000-000000000000'),
       b.hi_epoch, b.hi_tx::text, b.hi_id
  from (select * from audit.batch where epoch = $1 and first_index <= $2 order by first_index desc limit 1) b
  left join audit.batch p on p.epoch = b.epoch and p.batch = b.batch - 1`, epoch, from, most).
		Scan(&b.skip, &ids, &at, &b.after.epoch, &b.after.tx, &b.after.id, &b.last.epoch, &b.last.tx, &b.last.id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil || len(ids) == 0 {
		return nil, postgres.Unavailable(err)
	}
	leaves, err := leavesOf(ctx, r.pool, epoch, from, len(ids)/16)
	if err != nil {
		return nil, err
	}
	records, err := r.records(ctx, ids, leaves, &b)
	if err != nil {
		return nil, err
	}
	out := make([]Sealed, 0, len(records))
	for i, s := range records {
		if s == nil {
			return out, fmt.Errorf("%w: %s, entry %d of epoch %d", ErrMissing, formatID(ids[16*i:]), from+int64(i), epoch)
		}
		s.Index, s.At, s.Altered = from+int64(i), at, s.hash != leaves[i]
		out = append(out, *s)
	}
	return out, nil
}

// batchPlaces says where in the order of the log a batch lies, and how many of
// its entries to skip.
type batchPlaces struct {
	skip        int64
	after, last struct {
		epoch  int32
		tx, id string
	}
}

// records returns the entries with these ids, 16 bytes each, of one batch, and
// nil for one that is gone. They lie side by side in the order of the log, and
// two that share an id, which no honest writer makes, are two: which is which,
// their leaves say. One that is not in its place was changed, and is looked for
// by its id.
func (r *Reader) records(ctx context.Context, ids []byte, leaves []tlog.Hash, b *batchPlaces) ([]*Sealed, error) {
	out := make([]*Sealed, len(ids)/16)
	rows, err := r.collect(ctx, ` where (e.epoch, e.tx, e.event_id) > ($1, $2::xid8, $3::uuid) and (e.epoch, e.tx, e.event_id) <= ($4, $5::xid8, $6::uuid)
 order by e.epoch, e.tx, e.event_id offset $7 limit $8`,
		b.after.epoch, b.after.tx, b.after.id, b.last.epoch, b.last.tx, b.last.id, b.skip, len(out))
	if err != nil {
		return nil, err
	}
	named := make(map[string][]*Sealed, len(rows))
	for i := range rows {
		named[rows[i].Record.ID] = append(named[rows[i].Record.ID], &rows[i])
	}
	lost := map[string]bool{}
	for i := range out {
		id := formatID(ids[16*i:])
		there := named[id]
		if len(there) == 0 {
			lost[id] = true
			continue
		}
		at := theOneOf(there, leaves[i])
		out[i] = there[at]
		named[id] = slices.Delete(there, at, at+1)
	}
	if len(lost) == 0 {
		return out, nil
	}
	found, err := r.recordsByID(ctx, lost)
	for i := range out {
		if there := found[formatID(ids[16*i:])]; len(there) > 0 && out[i] == nil {
			out[i] = there[theOneOf(there, leaves[i])]
		}
	}
	return out, err
}

// theOneOf returns which of the entries that share an id has that leaf; the first
// when none has.
func theOneOf(there []*Sealed, leaf tlog.Hash) int {
	return max(0, slices.IndexFunc(there, func(s *Sealed) bool { return s.hash == leaf }))
}

// recordsByID finds entries wherever they are. A UUIDv7 begins with its time,
// so the partitions around it are looked at first; whoever wrote an entry may
// have given its id another time, and such a one is looked for everywhere.
func (r *Reader) recordsByID(ctx context.Context, want map[string]bool) (map[string][]*Sealed, error) {
	const byID = ` where e.event_id = any($1::uuid[]) and e.occurred_at between $2 and $3`
	const slack = 15 * time.Minute // occurred_at is when the call began, and the writer's clock may differ
	out := make(map[string][]*Sealed, len(want))
	list := slices.Sorted(maps.Keys(want))
	first, err := appendID(nil, list[0])
	if err != nil {
		return nil, err
	}
	last, err := appendID(nil, list[len(list)-1])
	if err != nil {
		return nil, err
	}
	for _, within := range [][2]time.Time{
		{timeOf(first).Add(-slack), timeOf(last).Add(slack)},
		{time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		rows, err := r.collect(ctx, byID, list, within[0], within[1])
		if err != nil {
			return nil, err
		}
		for i := range rows {
			out[rows[i].Record.ID] = append(out[rows[i].Record.ID], &rows[i])
		}
		if list = slices.DeleteFunc(list, func(id string) bool { _, ok := out[id]; return ok }); len(list) == 0 {
			break
		}
	}
	return out, nil
}

// collect returns the entries that a query finds, and their hashes.
func (r *Reader) collect(ctx context.Context, where string, args ...any) (out []Sealed, _ error) {
	rows, err := r.pool.Query(ctx, `select `+recordColumns+` from audit.event e`+where, args...)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		record, whole, err := rawRecord(rows.RawValues())
		if err != nil {
			return nil, err
		}
		s := Sealed{Record: *record, hash: brokenHash}
		if whole {
			s.hash = record.Hash()
		}
		out = append(out, s)
	}
	return out, postgres.Unavailable(rows.Err())
}
