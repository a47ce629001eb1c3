// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// SealerConfig says how to reach the trail, and by what the log is known
// outside.
type SealerConfig struct {
	URL       string        // as medirecord_sealer
	Origin    string        // name of the log without the epoch
	Signers   []note.Signer // of any epoch; those named <origin>/<epoch> sign
	State     string        // file of the last head that was signed
	Witnesses Witnesses     // nil: none
	Sinks     []Sink
	SinkEvery time.Duration // 0: with every cosigned checkpoint
	Every     time.Duration // how often to look for new entries; 0 means 500 ms
	Batch     int           // entries sealed together; 0 means 65536
	Log       *slog.Logger
	Now       func() time.Time

	// fault is called before and after each step, in tests: an error there is a
	// crash there.
	fault func(step string) error
}

// Witnesses cosign a checkpoint when it continues what they cosigned before.
type Witnesses interface {
	// Cosign returns the checkpoint with the cosignatures of at least a quorum.
	// prove proves that the log at size continues the one at old.
	Cosign(ctx context.Context, checkpoint []byte, prove func(old, size int64) ([]tlog.Hash, error)) ([]byte, error)
}

// Sealer seals the trail into a log: it orders the entries that are committed
// for good, hashes them into a Merkle tree, and signs its head. Every replica
// runs one; the one that holds the database's advisory lock does the work. It
// signs nothing that contradicts what it signed before, whatever the database
// says.
type Sealer struct {
	cfg  SealerConfig
	pool *pgxpool.Pool

	head  atomic.Pointer[head] // the newest signed, for publishing
	fresh chan struct{}        // capacity 1: there is a newer one
	stats sealStats
}

// head is a signed head.
type head struct {
	epoch int32
	size  int64
	note  string
}

// SealStats are what metrics tell of the sealer. Times are zero until they are.
type SealStats struct {
	Leader                       bool
	Epoch                        int32
	Size                         int64 // entries sealed, by this leader's knowledge
	Batches, Failures            uint64
	SealedAt, SignedAt           time.Time
	CosignedAt, SunkAt           time.Time
	SignedSize, CosignedSize     int64
	CosignFailures, SinkFailures uint64
	Contradiction                bool // it refuses to go on: somebody rewrote history
}

type sealStats struct {
	mu sync.Mutex
	SealStats
}

func (s *sealStats) set(f func(*SealStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.SealStats)
}

// Stats returns what the sealer has done.
func (s *Sealer) Stats() SealStats {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return s.stats.SealStats
}

// Errors after which sealing stops until a person has looked.
var (
	// ErrContradiction says that the database's log is not a continuation of what
	// was signed: it was rewritten, or put back to an older state.
	ErrContradiction = errors.New("the trail contradicts a head that was signed: history was rewritten, or the database is an old backup; compare it with `medirecord audit verify`, and after a restore begin a new epoch with `medirecord audit epoch`")
	// ErrEpoch says that the database is in another cluster than the one whose
	// transaction ids order the log.
	ErrEpoch = errors.New("the database was restored into another cluster, where transaction ids begin anew: begin a new epoch of the log with `medirecord audit epoch`")
	// ErrOrigin says that the configuration names another log.
	ErrOrigin = errors.New("the database's log has another name than MEDIRECORD_TRAIL_ORIGIN")
	// ErrNoSigner says that no key is named like the log.
	ErrNoSigner = errors.New("no key in MEDIRECORD_TRAIL_KEY_FILE is named like the log and its epoch: make one with `medirecord audit key`")
)

// sealLock is the advisory lock of the leader.
const sealLock = 7237487

// OpenSealer connects as the sealer. Run does the work.
func OpenSealer(ctx context.Context, cfg SealerConfig) (*Sealer, error) {
	cfg.Every = or(cfg.Every, 500*time.Millisecond)
	cfg.Batch = or(cfg.Batch, 65536)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.fault == nil {
		cfg.fault = func(string) error { return nil }
	}
	if cfg.Origin == "" || len(cfg.Signers) == 0 || cfg.State == "" {
		return nil, errors.New("sealing needs the log's name, its signing keys, and a file for the last head that was signed")
	}
	pool, err := postgres.OpenPool(ctx, cfg.URL, 3)
	if err != nil {
		return nil, err
	}
	return &Sealer{cfg: cfg, pool: pool, fresh: make(chan struct{}, 1)}, nil
}

