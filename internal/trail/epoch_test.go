// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// twoEpochs is a log of twenty entries that is closed, and the next, which has
// begun. Its last ten are about nobody, so that the patient map ends at ten.
// Nobody is connected: it can be copied.
func twoEpochs(t *testing.T) (s *sealedLog, policy *cosign.Policy, first string) {
	t.Helper()
	db := medtest.DB(t)
	signer, key := logKey(t, origin+"/1", 1)
	s = &sealedLog{sealing: &sealing{db: db, key: key, cfg: trail.SealerConfig{
		URL: db.URL("sealer"), Origin: origin, Signers: []note.Signer{signer}, State: filepath.Join(t.TempDir(), "head"), Every: 5e6,
	}}}
	s.connect(t)
	s.append(t, 10)
	s.sealAll(t)
	medtest.Scan(t, s.super, []any{&first}, `select note from audit.checkpoint where size = 10`)
	s.appendAboutNobody(t, 10)
	s.sealAll(t)
	s.nextEpoch(t, 2)
	s.append(t, 5)
	s.run(t, s.cfg, "everything is sealed", func(x *trail.Sealer) bool { return x.Stats().CosignedSize == 6 })
	s.free(t)
	var text strings.Builder
	for n := range 3 {
		fmt.Fprintf(&text, "log %s\n", vkey(t, n+1))
	}
	policy, err := cosign.ParsePolicy([]byte(text.String() + "quorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s, policy, first
}

func (s *sealing) appendAboutNobody(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := s.trail.Append(entry("dr-nobody")); err != nil {
			t.Fatal(err)
		}
	}
}

// nextEpoch begins an epoch as an operator does, with its key.
func (s *sealing) nextEpoch(t *testing.T, want int) {
	t.Helper()
	var epoch int
	migrator := s.db.As(t, "migrator")
	medtest.Scan(t, migrator, []any{&epoch}, `select audit.begin_epoch()`)
	_ = migrator.Close(t.Context())
	if epoch != want {
		t.Fatalf("got epoch %d, want %d", epoch, want)
	}
	signer, _ := logKey(t, fmt.Sprintf("%s/%d", origin, want), uint64(want)) //nolint:gosec // few
	s.cfg.Signers = append(s.cfg.Signers, signer)
}

func vkey(t *testing.T, epoch int) string {
	t.Helper()
	_, vkey, err := note.GenerateKey(strings.NewReader("\x00\x00\x00\x00\x00\x00\x00"+string(rune(epoch))+strings.Repeat("k", 64)), fmt.Sprintf("%s/%d", origin, epoch))
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// verifyAll verifies every epoch, and returns kind, epoch and place of what was
// found.
func verifyAll(t *testing.T, db *medtest.Databases, policy *cosign.Policy, outside func(string) (*trail.Outside, error)) (out []string) {
	t.Helper()
	ctx := t.Context()
	snap, err := trail.OpenSnapshot(ctx, db.URL("auditor"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close(ctx)
	logs, err := snap.Logs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	opt := trail.VerifyOptions{Trust: trail.Trust(policy), Outside: outside, Tell: func(f audit.Finding) {
		mu.Lock()
		defer mu.Unlock()
		t.Log(f)
		out = append(out, fmt.Sprintf("%s %d/%d", f.Kind, f.Epoch, f.Index))
	}}
	for _, l := range logs {
		if _, err := snap.Verify(ctx, l, opt); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(out)
	return out
}

// Whoever has the database can take the end of a closed log away with all that
// tells of it there; but the next log began with it.
func TestTheEndOfAClosedEpochIsHeld(t *testing.T) {
	t.Parallel()
	s, policy, first := twoEpochs(t)
	cut := unlocked + `
delete from audit.event where actor_subject = 'dr-nobody'; delete from audit.batch where epoch = 1 and first_index >= 10;
update audit.tile set data = substr(data, 1, 320) where epoch = 1; delete from audit.checkpoint where epoch = 1;
insert into audit.checkpoint (epoch, size, note) values (1, 10, '` + first + `');`
	lost := []string{"rolled back 1/-1"}
	for i := 10; i < 20; i++ {
		lost = append(lost, fmt.Sprintf("missing 1/%d", i))
	}
	for name, c := range map[string]struct {
		sql  string
		want []string
	}{
		"nothing is done":               {`select 1`, nil},
		"the end is cut off":            {cut, lost},
		"and the row says so too":       {cut + `update audit.epoch set previous = null where epoch = 2`, append([]string{"checkpoint 1/-1"}, lost...)},
		"and the beginning is altered":  {cut + `update audit.epoch set previous = null where epoch = 2; update audit.event set detail = '{}' where action = 'epoch.begin'`, []string{"altered 2/5", "gap 1/10"}},
		"and the beginning is gone":     {cut + `update audit.epoch set previous = null where epoch = 2; delete from audit.event where action = 'epoch.begin'`, []string{"gap 1/10", "missing 2/5"}},
		"the beginning is not signed":   {unlocked + `update audit.event set detail = replace(detail, 'test.example', 'text.example') where action = 'epoch.begin'`, []string{"altered 2/5", "checkpoint 1/-1", "checkpoint 1/-1"}},
		"the beginning does not read":   {unlocked + `update audit.event set detail = '{' where action = 'epoch.begin'`, []string{"altered 2/5", "checkpoint 1/-1"}},
		"the first epoch is taken away": {unlocked + `set session_replication_role = replica; delete from audit.epoch where epoch = 1`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			db := s.db.Clone(t)
			medtest.Exec(t, db.Super(t), c.sql)
			got := verifyAll(t, db, policy, nil)
			slices.Sort(c.want)
			if strings.Contains(name, "first epoch") {
				if !slices.Contains(got, "missing 2/-1") {
					t.Errorf("got %v, want the epoch missing", got)
				}
				return
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	t.Run("the newest epoch is taken away, and the sinks know it", func(t *testing.T) {
		db := s.db.Clone(t)
		medtest.Exec(t, db.Super(t), unlocked+`set session_replication_role = replica; delete from audit.epoch where epoch = 2; delete from audit.batch where epoch = 2; delete from audit.tile where epoch = 2;
delete from audit.checkpoint where epoch = 2; delete from audit.patient_head where epoch = 2; delete from audit.map_slice where epoch = 2; delete from audit.event where epoch = 2`)
		got := verifyAll(t, db, policy, func(of string) (*trail.Outside, error) {
			if of != origin+"/2" {
				return nil, nil
			}
			return &trail.Outside{Heads: []audit.Head{{Checkpoint: audit.Checkpoint{Origin: of, Size: 6}, From: "the sink"}}}, nil
		})
		if want := []string{"rolled back 1/-1"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// What the sealer remembers outside the database knows of epochs too.
func TestASealerRefusesAnEpochThatIsGoneOrInvented(t *testing.T) {
	t.Parallel()
	const gone = unlocked + `set session_replication_role = replica; delete from audit.epoch where epoch = 2; delete from audit.batch where epoch = 2; delete from audit.tile where epoch = 2;
delete from audit.checkpoint where epoch = 2; delete from audit.patient_head where epoch = 2; delete from audit.map_slice where epoch = 2; delete from audit.event where epoch = 2;
set session_replication_role = default; alter table audit.event alter column epoch set default 1`
	s, _, _ := twoEpochs(t)
	refused := func(t *testing.T, s *sealedLog, want string) {
		t.Helper()
		var said bytes.Buffer
		cfg := s.cfg
		cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
		s.run(t, cfg, "the refusal", func(x *trail.Sealer) bool { return x.Stats().Contradiction })
		if !strings.Contains(said.String(), want) || !strings.Contains(said.String(), "medirecord audit epoch") {
			t.Errorf("got %q, want %q and what to do", said.String(), want)
		}
	}
	on := func(t *testing.T) *sealedLog {
		t.Helper()
		state, err := os.ReadFile(s.cfg.State)
		if err != nil {
			t.Fatal(err)
		}
		inner := *s.sealing
		inner.db, inner.cfg.Signers = s.db.Clone(t), slices.Clone(s.cfg.Signers)
		inner.cfg.URL, inner.cfg.State = inner.db.URL("sealer"), filepath.Join(t.TempDir(), "head")
		if err := os.WriteFile(inner.cfg.State, state, 0o600); err != nil {
			t.Fatal(err)
		}
		out := &sealedLog{sealing: &inner}
		out.connect(t)
		t.Cleanup(out.trail.Close)
		return out
	}
	t.Run("put back to before an epoch began", func(t *testing.T) {
		s := on(t)
		medtest.Exec(t, s.super, gone)
		refused(t, s, "epoch 2 of the log was signed")
		s.nextEpoch(t, 2) // again: another log of that name was signed
		refused(t, s, "6 were signed")
		s.nextEpoch(t, 3)
		s.append(t, 1)
		s.run(t, s.cfg, "the third epoch goes on", func(x *trail.Sealer) bool { return x.Stats().Epoch == 3 && x.Stats().CosignedSize >= 2 })
	})
	t.Run("its row taken out", func(t *testing.T) {
		s := on(t)
		medtest.Exec(t, s.super, `set session_replication_role = replica; delete from audit.epoch where epoch = 2`)
		refused(t, s, "epoch 2 of the log was signed")
	})
	t.Run("invented, when its key is there", func(t *testing.T) {
		s := on(t)
		signer, _ := logKey(t, origin+"/3", 3)
		s.cfg.Signers = append(s.cfg.Signers, signer)
		s.append(t, 1)
		s.run(t, s.cfg, "a head with the key", func(x *trail.Sealer) bool { return x.Stats().CosignedSize == 7 })
		medtest.Exec(t, s.super, `insert into audit.epoch (epoch, origin, system_id, previous) select 3, '`+origin+`/3', system_id, null from audit.epoch where epoch = 2`)
		refused(t, s, "invented")
		another, _ := logKey(t, origin+"/3", 33) // the operator says that it is theirs
		s.cfg.Signers = append(s.cfg.Signers, another)
		s.append(t, 1)
		s.run(t, s.cfg, "the third epoch goes on", func(x *trail.Sealer) bool { return x.Stats().Epoch == 3 && x.Stats().CosignedSize >= 2 })
	})
}
