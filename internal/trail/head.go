// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// signedHead is the sealer's memory of the last head it signed. It lies in a
// file outside the database: who rewrites the database does not rewrite it.
type signedHead struct {
	Origin string    `json:"origin"`
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"`
	Note   string    `json:"note"`
	// Keys are those that the sealer had when it signed: an epoch is believed by a
	// key that came after it.
	Keys []string `json:"keys,omitempty"`
}

func readHead(path string) (*signedHead, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("MEDIRECORD_SEALER_STATE: %w", err)
	}
	var h signedHead
	if err := json.Unmarshal(b, &h); err != nil || h.Size < 0 || h.Origin == "" {
		return nil, errors.New("MEDIRECORD_SEALER_STATE is not what the sealer wrote there: put the file back; without it the last signed head is not known")
	}
	return &h, nil
}

// writeHead replaces the file as a whole, and returns when it would survive a
// power cut.
func writeHead(path string, h *signedHead) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the operator's own file
	if err != nil {
		return fmt.Errorf("MEDIRECORD_SEALER_STATE: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("MEDIRECORD_SEALER_STATE: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("MEDIRECORD_SEALER_STATE: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("MEDIRECORD_SEALER_STATE: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// recall holds the log against the last head that was signed.
func (l *ledger) recall(ctx context.Context) error {
	h, err := readHead(l.s.cfg.State)
	if err != nil {
		return err
	}
	if h != nil && h.Origin != l.origin {
		if err := l.follows(h); err != nil {
			return err
		}
		h = nil
	}
	if h == nil {
		if h, err = l.adopt(ctx); err != nil || h == nil {
			return err
		}
	}
	if h.Size > l.tree.Size() {
		return fmt.Errorf("%w: the database has %d entries sealed, and %d were signed", ErrContradiction, l.tree.Size(), h.Size)
	}
	root, err := l.tree.Root(h.Size)
	if err != nil {
		return err
	}
	if root != h.Root {
		return fmt.Errorf("%w: its first %d entries are not those that were signed", ErrContradiction, h.Size)
	}
	l.signed = h.Size
	if h.Size > 0 {
		l.s.offer(&head{l.epoch, h.Size, h.Note})
	}
	return nil
}

// follows reports whether the log may come after the one that was signed last.
// Whoever has the database can put it back to before an epoch began, take the
// epoch out of it, or invent one; so an epoch is begun outside of it too, by a
// key that its sealer is given afterwards.
func (l *ledger) follows(h *signedHead) error {
	last, err := strconv.Atoi(strings.TrimPrefix(h.Origin, l.s.cfg.Origin+"/"))
	switch {
	case err != nil:
		return nil //nolint:nilerr // the memory of a log of another name, which the operator has changed
	case last > int(l.epoch):
		return fmt.Errorf("%w: epoch %d of the log was signed, and the newest in the database is %d: it was put back to before that began, or the epoch was taken out of it; "+
			"when you know which, begin epochs with `medirecord audit epoch` until it says one above %d, and give the sealer its key", ErrContradiction, last, l.epoch, last)
	case h.Keys == nil:
		return nil // written before keys were remembered
	}
	for _, k := range l.signers {
		if !slices.Contains(h.Keys, keyOf(k)) {
			return nil
		}
	}
	return fmt.Errorf("%w: epoch %d is in the database, and every key of it was here before it began: who has the database can have invented it; "+
		"if you began it with `medirecord audit epoch`, add a new key of it with `medirecord audit key --origin %s`", ErrContradiction, l.epoch, l.origin)
}

// keyOf names a key as the notes that it signs do.
func keyOf(k note.Signer) string { return fmt.Sprintf("%s+%08x", k.Name(), k.KeyHash()) }

// adopt takes the newest head in the database that our key signed, where this
// replica remembers none of this log. The witnesses remember too.
func (l *ledger) adopt(ctx context.Context) (*signedHead, error) {
	var text string
	err := l.conn.QueryRow(ctx, `select note from audit.checkpoint where epoch = $1 order by size desc limit 1`, l.epoch).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	c, err := l.open(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the newest head in the database is not signed by this log's key", ErrContradiction)
	}
	l.s.cfg.Log.WarnContext(ctx, "no memory of this log: the database's newest signed head is taken on trust", slog.Int64("size", c.Size))
	return &signedHead{Origin: c.Origin, Size: c.Size, Root: c.Root, Note: text}, nil
}

// open reads a checkpoint that one of our own keys signed: signing is
// deterministic, so the same text signed again shows it.
func (l *ledger) open(text string) (*audit.Checkpoint, error) {
	n, err := note.Open([]byte(text), note.VerifierList())
	var unverified *note.UnverifiedNoteError
	if err != nil && !errors.As(err, &unverified) {
		return nil, err
	}
	if unverified != nil {
		n = unverified.Note
	}
	c, err := audit.ParseCheckpoint(n.Text)
	if err != nil {
		return nil, err
	}
	for _, k := range l.signers {
		again, err := c.Sign(k)
		if err != nil {
			return nil, err
		}
		ours, err := note.Open([]byte(again), note.VerifierList())
		if errors.As(err, &unverified) {
			ours = unverified.Note
		}
		if ours == nil || len(ours.UnverifiedSigs) != 1 {
			continue
		}
		for _, sig := range n.UnverifiedSigs {
			if sig == ours.UnverifiedSigs[0] {
				return c, nil
			}
		}
	}
	return nil, errors.New("no signature of ours")
}

// sign signs the head of what is sealed, unless it is signed already. The head
// is remembered before anybody sees it: whatever happens then, no other of the
// same size is signed.
func (l *ledger) sign(ctx context.Context) error {
	size := l.tree.Size()
	if size <= l.signed {
		return nil
	}
	fault := l.s.cfg.fault
	root, err := l.tree.Root(size)
	if err != nil {
		return err
	}
	c := audit.Checkpoint{Origin: l.origin, Size: size, Root: root, Patients: l.top.Root()}
	text, err := c.Sign(l.signers...)
	if err != nil {
		return err
	}
	if err := fault("remember"); err != nil {
		return err
	}
	h := &signedHead{Origin: l.origin, Size: size, Root: root, Note: text}
	for _, k := range l.s.cfg.Signers {
		h.Keys = append(h.Keys, keyOf(k))
	}
	if err := writeHead(l.s.cfg.State, h); err != nil {
		return err
	}
	if err := fault("remembered"); err != nil {
		return err
	}
	if _, err := l.conn.Exec(ctx, `
insert into audit.checkpoint (epoch, size, note) values ($1, $2, $3) on conflict (epoch, size) do nothing`, l.epoch, size, text); err != nil {
		return postgres.Unavailable(err)
	}
	if err := fault("signed"); err != nil {
		return err
	}
	l.signed = size
	l.s.stats.set(func(st *SealStats) { st.SignedAt, st.SignedSize = l.s.cfg.Now(), size })
	l.s.offer(&head{l.epoch, size, text})
	return nil
}

// offer hands a signed head on to be published.
func (s *Sealer) offer(h *head) {
	s.head.Store(h)
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}
