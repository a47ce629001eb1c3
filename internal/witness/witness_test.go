// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/outbound"
)

const origin = "log.example/audit/1"

// aLog is a log in memory that signs whatever it likes.
type aLog struct {
	tb     testing.TB
	signer note.Signer
	vkey   string
}

func newLog(tb testing.TB, name string) *aLog {
	tb.Helper()
	skey, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		tb.Fatal(err)
	}
	return &aLog{tb, s, vkey}
}

// tree is a history: its first same entries are those of every other tree.
type tree struct {
	tb     testing.TB
	hashes []tlog.Hash
}

func history(tb testing.TB, word string, same, n int64) *tree {
	tb.Helper()
	t := &tree{tb: tb}
	for i := range n {
		w := word
		if i < same {
			w = "same"
		}
		h, err := tlog.StoredHashes(i, fmt.Append(nil, w, i), t)
		if err != nil {
			tb.Fatal(err)
		}
		t.hashes = append(t.hashes, h...)
	}
	return t
}

func (t *tree) ReadHashes(idx []int64) (out []tlog.Hash, err error) {
	for _, i := range idx {
		out = append(out, t.hashes[i])
	}
	return out, nil
}

func (t *tree) root(size int64) tlog.Hash {
	h, err := tlog.TreeHash(size, t)
	if err != nil {
		t.tb.Fatal(err)
	}
	if size == 0 {
		h = sha256.Sum256(nil)
	}
	return h
}

func (t *tree) prove(old, size int64) ([]tlog.Hash, error) {
	if old == 0 || old == size {
		return nil, nil
	}
	return tlog.ProveTree(size, old, t)
}

func (l *aLog) sign(t *tree, size int64, more ...string) []byte {
	c := cosign.Checkpoint{Origin: l.signer.Name(), Size: size, Root: t.root(size), Extensions: more}
	b, err := note.Sign(&note.Note{Text: c.String()}, l.signer)
	if err != nil {
		l.tb.Fatal(err)
	}
	return b
}

// request is the honest request to go from the old size to the new.
func (l *aLog) request(t *tree, old, size int64, more ...string) cosign.Request {
	p, err := t.prove(old, size)
	if err != nil {
		l.tb.Fatal(err)
	}
	return cosign.Request{Old: old, Proof: p, Checkpoint: l.sign(t, size, more...)}
}

// place is where a witness lives.
type place struct{ state, key string }

func newPlace(tb testing.TB, name string) place {
	tb.Helper()
	p := place{filepath.Join(tb.TempDir(), "state"), filepath.Join(tb.TempDir(), "key")}
	if err := New(p.state, p.key, name); err != nil {
		tb.Fatal(err)
	}
	return p
}

