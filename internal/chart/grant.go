// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// useGrant writes the grant down, with its start entry when it is new, and
// tells an officer, in one transaction that has committed before the patient is
// read: PostgreSQL honours only a committed grant. The reason is sealed under
// the audit key of the patient's practice; the log has its code.
func (s *Service) useGrant(ctx context.Context, in *entered, id med.PatientID, reason med.PHI) error {
	g := in.ruling.Grant
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	if err != nil {
		return err
	}
	if practice == "" {
		return s.grantForNobody(ctx, in, id)
	}
	in.entry.PatientPractice = practice
	key, err := s.keys.Audit(ctx, in.ruling.Context, practice, 0)
	if err != nil {
		return err
	}
	start := in.entry.Child(s.now(), "break_glass", audit.AccessGranted)
	glass := func(e *audit.Entry) error {
		sealed, err := key.Seal(e.ID, reason)
		if err != nil {
			return fmt.Errorf("sealing the reason of grant %s: %w", g.ID, err)
		}
		e.Detail.BreakGlass = &audit.BreakGlass{Grant: g.ID, ReasonCode: g.ReasonCode, Sealed: sealed}
		return nil
	}
	if err := glass(in.entry); err != nil {
		return err
	}
	if err := glass(start); err != nil {
		return err
	}
	opened := false
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		n, err := s.db.Q.OpenGrant(ctx, tx, pgdb.OpenGrantParams{
			ID: g.ID, Issuer: in.caller.Issuer, Subject: in.caller.Subject, Session: in.caller.Session,
			PatientID: string(id), PracticeID: string(practice), ReasonCode: g.ReasonCode, Reason: start.Detail.BreakGlass.Sealed,
			Signed: g.Signed, EventID: string(start.ID), OpenedAt: g.OpenedAt, ExpiresAt: g.ExpiresAt,
		})
		if err != nil {
			return err
		}
		if opened = n == 1; opened {
			if err := appendTx(ctx, tx, start); err != nil {
				return err
			}
		}
		return s.db.Q.TellOfficer(ctx, tx, pgdb.TellOfficerParams{
			ID: med.NewUUID(s.now()), Severity: severity(g, opened), PracticeID: string(practice), PatientID: string(id),
			EventID: string(in.entry.ID), ReasonCode: g.ReasonCode,
		})
	})
	if med.KindOf(err) != med.AuditUnavailable && postgres.Refused(err) {
		return med.Forbidden.Because(err).Coded("grant_refused")
	}
	if err != nil {
		return err
	}
	s.log.WarnContext(ctx, "BREAK GLASS", slog.String("event", string(in.entry.ID)), slog.String("grant", g.ID), slog.Bool("opened", opened),
		slog.String("actor", in.caller.Subject), slog.String("patient", string(id)), slog.String("reason_code", g.ReasonCode))
	return nil
}

// grantForNobody notes and pages a grant for an id that nobody has: whoever
// tries one after the other is looking for patients, not for one. The reason
// has no practice whose key could seal it; its code is kept.
func (s *Service) grantForNobody(ctx context.Context, in *entered, id med.PatientID) error {
	g := in.ruling.Grant
	in.entry.Detail.BreakGlass = &audit.BreakGlass{Grant: g.ID, ReasonCode: g.ReasonCode}
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		return s.db.Q.TellOfficer(ctx, tx, pgdb.TellOfficerParams{
			ID: med.NewUUID(s.now()), Severity: severity(g, g.Opened), PracticeID: "unknown", PatientID: string(id),
			EventID: string(in.entry.ID), ReasonCode: g.ReasonCode,
		})
	})
	if err != nil {
		return err
	}
	return med.NotFound.New("No such patient.")
}

// severity of the page: opening one is a P2, going on under it a P3, and more
// at once than anybody needs a P1.
func severity(g *med.Grant, opened bool) string {
	switch {
	case g.PageP1:
		return "P1"
	case opened:
		return "P2"
	}
	return "P3"
}
