// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
)

// cursorLife is how long a list can be gone on with.
const cursorLife = time.Hour

// listing is one list as it was asked for: its route's name and its filters.
// A cursor holds for the same listing by the same caller, and for nothing else.
type listing struct {
	Route string
	Query any
}

// bond is what the cursors of this listing are bound to.
func (l listing) bond(c *med.Caller) ([]byte, error) {
	b, err := json.Marshal([]any{l.Route, c.Issuer, c.Subject, c.Practice, l.Query})
	if err != nil {
		return nil, fmt.Errorf("binding a cursor of %s: %w", l.Route, err)
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// resume reads the position of a cursor into at, and leaves at alone when there
// is no cursor. It reports Invalid for a cursor of another list, query, caller
// or practice, an expired one, and for whatever else is none.
func (s *Service) resume(ctx context.Context, in *entered, l listing, cursor string, at any) error {
	if cursor == "" {
		return nil
	}
	version, err := envelope.CursorKeyVersion(cursor)
	if err != nil {
		return errCursor(err)
	}
	key, err := s.keys.Cursor(ctx, in.ruling.Context, in.caller.Practice, version)
	if err != nil {
		if med.CodeOf(err) == "key_missing" { // a version that a forger made up
			return errCursor(err)
		}
		return err
	}
	bond, err := l.bond(in.caller)
	if err != nil {
		return err
	}
	position, err := key.Open(bond, cursor, s.now())
	if err != nil {
		return errCursor(err)
	}
	return json.Unmarshal(position, at)
}

// cursor seals the position at which the next page of the listing begins.
func (s *Service) cursor(ctx context.Context, in *entered, l listing, at any) (string, error) {
	key, err := s.keys.Cursor(ctx, in.ruling.Context, in.caller.Practice, 0)
	if err != nil {
		return "", err
	}
	bond, err := l.bond(in.caller)
	if err != nil {
		return "", err
	}
	position, err := json.Marshal(at)
	if err != nil {
		return "", fmt.Errorf("sealing a cursor of %s: %w", l.Route, err)
	}
	return key.Seal(bond, position, s.now().Add(cursorLife))
}

func errCursor(err error) error {
	reason := "not a cursor of this list, asked this way by you: begin again without it"
	if errors.Is(err, envelope.ErrExpired) {
		reason = "expired: begin again without it"
	}
	return med.Invalid.New("The cursor does not hold here.").With(med.FieldError{Pointer: "cursor", Reason: reason}).Coded("cursor_invalid")
}
