// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/outbound"
)

// tree is a log's tree in memory.
type tree struct{ hashes []tlog.Hash }

func (t *tree) ReadHashes(idx []int64) (out []tlog.Hash, err error) {
	for _, i := range idx {
		out = append(out, t.hashes[i])
	}
	return out, nil
}

// grown returns a tree of n entries that begin with the word.
func grown(t testing.TB, word string, n int64) *tree {
	t.Helper()
	tr := &tree{}
	for i := range n {
		h, err := tlog.StoredHashes(i, fmt.Append(nil, word, i), tr)
		if err != nil {
			t.Fatal(err)
		}
		tr.hashes = append(tr.hashes, h...)
	}
	return tr
}

func (t *tree) at(tb testing.TB, size int64) Checkpoint {
	tb.Helper()
	root, err := tlog.TreeHash(size, t)
	if err != nil {
		tb.Fatal(err)
	}
	return Checkpoint{Origin: origin, Size: size, Root: root}
}

func (t *tree) prove(old, size int64) ([]tlog.Hash, error) { return tlog.ProveTree(size, old, t) }

// scripted is a witness that answers as it is told to: for what no honest one says.
type scripted struct {
	name   string
	signer note.Signer
	vkey   string
	server *httptest.Server
	asked  atomic.Int32
}

func (s *scripted) line() string {
	return "witness " + s.name + " " + s.vkey + " " + s.server.URL + "/w\n"
}

func script(t testing.TB, name string, answer func(s *scripted, w http.ResponseWriter, r Request)) *scripted {
	t.Helper()
	s := &scripted{name: name}
	s.signer, s.vkey = witnessKey(t, "witness.example/"+name)
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		req, err := ParseRequest(body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/w/add-checkpoint" {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		answer(s, w, req)
	}))
	t.Cleanup(s.server.Close)
	return s
}

// sign is the answer of a witness that believes everything.
func (s *scripted) sign(tb testing.TB, w io.Writer, r Request) {
	text, _, _ := strings.Cut(string(r.Checkpoint), "\n\n")
	c, err := ParseCheckpoint(text + "\n")
	if err != nil {
		tb.Error(err)
	}
	_, line, _ := strings.Cut(string(sign(tb, c, s.signer)), "\n\n")
	_, _ = io.WriteString(w, line)
}

func conflict(w http.ResponseWriter, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusConflict)
	_, _ = io.WriteString(w, body)
}

// believes signs whatever it is shown.
func believes(t testing.TB) func(*scripted, http.ResponseWriter, Request) {
	return func(s *scripted, w http.ResponseWriter, r Request) { s.sign(t, w, r) }
}

func says(status int) func(*scripted, http.ResponseWriter, Request) {
	return func(_ *scripted, w http.ResponseWriter, _ Request) { w.WriteHeader(status) }
}

