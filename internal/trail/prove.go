// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Head is a signed head of the log.
type Head struct {
	Epoch    int32
	Origin   string
	Size     int64
	Note     string // the checkpoint, with the witnesses' cosignatures when they are in
	SignedAt time.Time
	Cosigned *time.Time // when the quorum was in; nil before
}

// ErrUnsealed says that an entry, or the newest of a patient's, is not under a
// signed head yet: it will be within seconds.
var ErrUnsealed = errors.New("not sealed yet")

// NewestHead returns the newest head that has its quorum, or the newest signed
// when none has. It reports ErrUnsealed before the first.
func NewestHead(ctx context.Context, tx pgx.Tx) (*Head, error) {
	return head1(tx.QueryRow(ctx, `
select c.epoch, p.origin, c.size, c.note, c.signed_at, c.cosigned_at from audit.checkpoint c join audit.epoch p using (epoch)
 order by c.epoch desc, c.cosigned_at is null, c.size desc limit 1`))
}

func head1(row pgx.Row) (*Head, error) {
	var h Head
	err := row.Scan(&h.Epoch, &h.Origin, &h.Size, &h.Note, &h.SignedAt, &h.Cosigned)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnsealed
	}
	return &h, postgres.Unavailable(err)
}

// Inclusion is the proof that an entry is in the log.
type Inclusion struct {
	Head  *Head
	Index int64
	Text  string // C2SP tlog-proof
}

// Prove proves that the entry at this place is under a signed head, with the
// witnesses' quorum where one is. It reports ErrUnsealed when it is not yet.
func Prove(ctx context.Context, tx pgx.Tx, epoch int32, xid uint64, id med.EventID) (*Inclusion, error) {
	var in int32 // an entry left over from an epoch is sealed in the next
	var first int64
	var ids []byte
	err := tx.QueryRow(ctx, `
select epoch, first_index, ids from audit.batch where (hi_epoch, hi_tx, hi_id) >= ($1, $2::xid8, $3::uuid)
 order by hi_epoch, hi_tx, hi_id limit 1`, epoch, strconv.FormatUint(xid, 10), string(id)).Scan(&in, &first, &ids)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnsealed
	}
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	raw, err := appendID(nil, string(id))
	if err != nil {
		return nil, err
	}
	at := -1
	for i := 0; i+16 <= len(ids); i += 16 {
		if bytes.Equal(ids[i:i+16], raw) {
			at = i / 16
		}
	}
	if at < 0 {
		return nil, errors.New("the entry lies within the sealed log and is not in it: run `medirecord audit verify`")
	}
	index := first + int64(at)
	h, err := head1(tx.QueryRow(ctx, `
select c.epoch, p.origin, c.size, c.note, c.signed_at, c.cosigned_at from audit.checkpoint c join audit.epoch p using (epoch)
 where c.epoch = $1 and c.size > $2 order by c.cosigned_at is null, c.size desc limit 1`, in, index))
	if err != nil {
		return nil, err
	}
	hashes, err := audit.OpenTree(h.Size, tileReader(ctx, tx, in)).Inclusion(index, h.Size)
	if err != nil {
		return nil, err
	}
	return &Inclusion{h, index, audit.FormatProof(index, hashes, h.Note)}, nil
}

// Tile returns up to w hashes of a tile, and nil when there are not so many.
func Tile(ctx context.Context, db queryer, epoch int32, id audit.TileID, w int) ([]byte, error) {
	var data []byte
	err := db.QueryRow(ctx, `select data from audit.tile where epoch = $1 and level = $2 and idx = $3`, epoch, id.L, id.N).Scan(&data)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && len(data) < w*tlog.HashSize {
		return nil, nil
	}
	return data[:min(len(data), w*tlog.HashSize)], postgres.Unavailable(err)
}

// Whole is the proof that a list of a patient's entries leaves nothing out: the
// leaf hashes of all of them, whose chain ends in the head that the patient map
// holds, whose root is in the signed head.
type Whole struct {
	Head    *Head
	Patient string
	Entries []Leaf // in the order of the log
	Map     *audit.MapProof
}

// Leaf is an entry's id and leaf hash.
type Leaf struct {
	ID   med.EventID
	Hash tlog.Hash
}

