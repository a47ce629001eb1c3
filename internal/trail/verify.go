// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// VerifyOptions say by what a trail is verified.
type VerifyOptions struct {
	// Trust verifies the signatures of a checkpoint. With an error it returns a
	// head too when the log's own signature is good.
	Trust func(note string) (*audit.Head, error)
	// Outside is what is kept of a log outside the database; nil: nothing.
	Outside func(origin string) (*Outside, error)
	Tell    func(audit.Finding)
	// Now is the verifier's own clock, which nobody sets who has the database; nil: time.Now.
	Now func() time.Time
	// Progress is told how many places are done, and of how many; may be nil.
	Progress func(done, of int64)
}

// Outside is what a sink, a witness or a receipt keeps of a log, out of reach of
// whoever has the database.
type Outside struct {
	Heads []audit.Head // whose signatures are good
	// Leaves returns the leaf hashes of [from, from+n); zero where none is kept.
	// nil: none are.
	Leaves func(from int64, n int) []tlog.Hash
	Top    *audit.Head // the head that the leaves lead to
}

// Verified is what the verification of one epoch came to.
type Verified struct {
	Epoch    int32       `json:"epoch"`
	Origin   string      `json:"origin"`
	Size     int64       `json:"size"`               // places in the log
	Rows     int64       `json:"entries"`            // that were read and hashed
	Pruned   int64       `json:"pruned,omitempty"`   // dropped by the retention policy: proved by the tiles only
	Unsealed int64       `json:"unsealed,omitempty"` // written, and not sealed yet
	Head     *audit.Head `json:"-"`                  // the largest that proves the log, when there is one
	Newest   int64       `json:"-"`                  // when the last entry it covers was recorded, in milliseconds
}

// stretchSize is how many places are read at once.
const stretchSize = 8192

// check is the verification of one epoch.
type check struct {
	s   *Snapshot
	opt VerifyOptions
	log Log
	out *Verified

	heads   []audit.Head // all that are signed, from wherever
	anchor  *audit.Head  // the largest that is signed as it must be: from outside, if there is one
	outside *Outside
	kept    int64                    // how many of the leaves outside are proved to be the log's
	overlay map[int64][256]tlog.Hash // tiles that were made anew from their entries
	badTile map[int64]bool           // tiles that were told of
	pruned  func(int64) (audit.PatientKey, bool, bool)
	v       *audit.Verifier
	hi      place
	newest  int64
}

// Verify reads one epoch of the trail from its beginning to its end, hashes
// every entry anew, and tells of all that is not as it was sealed. It returns an
// error only when it cannot go on.
func (s *Snapshot) Verify(ctx context.Context, l Log, opt VerifyOptions) (*Verified, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	c := &check{s: s, opt: opt, log: l, out: &Verified{Epoch: l.Epoch, Origin: l.Origin, Size: l.Size}, badTile: map[int64]bool{}, overlay: map[int64][256]tlog.Hash{}}
	if err := c.collectHeads(ctx); err != nil {
		return nil, err
	}
	if err := c.measure(ctx); err != nil {
		return nil, err
	}
	if err := c.checkTiles(ctx); err != nil {
		return nil, err
	}
	if err := c.loadPruned(ctx); err != nil {
		return nil, err
	}
	if err := c.entries(ctx); err != nil {
		return nil, err
	}
	if err := c.mapTables(ctx); err != nil {
		return nil, err
	}
	c.v.Finish()
	c.behind()
	var err error
	if c.out.Unsealed, err = s.unsealed(ctx, c.hi); err != nil {
		return nil, err
	}
	if err := c.nowhere(ctx); err != nil {
		return nil, err
	}
	c.out.Rows, c.out.Pruned, c.out.Newest = c.v.Rows, c.v.Pruned, c.newest
	if c.out.Head == nil {
		c.tell(audit.Unproved, -1, "no checkpoint that is signed as the policy asks leads to this log")
	}
	return c.out, nil
}

