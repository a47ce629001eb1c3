// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// honest is a witness: it cosigns what continues what it has cosigned, and
// nothing else.
type honest struct {
	mu     sync.Mutex
	signer note.Signer
	log    note.Verifier
	size   int64
	root   tlog.Hash
}

func (h *honest) Cosign(_ context.Context, text []byte, prove func(int64, int64) ([]tlog.Hash, error)) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := note.Open(text, note.VerifierList(h.log))
	if err != nil {
		return nil, err
	}
	c, err := audit.ParseCheckpoint(n.Text)
	if err != nil {
		return nil, err
	}
	if h.size > 0 && h.size < c.Size {
		p, err := prove(h.size, c.Size)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(p, c.Size, c.Root, h.size, h.root); err != nil {
			return nil, err
		}
	} else if h.size > 0 && (h.size > c.Size || h.root != c.Root) {
		return nil, errors.New("it contradicts what was cosigned")
	}
	h.size, h.root = c.Size, c.Root
	n.UnverifiedSigs = nil
	return note.Sign(n, h.signer)
}

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.files[name]; ok {
		return []byte(b), nil
	}
	return nil, errors.New("it is not there")
}

func (m *memory) List(_ context.Context, prefix string) (out []string, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.files {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out, nil
}

// sealedLog is a log that is sealed, cosigned and kept outside, to be tampered with.
type sealedLog struct {
	*sealing
	policy  *cosign.Policy
	witness *honest
	sink    *memory
	size    int64
	old     *medtest.Databases // a backup of when it was smaller
	oldSize int64
	ids     []string
}

func newSealedLog(t *testing.T) *sealedLog {
	t.Helper()
	db := medtest.DB(t)
	ours, key := logKey(t, origin+"/1", 1)
	s := &sealedLog{sink: &memory{files: map[string]string{}}, sealing: &sealing{db: db, key: key, cfg: trail.SealerConfig{
		URL: db.URL("sealer"), Origin: origin, Signers: []note.Signer{ours}, State: filepath.Join(t.TempDir(), "head"), Every: 5e6,
	}}}
	s.connect(t)
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("w", 64)), "witness.example/w")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := cosignature.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	if vkey, err = cosignature.VKeyToCosignatureV1(vkey); err != nil {
		t.Fatal(err)
	}
	s.witness = &honest{signer: signer, log: s.key}
	s.cfg.Witnesses, s.cfg.Sinks, s.cfg.Batch = s.witness, []trail.Sink{s.sink}, 100
	_, logKey, err := note.GenerateKey(strings.NewReader("\x00\x00\x00\x00\x00\x00\x00\x01"+strings.Repeat("k", 64)), origin+"/1")
	if err != nil {
		t.Fatal(err)
	}
	if s.policy, err = cosign.ParsePolicy([]byte("log " + logKey + "\nwitness w " + vkey + "\nquorum w\n")); err != nil {
		t.Fatal(err)
	}
	s.append(t, 300)
	s.sealSink(t)
	s.oldSize = s.count(t)
	s.free(t)
	s.old = s.db.Clone(t)
	s.connect(t)
	s.append(t, 450)
	s.sealSink(t)
	s.size = s.count(t)
	for i := range s.size {
		s.ids = append(s.ids, s.idAt(t, s.super, i))
	}
	s.free(t)
	return s
}

func (s *sealedLog) connect(t *testing.T) {
	t.Helper()
	var err error
	if s.trail, err = trail.Open(t.Context(), trail.Config{URL: s.db.URL("trail"), Deadline: medtest.Patience}); err != nil {
		t.Fatal(err)
	}
	s.super = s.db.Super(t)
}

// free closes every connection, so that the database can be copied.
func (s *sealedLog) free(t *testing.T) {
	t.Helper()
	s.trail.Close()
	s.alone(t)
}

func (s *sealedLog) alone(t *testing.T) {
	t.Helper()
	_ = s.super.Close(t.Context())
	super := medtest.Connect(t, medtest.Cluster(t).SuperuserURL("postgres"))
	waitFor(t, "nobody is connected", func() bool {
		var n int
		medtest.Scan(t, super, []any{&n}, `select count(*) from pg_stat_activity where datname = $1`, s.db.Clinical)
		return n == 0
	})
}