func open(t testing.TB, policy string, change ...func(*ClientConfig)) *Client {
	t.Helper()
	cfg := ClientConfig{Policy: parse(t, policy), Outbound: outbound.Config{Dev: true}, Now: time.Now, Attempt: time.Minute, Grace: 20 * time.Millisecond}
	for _, f := range change {
		f(&cfg)
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until returns a context that ends when the witness is asked for the nth time, and
// the answer with which it does. By then what came of the first time is known,
// however long that took.
func until(t testing.TB, n int32, answer func(*scripted, http.ResponseWriter, Request)) (context.Context, func(*scripted, http.ResponseWriter, Request)) {
	t.Helper()
	ctx, cancel := context.WithCancel(soon(t))
	t.Cleanup(cancel)
	return ctx, func(s *scripted, w http.ResponseWriter, r Request) {
		if s.asked.Load() >= n {
			cancel()
		}
		answer(s, w, r)
	}
}

func TestCosign(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 40)

	t.Run("all cosignatures come back, and none from elsewhere", func(t *testing.T) {
		t.Parallel()
		stranger, _ := witnessKey(t, "witness.example/a")
		a := script(t, "a", func(s *scripted, w http.ResponseWriter, r Request) {
			_, line, _ := strings.Cut(string(sign(t, tr.at(t, 9), stranger)), "\n\n")
			_, _ = io.WriteString(w, line)
			s.sign(t, w, r)
		})
		b := script(t, "b", believes(t))
		policy := "log " + logV + "\n" + a.line() + b.line() + "group g all a b\nquorum g\n"
		c := open(t, policy)
		got, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log, stranger), tr.prove)
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.policy.Verify(got)
		if err != nil || len(v.Cosigned) != 2 || strings.Count(string(got), "— ") != 3 {
			t.Fatalf("got %+v, %v of\n%s", v, err, got)
		}
		for _, s := range c.Stats() {
			if s.Size != 9 || s.Behind != 0 || s.Lag != 0 || s.Cosigned != 1 || s.Failed != 0 || s.Last != "" {
				t.Errorf("got %+v", s)
			}
		}
	})

	t.Run("a witness that knows another size gets the proof from there", func(t *testing.T) {
		t.Parallel()
		var proofs atomic.Int32
		a := script(t, "a", func(s *scripted, w http.ResponseWriter, r Request) {
			if r.Old != 5 {
				conflict(w, SizeType, "5\n")
				return
			}
			if tlog.CheckTree(r.Proof, 9, tr.at(t, 9).Root, 5, tr.at(t, 5).Root) == nil {
				proofs.Add(1)
			}
			s.sign(t, w, r)
		})
		c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n")
		if _, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove); err != nil || proofs.Load() != 1 || a.asked.Load() != 2 {
			t.Errorf("got %v after %d requests; want the cosignature after two", err, a.asked.Load())
		}
	})

	t.Run("one that fails is asked again", func(t *testing.T) {
		t.Parallel()
		var n atomic.Int32
		a := script(t, "a", func(s *scripted, w http.ResponseWriter, r Request) {
			if n.Add(1) < 4 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			s.sign(t, w, r)
		})
		c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n")
		if _, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove); err != nil {
			t.Error(err)
		}
		if s := c.Stats()[0]; s.Failed != 3 || s.Cosigned != 1 {
			t.Errorf("got %+v; want three failures", s)
		}
	})

	t.Run("a quorum does not wait for who is away", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		slow := script(t, "slow", func(*scripted, http.ResponseWriter, Request) { <-release })
		t.Cleanup(func() { close(release) })
		a := script(t, "a", believes(t))
		// Who waited for it would wait until the end of the context.
		c := open(t, "log "+logV+"\n"+a.line()+slow.line()+"group g any a slow\nquorum g\n", func(cfg *ClientConfig) { cfg.Attempt = time.Hour })
		for i := range int64(3) {
			got, err := c.Cosign(soon(t), sign(t, tr.at(t, 9+i), log), tr.prove)
			if err != nil {
				t.Fatalf("got %v", err)
			}
			if v, err := c.policy.Verify(got); err != nil || len(v.Cosigned) != 1 {
				t.Fatalf("got %+v, %v", v, err)
			}
		}
		s := c.Stats()[1]
		if s.Witness != "slow" || s.Lag == 0 || s.Behind != 11 || s.Size != 0 {
			t.Errorf("got %+v; want it behind by 11", s)
		}
	})

	t.Run("an unreachable quorum ends with the context, and says who is away", func(t *testing.T) {
		t.Parallel()
		ctx, answer := until(t, 4, says(http.StatusBadGateway))
		a := script(t, "a", answer)
		c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n")
		_, err := c.Cosign(ctx, sign(t, tr.at(t, 9), log), tr.prove)
		if !errors.Is(err, ErrQuorum) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "witness a: it answered with status 502") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("no quorum without witnesses is asked of nobody", func(t *testing.T) {
		t.Parallel()
		c := open(t, "log "+logV+"\nquorum none\n")
		if got, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove); err != nil || string(got) != string(sign(t, tr.at(t, 9), log)) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// What a witness refuses for good is reported at once, and not asked again.
func TestCosignRefused(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 40)
	stranger, _ := witnessKey(t, "witness.example/a")
	for _, tc := range []struct {
		name   string
		answer func(*scripted, http.ResponseWriter, Request)
		contra bool
		want   string
	}{
		{"an unknown log", says(http.StatusNotFound), false, "does not know a log"},
		{"an unknown key", says(http.StatusForbidden), false, "trusts none of the keys"},
		{"a bad request", says(http.StatusBadRequest), false, "cannot read the request"},
		{"a bad proof", says(http.StatusUnprocessableEntity), true, "does not believe"},
		{"a larger tree", func(_ *scripted, w http.ResponseWriter, _ Request) { conflict(w, SizeType, "100\n") }, true, "the log went back"},
		{"another tree of the same size", func(_ *scripted, w http.ResponseWriter, r Request) {
			if r.Old == 9 {
				conflict(w, "text/plain", "split view\n")
				return
			}
			conflict(w, SizeType, "9\n")
		}, true, "another tree of 9"},
		{"another tree, with its size", func(_ *scripted, w http.ResponseWriter, _ Request) { conflict(w, SizeType, "9\n") }, true, "another tree of 9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var told atomic.Int32
			a := script(t, "a", tc.answer)
			c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n", func(cfg *ClientConfig) {
				cfg.Refused = func(r *Refusal) {
					if r.Witness == "a" {
						told.Add(1)
					}
				}
			})
			_, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove)
			if !errors.Is(err, ErrQuorum) || errors.Is(err, ErrContradiction) != tc.contra || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("got %v; want %q, a contradiction: %v", err, tc.want, tc.contra)
			}
			if n := a.asked.Load(); n > 2 {
				t.Errorf("asked %d times", n)
			}
			if s := c.Stats()[0]; s.Failed != 1 || (s.Contradicted == 1) != tc.contra || (told.Load() == 1) != tc.contra {
				t.Errorf("got %+v, told %d", s, told.Load())
			}
		})
	}

	// Bad answers that may pass: asked again until the context ends, and never taken.
	for _, tc := range []struct {
		name   string
		answer func(*scripted, http.ResponseWriter, Request)
		want   string
	}{
		{"no cosignature", func(_ *scripted, w http.ResponseWriter, _ Request) { _, _ = io.WriteString(w, "thank you\n") }, "no cosignature that verifies"},
		{"nothing", says(http.StatusOK), "no cosignature that verifies"},
		{"a stranger's cosignature", func(_ *scripted, w http.ResponseWriter, _ Request) {
			_, line, _ := strings.Cut(string(sign(t, tr.at(t, 9), stranger)), "\n\n")
			_, _ = io.WriteString(w, line)
		}, "no cosignature that verifies"},
		{"a cosignature of another tree", func(s *scripted, w http.ResponseWriter, _ Request) {
			_, line, _ := strings.Cut(string(sign(t, tr.at(t, 8), s.signer)), "\n\n")
			_, _ = io.WriteString(w, line)
		}, "no cosignature that verifies"},
		{"a plain signature of the witness's key", func(s *scripted, w http.ResponseWriter, _ Request) {
			_, line, _ := strings.Cut(string(sign(t, tr.at(t, 9), log)), "\n\n")
			_, _ = io.WriteString(w, line)
		}, "no cosignature that verifies"},
		{"too much", func(s *scripted, w http.ResponseWriter, r Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", maxAnswer))
			s.sign(t, w, r)
		}, "larger than the limit"},
		{"a redirect", func(_ *scripted, w http.ResponseWriter, _ Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "status 307"},
		{"a conflict without a size", func(_ *scripted, w http.ResponseWriter, _ Request) { conflict(w, "text/plain", "5\n") }, "does not tell the size"},
		{"a size that is none", func(_ *scripted, w http.ResponseWriter, _ Request) { conflict(w, SizeType, "05\n") }, "does not tell the size"},
		{"a size without an end", func(_ *scripted, w http.ResponseWriter, _ Request) { conflict(w, SizeType, "5") }, "does not tell the size"},
		{"ever other sizes", func(_ *scripted, w http.ResponseWriter, r Request) {
			conflict(w, SizeType, fmt.Sprintln(1+r.Old%7))
		}, "another size each time"},
		{"silence", nil, "has not answered"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, answer := until(t, 16, tc.answer) // the one with other sizes is asked four times each time
			if tc.answer == nil {
				var cancel func()
				ctx, cancel = context.WithTimeout(t.Context(), 400*time.Millisecond)
				defer cancel()
				over := ctx.Done()
				answer = func(*scripted, http.ResponseWriter, Request) { <-over }
			} else if tc.want != "another size each time" {
				ctx, answer = until(t, 4, tc.answer)
			}
			a := script(t, "a", answer)
			c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n")
			_, err := c.Cosign(ctx, sign(t, tr.at(t, 9), log), tr.prove)
			if !errors.Is(err, ErrQuorum) || errors.Is(err, ErrContradiction) || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("got %v; want %q", err, tc.want)
			}
		})
	}
}

