// SPDX-License-Identifier: Apache-2.0

package medtest

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/trail"
)

// LogOrigin is the name of the log in tests, without the epoch.
const LogOrigin = "test.example/audit"

// TrailLog is the sealed trail of one test: its key, and the sealer's memory.
type TrailLog struct {
	db     *Databases
	signer note.Signer
	state  string

	Key note.Verifier
}

// NewLog makes the key and the memory of a log.
func (d *Databases) NewLog(t testing.TB) *TrailLog {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, LogOrigin+"/1")
	if err != nil {
		t.Fatal(err)
	}
	l := &TrailLog{db: d, state: filepath.Join(t.TempDir(), "head.json")}
	if l.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if l.Key, err = note.NewVerifier(vkey); err != nil {
		t.Fatal(err)
	}
	return l
}

// Seal seals and signs all entries that are there.
func (l *TrailLog) Seal(t testing.TB) {
	t.Helper()
	var n int64
	super := l.db.Super(t)
	Scan(t, super, []any{&n}, `select count(*) from audit.event`)
	ctx, stop := context.WithTimeout(context.Background(), 4*Patience) // it waits for the transactions of tests beside it too
	defer stop()
	s, err := trail.OpenSealer(ctx, trail.SealerConfig{
		URL: l.db.URL("sealer"), Origin: LogOrigin, Signers: []note.Signer{l.signer}, State: l.state, Every: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	life, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(life) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.Stats().CosignedSize < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d of %d entries are sealed", s.Stats().CosignedSize, n)
		}
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
