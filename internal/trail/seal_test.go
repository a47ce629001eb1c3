// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
	"github.com/medirecord/medirecord/internal/worm"
)

const origin = "test.example/audit"

// logKey is a key of the log, as signer and verifier.
func logKey(t *testing.T, name string, seed uint64) (note.Signer, note.Verifier) {
	t.Helper()
	b := binary.BigEndian.AppendUint64(nil, seed)
	skey, vkey, err := note.GenerateKey(strings.NewReader(string(b)+strings.Repeat("k", 64)), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

// sealing is a database with a trail that writes and a sealer to be run.
type sealing struct {
	db    *medtest.Databases
	super *pgx.Conn
	trail *trail.Trail
	cfg   trail.SealerConfig
	key   note.Verifier
}

func newSealing(t *testing.T) *sealing {
	t.Helper()
	db := medtest.DB(t)
	signer, key := logKey(t, origin+"/1", 1)
	return &sealing{
		db: db, super: db.Super(t), trail: open(t, db, trail.Config{}), key: key,
		cfg: trail.SealerConfig{
			URL: db.URL("sealer"), Origin: origin, Signers: []note.Signer{signer}, State: filepath.Join(t.TempDir(), "head"), Every: 5e6,
		},
	}
}

func (s *sealing) append(t *testing.T, n int) {
	t.Helper()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			e := entry(fmt.Sprint("dr-", i))
			if i%3 != 0 {
				e.Patient = med.PatientID(fmt.Sprint("p-", i%7))
			}
			if err := s.trail.Append(e); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// run runs a sealer until ok says so.
func (s *sealing) run(t *testing.T, cfg trail.SealerConfig, what string, ok func(*trail.Sealer) bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	sealer, err := trail.OpenSealer(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- sealer.Run(ctx) }()
	waitFor(t, what, func() bool { return ok(sealer) })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sealer.Close()
}

func (s *sealing) count(t *testing.T) (n int64) {
	t.Helper()
	medtest.Scan(t, s.super, []any{&n}, `select count(*) from audit.event`)
	return n
}

// sealAll seals and cosigns everything that is there.
func (s *sealing) sealAll(t *testing.T) {
	t.Helper()
	n := s.count(t)
	s.run(t, s.cfg, "everything is sealed", func(x *trail.Sealer) bool { return x.Stats().CosignedSize == n })
}

// check rereads the whole trail from scratch and holds it against the log.
func (s *sealing) check(t *testing.T, epoch int32, verifiers ...note.Verifier) *audit.Checkpoint {
	t.Helper()
	if len(verifiers) == 0 {
		verifiers = []note.Verifier{s.key}
	}
	ctx := t.Context()
	var text string
	medtest.Scan(t, s.super, []any{&text}, `select note from audit.checkpoint where epoch = $1 order by size desc limit 1`, epoch)
	c, err := audit.OpenCheckpoint(text, note.VerifierList(verifiers...))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := trail.OpenReader(ctx, s.db.URL("auditor"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	tree := audit.OpenTree(0, func(audit.TileID) ([]byte, error) { return nil, errors.New("nothing is stored") })
	heads := map[audit.PatientKey]*audit.PatientHead{}
	var last [3]any
	seen := map[string]bool{}
	for tree.Size() < c.Size {
		batch, err := reader.Sealed(ctx, epoch, tree.Size(), 7)
		if err != nil || len(batch) == 0 {
			t.Fatalf("%d entries at %d, %v", len(batch), tree.Size(), err)
		}
		for _, e := range batch {
			if e.Index != tree.Size() || seen[e.Record.ID] {
				t.Errorf("entry %s at %d, want %d, and once", e.Record.ID, e.Index, tree.Size())
			}
			seen[e.Record.ID] = true
			here := [3]any{e.Record.Epoch, e.Record.TX, e.Record.ID}
			if last[0] != nil && (here[0].(int32) < last[0].(int32) || here[0] == last[0] && (here[1].(uint64) < last[1].(uint64) ||
				here[1] == last[1] && here[2].(string) <= last[2].(string))) {
				t.Errorf("%v comes after %v", here, last)
			}
			last = here
			h := e.Record.Hash()
			if err := tree.Append(h); err != nil {
				t.Fatal(err)
			}
			if e.Record.Patient != nil {
				key := audit.KeyOf(*e.Record.Patient)
				if heads[key] == nil {
					heads[key] = &audit.PatientHead{Key: key}
				}
				heads[key].Add(h)
			}
		}
	}
	if root, err := tree.Root(c.Size); err != nil || root != c.Root {
		t.Errorf("the entries do not give the root of the checkpoint: %v", err)
	}
	top, buckets := audit.NewMapTop(), map[int][]audit.PatientHead{}
	for key, h := range heads {
		buckets[key.Bucket()] = append(buckets[key.Bucket()], *h)
	}
	for n, hs := range buckets {
		top.Set(n, audit.BucketRoot(hs))
	}
	if top.Root() != c.Patients {
		t.Error("the entries do not give the root of the patient map")
	}
	return c
}

func TestTheTrailIsSealed(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	s.append(t, 39)
	odd := entry("odd") // a writer may give any time that the clocks allow
	odd.OccurredAt = odd.OccurredAt.Add(-9 * time.Minute)
	odd.ID = med.EventID(med.NewUUID(odd.OccurredAt))
	if err := s.trail.Append(odd); err != nil {
		t.Fatal(err)
	}
	s.sealAll(t)
	if c := s.check(t, 1); c.Size != 40 || c.Origin != origin+"/1" {
		t.Errorf("got %+v", c)
	}
	s.append(t, 300) // over the edge of a tile, and on from a memory of its own
	s.cfg.Batch = 64
	s.sealAll(t)
	if c := s.check(t, 1); c.Size != 340 {
		t.Errorf("got %+v", c)
	}
}

// An entry whose transaction began first and commits last must come first, and
// nothing behind it is sealed before: or it would be skipped.
func TestASlowWriterIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	slow := s.db.As(t, "trail")
	tx, err := slow.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.AppendTx(t.Context(), tx, entry("slow")); err != nil {
		t.Fatal(err)
	}
	s.append(t, 5)
	s.run(t, s.cfg, "the sealer leads", func(x *trail.Sealer) bool { return x.Stats().Leader })
	var sealed int
	medtest.Scan(t, s.super, []any{&sealed}, `select count(*) from audit.batch`)
	if sealed != 0 {
		t.Errorf("got %d batches while an older transaction was open", sealed)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sealAll(t)
	if c := s.check(t, 1); c.Size != 6 {
		t.Errorf("got %d entries", c.Size)
	}
}

// Each step, failed before and after it took effect: the next sealer goes on,
// nothing is sealed twice, and no second head of a size is signed.
func TestSealingSurvivesACrashAtEachStep(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"read", "commit", "committed", "remember", "remembered", "signed", "cosigned"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := newSealing(t)
			s.append(t, 10)
			s.sealAll(t)
			s.append(t, 10)
			failed := make(chan struct{})
			var once sync.Once
			s.run(t, s.cfg.WithFault(func(at string) error {
				if at == step {
					once.Do(func() { close(failed) })
					return errors.New("crash")
				}
				return nil
			}), "the crash", func(*trail.Sealer) bool {
				select {
				case <-failed:
					return true
				default:
					return false
				}
			})
			s.append(t, 3)
			s.sealAll(t)
			if c := s.check(t, 1); c.Size != 23 {
				t.Errorf("got %d entries", c.Size)
			}
		})
	}
}

func TestASealerRefusesAContradiction(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]func(t *testing.T, s *sealing){
		"an old backup": func(t *testing.T, s *sealing) {
			medtest.Exec(t, s.super, `alter table audit.batch disable trigger no_change; delete from audit.batch where batch > 0; delete from audit.tile where idx > 0; delete from audit.checkpoint where size > 10`)
		},
		"another memory": func(t *testing.T, s *sealing) {
			b, err := os.ReadFile(s.cfg.State)
			if err != nil {
				t.Fatal(err)
			}
			i := strings.Index(string(b), `"root":"`) + 8
			b[i] ^= 1
			if err := os.WriteFile(s.cfg.State, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"an edited tile": func(t *testing.T, s *sealing) {
			medtest.Exec(t, s.super, `update audit.tile set data = set_byte(data, 0, get_byte(data, 0) # 1)`)
		},
		"an edited map": func(t *testing.T, s *sealing) {
			medtest.Exec(t, s.super, `update audit.map_slice set roots = set_byte(roots, 0, get_byte(roots, 0) # 1)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSealing(t)
			s.append(t, 10)
			s.sealAll(t)
			s.append(t, 10)
			s.sealAll(t)
			attack(t, s)
			s.append(t, 1)
			s.run(t, s.cfg, "the refusal", func(x *trail.Sealer) bool { return x.Stats().Failures > 0 })
			var signed int64
			medtest.Scan(t, s.super, []any{&signed}, `select coalesce(max(size), 0) from audit.checkpoint`)
			if signed > 20 {
				t.Errorf("it signed a head of %d", signed)
			}
		})
	}
}

func TestAKeyIsReplacedWithOverlap(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	s.append(t, 3)
	s.sealAll(t)
	s.check(t, 1)
	next, nextKey := logKey(t, origin+"/1", 2)
	s.cfg.Signers = append(s.cfg.Signers, next)
	s.append(t, 3)
	s.sealAll(t)
	s.check(t, 1)          // who knows the old key
	s.check(t, 1, nextKey) // who knows the new
	s.cfg.Signers = []note.Signer{next}
	s.append(t, 3)
	s.sealAll(t)
	if c := s.check(t, 1, nextKey); c.Size != 9 {
		t.Errorf("got %+v", c)
	}
	stranger, _ := logKey(t, "other.example/1", 1)
	s.cfg.Signers = []note.Signer{stranger}
	s.append(t, 1)
	s.run(t, s.cfg, "the refusal", func(x *trail.Sealer) bool { return x.Stats().Failures > 0 })
}

// After a logical restore transaction ids begin anew: the old log is closed as
// it is, and a new one begins with what was not sealed and the old one's head.
func TestANewEpoch(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	s.append(t, 10)
	s.sealAll(t)
	old := s.check(t, 1)
	s.append(t, 4)
	medtest.Exec(t, s.super, `update audit.epoch set system_id = 1`) // as if restored elsewhere
	s.run(t, s.cfg, "the refusal", func(x *trail.Sealer) bool { return x.Stats().Failures > 0 })
	migrator := s.db.As(t, "migrator")
	var epoch int32
	medtest.Scan(t, migrator, []any{&epoch}, `select audit.begin_epoch()`)
	if epoch != 2 {
		t.Fatalf("got epoch %d", epoch)
	}
	signer, key := logKey(t, origin+"/2", 7)
	s.cfg.Signers = append(s.cfg.Signers, signer)
	s.append(t, 5)
	s.run(t, s.cfg, "everything is sealed", func(x *trail.Sealer) bool { return x.Stats().CosignedSize == 10 })
	if c := s.check(t, 2, key); c.Size != 10 { // 4 left over, 5 new, and the beginning
		t.Errorf("got %+v", c)
	}
	var detail string
	medtest.Scan(t, s.super, []any{&detail}, `select detail from audit.event where action = 'epoch.begin' and epoch = 2`)
	d, err := audit.ParseDetail(detail)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := audit.OpenCheckpoint(d.Checkpoint, note.VerifierList(s.key)); err != nil || c.Size != old.Size || c.Root != old.Root {
		t.Errorf("the new log does not hold the old one's head: %v", err)
	}
	if again := s.check(t, 1); *again != *old {
		t.Error("the old log has changed")
	}
}

func TestOneOfTwoSealersLeads(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sealers []*trail.Sealer
	var stops []context.CancelFunc
	var group sync.WaitGroup
	for i := range 2 {
		cfg := s.cfg
		cfg.State += fmt.Sprint(i)
		one, cancel := context.WithCancel(ctx)
		x, err := trail.OpenSealer(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		sealers, stops = append(sealers, x), append(stops, cancel)
		group.Go(func() { _ = x.Run(one) })
	}
	s.append(t, 20)
	leader := func() int {
		return slices.IndexFunc(sealers, func(x *trail.Sealer) bool { return x.Stats().Leader && x.Stats().CosignedSize == s.count(t) })
	}
	waitFor(t, "a leader", func() bool { return leader() >= 0 })
	first := leader()
	stops[first]()
	s.append(t, 20)
	waitFor(t, "the other leads", func() bool { return leader() == 1-first })
	stop()
	group.Wait()
	if c := s.check(t, 1); c.Size != 40 {
		t.Errorf("got %+v", c)
	}
}

// memory is a sink that holds what was put there.
type memory struct {
	mu    sync.Mutex
	files map[string]string
}

func (m *memory) Put(_ context.Context, name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.files[name]; ok && was != string(data) {
		return errors.New("it is there, and another")
	}
	m.files[name] = string(data)
	return nil
}

// refusing is a set of witnesses that cosigns nothing.
type refusing struct{}

func (refusing) Cosign(context.Context, []byte, func(int64, int64) ([]tlog.Hash, error)) ([]byte, error) {
	return nil, errors.New("no quorum")
}

func TestWhatASinkHoldsGivesTheRoot(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	kept := &memory{files: map[string]string{}}
	s.cfg.Sinks = []trail.Sink{kept}
	s.append(t, 300)
	n := s.count(t)
	s.run(t, s.cfg, "the sink has it", func(x *trail.Sealer) bool { return x.Stats().CosignedSize == n && !x.Stats().SunkAt.IsZero() })
	text := kept.files[fmt.Sprintf("test.example%%2Faudit%%2F1/checkpoint/%020d", n)]
	c, err := audit.OpenCheckpoint(text, note.VerifierList(s.key))
	if err != nil {
		t.Fatalf("%v: %v", err, slices.Sorted(keys(kept.files)))
	}
	tree := audit.OpenTree(n, func(id audit.TileID) ([]byte, error) {
		for w := 256; w > 0; w-- {
			if b, ok := kept.files["test.example%2Faudit%2F1/"+id.Path(w)]; ok {
				return []byte(b), nil
			}
		}
		return nil, errors.New("no tile")
	})
	if root, err := tree.Root(n); err != nil || root != c.Root {
		t.Errorf("the tiles in the sink do not give its checkpoint: %v", err)
	}
}

// stamping is a set of witnesses whose cosignature is another each time, as one
// with the time in it is.
type stamping struct{}

func (stamping) Cosign(_ context.Context, checkpoint []byte, _ func(int64, int64) ([]tlog.Hash, error)) ([]byte, error) {
	return append(slices.Clone(checkpoint), "— witness.example/w "+base64.StdEncoding.EncodeToString([]byte("0000"+rand.Text()))+"\n"...), nil
}

// A head that a sink has already, cosigned at another time, is there; the same
// size with another root is not the same.
func TestASinkThatHasTheHeadIsContent(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	dir := t.TempDir()
	kept, err := worm.Open("file://" + dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }()
	s.cfg.Sinks, s.cfg.Witnesses = []trail.Sink{kept}, stamping{}
	s.append(t, 9)
	for range 2 { // the second sealer does not know what the first has put
		s.run(t, s.cfg, "the sink has it", func(x *trail.Sealer) bool {
			st := x.Stats()
			if st.SinkFailures > 0 {
				t.Error("the sink refuses the head that it has")
			}
			return st.SinkFailures > 0 || !st.SunkAt.IsZero()
		})
	}
	names, err := kept.List(t.Context(), "test.example%2Faudit%2F1/checkpoint/")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %v, %v; want the head", names, err)
	}
	last := filepath.Join(dir, names[len(names)-1])
	text, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	lines[2] = base64.StdEncoding.EncodeToString(make([]byte, tlog.HashSize)) // another root
	if err := errors.Join(os.Remove(last), os.WriteFile(last, []byte(strings.Join(lines, "\n")), 0o400)); err != nil {
		t.Fatal(err)
	}
	s.run(t, s.cfg, "the sink has another history", func(x *trail.Sealer) bool { return x.Stats().SinkFailures > 0 })
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestWitnessesDoNotHoldUpSealing(t *testing.T) {
	t.Parallel()
	s := newSealing(t)
	s.cfg.Witnesses = refusing{}
	s.append(t, 9)
	s.run(t, s.cfg, "sealed and signed, and not cosigned", func(x *trail.Sealer) bool {
		st := x.Stats()
		return st.Size == 9 && !st.SignedAt.IsZero() && st.CosignFailures > 0 && st.CosignedAt.IsZero()
	})
	s.check(t, 1)
}