func (s *sealedLog) sealSink(t *testing.T) {
	t.Helper()
	var n int64 // what is sealed, and what is not yet; some may have been pruned
	medtest.Scan(t, s.super, []any{&n}, `
select coalesce((select first_index + n from audit.batch order by batch desc limit 1), 0) + (select count(*) from audit.event e
 where not exists (select from audit.batch) or (e.epoch, e.tx, e.event_id) > (select hi_epoch, hi_tx, hi_id from audit.batch order by batch desc limit 1))`)
	name := fmt.Sprintf("test.example%%2Faudit%%2F1/checkpoint/%020d", n)
	s.run(t, s.cfg, "everything is sealed and kept outside", func(*trail.Sealer) bool {
		_, err := s.sink.Get(t.Context(), name)
		return err == nil
	})
}

// verify verifies a database, with what is kept outside or without.
func (s *sealedLog) verify(t *testing.T, db *medtest.Databases, outside bool) (*trail.Verified, []audit.Finding) {
	t.Helper()
	ctx := t.Context()
	snap, err := trail.OpenSnapshot(ctx, db.URL("auditor"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close(ctx)
	logs, err := snap.Logs(ctx)
	if err != nil || len(logs) != 1 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	var mu sync.Mutex
	var found []audit.Finding
	opt := trail.VerifyOptions{Trust: trail.Trust(s.policy), Tell: func(f audit.Finding) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, f)
	}}
	if outside {
		opt.Outside = func(origin string) (*trail.Outside, error) {
			return trail.ReadShelf(ctx, s.sink, "the sink", origin, opt.Trust, opt.Tell)
		}
	}
	v, err := snap.Verify(ctx, logs[0], opt)
	if err != nil {
		t.Fatal(err)
	}
	return v, found
}

// idAt returns the id and time of the entry at a place.
func (s *sealedLog) idAt(t *testing.T, super *pgx.Conn, at int64) (id string) {
	t.Helper()
	medtest.Scan(t, super, []any{&id}, `
select encode(substr(b.ids, 1 + 16 * ($1 - b.first_index)::int, 16), 'hex')::uuid::text from audit.batch b where $1 between b.first_index and b.first_index + b.n - 1`, at)
	return id
}

// forge makes tiles, batches and map anew, so that all in the database agrees
// with the entries as they are: what a superuser can do.
func forge(t *testing.T, super *pgx.Conn) *audit.Checkpoint {
	t.Helper()
	ctx := t.Context()
	rows, err := super.Query(ctx, `select event_id, patient_id from audit.event order by epoch, tx, event_id`)
	if err != nil {
		t.Fatal(err)
	}
	type one struct {
		id      string
		patient *string
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (o one, err error) { return o, r.Scan(&o.id, &o.patient) })
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := trail.Hashes(ctx, super)
	if err != nil {
		t.Fatal(err)
	}
	medtest.Exec(t, super, `alter table audit.batch disable trigger all`)
	medtest.Exec(t, super, `delete from audit.batch; delete from audit.tile; delete from audit.patient_head; delete from audit.map_slice`)
	tree := audit.OpenTree(0, func(audit.TileID) ([]byte, error) { return nil, errors.New("none") })
	m := audit.NewMapCheck()
	for first, n := 0, 0; first < len(all); first += 100 {
		var ids []byte
		last := min(first+100, len(all))
		for _, o := range all[first:last] {
			u, _ := audit.ParseUUID(o.id)
			ids = append(ids, u[:]...)
			h := hashes[o.id]
			if err := tree.Append(h); err != nil {
				t.Fatal(err)
			}
			if o.patient != nil {
				m.Add(audit.KeyOf(*o.patient), h)
			}
		}
		root, err := tree.Root(tree.Size())
		if err != nil {
			t.Fatal(err)
		}
		mapRoot := m.Root()
		medtest.Exec(t, super, `insert into audit.batch (epoch, batch, first_index, n, ids, hi_epoch, hi_tx, hi_id, root, map_root)
select 1, $1, $2, $3, $4, e.epoch, e.tx, e.event_id, $5, $6 from audit.event e where e.event_id = $7::text::uuid`, n, first, last-first, ids, root[:], mapRoot[:], all[last-1].id)
		n++
	}
	for id, data := range tree.Changed() {
		medtest.Exec(t, super, `insert into audit.tile (epoch, level, idx, data) values (1, $1, $2, $3)`, id.L, id.N, data)
	}
	sliceRoots := make([][]byte, audit.MapBuckets/audit.MapSlice)
	for b := range audit.MapBuckets {
		h := m.BucketRoot(b)
		sliceRoots[b/audit.MapSlice] = append(sliceRoots[b/audit.MapSlice], h[:]...)
		for _, p := range m.Bucket(b) {
			medtest.Exec(t, super, `insert into audit.patient_head (epoch, bucket, key, n, head) values (1, $1, $2, $3, $4)`, b, p.Key[:], p.Count, p.Head[:])
		}
	}
	for n, roots := range sliceRoots {
		medtest.Exec(t, super, `insert into audit.map_slice (epoch, slice, roots) values (1, $1, $2)`, n, roots)
	}
	root, err := tree.Root(tree.Size())
	if err != nil {
		t.Fatal(err)
	}
	return &audit.Checkpoint{Origin: origin + "/1", Size: tree.Size(), Root: root, Patients: m.Root()}
}

