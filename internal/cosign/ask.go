// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// What a witness may say, found in Cosign's error with errors.Is.
var (
	// ErrContradiction: a witness holds a cosigned tree that this checkpoint
	// does not extend. The log, or its database, has been changed or rolled back.
	ErrContradiction = errors.New("a witness has cosigned another history")
	// ErrSuperseded: a witness has cosigned a larger tree, which this client
	// itself has shown it. Nothing is wrong; the checkpoint came too late.
	ErrSuperseded = errors.New("the witness has cosigned a newer checkpoint of ours")
)

// Refusal is what a witness said that will not change by asking again.
type Refusal struct {
	Witness string
	Status  int
	Why     string
	kind    error // ErrContradiction, ErrSuperseded or nil
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (status %d)", r.Why, r.Status) }

// Unwrap returns ErrContradiction or ErrSuperseded where it is one.
func (r *Refusal) Unwrap() error { return r.kind }

// Statuses of the protocol; net/http is not of this floor.
const (
	statusOK            = 200
	statusBadRequest    = 400
	statusForbidden     = 403
	statusNotFound      = 404
	statusConflict      = 409
	statusTooLarge      = 413
	statusUnprocessable = 422
)

// SizeType is the content type of a 409 that tells the witness's size.
const SizeType = "text/x.tlog.size"

// witness is a witness of the policy as this client knows it.
type witness struct {
	Witness
	turn chan struct{} // held by the one who asks

	mu     sync.Mutex
	known  map[string]int64 // by origin: the size that it has cosigned, as far as we know
	shown  map[string]int64 // by origin: the largest that it cosigned for this client
	newest map[string]int64 // by origin: the largest that it was asked for
	origin string           // the last that it was asked for
	owes   time.Time        // since when it owes a cosignature; zero when it does not
	stats  Stats
}

// job is one checkpoint that is being cosigned.
type job struct {
	v      *Verified
	signed []byte // the checkpoint with the log's signatures
	done   chan struct{}
	events chan event

	mu    sync.Mutex // held while a proof is made, so that none is made after the end
	over  bool
	prove func(old, size int64) ([]tlog.Hash, error)
}

var errOver = errors.New("the checkpoint is no longer waited for")

// proof returns the proof from the old size, unless Cosign has returned.
func (j *job) proof(old int64) (tlog.TreeProof, error) {
	if old == 0 || old == j.v.Size {
		return nil, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return nil, errOver
	}
	p, err := j.prove(old, j.v.Size)
	if err != nil {
		return nil, fmt.Errorf("proving that %d entries extend %d: %w", j.v.Size, old, err)
	}
	return p, nil
}

func (j *job) finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	close(j.done)
}

type state int

const (
	trying  state = iota // a request is under way, or about to be
	waiting              // for its turn, or for the next attempt
	cosigned
	refused
)

type event struct {
	witness int
	state   state
	line    string
	err     error
}

func (j *job) tell(e event) {
	select {
	case j.events <- e:
	case <-j.done:
	}
}

// work asks the witness until it has cosigned or refused, or nobody waits.
func (w *witness) work(ctx context.Context, c *Client, j *job, i int) {
	select {
	case w.turn <- struct{}{}:
	default:
		j.tell(event{witness: i, state: waiting, err: errors.New("has not answered about an earlier checkpoint yet")})
		select {
		case w.turn <- struct{}{}:
		case <-j.done:
			return
		case <-c.ctx.Done():
			return
		}
	}
	defer func() { <-w.turn }()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		j.tell(event{witness: i, state: trying})
		line, err := w.attempt(c, j)
		w.note(j.v, err, c.now())
		var final *Refusal
		switch {
		case err == nil:
			j.tell(event{witness: i, state: cosigned, line: line})
			return
		case errors.As(err, &final):
			if c.refused != nil && errors.Is(err, ErrContradiction) {
				c.refused(final)
			}
			j.tell(event{witness: i, state: refused, err: err})
			return
		}
		j.tell(event{witness: i, state: waiting, err: err})
		if !sleep(ctx, c.ctx, j.done, pause) {
			return
		}
	}
}

// sleep reports whether the pause passed before anything else ended.
func sleep(ctx, client context.Context, done <-chan struct{}, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
	case <-ctx.Done():
	case <-client.Done():
	}
	return false
}

// attempt asks once, and again where the witness says which size it knows. Its
// size may move under our hands when another sealer asks it too, but not for ever.
func (w *witness) attempt(c *Client, j *job) (string, error) {
	old := min(w.knows(j.v.Origin), j.v.Size)
	for range 4 {
		line, size, err := w.ask(c, j, old)
		if err != nil || line != "" {
			return line, err
		}
		old = size
	}
	return "", errors.New("it names another size each time that it is asked")
}

