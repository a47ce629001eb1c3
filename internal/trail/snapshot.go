// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Snapshot is the whole trail at one moment, read over several connections that
// all see the same. It holds up neither writers nor the sealer, and changes
// nothing.
type Snapshot struct{ conns []*pgx.Conn }

// OpenSnapshot connects as medirecord_auditor.
func OpenSnapshot(ctx context.Context, url string, workers int) (_ *Snapshot, err error) {
	s := &Snapshot{}
	defer func() {
		if err != nil {
			s.Close(ctx)
		}
	}()
	name := ""
	for i := range workers + 1 {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, postgres.Unavailable(err)
		}
		s.conns = append(s.conns, conn)
		// A whole trail takes longer than the role's ordinary statements may.
		for _, sql := range []string{`set statement_timeout = 0`, `set idle_in_transaction_session_timeout = 0`, `begin isolation level repeatable read read only`} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return nil, postgres.Unavailable(err)
			}
		}
		if i == 0 {
			err = conn.QueryRow(ctx, `select pg_export_snapshot()`).Scan(&name)
		} else {
			_, err = conn.Exec(ctx, `set transaction snapshot '`+name+`'`) // the server's own word, of hex digits and hyphens
		}
		if err != nil {
			return nil, postgres.Unavailable(err)
		}
	}
	return s, nil
}

// Close ends the snapshot.
func (s *Snapshot) Close(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, c := range s.conns {
		_ = c.Close(end)
	}
}

// main is the connection of whoever goes through the log; the workers have the
// others.
func (s *Snapshot) main() *pgx.Conn { return s.conns[0] }

// workers is how many connections there are for stretches.
func (s *Snapshot) workers() int { return len(s.conns) - 1 }

// sealedBatch is a row of audit.batch.
type sealedBatch struct {
	number, first int64
	ids           []audit.UUID
	lo, hi        place // its entries are behind lo and up to hi
	root, mapRoot tlog.Hash
	lost          bool  // the row is not there
	n             int64 // when it is lost, how many places
}

func (b *sealedBatch) end() int64 {
	if b.lost {
		return b.first + b.n
	}
	return b.first + int64(len(b.ids))
}

const noID = "00000000-0000-0000-0000-000000000000"

// wellFormed is what the table's own checks ask of a batch. Whoever has the
// database can lift them: a row that is none is told of, and left aside.
const wellFormed = `b.batch >= 0 and b.first_index between 0 and 1125899906842624 and b.n between 1 and 16777216 and length(b.ids) = 16 * b.n::bigint
   and b.hi_epoch is not null and b.hi_tx is not null and b.hi_id is not null`

// batches returns up to n batches behind the place and within the log's size,
// as they stand there.
func (s *Snapshot) batches(ctx context.Context, epoch int32, after, size int64, n int) ([]sealedBatch, error) {
	rows, err := s.main().Query(ctx, `
select b.batch, b.first_index, b.ids, b.hi_epoch, b.hi_tx, b.hi_id, b.root, b.map_root from audit.batch b
 where b.epoch = $1 and b.batch > $2 and b.first_index <= $3 - b.n and `+wellFormed+` order by b.batch limit $4`, epoch, after, size, n)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b sealedBatch, err error) {
		var ids, root, mapRoot []byte
		if err := row.Scan(&b.number, &b.first, &ids, &b.hi.epoch, &b.hi.tx, &b.hi.id, &root, &mapRoot); err != nil {
			return b, err
		}
		for ; len(ids) >= 16; ids = ids[16:] {
			b.ids = append(b.ids, audit.UUID(ids[:16]))
		}
		if len(root) == tlog.HashSize && len(mapRoot) == tlog.HashSize { // else no tree has it
			b.root, b.mapRoot = tlog.Hash(root), tlog.Hash(mapRoot)
		}
		return b, nil
	})
	return out, postgres.Unavailable(err)
}

