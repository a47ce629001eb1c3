// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// mayRead asks the gate whether the caller may read of the patient, and breaks
// the glass where they say so, or have it open: what follows is read under the
// ruling, by its view. A grant that the database knows to be over is not gone on
// under: who breaks the glass anew gets a new one, and everybody else reads as
// they may without.
func (s *Service) mayRead(ctx context.Context, in *entered, ask gate.Ask) error {
	reason, err := emergency(in.caller)
	if err != nil {
		return err
	}
	if reason != "" {
		ask.ReasonCode = med.ReasonOther
	}
	for range 2 {
		if err := s.may(ctx, in, ask); err != nil {
			return err
		}
		if in.ruling.Context == "" { // denied, whatever the relation
			_, err := in.settle(med.RelationSamePractice)
			return err
		}
		if in.ruling.Grant == nil {
			return nil
		}
		if reason == "" {
			err = s.goOn(ctx, in, ask.Patient)
		} else {
			err = s.useGrant(ctx, in, ask.Patient, reason)
		}
		if !errors.Is(err, errOver) {
			return err
		}
		ask.Over = in.ruling.Grant.ID
	}
	return med.Forbidden.Because(errOver).Coded("grant_refused")
}

// errOver says that a grant has ended in the database, or was never written down.
var errOver = errors.New("the grant is over")

// useGrant writes the grant down with its start entry, and PostgreSQL the page
// that tells an officer; of one that is there already it tells an officer that it
// is gone on under. That is one transaction, which has committed before the
// patient is read: PostgreSQL honours only a committed grant. The reason is sealed
// under the audit key of the patient's practice; the log has its code.
func (s *Service) useGrant(ctx context.Context, in *entered, id med.PatientID, reason med.PHI) error {
	g := in.ruling.Grant
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	if err != nil {
		return err
	}
	if practice == "" {
		return s.grantForNobody(ctx, in)
	}
	in.entry.PatientPractice = practice
	key, err := s.keys.Audit(ctx, in.ruling.Context, practice, 0)
	if err != nil {
		return err
	}
	start := in.entry.Child(s.now(), "break_glass", audit.AccessGranted)
	start.ResourceType, start.ResourceID = "patient", string(id)
	for _, e := range []*audit.Entry{in.entry, start} {
		if err := glass(key, e, g, reason); err != nil {
			return err
		}
	}
	opened := false
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		call := string(in.entry.ID)
		n, err := s.db.Q.OpenGrant(ctx, tx, pgdb.OpenGrantParams{
			ID: g.ID, Issuer: in.caller.Issuer, Subject: in.caller.Subject, Session: in.caller.Session,
			PatientID: string(id), PracticeID: string(practice), ReasonCode: g.ReasonCode, Reason: start.Detail.BreakGlass.Sealed,
			Signed: g.Signed, EventID: string(start.ID), CallID: call, OpenedAt: g.OpenedAt, ExpiresAt: g.ExpiresAt,
		})
		if err != nil {
			return err
		}
		if opened = n == 1; opened {
			return appendTx(ctx, tx, start)
		}
		if row, err := s.db.Q.GrantInUse(ctx, tx, g.ID); err != nil || row.Over {
			return over(err)
		}
		return s.tellOfficer(ctx, tx, in, practice, "P3", g.ReasonCode)
	})
	if med.KindOf(err) != med.AuditUnavailable && postgres.Refused(err) {
		return med.Forbidden.Because(err).Coded("grant_refused")
	}
	if err != nil {
		return err
	}
	s.brokeGlass(ctx, in, id, opened)
	return nil
}

// goOn continues under the grant that an earlier call of the session opened: its
// reason, sealed anew for this call's entry, and an officer is told. It reports
// errOver for one that is over.
func (s *Service) goOn(ctx context.Context, in *entered, id med.PatientID) error {
	g := in.ruling.Grant
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	if err != nil {
		return err
	}
	if practice == "" { // deleted meanwhile
		return s.grantForNobody(ctx, in)
	}
	var row pgdb.GrantInUseRow
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		if row, err = s.db.Q.GrantInUse(ctx, tx, g.ID); err != nil || row.Over {
			return over(err)
		}
		return s.tellOfficer(ctx, tx, in, practice, "P3", g.ReasonCode)
	})
	if err != nil {
		return err
	}
	reason, err := s.openText(ctx, in, practice, med.EventID(row.EventID), row.Reason)
	if med.CodeOf(err) == "integrity" {
		return s.suspect(ctx, id, err)
	}
	if err != nil {
		return err
	}
	key, err := s.keys.Audit(ctx, in.ruling.Context, practice, 0)
	if err != nil {
		return err
	}
	in.entry.PatientPractice = practice
	if err := glass(key, in.entry, g, reason); err != nil {
		return err
	}
	s.brokeGlass(ctx, in, id, false)
	return nil
}

// maxAge is how old a second factor may be that the caller is asked for.
func (in *entered) maxAge() time.Duration {
	if in.ruling.Grant == nil {
		return 0
	}
	return in.ruling.Grant.MaxAge
}

// over is errOver for a grant that is not there, or is over.
func over(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) {
		return errOver
	}
	return err
}

// glass marks an entry as standing on the grant, with the reason sealed for it.
func glass(key *envelope.AuditKey, e *audit.Entry, g *med.Grant, reason med.PHI) error {
	sealed, err := key.Seal(e.ID, reason)
	if err != nil {
		return fmt.Errorf("sealing the reason of grant %s: %w", g.ID, err)
	}
	e.Detail.BreakGlass = &audit.BreakGlass{Grant: g.ID, ReasonCode: g.ReasonCode, Sealed: sealed}
	return nil
}

// tellOfficer writes the page with whatever else the transaction does.
func (s *Service) tellOfficer(ctx context.Context, tx pgx.Tx, in *entered, practice med.PracticeID, severity, code string) error {
	return s.db.Q.TellOfficer(ctx, tx, pgdb.TellOfficerParams{
		ID: med.NewUUID(s.now()), Severity: severity, PracticeID: string(practice), PatientID: string(in.entry.Patient),
		EventID: string(in.entry.ID), ReasonCode: code,
	})
}

func (s *Service) brokeGlass(ctx context.Context, in *entered, id med.PatientID, opened bool) {
	g := in.ruling.Grant
	s.log.WarnContext(ctx, "BREAK GLASS", slog.String("event", string(in.entry.ID)), slog.String("grant", g.ID), slog.Bool("opened", opened),
		slog.String("actor", in.caller.Subject), slog.String("patient", string(id)), slog.String("reason_code", g.ReasonCode))
}

// grantForNobody notes and pages a grant for an id that nobody has: whoever
// tries one after the other is looking for patients, not for one. The reason
// has no practice whose key could seal it; its code is kept.
func (s *Service) grantForNobody(ctx context.Context, in *entered) error {
	g := in.ruling.Grant
	in.entry.Detail.BreakGlass = &audit.BreakGlass{Grant: g.ID, ReasonCode: g.ReasonCode}
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		return s.tellOfficer(ctx, tx, in, "unknown", severity(g), g.ReasonCode)
	})
	if err != nil {
		return err
	}
	return med.NotFound.New("No such patient.")
}

// severity of the page, as PostgreSQL has it too: opening one is a P2, more at
// once than anybody needs a P1, and going on under it a P3.
func severity(g *med.Grant) string {
	switch {
	case !g.Opened:
		return "P3"
	case g.PageP1:
		return "P1"
	}
	return "P2"
}
