// SPDX-License-Identifier: Apache-2.0

// Package chart is the one door to patient data: it asks what a caller may do,
// does it, and returns only when the audit entry is durable. One call leaves
// exactly one primary entry, a denied or failed one too; nothing that was read
// leaves without it. It opens only the fields that the caller's view shows.
package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

// Config is what the door stands on. All of it is needed.
type Config struct {
	Gate  *gate.Gate
	DB    *postgres.DB
	Keys  *keystore.Store
	Trail *trail.Trail
	Log   *slog.Logger
	Now   func() time.Time
}

// Service is the door.
type Service struct {
	gate  *gate.Gate
	db    *postgres.DB
	keys  *keystore.Store
	trail *trail.Trail
	log   *slog.Logger
	now   func() time.Time

	suspects atomic.Uint64
}

// New returns the door. It reports an error when a part is missing.
func New(cfg Config) (*Service, error) {
	if cfg.Gate == nil || cfg.DB == nil || cfg.Keys == nil || cfg.Trail == nil {
		return nil, errors.New("the door needs the gate, the database, the keys and the trail: without one of them nothing is opened")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{gate: cfg.Gate, db: cfg.DB, keys: cfg.Keys, trail: cfg.Trail, log: cfg.Log, now: cfg.Now}, nil
}

// entered is one call through the door while it lasts.
type entered struct {
	caller *med.Caller
	entry  *audit.Entry
	ruling *med.Ruling
	ticket med.EventID // of the entry that was committed before the read, when that is strict
	// written: the entry was committed with the change it tells of.
	written bool
}

// through runs one call and sees to its entry: after work has returned or
// panicked, and before anything it found is handed on.
func (s *Service) through(ctx context.Context, c *med.Caller, action string, patient med.PatientID, work func(*entered) error) error {
	in := &entered{caller: c, entry: audit.New(s.now(), c, action, "patient", string(patient))}
	in.entry.Patient = patient
	return s.enter(ctx, in, work)
}

// enter is through with an entry that is made already.
func (s *Service) enter(ctx context.Context, in *entered, work func(*entered) error) error {
	err := s.guarded(ctx, in, work)
	if err != nil {
		in.fail(err)
	} else {
		in.entry.Outcome = audit.Success
	}
	if !in.written {
		if lost := s.trail.Append(in.entry); lost != nil {
			s.log.ErrorContext(ctx, "audit entry not written", slog.String("event", string(in.entry.ID)), slog.String("outcome", string(in.entry.Outcome)))
			// A denial stays a denial, and an outage says what was out first. Any
			// other answer tells something, and nothing is told unrecorded.
			if err == nil || in.entry.Outcome != audit.Denied && med.KindOf(err).Status < 500 {
				err = lost
			}
			return err
		}
	}
	if err != nil {
		return med.WithEvent(err, in.entry.ID)
	}
	return nil
}

func (s *Service) guarded(ctx context.Context, in *entered, work func(*entered) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// The value may hold anything; its type may not.
			s.log.ErrorContext(ctx, "panic behind the door", slog.String("event", string(in.entry.ID)),
				slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			err = med.Internal.Because(fmt.Errorf("panic of type %T", p)).Coded("panic")
		}
	}()
	return work(in)
}

// fail writes the error's outcome and code into the entry. What was about to
// be shown was not.
func (in *entered) fail(err error) {
	e := in.entry
	e.Outcome, e.Code = audit.Failure, med.CodeOf(err)
	switch med.KindOf(err) {
	case med.Unauthorized, med.BreakGlassReasonRequired, med.Forbidden, med.MFARequired, med.RateLimited:
		e.Outcome = audit.Denied
	}
	if e.Code == "sidecar_unavailable" || e.Code == "cancelled" {
		e.Outcome = audit.Failure // nobody said no
	}
	e.Detail.Clear, e.Detail.Masked, e.Detail.Hidden, e.Detail.Changed = nil, nil, nil, nil
	e.Detail.Manifest = "" // of a change that is not
}