// rows returns the entries behind lo and up to hi, in no order.
func (s *Snapshot) rows(ctx context.Context, worker int, lo, hi place) ([]audit.Row, error) {
	return s.query(ctx, worker, `select `+recordColumns+` from audit.event e
 where (e.epoch, e.tx, e.event_id) > ($1, $2::xid8, $3::uuid) and (e.epoch, e.tx, e.event_id) <= ($4, $5::xid8, $6::uuid)`,
		lo.epoch, strconv.FormatUint(lo.tx, 10), lo.id, hi.epoch, strconv.FormatUint(hi.tx, 10), hi.id)
}

func (s *Snapshot) query(ctx context.Context, worker int, sql string, args ...any) ([]audit.Row, error) {
	rows, err := s.conns[worker+1].Query(ctx, sql, args...)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	defer rows.Close()
	var out []audit.Row
	var buf []byte
	for rows.Next() {
		r, whole, err := rawRecord(rows.RawValues())
		if err != nil {
			return nil, err
		}
		var row audit.Row
		row, buf = audit.RowOf(r, buf)
		if !whole {
			row.Hash = brokenHash
		}
		out = append(out, row)
	}
	return out, postgres.Unavailable(rows.Err())
}

// brokenHash stands for the hash of an entry that has none, because a column
// that is never null is. No leaf has it: leaves begin otherwise.
var brokenHash = tlog.RecordHash([]byte("a column is null"))

var errRaw = errors.New("the server sent an entry in a form that this program does not read")

// The columns of recordColumns that are texts, and the sizes of those that have
// always the same.
var (
	textColumns  = [...]int{6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19}
	fixedColumns = [22]int{0: 4, 1: 8, 2: 16, 3: 8, 4: 8, 16: 1, 21: 2}
	nullColumns  = [22]bool{5: true, 8: true, 9: true, 10: true, 15: true, 17: true, 18: true}
)

// rawRecord reads recordColumns in the binary form in which the server sends
// them: verifying a trail spends its time here. It is not whole when a column
// is null that the schema, as long as nobody changed it, keeps from being so.
func rawRecord(v [][]byte) (_ *audit.Record, whole bool, _ error) {
	if len(v) != 22 {
		return nil, false, errRaw
	}
	whole = true
	for i, size := range fixedColumns {
		if v[i] == nil && !nullColumns[i] {
			whole, v[i] = false, make([]byte, size)
		}
		if size > 0 && len(v[i]) != size {
			return nil, false, errRaw
		}
	}
	// All texts are parts of one, and the pointers to some point into one array:
	// a few allocations an entry instead of twenty.
	n := 0
	for _, i := range textColumns {
		n += len(v[i])
	}
	all := make([]byte, 0, n)
	for _, i := range textColumns {
		all = append(all, v[i]...)
	}
	rest := string(all)
	var texts [22]string
	for _, i := range textColumns {
		texts[i], rest = rest[:len(v[i])], rest[len(v[i]):]
	}
	kept := new([7]string)
	k := 0
	null := func(i int) *string {
		if v[i] == nil {
			return nil
		}
		kept[k] = texts[i]
		k++
		return &kept[k-1]
	}
	r := &audit.Record{
		Epoch: int32(binary.BigEndian.Uint32(v[0])), TX: binary.BigEndian.Uint64(v[1]), ID: formatID(v[2]),
		OccurredAt: stamp(v[3]), RecordedAt: stamp(v[4]), ActorIssuer: texts[6], ActorSubject: texts[7], ActorPractice: null(8),
		Patient: null(9), PatientPractice: null(10), Action: texts[11], ResourceType: texts[12], ResourceID: texts[13],
		Outcome: texts[14], Code: null(15), BreakGlass: v[16][0] != 0, ContextNonce: null(17), ContextMAC: null(18), Detail: texts[19],
		Nonce: append([]byte(nil), v[20]...), Version: int16(binary.BigEndian.Uint16(v[21])),
	}
	if v[5] != nil {
		if len(v[5]) != 16 {
			return nil, false, errRaw
		}
		parent := formatID(v[5])
		r.Parent = &parent
	}
	return r, whole, nil
}

