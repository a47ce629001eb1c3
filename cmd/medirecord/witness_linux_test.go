// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/cosign"
)

// cheat is a log that has signed two histories: the same first entries, and
// then others.
type cheat struct {
	origin, vkey string
	signer       note.Signer
	trees        [2][]tlog.Hash
}

const (
	cheatSame = 3
	cheatSize = 4000
)

type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, h[i])
	}
	return out, nil
}

func newCheat(t *testing.T, origin string) *cheat {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	c := &cheat{origin: origin, vkey: vkey}
	if c.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	for side := range c.trees {
		for i := range int64(cheatSize) {
			word := "same"
			if i >= cheatSame {
				word = fmt.Sprint("side ", side)
			}
			more, err := tlog.StoredHashes(i, fmt.Append(nil, word, i), hashes(c.trees[side]))
			if err != nil {
				t.Fatal(err)
			}
			c.trees[side] = append(c.trees[side], more...)
		}
	}
	return c
}

func (c *cheat) root(side int, size int64) tlog.Hash {
	h, _ := tlog.TreeHash(size, hashes(c.trees[side]))
	return h
}

// request asks for the cosignature of one side's tree.
func (c *cheat) request(side int, old, size int64) ([]byte, error) {
	r := cosign.Request{Old: old}
	if old > 0 && old < size {
		var err error
		if r.Proof, err = tlog.ProveTree(size, old, hashes(c.trees[side])); err != nil {
			return nil, err
		}
	}
	text := cosign.Checkpoint{Origin: c.origin, Size: size, Root: c.root(side, size)}.String()
	var err error
	r.Checkpoint, err = note.Sign(&note.Note{Text: text}, c.signer)
	return r.Marshal(), err
}

// cosigned is a line of the ledger: what a client holds a cosignature of.
type cosigned struct {
	side int
	size int64
	from int64 // place in the order in which requests were sent, and
	to   int64 // answers arrived
}

// TestWitnessKilledUnderLoad kills the real witness again and again, with
// SIGKILL, while logs that have two histories ask it for both. What clients
// hold its cosignature of, at the end, is one history of each log, and no
// answer went back behind one that was already there when it was asked.
func TestWitnessKilledUnderLoad(t *testing.T) {
	t.Parallel()
	const kills = 15
	h := newHome(t)
	logs := []*cheat{newCheat(t, "one.example/log"), newCheat(t, "two.example/log")}
	var address atomic.Pointer[string]
	var vkey string
	start := func() *running {
		ready := filepath.Join(h.root, "ready")
		_ = os.Remove(ready)
		args := []string{"witness", "--listen", "127.0.0.1:0", "--state", filepath.Join(h.root, "state"), "--key", filepath.Join(h.root, "key"), "--new-key", "witness.example/w"}
		for _, l := range logs {
			args = append(args, "--log", l.vkey)
		}
		r := h.launch(t, "witness", []string{"MEDIRECORD_READY_FILE=" + ready}, args...)
		eventually(t, 3*time.Minute, "the witness is ready", func() error {
			select {
			case <-r.Done():
				t.Fatalf("it did not start: %s", contents(t, r.errs))
			default:
			}
			b, err := os.ReadFile(ready)
			if err == nil {
				words := strings.Fields(string(b))
				url := "http://" + words[0]
				address.Store(&url)
				vkey = words[1]
			}
			return err
		})
		return r
	}
	witness := start()
	verifier, err := cosignature.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}

	var clock, answered atomic.Int64
	ledger := make([][]cosigned, len(logs))
	var mu sync.Mutex
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range logs {
		for side := range 2 {
			clients.Go(func() {
				old, size := int64(0), int64(1)
				for ctx.Err() == nil && size <= cheatSize {
					if old > size {
						size = old // the other side is ahead
					}
					body, err := logs[i].request(side, min(old, size), size)
					if err != nil {
						t.Error(err)
						return
					}
					from := clock.Add(1)
					status, said := askWitness(ctx, *address.Load(), body)
					switch status {
					case http.StatusOK:
						_, checkpoint, _ := bytes.Cut(body, []byte("\n\n"))
						if _, err := note.Open(append(checkpoint, said...), note.VerifierList(verifier)); err != nil {
							t.Errorf("a cosignature that does not verify: %v", err)
							return
						}
						mu.Lock()
						ledger[i] = append(ledger[i], cosigned{side, size, from, clock.Add(1)})
						mu.Unlock()
						answered.Add(1)
						old, size = size, size+1
					case http.StatusConflict:
						if n, err := cosign.ParseSize(strings.TrimSuffix(said, "\n")); err == nil {
							old = n
							size = max(size, n)
						} else {
							size++ // another tree of that size: try a larger one
						}
					case http.StatusUnprocessableEntity:
						size++
					case 0: // it is dead, or died under the request
						select {
						case <-ctx.Done():
						case <-time.After(2 * time.Millisecond):
						}
					default:
						t.Errorf("status %d: %s", status, said)
						return
					}
				}
			})
		}
	}
	for k := range kills {
		until := answered.Load() + int64(5+7*k%23) // a different moment each time
		eventually(t, 3*time.Minute, "the witness cosigns", func() error {
			if answered.Load() < until {
				return errors.New("not yet")
			}
			return nil
		})
		if err := witness.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-witness.Done()
		witness = start()
	}
	until := answered.Load() + 10
	eventually(t, 3*time.Minute, "the witness cosigns after the last kill", func() error {
		if answered.Load() < until {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	clients.Wait()
	for i, list := range ledger {
		checkLedger(t, logs[i], list)
	}
	t.Logf("%d cosignatures over %d kills", answered.Load(), kills)
	if err := witness.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-witness.Done()
	if err := witness.Err(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit code 0", err)
	}
}

// checkLedger looks at every pair of cosignatures.
func checkLedger(t *testing.T, l *cheat, list []cosigned) {
	t.Helper()
	if len(list) < 10 {
		t.Errorf("%s: only %d cosignatures", l.origin, len(list))
	}
	for _, a := range list {
		for _, b := range list {
			if a.side != b.side && a.size > cheatSame && b.size > cheatSame {
				t.Fatalf("%s: two histories are cosigned: %+v and %+v", l.origin, a, b)
			}
			if a.to < b.from && b.size < a.size {
				t.Fatalf("%s: %+v was cosigned after %+v: it went back", l.origin, b, a)
			}
		}
	}
}

// askWitness sends the request; status 0 is no answer, or not a whole one.
func askWitness(ctx context.Context, address string, body []byte) (status int, said string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(b)
}