const unlocked = `alter table audit.event disable trigger all; alter table audit.batch disable trigger all; `

func TestATamperedTrailIsNamed(t *testing.T) {
	t.Parallel()
	s := newSealedLog(t)
	t.Run("a clean one gives no finding", func(t *testing.T) {
		for _, outside := range []bool{true, false} {
			v, found := s.verify(t, s.db, outside)
			if len(found) > 0 || v.Head == nil || v.Head.Size != s.size || v.Rows != s.size || v.Head.At.IsZero() || v.Unsealed != 0 {
				t.Errorf("outside %v: got %v, %+v", outside, found, v)
			}
		}
		// What the sinks keep and the old backup are of one log: nothing is wrong
		// with a backup but that it is one.
		if _, found := s.verify(t, s.old, false); len(found) > 0 {
			t.Errorf("got %v", found)
		}
	})
	free := make(chan bool, 2) // this machine has other things to do
	for name, c := range map[string]struct {
		sql     string // $ID and $OTHER are the entries at 111 and 555
		do      func(t *testing.T, super *pgx.Conn)
		outside bool
		want    []string // kind and place, exactly
		note    string
	}{
		"an actor is changed":                             {sql: `update audit.event set actor_subject = 'somebody' where event_id = '$ID'`, want: []string{"altered 111"}},
		"a denial becomes a success":                      {sql: `update audit.event set outcome = 'denied' where event_id = '$ID'`, want: []string{"altered 111"}, note: "its outcome was success"},
		"a break-glass mark is set":                       {sql: `update audit.event set break_glass = true where event_id = '$ID'`, want: []string{"altered 111"}, note: "turned round"},
		"a patient is changed":                            {sql: `update audit.event set patient_id = 'p-other' where event_id = '$ID'`, want: []string{"altered 111"}},
		"the detail is written anew":                      {sql: `update audit.event set detail = detail || ' ' where event_id = '$ID'`, want: []string{"altered 111"}},
		"a nonce is changed":                              {sql: `update audit.event set nonce = decode(repeat('00', 16), 'hex') where event_id = '$ID'`, want: []string{"altered 111"}},
		"an entry is deleted":                             {sql: `delete from audit.event where event_id = '$ID'`, want: []string{"missing 111"}},
		"entries are deleted":                             {sql: `delete from audit.event where event_id in ('$ID', '$OTHER')`, want: []string{"missing 111", "missing 555"}},
		"an entry is deleted by its writer's transaction": {sql: `delete from audit.event where tx = (select tx from audit.event where event_id = '$ID')`, want: nil}, // all of them, checked below
		"an entry is put in": {sql: `insert into audit.event (event_id, occurred_at, recorded_at, tx, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
			select 'ffffffff-ffff-7fff-bfff-ffffffffffff', occurred_at, recorded_at, tx, actor_issuer, 'invented', action, resource_type, resource_id, outcome, break_glass, detail, nonce, version
			  from audit.event where event_id = '$ID'`, want: []string{"added -1"}},
		"an entry is there twice": {sql: `insert into audit.event (event_id, occurred_at, recorded_at, tx, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
			select event_id, occurred_at + interval '1 second', recorded_at, tx, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version
			  from audit.event where event_id = '$ID'`, want: []string{"added -1"}},
		"an entry is put in before the first epoch": {sql: `insert into audit.event (epoch, event_id, occurred_at, recorded_at, tx, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
			select -1, 'ffffffff-ffff-7fff-bfff-ffffffffffff', occurred_at, recorded_at, tx, actor_issuer, 'invented', action, resource_type, resource_id, outcome, break_glass, detail, nonce, version
			  from audit.event where event_id = '$ID'`, want: []string{"added -1"}},
		"an entry is put in under a transaction to come": {sql: `insert into audit.event (event_id, occurred_at, recorded_at, tx, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
			select 'ffffffff-ffff-7fff-bfff-ffffffffffff', occurred_at, recorded_at, '9000000000000000000', actor_issuer, 'invented', action, resource_type, resource_id, outcome, break_glass, detail, nonce, version
			  from audit.event where event_id = '$ID'`, want: []string{"added -1"}},
		"an entry is re-dated":                   {sql: `update audit.event set occurred_at = occurred_at - interval '3 hours' where event_id = '$ID'`, want: []string{"re-dated 111"}, note: "it occurred at"},
		"an entry is moved to another partition": {sql: `update audit.event set occurred_at = occurred_at + interval '1 month' where event_id = '$ID'`, want: []string{"re-dated 111"}},
		"both times are changed":                 {sql: `update audit.event set occurred_at = occurred_at - interval '1 day', recorded_at = recorded_at - interval '1 day' where event_id = '$ID'`, want: []string{"re-dated 111"}},
		"an entry is recorded later":             {sql: `update audit.event set recorded_at = recorded_at + interval '2 days' where event_id = '$ID'`, want: []string{"re-dated 111"}, note: "it was recorded at"},
		"an entry goes back in the order":        {sql: `update audit.event set tx = (select tx from audit.event where event_id = '$OTHER') where event_id = '$ID'`, want: []string{"reordered 111"}},
		"two entries change their ids": {
			sql:  `update audit.event set event_id = case event_id when '$ID' then '$OTHER'::uuid else '$ID'::uuid end where event_id in ('$ID', '$OTHER')`,
			want: []string{"reordered 111", "reordered 555"},
		},
		"two entries change all but their ids": {sql: `update audit.event e set actor_subject = o.actor_subject, patient_id = o.patient_id, detail = o.detail, nonce = o.nonce, occurred_at = o.occurred_at, recorded_at = o.recorded_at
			from audit.event o where e.event_id in ('$ID', '$OTHER') and o.event_id in ('$ID', '$OTHER') and e.event_id <> o.event_id`, want: []string{"reordered 111", "reordered 555"}},
		"two entries change their actors": {sql: `update audit.event e set actor_subject = o.actor_subject from audit.event o
			where e.event_id in ('$ID', '$OTHER') and o.event_id in ('$ID', '$OTHER') and e.event_id <> o.event_id`, want: []string{"altered 111", "altered 555"}, note: "actor stands in entry"},
		"a partition is taken away":          {sql: `alter table audit.event detach partition audit_part.$PART`, want: []string{"missing 0", "missing 749"}},
		"a leaf of a tile is changed":        {sql: `update audit.tile set data = overlay(data placing decode(repeat('ab', 32), 'hex') from 1 + 32 * 111) where level = 0 and idx = 0`, want: []string{"tile 111"}},
		"a leaf of the last tile is changed": {sql: `update audit.tile set data = overlay(data placing decode(repeat('ab', 32), 'hex') from 1 + 32 * (555 - 512)) where level = 0 and idx = 2`, want: []string{"tile 555"}},
		"a tile of hashes is changed":        {sql: `update audit.tile set data = overlay(data placing decode(repeat('ab', 32), 'hex') from 33) where level = 1`, want: []string{"tile -1"}},
		"a tile is deleted":                  {sql: `delete from audit.tile where level = 0 and idx = 1`, want: []string{"tile 256"}},
		"a tile is cut short":                {sql: `update audit.tile set data = substr(data, 1, 64) where level = 0 and idx = 2`, want: []string{"tile 514"}},
		"a leaf and its entry": {sql: `update audit.event set actor_subject = 'x' where event_id = '$ID';
			update audit.tile set data = overlay(data placing decode(repeat('ab', 32), 'hex') from 1 + 32 * 111) where level = 0 and idx = 0`, outside: true, want: []string{"altered 111", "tile 111"}},
		"a batch's root is changed":     {sql: `update audit.batch set root = decode(repeat('ab', 32), 'hex') where batch = 2`, want: []string{"batch -1"}},
		"a batch's map root is changed": {sql: `update audit.batch set map_root = decode(repeat('ab', 32), 'hex') where batch = 2`, want: []string{"map -1"}},
		"a batch names another entry":   {sql: `update audit.batch set ids = overlay(ids placing decode(repeat('ab', 16), 'hex') from 1 + 16 * (111 - first_index)::int) where first_index <= 111 and first_index + n > 111`, want: []string{"batch 111"}},
		"a batch names two in the other order": {
			sql:  `update audit.batch set ids = overlay(overlay(ids placing substr(ids, 17, 16) from 33) placing substr(ids, 33, 16) from 17) where batch = 1`,
			want: nil,
		},
		"a batch is deleted":                {sql: `delete from audit.batch where batch = 1`, want: nil},
		"a patient's count is changed":      {sql: `update audit.patient_head set n = n + 1 where key = sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to('p-1', 'UTF8'))`, want: []string{"map -1"}, note: "the map's head of the patient"},
		"a patient is taken out of the map": {sql: `delete from audit.patient_head where key = sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to('p-1', 'UTF8'))`, want: []string{"map -1"}, note: "holds 0 patients"},
		"a slice of the map is changed":     {sql: `update audit.map_slice set roots = decode(repeat('ab', 512), 'hex') where slice = (select min(slice) from audit.map_slice)`, want: nil, note: "of the map is not"},
		"a signature is broken":             {sql: `update audit.checkpoint set note = overlay(note placing 'AAAAAAAA' from length(note) - 40)`, want: []string{"checkpoint -1"}},
		"the log is cut off": {
			sql: `delete from audit.event e using audit.batch b where b.batch = (select max(batch) from audit.batch) and position(uuid_send(e.event_id) in b.ids) > 0;
			delete from audit.batch where batch = (select max(batch) from audit.batch); delete from audit.checkpoint where size > (select max(first_index + n) from audit.batch)`,
			outside: true, want: nil,
		},
		"everything is rewritten with recomputed hashes": {do: func(t *testing.T, super *pgx.Conn) {
			medtest.Exec(t, super, unlocked+`update audit.event set actor_subject = 'somebody' where event_id = '`+s.idAt(t, super, 111)+`'`)
			forge(t, super)
		}, outside: true, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			free <- true
			defer func() { <-free }()
			db := s.db.Clone(t)
			super := db.Super(t)
			if c.do != nil {
				c.do(t, super)
			} else {
				var part string
				medtest.Scan(t, super, []any{&part}, `select tableoid::regclass::text from audit.event where event_id = $1::text::uuid`, s.idAt(t, super, 111))
				medtest.Exec(t, super, unlocked+strings.NewReplacer("$ID", s.idAt(t, super, 111), "$OTHER", s.idAt(t, super, 555), "audit_part.$PART", part).Replace(c.sql))
			}
			_, found := s.verify(t, db, c.outside)
			var got []string
			notes := ""
			for _, f := range found {
				if f.Tampering() {
					got = append(got, fmt.Sprintf("%s %d", f.Kind, f.Index))
					notes += f.Note + "\n"
					if f.Kind != audit.Added && f.Kind != audit.BadTile && f.Kind != audit.BadBatch && f.Index >= 0 && f.ID != "" && f.ID != s.ids[f.Index] {
						t.Errorf("%v names the wrong entry", f)
					}
				}
			}
			slices.Sort(got)
			switch {
			case len(got) == 0:
				t.Fatalf("nothing was found: %v", found)
			case c.want != nil && len(got) > 10:
				for _, w := range c.want {
					if !slices.Contains(got, w) {
						t.Errorf("got %d findings, want %s among them", len(got), w)
					}
				}
			case c.want != nil && !slices.Equal(slices.Compact(got), c.want):
				t.Errorf("got %v, want %v", found, c.want)
			}
			if !strings.Contains(notes, c.note) {
				t.Errorf("got %q, want %q in it", notes, c.note)
			}
			if c.want == nil {
				t.Log(name, found)
			}
		})
	}
}