func (c *check) tell(k audit.Kind, i int64, note string) {
	c.opt.Tell(audit.Finding{Kind: k, Epoch: c.log.Epoch, Index: i, Note: note})
}

// collectHeads verifies every signed head of the log, and chooses the one that
// says what is right: one that is kept outside before one that is not.
func (c *check) collectHeads(ctx context.Context) error {
	notes, err := c.s.notes(ctx, c.log.Epoch)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.size < 0 {
			c.tell(audit.BadHead, -1, "a checkpoint in the database is of no size")
			continue
		}
		c.hold(n, fmt.Sprintf("the checkpoint of %d entries", n.size), "the database")
	}
	if c.opt.Outside != nil {
		if c.outside, err = c.opt.Outside(c.log.Origin); err != nil {
			return err
		}
	}
	if c.outside != nil {
		c.heads = append(c.heads, c.outside.Heads...)
		c.anchor = largest(c.outside.Heads)
	}
	if err := c.ended(ctx); err != nil {
		return err
	}
	if c.anchor == nil {
		c.anchor = largest(c.heads)
	}
	return nil
}

// hold takes a signed head to hold the log against, or tells why it is none.
func (c *check) hold(n signedNote, what, from string) {
	head, err := c.opt.Trust(n.note)
	switch {
	case head == nil:
		c.tell(audit.BadHead, -1, fmt.Sprintf("%s: %v", what, err))
	case head.Origin != c.log.Origin || n.size >= 0 && head.Size != n.size:
		c.tell(audit.BadHead, -1, what+" is another log's, or of another size")
	case err != nil && n.cosigned:
		c.tell(audit.BadHead, -1, fmt.Sprintf("%s is said to be cosigned: %v", what, err))
	default:
		head.From = from
		c.heads = append(c.heads, *head)
	}
}

// largest returns the largest head that is signed by enough.
func largest(heads []audit.Head) (out *audit.Head) {
	for i := range heads {
		if heads[i].Enough && (out == nil || heads[i].Size > out.Size) {
			out = &heads[i]
		}
	}
	return out
}

// checkTiles finds out whose leaves lead to the anchor's root: those that are
// kept outside, or the database's own. Where a tile does not fit the one above
// it, its entries may.
func (c *check) checkTiles(ctx context.Context) error {
	if c.anchor == nil {
		return c.upperTiles(ctx, true)
	}
	if c.outside != nil && c.outside.Top != nil {
		if c.outside.Proved() {
			c.kept = c.outside.Top.Size
		} else {
			c.tell(audit.Unproved, -1, "the tiles that are kept outside do not lead to the checkpoint that is kept with them: they are left aside")
		}
	}
	ours := func(from int64, n int) ([]tlog.Hash, error) { return leavesOf(ctx, c.s.main(), c.log.Epoch, from, n) }
	good := c.kept > 0
	if !good && c.anchor.Size <= c.log.Size {
		root, err := rootOf(c.anchor.Size, ours)
		if err != nil {
			return err
		}
		good = root == c.anchor.Root
	}
	return c.upperTiles(ctx, good)
}

func rootOf(size int64, leaves func(int64, int) ([]tlog.Hash, error)) (tlog.Hash, error) {
	var r audit.Range
	for r.End < size {
		hs, err := leaves(r.End, int(min(stretchSize, size-r.End)))
		if err != nil || len(hs) == 0 {
			return tlog.Hash{}, err
		}
		r.Append(hs...)
	}
	return r.Root(), nil
}

