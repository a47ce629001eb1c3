// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/cosign"
)

// store is the folder of a witness: the file `witness` that says that it is
// one, a file for each log with the last checkpoint that was cosigned, `lock`,
// and under `evidence` what logs signed that they should not have.
type store struct {
	dir   string
	lock  *os.File
	fault func(step string, after bool) error
}

const (
	marker      = "witness"
	markerText  = "medirecord witness state 1\n"
	suffix      = ".checkpoint"
	maxEvidence = 100 // files: a log that cheats must not fill the disk
)

// openStore takes the folder for this process. The lock ends with it.
func openStore(dir string, fault func(string, bool) error) (*store, error) {
	s := &store{dir: dir, fault: fault}
	text, err := os.ReadFile(s.path(marker))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s holds no state of a witness. If its disk is not mounted, mount it; if the state is lost, the key must not be used again: make a new witness with --new-key, and tell those who trust this one", dir)
	case err != nil:
		return nil, fmt.Errorf("state of the witness: %w", err)
	case string(text) != markerText:
		return nil, fmt.Errorf("%s is not of this program's version: it is left alone", s.path(marker))
	}
	s.lock, err = os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state of the witness: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another witness runs on %s (%w): two with one memory would cosign two histories", dir, err), s.lock.Close())
	}
	return s, nil
}

func (s *store) close() error { return s.lock.Close() }

func (s *store) path(name ...string) string {
	return filepath.Join(append([]string{s.dir}, name...)...)
}

func fileOf(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:]) + suffix
}

// load reads what was cosigned. Each file must be what a witness with one of
// these keys has written, whole; else nothing is loaded.
func (s *store) load(own []note.Verifier) (out []*head, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("state of the witness: %w", err)
	}
	for _, e := range entries {
		// Left over from a save that was cut off; nobody has its cosignature.
		if strings.HasPrefix(e.Name(), ".new-") || strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), suffix) {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return nil, fmt.Errorf("state of the witness: %w", err)
			}
			continue
		}
		if !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		h, err := s.read(e.Name(), own)
		if err != nil {
			return nil, fmt.Errorf("%s: %w. Without it the witness could cosign a second history, so it does not start: restore the file from this disk, never from an older copy", s.path(e.Name()), err)
		}
		out = append(out, h)
	}
	return out, nil
}

func (s *store) read(name string, own []note.Verifier) (*head, error) {
	signed, err := os.ReadFile(s.path(name))
	if err != nil {
		return nil, err
	}
	n, err := note.Open(signed, note.VerifierList(own...))
	if err != nil {
		return nil, fmt.Errorf("it is not a checkpoint that this witness's keys have cosigned: %w", err)
	}
	h := &head{signed: signed}
	if h.Checkpoint, err = cosign.ParseCheckpoint(n.Text); err != nil {
		return nil, err
	}
	if fileOf(h.Origin) != name {
		return nil, errors.New("it is of another log than its name says")
	}
	return h, nil
}

// save replaces the file of the log. When it returns nil the new one is on
// disk, and survives whatever ends the process or the machine. When it returns
// an error the file is the old one or the new one, whole.
func (s *store) save(origin string, signed []byte) error {
	name := fileOf(origin)
	tmp := s.path("." + name)
	var f *os.File
	steps := []struct {
		name string
		do   func() error
	}{
		{"create", func() (err error) {
			f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
			return err
		}},
		{"write", func() error { _, err := f.Write(signed); return err }},
		{"sync", func() error { return f.Sync() }},
		{"close", func() error { err := f.Close(); f = nil; return err }},
		{"rename", func() error { return os.Rename(tmp, s.path(name)) }},
		{"sync the folder", func() error { return syncDir(s.dir) }},
	}
	for _, step := range steps {
		if err := s.step(step.name, step.do); err != nil {
			if f != nil {
				_ = f.Close()
			}
			return err
		}
	}
	return nil
}

// step does a step of saving; in tests it fails before it, or after it took effect.
func (s *store) step(name string, do func() error) error {
	if s.fault == nil {
		return do()
	}
	if err := s.fault(name, false); err != nil {
		return err
	}
	return errors.Join(do(), s.fault(name, true))
}

// syncDir makes the folder's names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keepEvidence keeps signed checkpoints that contradict each other, once each.
func (s *store) keepEvidence(text []byte) error {
	dir := s.path("evidence")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) >= maxEvidence {
		return err
	}
	sum := sha256.Sum256(text)
	return os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:8])+".txt"), text, 0o600)
}

// New makes a new witness: its key in a file that must not exist yet, and its
// empty state. A key that is there already is left as it is, and so is its
// state. It is only ever made together with its state, so that a state that is
// missing later is known to be lost.
func New(state, keyFile, name string) error {
	if _, err := os.Stat(keyFile); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	skey, err := newKey(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("state of the witness: %w", err)
	}
	if heads, err := filepath.Glob(filepath.Join(state, "*"+suffix)); err != nil || len(heads) > 0 {
		return errors.Join(err, fmt.Errorf("%s holds the state of another key: a new witness needs a folder of its own", state))
	}
	// The state first: a key without its state would not start, and what is left
	// of a start that was cut off between the two does.
	if err := writeNew(filepath.Join(state, marker), markerText); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state of the witness: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(keyFile), 0o700); err != nil {
		return fmt.Errorf("key of the witness: %w", err)
	}
	if err := writeNew(keyFile, skey+"\n"); err != nil {
		return fmt.Errorf("key of the witness: %w", err)
	}
	return nil
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil { // unlike a rename, it replaces nothing
		return err
	}
	return syncDir(filepath.Dir(path))
}