// What a stolen key and an old backup can and cannot do.
func TestWhoHasTheKeyAndTheDatabaseIsFoundOut(t *testing.T) {
	t.Parallel()
	s := newSealedLog(t)
	kinds := func(found []audit.Finding) (out []string) {
		for _, f := range found {
			out = append(out, fmt.Sprintf("%s %d", f.Kind, f.Index))
		}
		return out
	}
	t.Run("an old backup", func(t *testing.T) {
		_, found := s.verify(t, s.old, true)
		got := kinds(found)
		for _, w := range []string{"rolled back -1", fmt.Sprintf("missing %d", s.oldSize), fmt.Sprintf("missing %d", s.size-1)} {
			if !slices.Contains(got, w) {
				t.Errorf("got %v, want %s among it", found[:min(len(found), 5)], w)
			}
		}
		if len(found) != 1+int(s.size-s.oldSize) {
			t.Errorf("got %d findings, want one for each entry that was taken back", len(found))
		}
	})
	t.Run("an old backup with new entries", func(t *testing.T) {
		db := s.old.Clone(t)
		inner := *s.sealing
		inner.db = db
		grown := sealedLog{sealing: &inner}
		grown.connect(t)
		defer grown.trail.Close()
		grown.append(t, 20)
		_, found := s.verify(t, db, true)
		if got := kinds(found); !slices.Contains(got, "rolled back -1") {
			t.Errorf("got %v", found)
		}
	})
	for _, cosigned := range []string{"null", "clock_timestamp()"} {
		t.Run("history rewritten and signed with the stolen key, cosigned "+cosigned, func(t *testing.T) {
			db := s.db.Clone(t)
			super := db.Super(t)
			medtest.Exec(t, super, unlocked+`update audit.event set actor_subject = 'somebody' where event_id = '`+s.ids[111]+`'`)
			c := forge(t, super)
			text, err := c.Sign(s.cfg.Signers...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.witness.Cosign(t.Context(), []byte(text), nil); err == nil {
				t.Fatal("the witness cosigned another history")
			}
			medtest.Exec(t, super, `delete from audit.checkpoint`)
			medtest.Exec(t, super, `insert into audit.checkpoint (epoch, size, note, cosigned_at) values (1, $1, $2, `+cosigned+`)`, c.Size, text)
			v, found := s.verify(t, db, false)
			if v.Head != nil || len(found) == 0 {
				t.Errorf("without anything outside it is proved: %v", found)
			}
			if tampered := slices.ContainsFunc(found, audit.Finding.Tampering); tampered != (cosigned != "null") {
				t.Errorf("got %v", found)
			}
			v, found = s.verify(t, db, true)
			if got := kinds(found); !slices.Contains(got, "altered 111") || slices.ContainsFunc(found, func(f audit.Finding) bool {
				return f.Kind == audit.Altered && f.Index != 111 || f.Kind == audit.Missing || f.Kind == audit.Added
			}) {
				t.Errorf("got %v, want entry 111 and no other", found)
			}
			if v.Head == nil || v.Head.From != "the sink" {
				t.Errorf("got %+v, want what is kept outside to prove the rest", v)
			}
		})
	}
}

// While writers write and the sealer seals, what is verified is one moment of it.
func TestACleanTrailIsCleanWhileItIsWritten(t *testing.T) {
	t.Parallel()
	s := newSealedLog(t)
	s.connect(t)
	defer s.trail.Close()
	ctx, stop := context.WithCancel(t.Context())
	sealer, err := trail.OpenSealer(ctx, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sealer.Close()
	var group sync.WaitGroup
	group.Go(func() { _ = sealer.Run(ctx) })
	group.Go(func() {
		for ctx.Err() == nil {
			_ = s.trail.Append(entry("dr-busy"))
		}
	})
	// Five times at least, and until the log has grown between two of them: on a busy machine five can fit between two seals.
	var sizes []int64
	began := time.Now()
	for len(sizes) < 5 || slices.Max(sizes) == sizes[0] {
		v, found := s.verify(t, s.db, false)
		// The head may be behind the log: it is signed after sealing.
		found = slices.DeleteFunc(found, func(f audit.Finding) bool { return f.Kind == audit.Unproved && v.Size > 0 })
		if len(found) > 0 {
			t.Errorf("got %v", found)
		}
		if sizes = append(sizes, v.Size); time.Since(began) > 5*time.Minute && slices.Max(sizes) == sizes[0] {
			t.Errorf("the log stood still: %v", sizes)
			break
		}
	}
	stop()
	group.Wait()
}