// stamp reads a timestamptz: microseconds since 2000.
func stamp(b []byte) time.Time {
	const since2000 = 946_684_800_000_000
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b)) + since2000).UTC()
}

// leavesOf returns the leaf hashes of [from, from+n) as the tiles have them.
// Where there is no tile, or it is too short, the hash is zero.
func leavesOf(ctx context.Context, db queryer, epoch int32, from int64, n int) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, n)
	rows, err := db.Query(ctx, `select idx, data from audit.tile where epoch = $1 and level = 0 and idx between $2 and $3`,
		epoch, from>>audit.TileHeight, (from+int64(n)-1)>>audit.TileHeight)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	var idx int64
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&idx, &data}, func() error {
		for i := 0; i+tlog.HashSize <= min(len(data), 256*tlog.HashSize); i += tlog.HashSize {
			if at := idx<<audit.TileHeight + int64(i/tlog.HashSize) - from; at >= 0 && at < int64(n) {
				copy(out[at][:], data[i:])
			}
		}
		return nil
	})
	return out, postgres.Unavailable(err)
}

// signedNote is a row of audit.checkpoint.
type signedNote struct {
	size     int64
	note     string
	cosigned bool
}

func (s *Snapshot) notes(ctx context.Context, epoch int32) ([]signedNote, error) {
	rows, err := s.main().Query(ctx, `select coalesce(size, -1), coalesce(note, ''), cosigned_at is not null from audit.checkpoint where epoch = $1 order by size`, epoch)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n signedNote, err error) {
		return n, row.Scan(&n.size, &n.note, &n.cosigned)
	})
	return out, postgres.Unavailable(err)
}

// Logs returns the epochs at this moment, the oldest first.
func (s *Snapshot) Logs(ctx context.Context) ([]Log, error) {
	rows, err := s.main().Query(ctx, `
select coalesce(p.epoch, 0), coalesce(p.origin, ''), coalesce((select b.first_index + b.n from audit.batch b where b.epoch = p.epoch and `+wellFormed+` order by b.batch desc limit 1), 0)
  from audit.epoch p order by p.epoch`)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Log, err error) {
		return l, row.Scan(&l.Epoch, &l.Origin, &l.Size)
	})
	return out, postgres.Unavailable(err)
}

// Leftovers reports whether anything is left that was sealed: of use where no
// epoch is, without which nothing of it can be read.
func (s *Snapshot) Leftovers(ctx context.Context) (left bool, err error) {
	err = s.main().QueryRow(ctx, `select exists (select from audit.batch) or exists (select from audit.tile) or exists (select from audit.checkpoint)`).Scan(&left)
	return left, postgres.Unavailable(err)
}

// last returns the place of the last entry that was sealed before the epoch.
func (s *Snapshot) last(ctx context.Context, epoch int32) (p place, err error) {
	p.id = noID
	err = s.main().QueryRow(ctx, `select b.hi_epoch, b.hi_tx, b.hi_id from audit.batch b where b.epoch < $1 and `+wellFormed+` order by b.epoch desc, b.batch desc limit 1`, epoch).
		Scan(&p.epoch, &p.tx, &p.id)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	return p, postgres.Unavailable(err)
}

func (p place) before(q place) bool {
	if p.epoch != q.epoch {
		return p.epoch < q.epoch
	}
	return p.tx < q.tx || p.tx == q.tx && p.id < q.id
}

// unsealed counts the entries behind a place: they wait to be sealed.
func (s *Snapshot) unsealed(ctx context.Context, after place) (n int64, err error) {
	err = s.main().QueryRow(ctx, `select count(*) from audit.event e where (e.epoch, e.tx, e.event_id) > ($1, $2::xid8, $3::uuid)`,
		after.epoch, strconv.FormatUint(after.tx, 10), after.id).Scan(&n)
	return n, postgres.Unavailable(err)
}

func (b *sealedBatch) String() string { return fmt.Sprintf("batch %d", b.number) }