// upperTiles holds each tile against the one above it. When the leaves are not
// known to be good, a tile that does not fit is made anew from its entries.
func (c *check) upperTiles(ctx context.Context, good bool) error {
	level := func(l int) (map[int64][]byte, error) {
		rows, err := c.s.main().Query(ctx, `select idx, data from audit.tile where epoch = $1 and level = $2 and idx is not null`, c.log.Epoch, l)
		if err != nil {
			return nil, postgres.Unavailable(err)
		}
		out := map[int64][]byte{}
		var idx int64
		var data []byte
		_, err = pgx.ForEachRow(rows, []any{&idx, &data}, func() error {
			out[idx] = append([]byte(nil), data...)
			return nil
		})
		return out, postgres.Unavailable(err)
	}
	// Level 1 against the leaves, which are read as a stream.
	above, err := level(1)
	if err != nil {
		return err
	}
	full := c.log.Size >> audit.TileHeight
	for at := int64(0); at < full; {
		n := min(64, full-at)
		leaves, err := leavesOf(ctx, c.s.main(), c.log.Epoch, at<<audit.TileHeight, int(n)<<audit.TileHeight)
		if err != nil {
			return err
		}
		for i := range n {
			var r audit.Range
			r.Append(leaves[i<<audit.TileHeight:][:256]...)
			tile := at + i
			want, ok := entryOf(above, tile)
			switch {
			case ok && want == r.Hashes[0]:
			case ok && c.keptTile(tile, want): // the leaves are wrong, which is told where they are read
			case good && c.kept == 0 || !c.repair(ctx, tile, want, ok):
				c.tell(audit.BadTile, -1, fmt.Sprintf("%s and the tile above it do not fit", audit.TileID{N: tile}.Path(256)))
			}
		}
		at += n
	}
	if !good && c.log.Size&255 != 0 {
		c.repair(ctx, full, tlog.Hash{}, false)
	}
	for l := 2; len(above) > 0; l++ {
		next, err := level(l)
		if err != nil {
			return err
		}
		width := c.log.Size >> (audit.TileHeight * l)
		for i := range width {
			var r audit.Range
			for j := range int64(256) {
				h, _ := entryOf(above, i<<audit.TileHeight+j)
				r.Append(h)
			}
			if h, ok := entryOf(next, i); !ok || h != r.Hashes[0] {
				c.tell(audit.BadTile, -1, fmt.Sprintf("%s and the tile above it do not fit", audit.TileID{L: l - 1, N: i}.Path(256)))
			}
		}
		above = next
	}
	return nil
}

// keptTile reports whether what is kept outside of a tile fits what is above it.
func (c *check) keptTile(tile int64, want tlog.Hash) bool {
	if (tile+1)<<audit.TileHeight > c.kept {
		return false
	}
	var r audit.Range
	r.Append(c.outside.Leaves(tile<<audit.TileHeight, 256)...)
	return r.Hashes[0] == want
}

// entryOf returns hash n of a level.
func entryOf(tiles map[int64][]byte, n int64) (h tlog.Hash, ok bool) {
	data, at := tiles[n>>audit.TileHeight], int(n&255)*tlog.HashSize
	if len(data) < at+tlog.HashSize {
		return h, false
	}
	return tlog.Hash(data[at:]), true
}

// maxRepairs is how many tiles are made anew from their entries.
const maxRepairs = 1000

// repair makes a tile anew from the entries that stand in its places, and keeps
// it when it then fits what is above it. The rightmost tile has nothing above
// it: the root decides.
func (c *check) repair(ctx context.Context, tile int64, want tlog.Hash, known bool) bool {
	if len(c.overlay) >= maxRepairs {
		return false
	}
	leaves, err := c.fromEntries(ctx, tile<<audit.TileHeight, int(min(256, c.log.Size-tile<<audit.TileHeight)))
	if err != nil {
		return false
	}
	var r audit.Range
	r.Append(leaves...)
	if known && (len(leaves) != 256 || r.Hashes[0] != want) {
		return false
	}
	var all [256]tlog.Hash
	copy(all[:], leaves)
	if !known { // by the root, or not at all
		if c.anchor == nil || c.anchor.Size > c.log.Size {
			return false
		}
		c.overlay[tile] = all
		root, err := rootOf(c.anchor.Size, func(from int64, n int) ([]tlog.Hash, error) { return c.ours(ctx, c.s.main(), from, n) })
		if err != nil || root != c.anchor.Root {
			delete(c.overlay, tile)
			return false
		}
	}
	c.overlay[tile] = all
	return true
}

