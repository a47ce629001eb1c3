// SPDX-License-Identifier: Apache-2.0

// Package witness is a witness of transparency logs (c2sp.org/tlog-witness): it
// cosigns a log's checkpoint if, and only if, that extends the last one it
// cosigned of the same log, and what it cosigned is on disk before anybody
// hears of it. It never sees an entry of a log, holds no key of one, and never
// cosigns two histories, whatever its clients, its restarts or its disk do.
package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/cosign"
)

// Config is what a witness works with.
type Config struct {
	// State is the folder of what it has cosigned. New makes it.
	State string
	// Keys are its signing keys, one a line, as New wrote it. It cosigns with
	// all of them, so that a key can be replaced with an overlap.
	Keys []byte
	// Logs are verifier keys of the logs that it watches; several of one origin
	// are the keys of one log.
	Logs []string
	Log  *slog.Logger

	fault func(step string, after bool) error // tests: makes a step of saving fail
}

// Witness is a running witness. It is safe for concurrent use.
type Witness struct {
	signers   []signer
	logs      map[string]*watched
	store     *store
	log       *slog.Logger
	unhealthy atomic.Bool
}

// watched is one log and the last that was cosigned of it.
type watched struct {
	origin string
	keys   []note.Verifier

	mu   sync.Mutex // held from the check until the answer is on disk
	last *head      // nil before the first
}

// head is a cosigned checkpoint.
type head struct {
	cosign.Checkpoint
	signed []byte // with the signatures of the log and of this witness
}

func (h *head) size() int64 {
	if h == nil {
		return 0
	}
	return h.Size
}

// Open returns the witness with the state that it left. It refuses a state that
// is missing, unreadable, in use by another process, or not its own: a key
// whose memory is lost must not cosign again.
func Open(cfg Config) (_ *Witness, err error) {
	w := &Witness{logs: map[string]*watched{}, log: cfg.Log}
	if w.signers, err = readKeys(cfg.Keys); err != nil {
		return nil, err
	}
	if err := w.watch(cfg.Logs); err != nil {
		return nil, err
	}
	if w.store, err = openStore(cfg.State, cfg.fault); err != nil {
		return nil, err
	}
	heads, err := w.store.load(w.verifiers())
	if err != nil {
		return nil, errors.Join(err, w.store.close())
	}
	for _, h := range heads {
		if l := w.logs[h.Origin]; l != nil { // one that is watched no longer keeps its file, for when it is again
			l.last = h
		}
	}
	return w, nil
}

// Close lets the state go. No request may be under way.
func (w *Witness) Close() error { return w.store.close() }

// watch reads the logs' verifier keys.
func (w *Witness) watch(keys []string) error {
	if len(keys) == 0 {
		return errors.New("a witness needs the verifier key of at least one log: name it with --log")
	}
	for _, k := range keys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return fmt.Errorf("the verifier key %q does not read: want <origin>+<8 hexadecimal digits>+<base64> of an Ed25519 key", k)
		}
		l := w.logs[v.Name()]
		if l == nil {
			l = &watched{origin: v.Name()}
			w.logs[v.Name()] = l
		}
		if !slices.ContainsFunc(l.keys, func(o note.Verifier) bool { return o.KeyHash() == v.KeyHash() }) {
			l.keys = append(l.keys, v)
		}
	}
	return nil
}

// VKeys returns the verifier keys of this witness's cosignatures, for the
// witness lines of a policy.
func (w *Witness) VKeys() (out []string) {
	for _, s := range w.signers {
		out = append(out, s.vkey)
	}
	return out
}

func (w *Witness) verifiers() (out []note.Verifier) {
	for _, s := range w.signers {
		out = append(out, s.Verifier())
	}
	return out
}

// What AddCheckpoint reports, found with errors.Is. Each is a status of the
// protocol.
var (
	ErrRequest    = errors.New("the request does not read")                                                // 400
	ErrSignature  = errors.New("no signature of a key of this log")                                        // 403
	ErrUnknownLog = errors.New("this witness does not watch a log of that origin")                         // 404
	ErrSplit      = errors.New("another tree of that size has been cosigned: the log shows two histories") // 409
	ErrProof      = errors.New("the proof does not show that this tree extends the one cosigned last")     // 422
	ErrState      = errors.New("the cosigned checkpoint could not be saved, so nothing was cosigned")      // 503
)

// ConflictError says that the old size of a request is not the size that was
// cosigned last. It is a 409 with that size.
type ConflictError struct{ Size int64 }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the last cosigned checkpoint has %d entries", e.Size)
}