// Close closes the connections.
func (s *Sealer) Close() { s.pool.Close() }

// Pool is for checks of the sealer's role.
func (s *Sealer) Pool() *pgxpool.Pool { return s.pool }

// Run seals, signs and publishes until the context ends. What fails is logged
// and tried again; nothing it does twice does harm.
func (s *Sealer) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { s.publish(ctx) })
	for ctx.Err() == nil {
		err := s.lead(ctx)
		s.stats.set(func(st *SealStats) { st.Leader = false })
		pause := time.Second
		if err != nil && !errors.Is(err, errNotLeader) && ctx.Err() == nil {
			grave := errors.Is(err, ErrContradiction)
			s.stats.set(func(st *SealStats) { st.Failures++; st.Contradiction = grave })
			if grave {
				s.cfg.Log.ErrorContext(ctx, "ALERT the trail contradicts what was signed", slog.Any("error", err))
				pause = 30 * time.Second
			} else {
				s.cfg.Log.ErrorContext(ctx, "trail not sealed", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

var errNotLeader = errors.New("another replica seals")

// lead does the work of the leader on one connection, which holds the lock: who
// loses the connection has lost the lead, and can commit nothing more.
func (s *Sealer) lead(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return postgres.Unavailable(err)
	}
	defer func() { // not back into the pool: it may hold the lock
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Conn().Close(end)
		conn.Release()
	}()
	ours, err := postgres.LeadBy(ctx, conn.Conn(), sealLock)
	if err != nil {
		return err
	}
	if !ours {
		return errNotLeader
	}
	// The next entries are the head of an index, however many wait behind them; a
	// planner that sorts instead reads all of them for each batch.
	if _, err := conn.Exec(ctx, `set enable_sort = off; set enable_bitmapscan = off; set enable_seqscan = off`); err != nil {
		return postgres.Unavailable(err)
	}
	l, err := s.load(ctx, conn.Conn())
	if err != nil {
		return err
	}
	s.stats.set(func(st *SealStats) {
		st.Leader, st.Contradiction, st.Epoch, st.Size = true, false, l.epoch, l.tree.Size()
	})
	if err := l.sign(ctx); err != nil { // what was sealed before a crash
		return err
	}
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		n, err := l.seal(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := l.sign(ctx); err != nil {
				return err
			}
		}
		if n == s.cfg.Batch {
			continue // there is more
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// place is where an entry stands in the order of the log.
type place struct {
	epoch int32
	tx    uint64
	id    string
}

// ledger is the log in the hands of the leader: the right edge of the tree and
// the top of the patient map. After an error it is dropped and loaded again.
type ledger struct {
	s       *Sealer
	conn    *pgx.Conn
	epoch   int32
	origin  string
	signers []note.Signer
	batch   int64 // number of the next
	hi      place // of the last sealed entry
	tree    *audit.Tree
	top     *audit.MapTop
	signed  int64 // size of the last signed head
}

// load reads the log from the database and holds it against what was signed.
func (s *Sealer) load(ctx context.Context, conn *pgx.Conn) (*ledger, error) {
	l := &ledger{s: s, conn: conn}
	if err := l.loadEpoch(ctx); err != nil {
		return nil, err
	}
	var size int64
	var root, mapRoot []byte
	err := conn.QueryRow(ctx, `
select batch + 1, first_index + n, hi_epoch, hi_tx, hi_id, root, map_root from audit.batch where epoch = $1 order by batch desc limit 1`, l.epoch).
		Scan(&l.batch, &size, &l.hi.epoch, &l.hi.tx, &l.hi.id, &root, &mapRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		l.hi.id = "00000000-0000-0000-0000-000000000000"
		err = conn.QueryRow(ctx, `select hi_epoch, hi_tx, hi_id from audit.batch where epoch < $1 order by epoch desc, batch desc limit 1`, l.epoch).
			Scan(&l.hi.epoch, &l.hi.tx, &l.hi.id)
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
	}
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	l.tree = audit.OpenTree(size, tileReader(ctx, conn, l.epoch))
	if l.top, err = loadMap(ctx, conn, l.epoch); err != nil {
		return nil, err
	}
	if size > 0 {
		got, err := l.tree.Root(size)
		if err != nil || !bytes.Equal(got[:], root) {
			return nil, fmt.Errorf("%w: the tiles do not give the root of the last batch", ErrContradiction)
		}
		if got := l.top.Root(); !bytes.Equal(got[:], mapRoot) {
			return nil, fmt.Errorf("%w: the patient map does not give the root of the last batch", ErrContradiction)
		}
	}
	return l, l.recall(ctx)
}

func (l *ledger) loadEpoch(ctx context.Context) error {
	cfg := l.s.cfg
	var here, there int64
	var previous *string
	read := func() error {
		return l.conn.QueryRow(ctx, `
select epoch, origin, system_id, (select system_identifier from pg_control_system()), previous from audit.epoch order by epoch desc limit 1`).
			Scan(&l.epoch, &l.origin, &there, &here, &previous)
	}
	err := read()
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = l.conn.Exec(ctx, `select audit.first_epoch($1)`, cfg.Origin); err == nil {
			err = read()
		}
	}
	if err != nil {
		return postgres.Unavailable(err)
	}
	if here != there {
		return ErrEpoch
	}
	if want := cfg.Origin + "/" + strconv.Itoa(int(l.epoch)); l.origin != want {
		return fmt.Errorf("%w: it is %s, not %s", ErrOrigin, l.origin, want)
	}
	for _, k := range cfg.Signers {
		if k.Name() == l.origin {
			l.signers = append(l.signers, k)
		}
	}
	if len(l.signers) == 0 {
		return fmt.Errorf("%w: %s", ErrNoSigner, l.origin)
	}
	if l.epoch > 1 {
		return l.announce(ctx, previous)
	}
	return nil
}

// announce writes the entry that ties an epoch to the one before: it holds the
// last head of that which was signed, and where it ended. Nothing is added to
// it any more, for whoever leads seals the new one.
func (l *ledger) announce(ctx context.Context, previous *string) error {
	var there bool
	if err := l.conn.QueryRow(ctx, `
select exists (select from audit.event e where e.epoch = $1 and e.action = 'epoch.begin' and e.actor_issuer = 'medirecord' and e.actor_subject = 'service:sealer')`, l.epoch).Scan(&there); err != nil {
		return postgres.Unavailable(err)
	}
	if there {
		return nil
	}
	e := audit.New(l.s.cfg.Now(), &med.Caller{Issuer: "medirecord", Subject: "service:sealer"}, "epoch.begin", "log", l.origin)
	e.Outcome, e.Detail.Ended = audit.Success, &audit.Ended{Root: new(audit.Range).Root(), Patients: audit.NewMapTop().Root()}
	if previous != nil {
		e.Detail.Checkpoint = *previous
	}
	var root, patients []byte
	err := l.conn.QueryRow(ctx, `select first_index + n, root, map_root from audit.batch where epoch = $1 order by batch desc limit 1`, l.epoch-1).
		Scan(&e.Detail.Ended.Size, &root, &patients)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return postgres.Unavailable(err)
	}
	copy(e.Detail.Ended.Root[:], root)
	copy(e.Detail.Ended.Patients[:], patients)
	return postgres.Unavailable(insertEvents(ctx, l.conn, []*audit.Entry{e}))
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// tileReader reads the tiles of an epoch.
func tileReader(ctx context.Context, db queryer, epoch int32) func(audit.TileID) ([]byte, error) {
	return func(id audit.TileID) (data []byte, err error) {
		err = db.QueryRow(ctx, `select data from audit.tile where epoch = $1 and level = $2 and idx = $3`, epoch, id.L, id.N).Scan(&data)
		return data, postgres.Unavailable(err)
	}
}

func loadMap(ctx context.Context, db queryer, epoch int32) (*audit.MapTop, error) {
	rows, err := db.Query(ctx, `select slice, roots from audit.map_slice where epoch = $1 and slice between 0 and 4095 and length(roots) = 512`, epoch)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	slices := map[int][]tlog.Hash{}
	var n int
	var roots []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &roots}, func() error {
		slices[n] = hashesOf(roots)
		return nil
	})
	top := audit.NewMapTop()
	top.SetSlices(slices)
	return top, postgres.Unavailable(err)
}

func hashesOf(b []byte) []tlog.Hash {
	out := make([]tlog.Hash, len(b)/tlog.HashSize)
	for i := range out {
		copy(out[i][:], b[i*tlog.HashSize:])
	}
	return out
}

func bytesOf(hs []tlog.Hash) []byte {
	out := make([]byte, 0, len(hs)*tlog.HashSize)
	for _, h := range hs {
		out = append(out, h[:]...)
	}
	return out
}

// seal takes the next entries whose order is final into the log, in one
// transaction, and returns how many. Everything below the snapshot's xmin has
// committed or never will, so no entry can come in front of another later.
func (l *ledger) seal(ctx context.Context) (int, error) {
	fault := l.s.cfg.fault
	if err := fault("read"); err != nil {
		return 0, err
	}
	tx, err := l.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return 0, postgres.Unavailable(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	rows, err := tx.Query(ctx, `select `+recordColumns+` from audit.event e
 where (e.epoch, e.tx, e.event_id) > ($1, $2::xid8, $3::uuid) and (e.epoch < $4 or e.tx < pg_snapshot_xmin(pg_current_snapshot()))
 order by e.epoch, e.tx, e.event_id limit $5`, l.hi.epoch, strconv.FormatUint(l.hi.tx, 10), l.hi.id, l.epoch, l.s.cfg.Batch)
	if err != nil {
		return 0, postgres.Unavailable(err)
	}
	var b batch
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			rows.Close()
			return 0, postgres.Unavailable(err)
		}
		if err := b.add(&r); err != nil {
			rows.Close()
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, postgres.Unavailable(err)
	}
	if len(b.leaves) == 0 {
		return 0, nil
	}
	if err := l.write(ctx, tx, &b); err != nil {
		return 0, postgres.Unavailable(err)
	}
	if err := fault("commit"); err != nil {
		return 0, err
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, postgres.Unavailable(err)
	}
	if err := fault("committed"); err != nil {
		return 0, err
	}
	l.tree.Flush()
	l.batch++
	l.hi = b.hi
	size := l.tree.Size()
	l.s.stats.set(func(st *SealStats) { st.Size, st.SealedAt = size, l.s.cfg.Now(); st.Batches++ })
	return len(b.leaves), nil
}

// batch is what is sealed together.
type batch struct {
	ids      []byte
	leaves   []tlog.Hash
	patients map[audit.PatientKey][]tlog.Hash // in the order of the log
	hi       place
	scratch  []byte
}

func (b *batch) add(r *audit.Record) (err error) {
	if b.ids, err = appendID(b.ids, r.ID); err != nil {
		return err
	}
	b.scratch = r.AppendLeaf(b.scratch[:0])
	leaf := tlog.RecordHash(b.scratch)
	b.leaves = append(b.leaves, leaf)
	if r.Patient != nil {
		if b.patients == nil {
			b.patients = map[audit.PatientKey][]tlog.Hash{}
		}
		key := audit.KeyOf(*r.Patient)
		b.patients[key] = append(b.patients[key], leaf)
	}
	b.hi = place{r.Epoch, r.TX, r.ID}
	return nil
}

// write adds the batch to tree and map, in memory and in the transaction.
func (l *ledger) write(ctx context.Context, tx pgx.Tx, b *batch) error {
	first := l.tree.Size()
	if err := l.tree.Append(b.leaves...); err != nil {
		return err
	}
	root, err := l.tree.Root(l.tree.Size())
	if err != nil {
		return err
	}
	if err := l.writeMap(ctx, tx, b); err != nil {
		return err
	}
	mapRoot := l.top.Root()
	if _, err := tx.Exec(ctx, `
insert into audit.batch (epoch, batch, first_index, n, ids, hi_epoch, hi_tx, hi_id, root, map_root)
values ($1, $2, $3, $4, $5, $6, $7::xid8, $8, $9, $10)`,
		l.epoch, l.batch, first, len(b.leaves), b.ids, b.hi.epoch, strconv.FormatUint(b.hi.tx, 10), b.hi.id, root[:], mapRoot[:]); err != nil {
		return err
	}
	var levels []int16
	var places []int64
	var data [][]byte
	for id, d := range l.tree.Changed() {
		levels, places, data = append(levels, int16(id.L)), append(places, id.N), append(data, d) //nolint:gosec // at most 7
	}
	_, err = tx.Exec(ctx, `
insert into audit.tile (epoch, level, idx, data) select $1, * from unnest($2::smallint[], $3::bigint[], $4::bytea[])
on conflict (epoch, level, idx) do update set data = excluded.data`, l.epoch, levels, places, data)
	return err
}

// writeMap continues the chains of the patients whom the batch is about.
func (l *ledger) writeMap(ctx context.Context, tx pgx.Tx, b *batch) error {
	if len(b.patients) == 0 {
		return nil
	}
	var numbers []int
	buckets := map[int][]audit.PatientHead{}
	for key := range b.patients {
		if n := key.Bucket(); buckets[n] == nil {
			buckets[n] = []audit.PatientHead{}
			numbers = append(numbers, n)
		}
	}
	rows, err := tx.Query(ctx, `select bucket, key, n, head from audit.patient_head where epoch = $1 and bucket = any($2)`, l.epoch, numbers)
	if err != nil {
		return err
	}
	known := map[audit.PatientKey]audit.PatientHead{}
	var bucket int
	var key, chain []byte
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&bucket, &key, &n, &chain}, func() error {
		if len(key) != tlog.HashSize || len(chain) != tlog.HashSize {
			return fmt.Errorf("%w: a head of the patient map is none", ErrContradiction)
		}
		h := audit.PatientHead{Key: audit.PatientKey(key), Count: n, Head: tlog.Hash(chain)}
		if b.patients[h.Key] == nil {
			buckets[bucket] = append(buckets[bucket], h)
		}
		known[h.Key] = h
		return nil
	}); err != nil {
		return err
	}
	var ofBucket []int
	var keys, heads [][]byte
	var counts []int64
	for key, leaves := range b.patients {
		h, ok := known[key]
		if !ok {
			h.Key = key
		}
		for _, leaf := range leaves {
			h.Add(leaf)
		}
		buckets[key.Bucket()] = append(buckets[key.Bucket()], h)
		ofBucket, keys, counts, heads = append(ofBucket, key.Bucket()), append(keys, h.Key[:]), append(counts, h.Count), append(heads, h.Head[:])
	}
	if _, err := tx.Exec(ctx, `
insert into audit.patient_head (epoch, bucket, key, n, head) select $1, * from unnest($2::integer[], $3::bytea[], $4::bigint[], $5::bytea[])
on conflict (epoch, bucket, key) do update set n = excluded.n, head = excluded.head`, l.epoch, ofBucket, keys, counts, heads); err != nil {
		return err
	}
	return l.writeSlices(ctx, tx, buckets)
}

func (l *ledger) writeSlices(ctx context.Context, tx pgx.Tx, buckets map[int][]audit.PatientHead) error {
	touched := map[int]bool{}
	roots := make(map[int]tlog.Hash, len(buckets))
	for n, heads := range buckets {
		roots[n] = audit.BucketRoot(heads)
		touched[n/audit.MapSlice] = true
	}
	l.top.SetAll(roots)
	var slices []int16
	var data [][]byte
	for n := range touched {
		slices, data = append(slices, int16(n)), append(data, bytesOf(l.top.Slice(n))) //nolint:gosec // at most 4095
	}
	_, err := tx.Exec(ctx, `
insert into audit.map_slice (epoch, slice, roots) select $1, * from unnest($2::smallint[], $3::bytea[])
on conflict (epoch, slice) do update set roots = excluded.roots`, l.epoch, slices, data)
	return err
}