// fromEntries hashes the entries that stand in these places.
func (c *check) fromEntries(ctx context.Context, from int64, n int) ([]tlog.Hash, error) {
	rows, err := c.s.main().Query(ctx, `
select b.first_index, b.ids from audit.batch b where b.epoch = $1 and b.first_index < $3 and b.first_index > $2 - b.n and `+wellFormed+` order by b.first_index`, c.log.Epoch, from, from+int64(n))
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	places := map[audit.UUID]int64{}
	var list []string
	var first int64
	var ids []byte
	_, err = pgx.ForEachRow(rows, []any{&first, &ids}, func() error {
		for i := int64(0); i < int64(len(ids)/16); i++ {
			if at := first + i - from; at >= 0 && at < int64(n) {
				id := audit.UUID(ids[16*i:])
				places[id] = at
				list = append(list, id.String())
			}
		}
		return nil
	})
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	found, err := c.s.query(ctx, 0, `select `+recordColumns+` from audit.event e where e.event_id = any($1::uuid[])`, list)
	if err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, n)
	for _, r := range found {
		out[places[r.ID]] = r.Hash
	}
	return out, nil
}

// ours returns the leaves as the database has them, or as they were made anew.
func (c *check) ours(ctx context.Context, conn *pgx.Conn, from int64, n int) ([]tlog.Hash, error) {
	out, err := leavesOf(ctx, conn, c.log.Epoch, from, n)
	if err != nil {
		return nil, err
	}
	return c.mended(from, out), nil
}

// mended puts in the leaves that were made anew.
func (c *check) mended(from int64, out []tlog.Hash) []tlog.Hash {
	for i := range out {
		if len(c.overlay) == 0 {
			break
		}
		if tile, ok := c.overlay[(from+int64(i))>>audit.TileHeight]; ok {
			out[i] = tile[(from+int64(i))&255]
		}
	}
	return out
}

// entries reads the log from left to right.
func (c *check) entries(ctx context.Context) error {
	c.v = &audit.Verifier{Epoch: c.log.Epoch, Tell: c.opt.Tell, Tree: &audit.Range{}, Map: audit.NewMapCheck(), Listed: true}
	for i := range c.heads {
		h := c.heads[i]
		if h.Size > c.log.Size {
			continue
		}
		c.v.Want(audit.Want{
			Size: h.Size, Root: h.Root, Patients: h.Patients, Kind: audit.BadHead, What: fmt.Sprintf("the checkpoint of %d entries in %s", h.Size, h.From),
			Good: func() { c.proved(h) },
		})
	}
	after, err := c.s.last(ctx, c.log.Epoch)
	if err != nil {
		return err
	}
	c.hi = after
	g := &stretches{c: c, last: -1, at: after}
	return audit.InOrder(c.s.workers(), func() ([]sealedBatch, bool, error) { return g.next(ctx) },
		func(worker int, bs []sealedBatch) (*stretch, error) { return c.read(ctx, worker, bs) }, c.take)
}

func (c *check) proved(h audit.Head) {
	if h.Enough && (c.out.Head == nil || h.Size > c.out.Head.Size || h.Size == c.out.Head.Size && h.At.After(c.out.Head.At)) {
		c.out.Head = &h
		c.out.Newest = c.newest
	}
}

// stretches makes runs of batches that follow each other, and tells when they
// do not.
type stretches struct {
	c     *check
	last  int64 // number of the last batch
	index int64 // place that comes next
	at    place
	queue []sealedBatch
	done  bool
}