// ask makes one request. It returns the cosignature's line, or else the size
// from which the witness wants its proof.
func (w *witness) ask(c *Client, j *job, old int64) (line string, size int64, err error) {
	proof, err := j.proof(old)
	if err != nil {
		return "", 0, err
	}
	answer, err := c.out.Post(c.ctx, strings.TrimSuffix(w.URL, "/")+"/add-checkpoint",
		map[string]string{"Content-Type": "text/plain; charset=utf-8"}, Request{Old: old, Proof: proof, Checkpoint: j.signed}.Marshal())
	if err != nil {
		return "", 0, err
	}
	refuse := func(kind error, why string) (string, int64, error) {
		return "", 0, &Refusal{Witness: w.Name, Status: answer.Status, Why: why, kind: kind}
	}
	switch answer.Status {
	case statusOK:
		line, err := w.cosignature(j.v, answer.Body)
		return line, 0, err
	case statusConflict:
		return w.conflict(j, old, answer.ContentType, answer.Body, refuse)
	case statusUnprocessable:
		return refuse(ErrContradiction, fmt.Sprintf("it does not believe that %d entries extend the %d that it cosigned", j.v.Size, old))
	case statusNotFound:
		return refuse(nil, "it does not know a log of this origin, or the URL is not its submission prefix")
	case statusForbidden:
		return refuse(nil, "it trusts none of the keys that signed the checkpoint: tell it the log's verifier key")
	case statusBadRequest, statusTooLarge:
		return refuse(nil, "it cannot read the request")
	}
	return "", 0, fmt.Errorf("it answered with status %d", answer.Status)
}

// conflict reads a 409: another size than was thought, or another tree of the
// same size.
func (w *witness) conflict(j *job, old int64, contentType string, body []byte, refuse func(error, string) (string, int64, error)) (string, int64, error) {
	text, ended := strings.CutSuffix(string(body), "\n")
	size, err := ParseSize(text)
	told := strings.HasPrefix(contentType, SizeType) && ended && err == nil
	switch {
	case old == j.v.Size && (!told || size == old):
		return refuse(ErrContradiction, fmt.Sprintf("it has cosigned another tree of %d entries", old))
	case !told || size == old:
		return "", 0, errors.New("it reports a conflict and does not tell the size that it knows")
	case size > j.v.Size && size <= w.largest(j.v.Origin):
		return refuse(ErrSuperseded, fmt.Sprintf("it has cosigned %d entries since", size))
	case size > j.v.Size:
		return refuse(ErrContradiction, fmt.Sprintf("it has cosigned %d entries, and this checkpoint has only %d: the log went back", size, j.v.Size))
	}
	w.learn(j.v.Origin, size)
	return "", size, nil
}

// cosignature returns the one line of the answer that is this witness's, once
// it is verified. Others are left: what we hand on, we have checked.
func (w *witness) cosignature(v *Verified, body []byte) (string, error) {
	text := v.String()
	for line := range bytes.Lines(body) {
		n, err := note.Open(append([]byte(text+"\n"), line...), note.VerifierList(w.verifier))
		if err != nil || len(n.Sigs) != 1 {
			continue
		}
		if at, err := cosignature.CoSigV1Timestamp(n.Sigs[0]); err == nil && at.Unix() > 0 {
			return string(line), nil
		}
	}
	return "", errors.New("its answer has no cosignature that verifies under its key in the policy")
}

func (w *witness) knows(origin string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[origin]
}

// largest returns the largest tree that it cosigned for this client.
func (w *witness) largest(origin string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown[origin]
}

// want notes that it is about to be asked.
func (w *witness) want(origin string, size int64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.origin = origin
	w.newest[origin] = max(w.newest[origin], size)
	if w.owes.IsZero() {
		w.owes = now
	}
}

// note counts what an attempt came to.
func (w *witness) note(v *Verified, err error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.known[v.Origin] = v.Size
		w.shown[v.Origin] = max(w.shown[v.Origin], v.Size)
		w.stats.Cosigned++
		w.stats.At, w.stats.Last = now, ""
	case errors.Is(err, errOver), errors.Is(err, ErrSuperseded), errors.Is(err, context.Canceled):
		return // nobody failed
	default:
		w.stats.Failed++
		w.stats.Last = err.Error()
		if errors.Is(err, ErrContradiction) {
			w.stats.Contradicted++
		}
		return
	}
	if w.shown[v.Origin] >= w.newest[v.Origin] {
		w.owes = time.Time{}
	}
}

func (w *witness) figures(now time.Time) Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Size = w.shown[w.origin]
	s.Behind = max(0, w.newest[w.origin]-s.Size)
	if !w.owes.IsZero() {
		s.Lag = max(0, now.Sub(w.owes))
	}
	return s
}

func (w *witness) learn(origin string, size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[origin] = size
}
