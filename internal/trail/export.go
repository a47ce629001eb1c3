// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Month is what one log holds of a calendar month, in UTC.
type Month struct {
	Log      Log
	Start    time.Time
	From, To int64  // the places of its first entry and behind its last
	Size     int64  // of the checkpoint that covers them
	Note     string // of that
	Cosigned bool   // by as many as were asked
}

// Name is the month as 2026-11.
func (m *Month) Name() string { return m.Start.Format("2006-01") }

// ErrNotCovered says that a month has entries that no signed checkpoint covers.
var ErrNotCovered = errors.New("no signed checkpoint covers the month's entries: is `medirecord worker` sealing?")

// Month finds a month in a log. It returns nil when the log has nothing of it.
func (s *Snapshot) Month(ctx context.Context, l Log, start time.Time) (*Month, error) {
	lo, err := s.last(ctx, l.Epoch)
	if err != nil {
		return nil, err
	}
	hi, err := s.last(ctx, l.Epoch+1)
	if err != nil {
		return nil, err
	}
	m := &Month{Log: l, Start: start}
	end := func(order string) (place, error) {
		var p place
		err := s.main().QueryRow(ctx, `select e.epoch, e.tx, e.event_id from audit.event e
 where e.occurred_at >= $1 and e.occurred_at < $2 and (e.epoch, e.tx, e.event_id) > ($3, $4::xid8, $5::uuid) and (e.epoch, e.tx, e.event_id) <= ($6, $7::xid8, $8::uuid)
 order by e.epoch `+order+`, e.tx `+order+`, e.event_id `+order+` limit 1`, start, start.AddDate(0, 1, 0),
			lo.epoch, strconv.FormatUint(lo.tx, 10), lo.id, hi.epoch, strconv.FormatUint(hi.tx, 10), hi.id).Scan(&p.epoch, &p.tx, &p.id)
		return p, err
	}
	first, err := end("asc")
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	last, err := end("desc")
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	if m.From, err = s.index(ctx, l.Epoch, first); err != nil {
		return nil, err
	}
	if m.To, err = s.index(ctx, l.Epoch, last); err != nil {
		return nil, err
	}
	m.To++
	err = s.main().QueryRow(ctx, `
select size, note, cosigned_at is not null from audit.checkpoint where epoch = $1 and size >= $2 and size <= $3 order by cosigned_at is null, size desc limit 1`,
		l.Epoch, m.To, l.Size).Scan(&m.Size, &m.Note, &m.Cosigned)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotCovered
	}
	return m, postgres.Unavailable(err)
}

// index returns the leaf index of the entry at a place of the order.
func (s *Snapshot) index(ctx context.Context, epoch int32, p place) (int64, error) {
	var first int64
	var ids []byte
	err := s.main().QueryRow(ctx, `
select first_index, ids from audit.batch where epoch = $1 and (hi_epoch, hi_tx, hi_id) >= ($2, $3::xid8, $4::uuid) order by hi_epoch, hi_tx, hi_id limit 1`,
		epoch, p.epoch, strconv.FormatUint(p.tx, 10), p.id).Scan(&first, &ids)
	if err != nil {
		return 0, postgres.Unavailable(err)
	}
	for i := 0; i+16 <= len(ids); i += 16 {
		if formatID(ids[i:]) == p.id {
			return first + int64(i/16), nil
		}
	}
	return 0, fmt.Errorf("entry %s stands among sealed entries and was not sealed: run `medirecord audit verify`", p.id)
}

// Months returns every month that has entries, the oldest first.
func (s *Snapshot) Months(ctx context.Context) (out []time.Time, err error) {
	rows, err := s.main().Query(ctx, `select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'audit.event'::regclass order by 1`)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, n := range names {
		if at, err := time.Parse("event_2006_01", n); err == nil {
			out = append(out, at)
		}
	}
	return out, postgres.Unavailable(err)
}

// Exported is what an export holds.
type Exported struct {
	Entries int64 // of the month
	Month   *Month
}