func (g *stretches) next(ctx context.Context) (out []sealedBatch, _ bool, err error) {
	for size := int64(0); size < stretchSize; {
		if len(g.queue) == 0 {
			if g.done {
				break
			}
			if g.queue, err = g.c.s.batches(ctx, g.c.log.Epoch, g.last, g.c.log.Size, 64); err != nil {
				return nil, false, err
			}
			if len(g.queue) == 0 {
				g.done = true
				break
			}
		}
		b := g.queue[0]
		if b.first > g.index && len(out) == 0 { // some are gone
			hole := sealedBatch{number: b.number, first: g.index, n: b.first - g.index, lost: true, lo: g.at, hi: g.at}
			g.c.tell(audit.BadBatch, g.index, fmt.Sprintf("the batches of entries %d to %d are not there", g.index, b.first-1))
			// Its entries reach to wherever the next batch begins; that is not written down.
			if len(b.ids) > 0 {
				if hole.hi, err = g.before(ctx, b); err != nil {
					return nil, false, err
				}
			}
			g.index, g.at = b.first, hole.hi
			return []sealedBatch{hole}, true, nil
		}
		if b.first > g.index {
			break
		}
		if b.first < g.index {
			g.c.tell(audit.BadBatch, b.first, fmt.Sprintf("%s begins where another has been", &b))
			b.ids = b.ids[min(int64(len(b.ids)), g.index-b.first):]
			b.first = g.index
		}
		if n := len(b.ids); n == 0 || b.ids[n-1].String() != b.hi.id || b.hi.before(g.at) {
			g.c.tell(audit.BadBatch, b.end()-1, fmt.Sprintf("%s does not end with the entry that it says it ends with", &b))
		}
		g.queue = g.queue[1:]
		b.lo = g.at
		if g.at.before(b.hi) {
			g.at = b.hi
		}
		g.last, g.index = b.number, b.end()
		size += int64(len(b.ids))
		out = append(out, b)
	}
	return out, len(out) > 0, nil
}

// before returns the place of the entry that comes right before a batch's first.
func (g *stretches) before(ctx context.Context, b sealedBatch) (p place, err error) {
	err = g.c.s.main().QueryRow(ctx, `
select e.epoch, e.tx, e.event_id from audit.event e,
       (select f.epoch, f.tx, f.event_id from audit.event f where f.event_id = $1::uuid limit 1) f
 where (e.epoch, e.tx, e.event_id) < (f.epoch, f.tx, f.event_id) order by e.epoch desc, e.tx desc, e.event_id desc limit 1`, b.ids[0].String()).
		Scan(&p.epoch, &p.tx, &p.id)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && p.before(g.at) {
		return g.at, nil
	}
	return p, postgres.Unavailable(err)
}

// stretch is what came of a run of batches.
type stretch struct {
	wants   []audit.Want
	matched *audit.Matched
	finds   []audit.Finding
	end     int64
	hi      place
	newest  int64
}