func TestCosignGivesUpWhenNoQuorumIsLeft(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 10)
	no, yes := script(t, "no", says(http.StatusNotFound)), script(t, "yes", believes(t))
	c := open(t, "log "+logV+"\n"+no.line()+yes.line()+"group g all no yes\nquorum g\n")
	_, err := c.Cosign(t.Context(), sign(t, tr.at(t, 9), log), tr.prove) // no deadline: it must end by itself
	if !errors.Is(err, ErrQuorum) || !strings.Contains(fmt.Sprint(err), "witness no: ") {
		t.Errorf("got %v", err)
	}
}

// A contradiction is told also when the quorum is met by others.
func TestAContradictionIsToldBesideAQuorum(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 10)
	told := make(chan *Refusal, 1)
	sees, blind := script(t, "sees", says(http.StatusUnprocessableEntity)), script(t, "blind", believes(t))
	c := open(t, "log "+logV+"\n"+sees.line()+blind.line()+"group g any sees blind\nquorum g\n", func(cfg *ClientConfig) {
		cfg.Refused = func(r *Refusal) { told <- r }
		cfg.Grace = 5 * time.Second
	})
	if _, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove); err != nil {
		t.Fatal(err)
	}
	if r := <-told; r.Witness != "sees" || !errors.Is(r, ErrContradiction) {
		t.Errorf("got %+v", r)
	}
}