// AddCheckpoint reads the body of an add-checkpoint request and returns the
// cosignatures' lines. When it returns them the checkpoint is on disk; when it
// returns an error no cosignature has left. Requests about one log wait for
// each other.
func (w *Witness) AddCheckpoint(ctx context.Context, body []byte) ([]byte, error) {
	req, err := cosign.ParseRequest(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	origin, _, _ := bytes.Cut(req.Checkpoint, []byte("\n"))
	l := w.logs[string(origin)]
	if l == nil {
		return nil, ErrUnknownLog
	}
	next, err := l.open(req.Checkpoint)
	if err != nil {
		return nil, err
	}
	if req.Old > next.Size {
		return nil, fmt.Errorf("%w: the old size is larger than the checkpoint's", ErrRequest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.extends(req, next); err != nil {
		w.tell(ctx, l, req, next, err)
		return nil, err
	}
	return w.cosign(ctx, l, next)
}

// open verifies the log's signatures and returns the checkpoint with those that
// are good. Others, whoever's they are, are as if they were not there.
func (l *watched) open(signed []byte) (*head, error) {
	h := &head{}
	var lines strings.Builder
	for _, k := range l.keys {
		n, err := note.Open(signed, note.VerifierList(k))
		if err != nil {
			if !unsigned(err) {
				return nil, fmt.Errorf("%w: it holds no signed checkpoint", ErrRequest)
			}
			continue
		}
		h.signed = []byte(n.Text + "\n")
		fmt.Fprintf(&lines, "— %s %s\n", n.Sigs[0].Name, n.Sigs[0].Base64)
	}
	if h.signed == nil {
		return nil, ErrSignature
	}
	text := string(h.signed[:len(h.signed)-1])
	h.signed = append(h.signed, lines.String()...)
	var err error
	if h.Checkpoint, err = cosign.ParseCheckpoint(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return h, nil
}

// unsigned tells a note without a good signature from what is no note at all.
func unsigned(err error) bool {
	var none *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	return errors.As(err, &none) || errors.As(err, &wrong)
}

// extends reports why the next checkpoint does not follow on the last. l.mu is held.
func (l *watched) extends(req cosign.Request, next *head) error {
	switch {
	case req.Old != l.last.size():
		return &ConflictError{Size: l.last.size()}
	case next.Size == 0 && next.Root != emptyRoot:
		return ErrProof
	case next.Size == l.last.size() && l.last != nil:
		return l.same(req, next)
	case req.Old == 0:
		// Everything extends nothing; there is nothing to prove.
		return proofIf(len(req.Proof) == 0)
	}
	return proofIf(tlog.CheckTree(req.Proof, next.Size, next.Root, l.last.Size, l.last.Root) == nil)
}

var emptyRoot = tlog.Hash(sha256.Sum256(nil)) // RFC 6962, 2.1

func proofIf(good bool) error {
	if !good {
		return ErrProof
	}
	return nil
}

// same reports why a checkpoint of the size cosigned last is not the same.
func (l *watched) same(req cosign.Request, next *head) error {
	// The specification asks no more than the root. The patient map is ours: two
	// maps over the same entries are two histories of a patient.
	if next.Root != l.last.Root || patients(next) != patients(l.last) {
		return ErrSplit
	}
	return proofIf(len(req.Proof) == 0)
}

// patients returns the extension lines that MediRecord's own logs have.
func patients(h *head) string {
	var out []string
	for _, e := range h.Extensions {
		if strings.HasPrefix(e, "patients ") {
			out = append(out, e)
		}
	}
	return strings.Join(out, "\n")
}

// cosign signs, saves, remembers and only then answers. l.mu is held.
func (w *Witness) cosign(ctx context.Context, l *watched, next *head) ([]byte, error) {
	lines, err := w.sign(next)
	if err != nil {
		return nil, err
	}
	next.signed = append(next.signed, lines...)
	if err := w.store.save(l.origin, next.signed); err != nil {
		// The file may hold this head or the last one. Either is right: nobody has
		// a cosignature of it, and the next save replaces it.
		w.unhealthy.Store(true)
		w.log.ErrorContext(ctx, "ALERT witness cannot save its state, it cosigns nothing", slog.String("origin", l.origin), slog.String("error", err.Error()))
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	w.unhealthy.Store(false)
	l.last = next
	w.log.DebugContext(ctx, "cosigned", slog.String("origin", l.origin), slog.Int64("size", next.Size))
	return lines, nil
}

func (w *Witness) sign(h *head) ([]byte, error) {
	var signers []note.Signer
	for _, s := range w.signers {
		signers = append(signers, s)
	}
	text := h.String()
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		return nil, fmt.Errorf("cosigning: %w", err)
	}
	return signed[len(text)+1:], nil
}

// tell says aloud what may be proof of a log that cheats, and keeps what is one.
func (w *Witness) tell(ctx context.Context, l *watched, req cosign.Request, next *head, why error) {
	about := []any{slog.String("origin", l.origin), slog.Int64("old", req.Old), slog.Int64("size", next.Size)}
	switch {
	case errors.Is(why, ErrProof): // anybody can send a log's checkpoint with a proof that is none
		w.log.WarnContext(ctx, "checkpoint without a proof that it extends the one cosigned last", about...)
	case errors.Is(why, ErrSplit): // only the log's key can have signed both
		w.log.ErrorContext(ctx, "ALERT the log has signed two histories", about...)
		if err := w.store.keepEvidence(slices.Concat(next.signed, []byte("\n"), l.last.signed)); err != nil {
			w.log.ErrorContext(ctx, "the two checkpoints could not be kept", slog.String("error", err.Error()))
		}
	}
}

// Checkpoint returns the last cosigned checkpoint of the log with its
// signatures, or ErrUnknownLog when there is none.
func (w *Witness) Checkpoint(origin string) ([]byte, error) {
	l := w.logs[origin]
	if l == nil {
		return nil, ErrUnknownLog
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		return nil, ErrUnknownLog
	}
	return l.last.signed, nil
}

// Healthy reports whether the last checkpoint that should have been saved was.
func (w *Witness) Healthy() bool { return !w.unhealthy.Load() }