// read reads the entries of a run of batches and puts them into their places.
func (c *check) read(ctx context.Context, worker int, bs []sealedBatch) (*stretch, error) {
	first, lo, hi := bs[0].first, bs[0].lo, bs[0].lo
	st := &audit.Stretch{First: first, Lo: lo.tx, Pruned: c.pruned}
	out := &stretch{end: bs[len(bs)-1].end()}
	for i := range bs {
		b := &bs[i]
		if hi.before(b.hi) {
			hi = b.hi
		}
		st.Names = append(st.Names, b.ids...)
		if !b.lost {
			out.wants = append(out.wants, audit.Want{Size: b.end(), Root: b.root, Patients: b.mapRoot, Kind: audit.BadBatch, What: b.String()})
		}
	}
	n := int(out.end - first)
	st.Hi, out.hi = hi.tx, hi
	var err error
	if st.Rows, err = c.s.rows(ctx, worker, lo, hi); err != nil {
		return nil, err
	}
	if len(st.Names) != n { // the list is lost
		st.Names = nil
	}
	stored, err := leavesOf(ctx, c.s.conns[worker+1], c.log.Epoch, first, n)
	if err != nil {
		return nil, err
	}
	st.Leaves = c.mended(first, slices.Clone(stored))
	if first < c.kept {
		for i, h := range c.outside.Leaves(first, int(min(int64(n), c.kept-first))) {
			st.Leaves[i] = h
		}
	}
	for i := range stored {
		if stored[i] != st.Leaves[i] {
			note := "the tile holds another hash than was sealed"
			if stored[i] == (tlog.Hash{}) {
				note = "the tile is not there, or cut short"
			}
			out.finds = append(out.finds, audit.Finding{Kind: audit.BadTile, Epoch: c.log.Epoch, Index: first + int64(i), Note: note})
		}
	}
	for i := range st.Rows {
		out.newest = max(out.newest, st.Rows[i].RecordedAt.UnixMilli())
	}
	out.finds = append(out.finds, c.bounds(st, bs)...)
	out.matched = st.Match()
	return out, nil
}

// bounds holds where a batch says that it ends against its last entry, when
// that is as it was sealed.
func (c *check) bounds(st *audit.Stretch, bs []sealedBatch) (out []audit.Finding) {
	ends := map[audit.UUID]*sealedBatch{}
	for i := range bs {
		if b := &bs[i]; len(b.ids) > 0 {
			ends[b.ids[len(b.ids)-1]] = b
		}
	}
	for i := range st.Rows {
		r := &st.Rows[i]
		b := ends[r.ID]
		if b == nil || r.Hash != st.Leaves[b.end()-1-st.First] || r.Epoch == b.hi.epoch && r.TX == b.hi.tx {
			continue
		}
		out = append(out, audit.Finding{Kind: audit.BadBatch, Epoch: c.log.Epoch, Index: b.end() - 1, Note: fmt.Sprintf("%s does not end in the transaction of its last entry", b)})
	}
	return out
}

// take goes on with a run.
func (c *check) take(st *stretch) error {
	for _, f := range st.finds {
		if f.Kind != audit.BadTile {
			c.opt.Tell(f)
			continue
		}
		// One finding a tile will do.
		if tile := f.Index >> audit.TileHeight; !c.badTile[tile] {
			c.badTile[tile] = true
			c.opt.Tell(f)
		}
	}
	c.newest = max(c.newest, st.newest)
	c.v.Want(st.wants...)
	c.v.Add(st.matched)
	if c.hi.before(st.hi) {
		c.hi = st.hi
	}
	if c.opt.Progress != nil {
		c.opt.Progress(st.end, c.log.Size)
	}
	return nil
}