// A checkpoint that comes after a newer one of ours is late and no alarm; the
// same answer about a tree that we never showed is one.
func TestALateCheckpointIsSuperseded(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 20)
	var size atomic.Int64
	a := script(t, "a", func(s *scripted, w http.ResponseWriter, r Request) {
		if r.Old != size.Load() {
			conflict(w, SizeType, fmt.Sprintln(size.Load()))
			return
		}
		text, _, _ := strings.Cut(string(r.Checkpoint), "\n\n")
		c, _ := ParseCheckpoint(text + "\n")
		size.Store(c.Size)
		s.sign(t, w, r)
	})
	policy := "log " + logV + "\n" + a.line() + "quorum a\n"
	c := open(t, policy)
	for _, n := range []int64{5, 12} {
		if _, err := c.Cosign(soon(t), sign(t, tr.at(t, n), log), tr.prove); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove)
	if !errors.Is(err, ErrSuperseded) || errors.Is(err, ErrContradiction) {
		t.Errorf("got %v; want ErrSuperseded", err)
	}
	_, err = open(t, policy).Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove)
	if !errors.Is(err, ErrContradiction) {
		t.Errorf("got %v; want ErrContradiction from a client that never showed 12 entries", err)
	}
}

func TestTheProofIsAskedForOneAtATimeAndNotAfterTheEnd(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 20)
	policy, names := "log "+logV+"\n", ""
	for i := range 6 {
		name := fmt.Sprint("w", i)
		policy += script(t, name, func(s *scripted, w http.ResponseWriter, r Request) {
			if r.Old == 0 {
				conflict(w, SizeType, fmt.Sprintln(i+1))
				return
			}
			s.sign(t, w, r)
		}).line()
		names += " " + name
	}
	c := open(t, policy+"group g any"+names+"\nquorum g\n", func(cfg *ClientConfig) { cfg.Grace = time.Millisecond })
	var one sync.Mutex
	var over atomic.Bool
	_, err := c.Cosign(soon(t), sign(t, tr.at(t, 19), log), func(old, size int64) ([]tlog.Hash, error) {
		if !one.TryLock() {
			t.Error("two proofs at the same time")
		}
		defer one.Unlock()
		if over.Load() {
			t.Error("a proof after the end")
		}
		return tr.prove(old, size)
	})
	over.Store(true)
	if err != nil {
		t.Error(err)
	}
	c.Close()
}

func TestNewClientRefuses(t *testing.T) {
	t.Parallel()
	_, logV := logKey(t, origin)
	_, wV := witnessKey(t, "witness.example/w")
	for _, cfg := range []ClientConfig{
		{},
		{Policy: parse(t, "log "+logV+"\nquorum none\n")},
		{Policy: parse(t, "log "+logV+"\nwitness w "+wV+"\nquorum w\n"), Now: time.Now},
	} {
		if _, err := NewClient(cfg); err == nil {
			t.Errorf("%+v: want a refusal", cfg)
		}
	}
}

// A witness in our own networks is reached only when its range is listed.
func TestWitnessesInsideAreRefusedUnlessListed(t *testing.T) {
	t.Parallel()
	log, logV := logKey(t, origin)
	tr := grown(t, "entry ", 10)
	a := script(t, "a", believes(t))
	tls := httptest.NewTLSServer(a.server.Config.Handler)
	t.Cleanup(tls.Close)
	a.server.URL = tls.URL
	c := open(t, "log "+logV+"\n"+a.line()+"quorum a\n", func(cfg *ClientConfig) { cfg.Outbound = outbound.Config{} })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // it is tried until then
	defer cancel()
	if _, err := c.Cosign(ctx, sign(t, tr.at(t, 9), log), tr.prove); !strings.Contains(fmt.Sprint(err), outbound.ErrAddress.Error()) || a.asked.Load() != 0 {
		t.Errorf("got %v after %d requests", err, a.asked.Load())
	}
	pool := tls.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c = open(t, "log "+logV+"\n"+a.line()+"quorum a\n", func(cfg *ClientConfig) {
		cfg.Outbound = outbound.Config{RootCAs: pool, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	})
	if _, err := c.Cosign(soon(t), sign(t, tr.at(t, 9), log), tr.prove); err != nil {
		t.Error(err)
	}
}
