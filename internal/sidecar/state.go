// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/token"
)

// state is what the sidecar must not forget: revocations, until their token
// has expired, and break-glass grants, until theirs. It is a journal: a line
// is flushed to disk before the question that wrote it is answered, and the
// file is rewritten without what has expired at each start.
type state struct {
	// journal is held while a line is written and flushed; mu only while gone
	// and homes are looked at or changed, so that nobody's token waits for a
	// disk. grants and byWho are journal's; open is read by every read of a patient.
	journal sync.Mutex
	mu      sync.RWMutex
	file    *os.File
	size    int64 // of what was written whole
	now     func() time.Time
	gone    map[string]int64 // revoked token to Unix time of its expiry
	grants  map[grantKey]*grant
	byWho   map[[2]string][]*grant // by issuer and subject, for the rate
	open    sync.Map               // grantKey to *grant: what grants has
	homes   map[string]bool        // practices that were added through us
}

type grantKey struct{ Issuer, Subject, Session, Patient string }

type grant struct {
	grantKey
	ID         string
	ReasonCode string
	OpenedAt   int64 // Unix seconds
	ExpiresAt  int64
	Signed     string
	Many       bool `json:",omitempty"` // with it there were more than anybody needs
}

// line is one line of the journal.
type line struct {
	Revoked string `json:"revoked,omitempty"`
	Expires int64  `json:"expires,omitempty"`
	Grant   *grant `json:"grant,omitempty"`
	// Practice was added: a token without one can no longer mean the only one.
	Practice string `json:"practice,omitempty"`
}

func openState(path string, now func() time.Time) (*state, error) {
	s := &state{now: now, gone: map[string]int64{}, grants: map[grantKey]*grant{}, byWho: map[[2]string][]*grant{}, homes: map[string]bool{}}
	if path == "" {
		return nil, errors.New("the sidecar needs a state file for its revocations; set MEDIRECORD_SIDECAR_STATE")
	}
	if err := s.read(path); err != nil {
		return nil, fmt.Errorf("sidecar state %s: %w", path, err)
	}
	if err := s.rewrite(path); err != nil {
		return nil, fmt.Errorf("sidecar state %s: %w", path, err)
	}
	return s, nil
}

func (s *state) read(path string) error {
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own file
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r := bufio.NewReader(bytes.NewReader(b))
	for n := 1; ; n++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// A last line without its end was being written when we died; it was
			// never answered for.
			return nil
		}
		var l line
		if json.Unmarshal(text, &l) != nil {
			return fmt.Errorf("line %d is not ours: restore the file, or move it away to start without revocations", n)
		}
		s.apply(l)
	}
}

func (s *state) apply(l line) {
	now := s.now().Unix()
	if l.Revoked != "" && l.Expires > now {
		s.gone[l.Revoked] = max(l.Expires, s.gone[l.Revoked])
	}
	if l.Practice != "" {
		s.homes[l.Practice] = true
	}
	if g := l.Grant; g != nil && g.OpenedAt > now-3600-int64(longestGrant.Seconds()) {
		s.grants[g.grantKey] = g
		s.open.Store(g.grantKey, g)
		who := [2]string{g.Issuer, g.Subject}
		s.byWho[who] = append(s.byWho[who], g)
	}
}

// rewrite makes the journal anew with what still counts, and leaves it open.
func (s *state) rewrite(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // the operator's own file
	if err != nil {
		return err
	}
	s.file = tmp
	var lines []line
	for k, exp := range s.gone {
		lines = append(lines, line{Revoked: k, Expires: exp})
	}
	for p := range s.homes {
		lines = append(lines, line{Practice: p})
	}
	for _, gs := range s.byWho {
		for _, g := range gs {
			lines = append(lines, line{Grant: g})
		}
	}
	if err := s.write(lines...); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

func (s *state) write(lines ...line) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	_, err := s.file.Write(b.Bytes())
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		// Half a line would stick to the next, and the file would not read.
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.size += int64(b.Len())
	return nil
}

func (s *state) close() error {
	s.journal.Lock()
	defer s.journal.Unlock()
	return s.file.Close()
}

// name is what is revoked: the token by its issuer and id, so that a respelled
// signature does not escape.
func name(c *token.Claims) string { return c.Caller.Issuer + "\x1f" + c.Caller.TokenID }

// revoke remembers the token until it has expired, and returns when that is on
// disk.
func (s *state) revoke(c *token.Claims) error {
	s.journal.Lock()
	defer s.journal.Unlock()
	exp := c.Caller.ExpiresAt.Add(time.Minute).Unix() // a leeway beyond the leeway
	s.mu.RLock()
	known := s.gone[name(c)] >= exp
	s.mu.RUnlock()
	if known {
		return nil
	}
	l := line{Revoked: name(c), Expires: exp}
	if err := s.write(l); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(l)
	return nil
}

func (s *state) revoked(c *token.Claims) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.gone[name(c)] > 0
}

// added notes a practice, before anything can be in it.
func (s *state) added(practice string) error {
	s.journal.Lock()
	defer s.journal.Unlock()
	if s.home(practice) {
		return nil
	}
	if err := s.write(line{Practice: practice}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.homes[practice] = true
	return nil
}

func (s *state) home(practice string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.homes[practice]
}

// only reports whether this practice was added and no other was. A state that
// was lost knows of none, and says no.
func (s *state) only(practice string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.homes) == 1 && s.homes[practice]
}