// actor names the caller in a column of the database: a subject is one of its
// issuer.
func actor(c *med.Caller) string { return c.Issuer + "\x1f" + c.Subject }

// appendTx writes entries with the change they tell of. What cannot be
// recorded does not happen: AuditUnavailable, unless all of the database is.
func appendTx(ctx context.Context, tx pgx.Tx, entries ...*audit.Entry) error {
	err := trail.AppendTx(ctx, tx, entries...)
	if err == nil || med.KindOf(err) == med.DatabaseUnavailable {
		return err
	}
	return med.AuditUnavailable.Because(err)
}

// may asks the gate, for this call's entry, and notes in the entry what it said.
func (s *Service) may(ctx context.Context, in *entered, q gate.Ask) error {
	q.Event = in.call()
	r, err := s.gate.May(ctx, in.caller, q)
	if err != nil {
		return err
	}
	in.note(r)
	return nil
}

// call is the primary entry of the call, of which this may be a part.
func (in *entered) call() med.EventID {
	if in.entry.Parent != "" {
		return in.entry.Parent
	}
	return in.entry.ID
}

func (in *entered) note(r *med.Ruling) {
	in.ruling = r
	in.entry.ContextNonce, in.entry.ContextMAC = r.Nonce, r.MAC
	in.entry.Detail.Revision = r.Revision
}

// settle picks the decision for the relation that the database settled, and
// reports Forbidden, or MFARequired, when it is a no.
func (in *entered) settle(rel med.Relation) (med.Decision, error) {
	d := in.ruling.Decisions[rel]
	in.entry.Detail.Reason = d.Reason
	if !d.Allow {
		return d, denied(in.caller, d)
	}
	return d, nil
}

// denied says no in the guide's words where it has some.
func denied(c *med.Caller, d med.Decision) error {
	switch d.Reason {
	case "mfa_required", "mfa_not_fresh":
		return med.MFARequired.New("")
	case "reason_required":
		return med.Forbidden.New("You do not treat this patient: say why you look, with a code in the header X-Access-Reason.").Coded("reason_required")
	}
	if c.Only(med.RolePatient) && d.Reason != "role" {
		return errNotSelf()
	}
	return med.Forbidden.New("")
}

func errNotSelf() error {
	return med.Forbidden.New("Patients may only access their own records.").Coded("not_self")
}

func errOtherPractice() error {
	return med.Forbidden.New("Patient record belongs to a different practice.").Coded("other_practice")
}

// absent says why row security showed no row of the patient. Who could only
// have seen their own record learns nothing more: a patient, and an officer,
// get the same answer for every id, existing or not, because who is a patient
// here is itself PHI (45 CFR 160.103).
func (s *Service) absent(ctx context.Context, in *entered, id med.PatientID) error {
	if in.caller.Patient == id { // their own, which is deleted or never was
		if _, err := in.settle(med.RelationSelf); err != nil {
			return err
		}
		return med.NotFound.New("No such patient.")
	}
	if _, err := in.settle(med.RelationSamePractice); err != nil {
		return err
	}
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	switch {
	case err != nil:
		return err
	case practice == "":
		return med.NotFound.New("No such patient.")
	case practice != in.caller.Practice:
		in.entry.PatientPractice = practice
		in.entry.Detail.Reason = "other_practice"
		return errOtherPractice()
	}
	in.entry.PatientPractice = practice
	return med.Forbidden.New("")
}

func (s *Service) practiceOf(ctx context.Context, signed string, id med.PatientID) (med.PracticeID, error) {
	var practice string
	err := s.db.InTx(ctx, signed, func(tx pgx.Tx) (err error) {
		practice, err = s.db.Q.PracticeOf(ctx, tx, string(id))
		return err
	})
	return med.PracticeID(practice), err
}
