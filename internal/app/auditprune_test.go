// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/app"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// Pruning stops where something is wrong, drops nothing then, and goes on where
// it was when it is run again.
func TestPruningGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super := db.Super(t)
	month := time.Date(2019, 5, 1, 0, 0, 0, 0, time.UTC)
	medtest.Exec(t, super, `set role medirecord_owner`)
	medtest.Exec(t, super, `create table audit_part.event_2019_05 partition of audit.event for values from ('2019-05-01 00:00:00Z') to ('2019-06-01 00:00:00Z')`)
	medtest.Exec(t, super, `reset role`)
	medtest.Exec(t, super, `
insert into audit.event (event_id, occurred_at, recorded_at, actor_issuer, actor_subject, patient_id, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
select (lpad(to_hex($1::bigint + i * 1000), 12, '0') || '7000b' || substr(md5(i::text), 1, 15))::uuid, to_timestamp($1 / 1000 + i), to_timestamp($1 / 1000 + i), 'test', 'dr', 'p-' || i % 5, 'read',
       'patient', 'p', 'success', false, '{}', decode(md5(i::text), 'hex'), 1 from generate_series(1, 300) i`, month.UnixMilli())
	skey, vkey, err := note.GenerateKey(nil, "test.example/audit/1")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy")
	if err := os.WriteFile(policy, []byte("log "+vkey+"\nquorum none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	sealing := func(t *testing.T, until func() bool) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		s, err := trail.OpenSealer(ctx, trail.SealerConfig{
			URL: db.URL("sealer"), Origin: "test.example/audit", Signers: []note.Signer{signer}, State: filepath.Join(dir, "head"), Every: 10 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		group.Go(func() { _ = s.Run(ctx) })
		for end := time.Now().Add(3 * time.Minute); !until(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // polling for the thing itself
			if time.Now().After(end) {
				t.Fatal("waited too long for the sealer")
			}
		}
		stop()
		group.Wait()
		s.Close()
	}
	count := func(t *testing.T, sql string) (n int) {
		t.Helper()
		medtest.Scan(t, super, []any{&n}, sql)
		return n
	}
	sealing(t, func() bool {
		return count(t, `select count(*) from audit.checkpoint where cosigned_at is not null`) > 0
	})

	cfg := &app.Config{Env: "dev", AuditorDatabaseURL: db.URL("auditor"), RetentionDatabaseURL: db.URL("retention")}
	patience := time.Minute
	prune := func(dry bool) (string, error) {
		var said strings.Builder
		err := app.PruneTrail(t.Context(), cfg, app.PruneOptions{Out: out, Policy: policy, DryRun: dry, Patience: patience, Now: time.Now},
			func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) })
		return said.String(), err
	}
	const entries, announced = `select count(*) from audit.event where occurred_at < '2020-01-01'`, `select count(*) from audit.event where action = 'retention.prune'`
	still := func(t *testing.T, what string, want int) {
		t.Helper()
		if n, a := count(t, entries), count(t, announced); n != 300 || a != want {
			t.Errorf("%s: %d entries are there and %d announced, want 300 and %d", what, n, a, want)
		}
	}
	if said, err := prune(true); err != nil || !strings.Contains(said, "2019-05, epoch 1: entries 0 to 299 would be exported") {
		t.Errorf("dry: got %q, %v", said, err)
	}
	still(t, "dry", 0)
	file := filepath.Join(out, "audit-2019-05-epoch1.ndjson.gz")
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prune(false); err == nil || !strings.Contains(err.Error(), "not a whole") {
		t.Errorf("a damaged export: got %v", err)
	}
	still(t, "a damaged export", 0)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	// Nobody seals: the entry is written and nothing goes.
	patience = 300 * time.Millisecond
	for range 2 {
		if _, err := prune(false); err == nil || !strings.Contains(err.Error(), "is not sealed and cosigned yet") {
			t.Errorf("nobody seals: got %v", err)
		}
		still(t, "nobody seals", 1)
	}
	patience = time.Minute
	sealing(t, func() bool {
		return count(t, `select max(size)::int from audit.checkpoint where cosigned_at is not null`) == 301
	})
	if said, err := prune(false); err != nil || !strings.Contains(said, "2019-05: 300 entries dropped") {
		t.Errorf("got %q, %v", said, err)
	}
	if n, a := count(t, entries), count(t, announced); n != 0 || a != 1 {
		t.Errorf("%d entries are left and %d announced, want none and one", n, a)
	}
	if said, err := prune(false); err != nil || !strings.Contains(said, "nothing is older") {
		t.Errorf("again: got %q, %v", said, err)
	}
	var outText strings.Builder
	for _, opt := range []app.AuditOptions{{Files: []string{file}}, {Database: db.URL("auditor")}} {
		opt.Policy, opt.Dev, opt.Out, opt.Now = policy, true, &outText, time.Now
		if v, err := app.VerifyTrail(t.Context(), opt); err != nil || v != app.Clean {
			t.Errorf("got %s, %v: %s", v, err, outText.String())
		}
	}
	if !strings.Contains(outText.String(), "300 of months that were dropped are proved by their hashes only") {
		t.Errorf("got %s", outText.String())
	}
	logGone(t, super, app.AuditOptions{Database: db.URL("auditor"), Policy: policy, Dev: true, Now: time.Now})
}

// logGone takes the whole log out of the database, its epochs first, and looks
// whether that is told of, by what is left and by what is kept outside.
func logGone(t *testing.T, super *pgx.Conn, opt app.AuditOptions) {
	t.Helper()
	var head string
	medtest.Scan(t, super, []any{&head}, `select note from audit.checkpoint order by size desc limit 1`)
	kept := filepath.Join(t.TempDir(), "checkpoint")
	if err := os.WriteFile(kept, []byte(head), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"epoch", "batch", "tile", "checkpoint"} {
		medtest.Exec(t, super, `alter table audit.`+table+` disable trigger all`)
		medtest.Exec(t, super, `delete from audit.`+table)
		for _, checkpoints := range [][]string{nil, {kept}} {
			var said strings.Builder
			opt.Out, opt.Checkpoints = &said, checkpoints
			v, err := app.VerifyTrail(t.Context(), opt)
			left := table != "checkpoint"
			switch {
			case !left && checkpoints == nil:
				if err == nil {
					t.Errorf("nothing is left and nothing kept: got %s %s, want an error", v, said.String())
				}
			case err != nil || v != app.Tampered || strings.Contains(said.String(), "missing") != left || strings.Contains(said.String(), "knows of 301 entries") != (checkpoints != nil):
				t.Errorf("without %s, kept %v: got %s, %v: %s", table, checkpoints, v, err, said.String())
			}
		}
	}
}