// ProveWhole makes that proof for the patient whom the transaction's context is
// about, in the newest epoch. It reports ErrUnsealed while the newest batch has
// no signed head, which lasts milliseconds.
func ProveWhole(ctx context.Context, tx pgx.Tx, patient med.PatientID) (*Whole, error) {
	w := &Whole{Patient: string(patient)}
	key := audit.KeyOf(w.Patient)
	var lo, hi place
	var loTX, hiTX string
	var keys, chains, roots [][]byte
	var counts []int64
	var numbers []int
	h := &Head{}
	// One statement, one snapshot: the map, the head over it, and how far both go.
	err := tx.QueryRow(ctx, `
with last as (
  select * from audit.batch order by epoch desc, batch desc limit 1
), before as (
  select b.hi_epoch, b.hi_tx, b.hi_id from audit.batch b, last where b.epoch < last.epoch order by b.epoch desc, b.batch desc limit 1
)
select c.epoch, p.origin, c.size, c.note, c.signed_at, c.cosigned_at, last.hi_epoch, last.hi_tx::text, last.hi_id,
       coalesce((select hi_epoch from before), 0), coalesce((select hi_tx::text from before), '0'), coalesce((select hi_id from before), '00000000-0000-0000-0000-000000000000'),
       array(select key from audit.patient_bucket(last.epoch) order by key), array(select n from audit.patient_bucket(last.epoch) order by key),
       array(select head from audit.patient_bucket(last.epoch) order by key),
       array(select slice from audit.map_slice m where m.epoch = last.epoch order by slice), array(select roots from audit.map_slice m where m.epoch = last.epoch order by slice)
  from last join audit.checkpoint c on c.epoch = last.epoch and c.size = last.first_index + last.n join audit.epoch p on p.epoch = last.epoch`).
		Scan(&h.Epoch, &h.Origin, &h.Size, &h.Note, &h.SignedAt, &h.Cosigned, &hi.epoch, &hiTX, &hi.id, &lo.epoch, &loTX, &lo.id,
			&keys, &counts, &chains, &numbers, &roots)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnsealed
	}
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	w.Head = h
	slices := make(map[int][]tlog.Hash, len(numbers))
	for i, n := range numbers {
		slices[n] = hashesOf(roots[i])
	}
	top := audit.NewMapTop()
	top.SetSlices(slices)
	bucket := make([]audit.PatientHead, len(keys))
	for i := range keys {
		bucket[i] = audit.PatientHead{Key: audit.PatientKey(keys[i]), Count: counts[i], Head: tlog.Hash(chains[i])}
	}
	w.Map = top.Prove(key, bucket)
	leaves, err := tx.Query(ctx, `select event_id, leaf from audit.patient_leaves($1, $2::xid8, $3::uuid, $4, $5::xid8, $6::uuid)`,
		lo.epoch, loTX, lo.id, hi.epoch, hiTX, hi.id)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	w.Entries, err = pgx.CollectRows(leaves, scanLeaf)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	w.Entries, err = withPruned(ctx, tx, h.Epoch, w.Entries)
	return w, err
}

func scanLeaf(row pgx.CollectableRow) (l Leaf, err error) {
	var b []byte
	if err = row.Scan(&l.ID, &b); err == nil {
		l.Hash = tlog.Hash(b)
	}
	return l, err
}

// withPruned puts the leaves of the patient's entries that the retention policy
// dropped in their places: their hashes are in the tiles, their ids in the
// batches.
func withPruned(ctx context.Context, tx pgx.Tx, epoch int32, present []Leaf) ([]Leaf, error) {
	var gone []int64
	if err := tx.QueryRow(ctx, `select array(select * from audit.pruned_of_patient($1))`, epoch).Scan(&gone); err != nil {
		return nil, postgres.Unavailable(err)
	}
	if len(gone) == 0 {
		return present, nil
	}
	rows, err := tx.Query(ctx, `
select encode(substr(b.ids, 16 * (i - b.first_index)::integer + 1, 16), 'hex')::uuid, substr(t.data, 32 * (i & 255)::integer + 1, 32)
  from unnest($2::bigint[]) with ordinality as g (i, n)
  cross join lateral (select first_index, ids from audit.batch where epoch = $1 and first_index <= i order by first_index desc limit 1) b
  join audit.tile t on t.epoch = $1 and t.level = 0 and t.idx = i >> 8
 order by g.n`, epoch, gone)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	pruned, err := pgx.CollectRows(rows, scanLeaf)
	if err != nil || len(pruned) != len(gone) {
		return nil, errors.Join(postgres.Unavailable(err), errors.New("places of pruned entries are not in the log"))
	}
	out := make([]Leaf, 0, len(pruned)+len(present))
	for _, leaf := range present {
		// Entries around midnight stand between those of the month that went.
		if len(pruned) > 0 {
			at, err := indexOf(ctx, tx, epoch, leaf.ID)
			if err != nil {
				return nil, err
			}
			for len(pruned) > 0 && gone[0] < at {
				out, pruned, gone = append(out, pruned[0]), pruned[1:], gone[1:]
			}
		}
		out = append(out, leaf)
	}
	return append(out, pruned...), nil
}

// indexOf returns the place of an entry that is in the log.
func indexOf(ctx context.Context, tx pgx.Tx, epoch int32, id med.EventID) (at int64, err error) {
	err = tx.QueryRow(ctx, `
select b.first_index + p.i from audit.batch b
 cross join lateral (select i from generate_series(0, b.n - 1) i where substr(b.ids, 16 * i + 1, 16) = uuid_send($2::uuid)) p
 where b.epoch = $1 order by 1 limit 1`, epoch, string(id)).Scan(&at)
	return at, postgres.Unavailable(err)
}