// Export writes a month of a log as audit.ExportFormat. It refuses when an entry
// is missing or is not what was sealed: verify says more.
func (s *Snapshot) Export(ctx context.Context, m *Month, w io.Writer, progress func(done, of int64)) (*Exported, error) {
	tree := audit.OpenTree(m.Log.Size, tileReader(ctx, s.main(), m.Log.Epoch))
	left, err := subtrees(tree, 0, m.From)
	if err != nil {
		return nil, err
	}
	right, err := subtrees(tree, m.To, m.Size)
	if err != nil {
		return nil, err
	}
	e, err := audit.NewExport(w, audit.ExportHeader{
		Origin: m.Log.Origin, Epoch: m.Log.Epoch, Month: m.Name(), From: m.From, To: m.To, Size: m.Size, Checkpoint: m.Note, Left: left, Right: right,
	})
	if err != nil {
		return nil, err
	}
	out := &Exported{Month: m}
	for at := m.From; at < m.To; {
		n, err := s.exportBatch(ctx, m, e, at, out)
		if err != nil {
			return nil, err
		}
		at += n
		if progress != nil {
			progress(at-m.From, m.To-m.From)
		}
	}
	return out, e.Close()
}

// subtrees returns the hashes of the fewest whole subtrees of a run.
func subtrees(tree *audit.Tree, begin, end int64) (out [][]byte, err error) {
	var indexes []int64
	for _, n := range audit.Subtrees(begin, end) {
		indexes = append(indexes, tlog.StoredHashIndex(n.Level, n.N))
	}
	hashes, err := tree.ReadHashes(indexes)
	for _, h := range hashes {
		out = append(out, h[:])
	}
	return out, err
}

// exportBatch writes the places of one batch from an index on.
func (s *Snapshot) exportBatch(ctx context.Context, m *Month, e *audit.ExportWriter, at int64, out *Exported) (int64, error) {
	var first int64
	var ids []byte
	var lo, hi place
	lo.id = noID
	err := s.main().QueryRow(ctx, `
select b.first_index, b.ids, b.hi_epoch, b.hi_tx, b.hi_id, coalesce(p.hi_epoch, 0), coalesce(p.hi_tx, '0'), coalesce(p.hi_id, $3::uuid)
  from audit.batch b left join lateral (select * from audit.batch p where (p.epoch, p.batch) < (b.epoch, b.batch) order by p.epoch desc, p.batch desc limit 1) p on true
 where b.epoch = $1 and b.first_index <= $2 order by b.first_index desc limit 1`, m.Log.Epoch, at, noID).
		Scan(&first, &ids, &hi.epoch, &hi.tx, &hi.id, &lo.epoch, &lo.tx, &lo.id)
	if err != nil {
		return 0, postgres.Unavailable(err)
	}
	rows, err := s.rows(ctx, 0, lo, hi)
	if err != nil {
		return 0, err
	}
	byID := make(map[audit.UUID]*audit.Row, len(rows))
	for i := range rows {
		byID[rows[i].ID] = &rows[i]
	}
	end := min(m.To, first+int64(len(ids)/16))
	leaves, err := leavesOf(ctx, s.main(), m.Log.Epoch, at, int(end-at))
	if err != nil {
		return 0, err
	}
	for i := at; i < end; i++ {
		id := audit.UUID(ids[16*(i-first):])
		r := byID[id]
		switch {
		case r != nil && r.Hash != leaves[i-at]:
			return 0, fmt.Errorf("entry %d of epoch %d, %s, is not what was sealed: run `medirecord audit verify`", i, m.Log.Epoch, id)
		case r != nil && r.OccurredAt.Format("2006-01") == m.Name():
			out.Entries++
			err = e.Entry(i, leaves[i-at], r.Record)
		case r != nil:
			err = e.Neighbour(i, leaves[i-at], id, r.OccurredAt.Format("2006-01"))
		case time.UnixMilli(id.Milli()).UTC().Format("2006-01") != m.Name(): // of a month that was pruned
			err = e.Neighbour(i, leaves[i-at], id, time.UnixMilli(id.Milli()).UTC().Format("2006-01"))
		default:
			return 0, fmt.Errorf("%w: %s, entry %d of epoch %d: run `medirecord audit verify`", ErrMissing, id, i, m.Log.Epoch)
		}
		if err != nil {
			return 0, err
		}
	}
	return end - at, nil
}