// nowhere tells of entries that stand where the log never comes by: of an epoch
// that is none, or of a transaction that has not begun. Who reads the trail by
// time sees them all the same. They are told of with the first log.
func (c *check) nowhere(ctx context.Context) error {
	// No index finds those of no place at all, and there are none as long as
	// their columns cannot be null.
	var lifted bool
	if err := c.s.main().QueryRow(ctx, `
select exists (select from pg_attribute a join pg_class t on t.oid = a.attrelid join pg_namespace n on n.oid = t.relnamespace
  where t.relkind in ('r', 'p') and (n.nspname = 'audit' and t.relname = 'event' or n.nspname = 'audit_part') and a.attname in ('epoch', 'tx', 'event_id') and not a.attnotnull)`).Scan(&lifted); err != nil {
		return postgres.Unavailable(err)
	}
	nulls := ""
	if lifted {
		nulls = ` or e.epoch is null or e.tx is null or e.event_id is null`
	}
	rows, err := c.s.main().Query(ctx, `
select coalesce(e.event_id::text, '') from audit.event e where $1 = (select min(p.epoch) from audit.epoch p) and (
  (e.epoch, e.tx, e.event_id) <= (0, '0'::xid8, $2::uuid) or e.epoch > (select max(p.epoch) from audit.epoch p)
  or e.epoch = (select max(p.epoch) from audit.epoch p) and e.tx >= pg_snapshot_xmax(pg_current_snapshot())`+nulls+`)
 order by e.epoch, e.tx, e.event_id limit $3`, c.log.Epoch, noID, maxNowhere)
	if err != nil {
		return postgres.Unavailable(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, id := range ids {
		c.opt.Tell(audit.Finding{Kind: audit.Added, Epoch: c.log.Epoch, Index: -1, ID: id, Note: "it stands where nothing is ever sealed: of an epoch or a transaction that is none"})
	}
	return postgres.Unavailable(err)
}

// maxNowhere is how many of them are named.
const maxNowhere = 1000

// behind tells what a head knows of that the database does not have any more.
func (c *check) behind() {
	top := largest(c.heads)
	for i := range c.heads {
		if h := &c.heads[i]; top == nil || h.Size > top.Size {
			top = h
		}
	}
	if top == nil || top.Size <= c.log.Size {
		return
	}
	c.tell(audit.RolledBack, -1, fmt.Sprintf("%s knows of %d entries, and the database holds %d: it was put back to an older state, or cut off", top.From, top.Size, c.log.Size))
	const each = 1000
	for i := c.log.Size; i < top.Size; i++ {
		if i-c.log.Size == each {
			c.opt.Tell(audit.Finding{Kind: audit.Missing, Epoch: c.log.Epoch, Index: i, Last: top.Size - 1, Note: "it was sealed, and the log ends before it"})
			return
		}
		c.tell(audit.Missing, i, "it was sealed, and the log ends before it")
	}
}

// mapTables holds the tables of the patient map against the entries.
func (c *check) mapTables(ctx context.Context) error {
	if !c.v.Map.Whole() || c.v.Tree.End != c.log.Size {
		return nil
	}
	rows, err := c.s.main().Query(ctx, `select coalesce(bucket, -1), key, coalesce(n, -1), head from audit.patient_head where epoch = $1 order by bucket, key`, c.log.Epoch)
	if err != nil {
		return postgres.Unavailable(err)
	}
	bucket, seen := 0, 0
	var key, chain []byte
	var n int64
	count := map[int]int{}
	_, err = pgx.ForEachRow(rows, []any{&bucket, &key, &n, &chain}, func() error {
		seen++
		var heads []audit.PatientHead
		if bucket >= 0 && bucket < audit.MapBuckets {
			heads = c.v.Map.Bucket(bucket)
		}
		i := slices.IndexFunc(heads, func(h audit.PatientHead) bool { return string(h.Key[:]) == string(key) })
		count[bucket]++
		if i < 0 || heads[i].Count != n || string(heads[i].Head[:]) != string(chain) {
			c.tell(audit.BadMap, -1, fmt.Sprintf("the map's head of the patient with key %x is not the one that their entries make", key))
			if i < 0 {
				count[bucket]--
			}
		}
		return nil
	})
	if err != nil {
		return postgres.Unavailable(err)
	}
	top, err := loadMap(ctx, c.s.main(), c.log.Epoch)
	if err != nil {
		return err
	}
	told := -1
	for b := range audit.MapBuckets {
		if heads := c.v.Map.Bucket(b); len(heads) != count[b] {
			c.tell(audit.BadMap, -1, fmt.Sprintf("bucket %d of the map holds %d patients, and the entries are about %d", b, count[b], len(heads)))
		}
		if slice := b / audit.MapSlice; told != slice && top.Slice(slice)[b%audit.MapSlice] != c.v.Map.BucketRoot(b) {
			told = slice
			c.tell(audit.BadMap, -1, fmt.Sprintf("slice %d of the map is not the one that its patients make", told))
		}
	}
	return nil
}
