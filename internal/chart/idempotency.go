// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// once is one request that is made once, while it lasts: keyed digests of who
// sent it where with which key, and of what was sent. Without a key it is nil,
// and does nothing.
type once struct {
	key, body [32]byte
}

// once digests what the caller said. The key of another caller, of another
// practice or for another route has another digest, so that nobody finds what
// somebody else made.
func (s *Service) once(in *entered, index *envelope.IndexKey, o med.Once) (*once, error) {
	if o.Key == "" {
		return nil, nil
	}
	sent, err := canonicalJSON([]byte(o.Sent.Reveal()))
	if err != nil {
		return nil, err
	}
	out := &once{}
	out.key, err = index.Digest("idempotency key", []byte(in.caller.Practice), []byte(in.caller.Issuer), []byte(in.caller.Subject), []byte(o.Route), []byte(o.Key))
	if err != nil {
		return nil, err
	}
	out.body, err = index.Digest("idempotency body", sent)
	return out, err
}

// canonicalJSON is the JSON with its keys in order and no spaces: who sends the
// same again may have written it otherwise.
func canonicalJSON(raw []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("what was sent does not read")
	}
	return json.Marshal(v)
}

// made returns the id of what the first of these requests made, within the last
// day; "" when this is the first. It reports Conflict for a key that came with
// something else.
func (o *once) made(ctx context.Context, s *Service, in *entered) (string, error) {
	if o == nil {
		return "", nil
	}
	var row pgdb.RememberedRow
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		row, err = s.db.Q.Remembered(ctx, tx, pgdb.RememberedParams{PracticeID: string(in.caller.Practice), Key: o.key[:]})
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case !bytes.Equal(row.Body, o.body[:]):
		return "", med.Conflict.New("This Idempotency-Key came before with another request. Take a new one.").Coded("key_reused")
	}
	return row.Resource, nil
}

// faster returns what another of the same requests made meanwhile, when this one
// failed as its duplicate; "" when it failed for something else, or not.
func (o *once) faster(ctx context.Context, s *Service, in *entered, failed error) (string, error) {
	if !postgres.Duplicate(failed) {
		return "", nil
	}
	return o.made(ctx, s, in)
}

// remember writes down what was made, in the transaction that makes it: a crash
// before the answer leaves both or neither. It fails as a duplicate when another
// of these requests was faster, which faster then says.
func (o *once) remember(ctx context.Context, tx pgx.Tx, s *Service, in *entered, resource string) error {
	if o == nil {
		return nil
	}
	practice := string(in.caller.Practice)
	if err := s.db.Q.Forget(ctx, tx, pgdb.ForgetParams{PracticeID: practice, Key: o.key[:]}); err != nil {
		return err
	}
	if err := s.db.Q.Remember(ctx, tx, pgdb.RememberParams{
		PracticeID: practice, Key: o.key[:], Actor: actor(in.caller), Body: o.body[:], Resource: resource, EventID: string(in.entry.ID),
	}); err != nil {
		return fmt.Errorf("remembering what was made: %w", err)
	}
	return nil
}

// madeBefore reads what the first of the same requests made, as a part of this
// call: under a context and with an entry of its own.
func (s *Service) madeBefore(ctx context.Context, in *entered, patient med.PatientID, made string, read func(*entered) error) error {
	in.entry.ResourceID, in.entry.Detail.Reason = made, "made_before"
	part := &entered{caller: in.caller, entry: in.entry.Child(s.now(), "read", audit.Failure)}
	part.entry.Patient = patient
	return s.enter(ctx, part, read)
}