func (p place) open(change ...func(*Config)) (*Witness, error) {
	keys, err := os.ReadFile(p.key)
	if err != nil {
		return nil, err
	}
	cfg := Config{State: p.state, Keys: keys, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	return Open(cfg)
}

func watching(vkeys ...string) func(*Config) { return func(c *Config) { c.Logs = vkeys } }

func (p place) start(tb testing.TB, change ...func(*Config)) (*Witness, *httptest.Server) {
	tb.Helper()
	w, err := p.open(change...)
	if err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = w.Server()
	server.Start()
	tb.Cleanup(func() {
		server.Close()
		_ = w.Close()
	})
	return w, server
}

func post(tb testing.TB, server *httptest.Server, body []byte) (int, string, string) {
	tb.Helper()
	resp, err := http.Post(server.URL+"/add-checkpoint", "text/plain", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

// checkCosigned verifies the lines with the library that others use.
func checkCosigned(tb testing.TB, w *Witness, signed []byte, lines string) {
	tb.Helper()
	for _, k := range w.VKeys() {
		v, err := cosignature.NewVerifierForCosignatureV1(k)
		if err != nil {
			tb.Fatal(err)
		}
		n, err := note.Open(append(bytes.Clone(signed), lines...), note.VerifierList(v))
		if err != nil {
			tb.Fatalf("%v of\n%s%s", err, signed, lines)
		}
		at, err := cosignature.CoSigV1Timestamp(n.Sigs[0])
		if d := time.Since(at); err != nil || d < -time.Second || d > 10*time.Minute {
			tb.Errorf("cosigned %v ago, %v", d, err)
		}
	}
}

// The statuses of the protocol, over HTTP, each against a witness that has
// cosigned 7 entries.
func TestProtocol(t *testing.T) {
	t.Parallel()
	log, elsewhere := newLog(t, origin), newLog(t, "log.example/unknown")
	stranger := newLog(t, origin)
	honest, forked := history(t, "a", 0, 40), history(t, "b", 5, 40)
	good := log.request(honest, 7, 12)
	with := func(change func(*cosign.Request)) []byte {
		r := good
		r.Proof = append(tlog.TreeProof(nil), good.Proof...)
		change(&r)
		return r.Marshal()
	}
	for _, tc := range []struct {
		name   string
		body   []byte
		status int
		says   string
	}{
		{"an extension", good.Marshal(), 200, "— witness.example/w "},
		{"the same again", log.request(honest, 7, 7).Marshal(), 200, "— witness.example/w "},
		{"with a stranger's signature too", with(func(r *cosign.Request) {
			_, line, _ := strings.Cut(string(stranger.sign(honest, 12)), "\n\n")
			r.Checkpoint = append(r.Checkpoint, line...)
		}), 200, "— "},
		{"from nothing again", log.request(honest, 0, 12).Marshal(), 409, "7\n"},
		{"from less than was cosigned", log.request(honest, 5, 12).Marshal(), 409, "7\n"},
		{"from more than was cosigned", log.request(honest, 9, 12).Marshal(), 409, "7\n"},
		{"a rollback", log.request(honest, 3, 5).Marshal(), 409, "7\n"},
		{"a rollback that says the right size", with(func(r *cosign.Request) { r.Checkpoint = log.sign(honest, 5) }), 400, ""},
		{"a rollback to nothing", log.request(honest, 0, 0).Marshal(), 409, "7\n"},
		{"another tree of the same size", cosign.Request{Old: 7, Checkpoint: log.sign(history(t, "c", 0, 7), 7)}.Marshal(), 409, "another tree"},
		{"a fork with its own proof", log.request(history(t, "a", 5, 40), 7, 12).Marshal(), 422, ""},
		{"a fork with the right tree's proof", with(func(r *cosign.Request) { r.Checkpoint = log.sign(forked, 12) }), 422, ""},
		{"no proof", with(func(r *cosign.Request) { r.Proof = nil }), 422, ""},
		{"a short proof", with(func(r *cosign.Request) { r.Proof = r.Proof[1:] }), 422, ""},
		{"a long proof", with(func(r *cosign.Request) { r.Proof = append(r.Proof, tlog.Hash{}) }), 422, ""},
		{"a proof with a flipped bit", with(func(r *cosign.Request) { r.Proof[1][0] ^= 1 }), 422, ""},
		{"the same with a proof", with(func(r *cosign.Request) { r.Checkpoint = log.sign(honest, 7) }), 422, ""},
		{"an unknown log", elsewhere.request(honest, 7, 12).Marshal(), 404, ""},
		{"a stranger's signature", stranger.request(honest, 7, 12).Marshal(), 403, ""},
		{"a text that was changed", bytes.Replace(good.Marshal(), []byte("\n12\n"), []byte("\n13\n"), 1), 403, ""},
		{"no signature", []byte("old 7\n\n" + strings.SplitAfter(string(good.Checkpoint), "\n\n")[0]), 400, ""},
		{"a checkpoint that is none", cosign.Request{Old: 7, Checkpoint: []byte(origin + "\n")}.Marshal(), 400, ""},
		{"nothing", nil, 400, ""},
		{"a leading zero", bytes.Replace(good.Marshal(), []byte("old 7"), []byte("old 07"), 1), 400, ""},
		{"a negative size", bytes.Replace(good.Marshal(), []byte("old 7"), []byte("old -7"), 1), 400, ""},
		{"64 hashes", with(func(r *cosign.Request) { r.Proof = make(tlog.TreeProof, 64) }), 400, ""},
		{"a hash of 31 bytes", bytes.Replace(good.Marshal(), []byte("old 7\n"), []byte("old 7\n"+base64.StdEncoding.EncodeToString(make([]byte, 31))+"\n"), 1), 400, ""},
		{"more than a request can be", bytes.Repeat([]byte("x"), maxBody+1), 413, ""},
		{"a signed size beyond all trees", with(func(r *cosign.Request) {
			b, err := note.Sign(&note.Note{Text: origin + "\n9223372036854775807\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"}, log.signer)
			if err != nil {
				t.Fatal(err)
			}
			r.Checkpoint = b
		}), 400, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, server := newPlace(t, "witness.example/w").start(t, watching(log.vkey))
			if status, _, said := post(t, server, log.request(honest, 0, 7).Marshal()); status != 200 {
				t.Fatal(status, said)
			}
			before, err := w.Checkpoint(origin)
			if err != nil {
				t.Fatal(err)
			}
			status, kind, said := post(t, server, tc.body)
			if status != tc.status || !strings.Contains(said, tc.says) {
				t.Errorf("got %d %q; want %d %q", status, said, tc.status, tc.says)
			}
			if sized := kind == cosign.SizeType; sized != (said == "7\n") {
				t.Errorf("got %q as %s", said, kind)
			}
			if status == 200 {
				_, checkpoint, _ := bytes.Cut(tc.body, []byte("\n\n"))
				checkCosigned(t, w, checkpoint, said)
				return
			}
			if after, err := w.Checkpoint(origin); err != nil || string(after) != string(before) {
				t.Errorf("a refusal changed what is cosigned to\n%s", after)
			}
		})
	}
}

func TestAnEmptyTreeHasOneRoot(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	w, server := newPlace(t, "w").start(t, watching(log.vkey))
	bad, err := note.Sign(&note.Note{Text: cosign.Checkpoint{Origin: origin}.String()}, log.signer)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, said := post(t, server, cosign.Request{Checkpoint: bad}.Marshal()); status != 422 {
		t.Errorf("got %d %s, want 422", status, said)
	}
	a := history(t, "a", 0, 3)
	for _, size := range []int64{0, 0, 3} {
		r := log.request(a, 0, size)
		status, _, said := post(t, server, r.Marshal())
		if status != 200 {
			t.Fatalf("%d entries: got %d %s", size, status, said)
		}
		checkCosigned(t, w, r.Checkpoint, said)
	}
}

// Two patient maps over the same entries are two histories of a patient.
func TestAnotherPatientMapIsASplitView(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	a := history(t, "a", 0, 9)
	p := newPlace(t, "w")
	_, server := p.start(t, watching(log.vkey))
	for _, tc := range []struct {
		line   string
		status int
	}{{"patients AAAA", 200}, {"patients AAAA", 200}, {"patients BBBB", 409}, {"other", 409}} {
		old := int64(9)
		if tc.status == 200 && tc.line == "patients AAAA" {
			old = 0
		}
		if status, _, said := post(t, server, log.request(a, old, 9, tc.line).Marshal()); status != tc.status && (status != 409 || said != "9\n") {
			t.Errorf("%s: got %d %s, want %d", tc.line, status, said, tc.status)
		}
	}
	kept, err := filepath.Glob(filepath.Join(p.state, "evidence", "*.txt"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("got %v, %v; want both pairs of checkpoints kept", kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil || strings.Count(string(text), origin+"\n") != 2 || !strings.Contains(string(text), "patients AAAA") {
		t.Errorf("got %s, %v; want the two signed checkpoints", text, err)
	}
}

// A log replaces its key: while both are known each will do, and what was
// cosigned under the old one binds the new.
func TestALogsKeyIsReplaced(t *testing.T) {
	t.Parallel()
	old, next := newLog(t, origin), newLog(t, origin)
	a, b := history(t, "a", 0, 30), history(t, "b", 0, 30)
	p := newPlace(t, "w")
	for _, step := range []struct {
		vkeys    []string
		log      *aLog
		from, to int64
		tree     *tree
		status   int
	}{
		{[]string{old.vkey}, old, 0, 5, a, 200},
		{[]string{old.vkey}, next, 5, 6, a, 403},
		{[]string{old.vkey, next.vkey}, next, 5, 8, a, 200},
		{[]string{next.vkey, old.vkey}, old, 8, 9, a, 200},
		{[]string{next.vkey}, old, 9, 10, a, 403},
		{[]string{next.vkey}, next, 9, 12, b, 422},
		{[]string{next.vkey}, next, 9, 12, a, 200},
	} {
		w, err := p.open(watching(step.vkeys...))
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(w.Server().Handler)
		if status, _, said := post(t, server, step.log.request(step.tree, step.from, step.to).Marshal()); status != step.status {
			t.Errorf("%d → %d: got %d %s, want %d", step.from, step.to, status, said, step.status)
		}
		server.Close()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The witness's own key is replaced: it cosigns with both, and starts as long
// as one of its keys has cosigned its state.
func TestTheWitnessesKeyIsReplaced(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	a := history(t, "a", 0, 9)
	p := newPlace(t, "witness.example/old")
	next, err := newKey("witness.example/new")
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	with := func(keys string) func(*Config) {
		return func(c *Config) { c.Logs, c.Keys = []string{log.vkey}, []byte(keys) }
	}
	add := func(keys string, old, size int64) {
		t.Helper()
		w, err := p.open(with(keys))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		r := log.request(a, old, size)
		lines, err := w.AddCheckpoint(t.Context(), r.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		checkCosigned(t, w, r.Checkpoint, string(lines))
	}
	add(string(first), 0, 3)
	if _, err := p.open(with(next)); err == nil || !strings.Contains(err.Error(), "does not start") {
		t.Errorf("got %v; want another key to be refused", err)
	}
	add(string(first)+"# the new one\n"+next+"\n", 3, 5)
	add(next, 5, 7)
}

// Requests about one log at the same time: one wins each step, and what is
// cosigned is one history without a step back.
func TestRequestsAtTheSameTime(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	trees := []*tree{history(t, "a", 0, 60), history(t, "b", 0, 60)}
	_, server := newPlace(t, "w").start(t, watching(log.vkey))
	type signed struct{ tree, size int64 }
	var mu sync.Mutex
	var got []signed
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			old := int64(0)
			for size := int64(1); size <= 60; size++ {
				if old > size {
					continue
				}
				status, _, said := post(t, server, log.request(trees[i%2], old, size).Marshal())
				switch status {
				case 200:
					mu.Lock()
					got = append(got, signed{i % 2, size})
					mu.Unlock()
					old = size
				case 409:
					if n, err := cosign.ParseSize(strings.TrimSuffix(said, "\n")); err == nil {
						old = n
					}
				case 422:
				default:
					t.Errorf("got %d %s", status, said)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if s.tree != got[0].tree {
			t.Fatalf("two histories are cosigned: %+v", got)
		}
	}
	if len(got) < 10 {
		t.Errorf("only %d were cosigned", len(got))
	}
}

// Each step of saving fails, before it and after it took effect: nobody gets a
// cosignature, the witness is unhealthy, goes on when the disk does, and a
// restart in between finds one of the two heads, whole.
func TestSavingFails(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	a, b := history(t, "a", 4, 30), history(t, "b", 4, 30)
	for _, step := range []string{"create", "write", "sync", "close", "rename", "sync the folder"} {
		for _, after := range []bool{false, true} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, after: %v, restart: %v", step, after, restart), func(t *testing.T) {
					t.Parallel()
					broken, hits := false, 0
					p := newPlace(t, "w")
					w, err := p.open(watching(log.vkey), func(c *Config) {
						c.fault = func(s string, then bool) error {
							if broken && s == step && then == after {
								hits++
								return errors.New("injected")
							}
							return nil
						}
					})
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = w.Close() }()
					server := httptest.NewServer(w.Server().Handler)
					defer server.Close()
					if status, _, _ := post(t, server, log.request(a, 0, 4).Marshal()); status != 200 {
						t.Fatal(status)
					}
					broken = true
					status, _, said := post(t, server, log.request(a, 4, 9).Marshal())
					if status != 503 || strings.Contains(said, "—") || hits != 1 || strings.Contains(said, p.state) {
						t.Fatalf("got %d %q after %d hits; want 503 and no cosignature", status, said, hits)
					}
					if resp, err := http.Get(server.URL + "/healthz"); err != nil || resp.StatusCode != 503 {
						t.Errorf("healthz: %v, %v; want 503", resp, err)
					}
					broken = false
					if restart {
						server.Close()
						if err := w.Close(); err != nil {
							t.Fatal(err)
						}
						again, err := p.open(watching(log.vkey))
						if err != nil {
							t.Fatal(err)
						}
						defer func() { _ = again.Close() }()
						server = httptest.NewServer(again.Server().Handler)
						defer server.Close()
					}
					// What it says it knows now, it goes on from. The other history is open
					// only where nothing beyond the common entries was saved.
					status, _, said = post(t, server, log.request(b, 0, 9).Marshal())
					if status != 409 || said != "4\n" && said != "9\n" || !restart && said != "4\n" {
						t.Fatalf("got %d %q; want one of the two heads", status, said)
					}
					known, _ := cosign.ParseSize(strings.TrimSuffix(said, "\n"))
					if status, _, said := post(t, server, log.request(a, known, 12).Marshal()); status != 200 {
						t.Errorf("got %d %s; want it to go on", status, said)
					}
					if status, _, said := post(t, server, log.request(b, 12, 13).Marshal()); status != 422 {
						t.Errorf("got %d %s; want the other history refused", status, said)
					}
					if resp, err := http.Get(server.URL + "/healthz"); err != nil || resp.StatusCode != 200 {
						t.Errorf("healthz: %v, %v; want 200", resp, err)
					}
				})
			}
		}
	}
}

// A state that does not read is refused at the start, byte by byte.
func TestAStateThatDoesNotReadIsRefused(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	a := history(t, "a", 0, 9)
	p := newPlace(t, "w")
	w, err := p.open(watching(log.vkey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddCheckpoint(t.Context(), log.request(a, 0, 9).Marshal()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.open(watching(log.vkey)); err == nil || !strings.Contains(err.Error(), "another witness runs") {
		t.Errorf("got %v; want the second to be refused", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.state, fileOf(origin))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := p.open(watching(log.vkey))
		if err == nil {
			_ = w.Close()
			t.Errorf("%s: it started", what)
		}
	}
	cosigned := bytes.Index(whole, []byte("— w "))
	for n := range len(whole) {
		try(fmt.Sprint("cut at ", n), whole[:n])
		if text := bytes.Index(whole, []byte("\n\n")); n <= text || n >= cosigned {
			changed := bytes.Clone(whole)
			changed[n] ^= 1
			try(fmt.Sprint("changed at ", n), changed)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file, filepath.Join(p.state, fileOf("another"))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.open(watching(log.vkey)); err == nil || !strings.Contains(err.Error(), "another log") {
		t.Errorf("got %v; want a misnamed file refused", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	lost := newPlace(t, "w")
	if err := os.RemoveAll(lost.state); err != nil {
		t.Fatal(err)
	}
	newer := newPlace(t, "w")
	if err := os.WriteFile(filepath.Join(newer.state, marker), []byte("medirecord witness state 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		place place
		cfg   func(*Config)
		want  string
	}{
		{"a lost state", lost, watching(log.vkey), "must not be used again"},
		{"a newer state", newer, watching(log.vkey), "not of this program's version"},
		{"no log", newPlace(t, "w"), watching(), "--log"},
		{"a key that is none", newPlace(t, "w"), watching("hello"), "does not read"},
		{"no key", newPlace(t, "w"), func(c *Config) { c.Logs, c.Keys = []string{log.vkey}, []byte("# none\n") }, "holds no key"},
		{"another key", newPlace(t, "w"), func(c *Config) { c.Logs, c.Keys = []string{log.vkey}, []byte("PRIVATE+KEY+x") }, "not a key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := tc.place.open(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want %q", err, tc.want)
			}
		})
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	p := newPlace(t, "w")
	key, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(p.key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want 0600", info, err)
	}
	if err := New(p.state, p.key, "other"); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(p.key); err != nil || string(again) != string(key) {
		t.Errorf("the key was replaced: %v", err)
	}
	// Cut off between the state and the key: the next start makes the key.
	if err := os.Remove(p.key); err != nil {
		t.Fatal(err)
	}
	if err := New(p.state, p.key, "w"); err != nil {
		t.Errorf("got %v; want it to finish", err)
	}
	w, err := p.open(watching(log.vkey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddCheckpoint(t.Context(), log.request(history(t, "a", 0, 3), 0, 3).Marshal()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.Remove(p.key)); err != nil {
		t.Fatal(err)
	}
	if err := New(p.state, p.key, "w"); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("got %v; want a new key refused on a state in use", err)
	}
	for _, name := range []string{"", "a b", "a+b"} {
		if err := New(t.TempDir(), filepath.Join(t.TempDir(), "key"), name); err == nil {
			t.Errorf("%q: want the name refused", name)
		}
	}
}

func TestCheckpointIsTold(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	p := newPlace(t, "w")
	w, server := p.start(t, watching(log.vkey))
	get := func(origin string) (int, string) {
		resp, err := http.Get(server.URL + "/checkpoint?origin=" + url.QueryEscape(origin))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, o := range []string{origin, "unknown", ""} {
		if status, _ := get(o); status != 404 {
			t.Errorf("%q: got %d, want 404 before anything is cosigned", o, status)
		}
	}
	r := log.request(history(t, "a", 0, 9), 0, 9)
	if status, _, said := post(t, server, r.Marshal()); status != 200 {
		t.Fatal(status, said)
	}
	policy, err := cosign.ParsePolicy([]byte("log " + log.vkey + "\nwitness w " + w.VKeys()[0] + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	status, said := get(origin)
	if v, err := policy.Verify([]byte(said)); status != 200 || err != nil || v.Size != 9 {
		t.Errorf("got %d, %v, %v of\n%s", status, v, err, said)
	}
	if saved, err := os.ReadFile(filepath.Join(p.state, fileOf(origin))); err != nil || string(saved) != said {
		t.Errorf("it tells what is not on disk: %v", err)
	}
}

// The client of this house and the witness, through a log's life: it grows,
// another sealer takes over, it is rolled back and grows anew.
func TestClientAndWitness(t *testing.T) {
	t.Parallel()
	log := newLog(t, origin)
	honest, rewritten := history(t, "a", 0, 300), history(t, "b", 40, 300)
	w1, s1 := newPlace(t, "witness.example/1").start(t, watching(log.vkey))
	w2, s2 := newPlace(t, "witness.example/2").start(t, watching(log.vkey))
	policy, err := cosign.ParsePolicy([]byte("log " + log.vkey + "\nwitness one " + w1.VKeys()[0] + " " + s1.URL + "\nwitness two " + w2.VKeys()[0] + " " + s2.URL + "/\ngroup g all one two\nquorum g\n"))
	if err != nil {
		t.Fatal(err)
	}
	client := func() *cosign.Client {
		c, err := cosign.NewClient(cosign.ClientConfig{Policy: policy, Outbound: outbound.Config{Dev: true}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	first, second := client(), client()
	for i, size := range []int64{1, 2, 40, 41, 41, 128, 200} {
		c := []*cosign.Client{first, second}[i%2] // each must heal from what the other did
		got, err := c.Cosign(ctx, log.sign(honest, size), honest.prove)
		if err != nil {
			t.Fatalf("%d entries: %v", size, err)
		}
		if v, err := policy.Verify(got); err != nil || v.Size != size || len(v.Cosigned) != 2 {
			t.Fatalf("got %+v, %v", v, err)
		}
	}
	for name, tc := range map[string]struct {
		tree *tree
		size int64
	}{"rolled back": {honest, 100}, "rewritten": {rewritten, 200}, "rewritten and longer": {rewritten, 250}} {
		if _, err := client().Cosign(ctx, log.sign(tc.tree, tc.size), tc.tree.prove); !errors.Is(err, cosign.ErrContradiction) {
			t.Errorf("%s: got %v; want ErrContradiction", name, err)
		}
	}
	if _, err := first.Cosign(ctx, log.sign(honest, 201), honest.prove); err != nil {
		t.Errorf("got %v; want the honest history to go on", err)
	}
}

// A second opinion on the arithmetic: what this witness takes as a proof, the
// verifier of transparency-dev/merkle takes too, and the reverse.
func TestProofsAgainstASecondVerifier(t *testing.T) {
	t.Parallel()
	a := history(t, "a", 0, 70)
	for size := int64(1); size <= 70; size++ {
		for old := int64(1); old <= size; old++ {
			p, err := a.prove(old, size)
			if err != nil {
				t.Fatal(err)
			}
			var hashes [][]byte
			for _, h := range p {
				hashes = append(hashes, h[:])
			}
			ro, rs := a.root(old), a.root(size)
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), hashes, ro[:], rs[:]); err != nil {
				t.Fatalf("%d → %d: %v", old, size, err)
			}
		}
	}
}

// Whatever arrives, the head only ever moves along the one history, and no
// answer but 200 moves it.
func FuzzAddCheckpoint(f *testing.F) {
	log := newLog(f, origin)
	honest, forked := history(f, "a", 0, 20), history(f, "b", 4, 20)
	for _, r := range []cosign.Request{log.request(honest, 0, 5), log.request(honest, 5, 9), log.request(forked, 5, 9), log.request(honest, 5, 5)} {
		f.Add(r.Marshal())
	}
	f.Add([]byte("old 5\n\n" + origin + "\n"))
	p := newPlace(f, "w")
	w, err := p.open(watching(log.vkey))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Close() })
	if _, err := w.AddCheckpoint(f.Context(), log.request(honest, 0, 5).Marshal()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before, err := w.Checkpoint(origin)
		if err != nil {
			t.Fatal(err)
		}
		lines, refused := w.AddCheckpoint(t.Context(), body)
		after, err := w.Checkpoint(origin)
		if err != nil || refused != nil && string(after) != string(before) {
			t.Fatalf("%v, and it moved to\n%s", refused, after)
		}
		if refused != nil && len(lines) > 0 {
			t.Fatal("a refusal with a cosignature")
		}
		c, err := cosign.ParseCheckpoint(strings.SplitAfter(string(after), "\n\n")[0][:bytes.Index(after, []byte("\n\n"))+1])
		if err != nil || c.Root != honest.root(c.Size) {
			t.Fatalf("%v, another history:\n%s", err, after)
		}
	})
}
