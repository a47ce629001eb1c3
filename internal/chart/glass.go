// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// OpenGlass opens a break-glass grant for one patient, in the caller's session,
// for a nurse or clinician with a fresh second factor; asked again while it is
// open, it goes on. Until it ends, what the session reads of the patient stands
// on it. It reports Invalid, Forbidden (for one's own record too), MFARequired,
// and NotFound for an id nobody has, which is paged all the same.
func (s *Service) OpenGlass(ctx context.Context, c med.Caller, id med.PatientID, code string, reason med.PHI) (*med.Glass, error) {
	var out *med.Glass
	err := s.through(ctx, &c, "open_break_glass", id, func(in *entered) (err error) {
		out, err = s.openGlass(ctx, in, id, code, reason)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) openGlass(ctx context.Context, in *entered, id med.PatientID, code string, reason med.PHI) (*med.Glass, error) {
	if err := med.CheckReasonCode(code); err != nil {
		return nil, err
	}
	reason, err := med.CheckText("/reason", reason)
	if err != nil {
		return nil, err
	}
	ask := gate.Ask{Action: "open", Resource: "break_glass", Patient: id, ReasonCode: code}
	for range 2 {
		if err := s.may(ctx, in, ask); err != nil {
			return nil, err
		}
		if in.ruling.Grant == nil { // denied, or their own record
			_, err := in.settle(in.relationTo(id))
			return nil, cmp.Or(err, error(med.Forbidden.New("")))
		}
		if err := s.mayOpen(ctx, in, id); err != nil {
			return nil, err
		}
		g := in.ruling.Grant
		err = s.useGrant(ctx, in, id, reason)
		if !errors.Is(err, errOver) {
			return &med.Glass{
				ID: med.GlassID(g.ID), Patient: id, Practice: in.entry.PatientPractice, Issuer: in.caller.Issuer, Subject: in.caller.Subject,
				ReasonCode: g.ReasonCode, Reason: reason, OpenedAt: g.OpenedAt.UTC(), ExpiresAt: g.ExpiresAt.UTC(),
				Review: med.GlassReview{State: med.ReviewDue}, Event: in.entry.ID, MaxAge: g.MaxAge,
			}, err
		}
		ask.Over = g.ID
	}
	return nil, med.Forbidden.Because(errOver).Coded("grant_refused")
}

// mayOpen settles whose patient it is. Of an id that nobody has it says nothing
// yet: who asks for those is paged first.
func (s *Service) mayOpen(ctx context.Context, in *entered, id med.PatientID) error {
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	if err != nil {
		return err
	}
	relation := med.RelationOtherPractice
	if practice != "" && practice == in.caller.Practice {
		relation = med.RelationSamePractice
	}
	_, err = in.settle(relation)
	return err
}

// ListGlass returns a page of grants, the newest first: those of the practice's
// patients for its officer and its admin, with a second factor; for everybody
// else those that they opened themselves. It reports Forbidden, MFARequired, and
// Invalid for a cursor that does not hold. Who has no practice has one page.
func (s *Service) ListGlass(ctx context.Context, c med.Caller, q med.GlassQuery) (*med.GlassPage, error) {
	out := &med.GlassPage{}
	entry := audit.New(s.now(), &c, "list_break_glass", "practice", string(c.Practice))
	err := s.enter(ctx, &entered{caller: &c, entry: entry}, func(in *entered) (err error) {
		out.Event = entry.ID
		out.Grants, out.Next, err = s.listGlass(ctx, in, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// lastUUID is behind every other.
const lastUUID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

func (s *Service) listGlass(ctx context.Context, in *entered, q med.GlassQuery) ([]med.Glass, string, error) {
	if err := s.mayGlass(ctx, in, "read", ""); err != nil {
		return nil, "", err
	}
	watches := in.ruling.Decisions[med.RelationSamePractice].Allow
	if err := in.allowed(watches); err != nil {
		return nil, "", err
	}
	l := listing{"break_glass", q.State}
	before := lastUUID
	if err := s.resume(ctx, in, l, q.Page.Cursor, &before); err != nil {
		return nil, "", err
	}
	limit := q.Page.Rows()
	var rows []pgdb.GrantsAtRow
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		if watches {
			rows, err = s.db.Q.GrantsAt(ctx, tx, pgdb.GrantsAtParams{PracticeID: string(in.caller.Practice), Before: before, State: q.State, MaxRows: limit + 1})
			return err
		}
		own, err := s.db.Q.GrantsBy(ctx, tx, pgdb.GrantsByParams{
			Issuer: in.caller.Issuer, Subject: in.caller.Subject, Before: before, State: q.State, MaxRows: limit + 1,
		})
		for _, r := range own {
			rows = append(rows, pgdb.GrantsAtRow(r))
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(rows) > int(limit) {
		rows = rows[:limit]
		if in.caller.Practice != "" { // whose key seals cursors
			if next, err = s.cursor(ctx, in, l, rows[limit-1].ID); err != nil {
				return nil, "", err
			}
		}
	}
	out := make([]med.Glass, 0, len(rows))
	for i := range rows {
		g, err := s.glassOf(ctx, in, pgdb.GrantRow(rows[i]))
		if err != nil {
			return nil, "", err
		}
		out = append(out, *g)
	}
	in.entry.Detail.Counts = map[string]int{"grants": len(out)}
	return out, next, nil
}

// ReadGlass returns one grant, to who opened it and to the officer and the admin
// of the patient's practice. It reports NotFound for every other.
func (s *Service) ReadGlass(ctx context.Context, c med.Caller, id med.GlassID) (*med.Glass, error) {
	return s.oneGlass(ctx, &c, "read_break_glass", "read", id, func(context.Context, *entered, *med.Glass) error { return nil })
}

// EndGlass ends a grant, for who opened it and for the officer and the admin of
// the patient's practice. It reports NotFound for every other, and Conflict for
// one that is over.
func (s *Service) EndGlass(ctx context.Context, c med.Caller, id med.GlassID) (*med.Glass, error) {
	return s.oneGlass(ctx, &c, "end_break_glass", "end", id, func(ctx context.Context, in *entered, g *med.Glass) error {
		return s.written(ctx, in, g, "break_glass_end", func(tx pgx.Tx) error {
			who := actor(in.caller)
			ended, err := s.db.Q.EndGrant(ctx, tx, pgdb.EndGrantParams{ID: string(g.ID), EndedBy: &who})
			if errors.Is(err, pgx.ErrNoRows) {
				return med.Conflict.New("The grant is over.").Coded("grant_over")
			}
			g.EndedAt = ended.UTC()
			return err
		})
	})
}

// ReviewGlass writes down what somebody else than its opener thinks of a grant:
// the officer or the admin of the patient's practice. It reports NotFound for
// every other practice's, Forbidden to who opened it, Invalid, and Conflict for
// one that was reviewed.
func (s *Service) ReviewGlass(ctx context.Context, c med.Caller, id med.GlassID, verdict string, note med.PHI) (*med.Glass, error) {
	return s.oneGlass(ctx, &c, "review_break_glass", "review", id, func(ctx context.Context, in *entered, g *med.Glass) error {
		if !slices.Contains(med.Verdicts, verdict) {
			return med.Invalid.New("").With(med.FieldError{Pointer: "/verdict", Reason: "justified or not_justified"})
		}
		note, err := med.CheckText("/note", note)
		if err != nil {
			return err
		}
		key, err := s.keys.Audit(ctx, in.ruling.Context, in.caller.Practice, 0)
		if err != nil {
			return err
		}
		sealed, err := key.Seal(in.entry.ID, note)
		if err != nil {
			return err
		}
		g.Review = med.GlassReview{State: med.ReviewDone, By: in.caller.Subject, At: in.entry.OccurredAt, Verdict: verdict, Note: note}
		err = s.written(ctx, in, g, "break_glass_review", func(tx pgx.Tx) error {
			return s.db.Q.ReviewGrant(ctx, tx, pgdb.ReviewGrantParams{
				GrantID: string(g.ID), Reviewer: actor(in.caller), Verdict: verdict, Note: sealed, EventID: string(in.entry.ID),
			})
		})
		if postgres.Duplicate(err) {
			return med.Conflict.Because(err).Coded("reviewed_before")
		}
		return err
	})
}

// oneGlass runs one call about one grant: it reads it, and does the work on it.
func (s *Service) oneGlass(ctx context.Context, c *med.Caller, word, action string, id med.GlassID, work func(context.Context, *entered, *med.Glass) error) (*med.Glass, error) {
	var out *med.Glass
	entry := audit.New(s.now(), c, word, "break_glass", string(id))
	err := s.enter(ctx, &entered{caller: c, entry: entry}, func(in *entered) (err error) {
		if !med.IsUUID(string(id)) {
			return errNoGrant()
		}
		id := med.GlassID(strings.ToLower(string(id)))
		entry.ResourceID = string(id)
		if err := s.mayGlass(ctx, in, action, id); err != nil {
			return err
		}
		row, err := s.grantRow(ctx, in, id)
		if err != nil {
			return err
		}
		own := row.Issuer == in.caller.Issuer && row.Subject == in.caller.Subject
		if err := in.allowed(!own); err != nil {
			return err
		}
		// Before anything is changed: what cannot be told afterwards is not done.
		if out, err = s.glassOf(ctx, in, row); err != nil {
			return err
		}
		return work(ctx, in, out)
	})
	if err != nil {
		return nil, err
	}
	out.Event = entry.ID
	return out, nil
}

// written does the change in one transaction with the call's entry and the one
// that is about the grant's patient.
func (s *Service) written(ctx context.Context, in *entered, g *med.Glass, word string, change func(pgx.Tx) error) error {
	part := in.entry.Child(s.now(), word, audit.Success)
	part.Patient, part.PatientPractice = g.Patient, g.Practice
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		in.entry.Outcome = audit.Success
		return appendTx(ctx, tx, in.entry, part)
	})
	if in.written = err == nil; in.written {
		s.log.InfoContext(ctx, "break-glass grant changed", slog.String("event", string(in.entry.ID)), slog.String("grant", string(g.ID)), slog.String("what", word))
	}
	return err
}

// mayGlass asks the gate about grants: about one, or, without, about all that
// the caller may see.
func (s *Service) mayGlass(ctx context.Context, in *entered, action string, id med.GlassID) error {
	if _, err := emergency(in.caller); err != nil {
		return err
	}
	if err := s.may(ctx, in, gate.Ask{Action: action, Resource: "break_glass", Grant: string(id)}); err != nil {
		return err
	}
	if in.ruling.Context == "" {
		_, err := in.settle(med.RelationSamePractice)
		return err
	}
	return nil
}

// allowed settles by whose grant it is.
func (in *entered) allowed(others bool) error {
	relation := med.RelationSelf
	if others {
		relation = med.RelationSamePractice
	}
	_, err := in.settle(relation)
	return err
}

func (s *Service) grantRow(ctx context.Context, in *entered, id med.GlassID) (row pgdb.GrantRow, err error) {
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		row, err = s.db.Q.Grant(ctx, tx, string(id))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoGrant()
	}
	return row, err
}

func errNoGrant() error { return med.NotFound.New("No such grant.") }

// glassOf is the grant of a row. What was written of it is opened for who
// reviews: an officer or admin of the practice under whose key it is.
func (s *Service) glassOf(ctx context.Context, in *entered, r pgdb.GrantRow) (*med.Glass, error) {
	g := &med.Glass{
		ID: med.GlassID(r.ID), Patient: med.PatientID(r.PatientID), Practice: med.PracticeID(r.PracticeID), Issuer: r.Issuer, Subject: r.Subject,
		ReasonCode: r.ReasonCode, OpenedAt: r.OpenedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), Review: med.GlassReview{State: med.ReviewDue},
	}
	if r.EndedAt != nil {
		g.EndedAt = r.EndedAt.UTC()
	}
	reads := in.ruling.Decisions[med.RelationSamePractice].Allow && g.Practice == in.caller.Practice
	var err error
	if reads {
		if g.Reason, err = s.openReason(ctx, in, med.EventID(r.EventID), r.Reason); err != nil {
			return nil, err
		}
	}
	switch {
	case r.ReviewedAt != nil:
		_, by, _ := strings.Cut(text(r.Reviewer), "\x1f")
		g.Review = med.GlassReview{State: med.ReviewDone, By: by, At: r.ReviewedAt.UTC(), Verdict: text(r.Verdict)}
		if reads {
			g.Review.Note, err = s.openReason(ctx, in, med.EventID(text(r.ReviewEvent)), r.Note)
		}
	case s.now().After(g.OpenedAt.Add(med.ReviewTime)):
		g.Review.State = med.ReviewOverdue
	}
	return g, err
}

// GlassWatch does what time does to grants: it ends those whose time is over and
// says of reviews that they are overdue, under the worker's context of one
// practice, with an entry for each.
type GlassWatch struct {
	DB  *postgres.DB // as medirecord_worker
	Log *slog.Logger
	Now func() time.Time
}

// Once does it now for the practice of the ruling. A second worker finds nothing
// left to do.
func (w GlassWatch) Once(ctx context.Context, ruling *med.Ruling, practice med.PracticeID) error {
	return w.DB.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
		ended, err := w.DB.Q.ExpireGrants(ctx, tx, string(practice))
		if err != nil {
			return err
		}
		late, err := w.DB.Q.EscalateReviews(ctx, tx, string(practice))
		if err != nil {
			return err
		}
		var entries []*audit.Entry
		for _, g := range ended {
			entries = append(entries, w.entry(ruling, practice, "break_glass_end", g.ID, g.PatientID, text(g.CallID)))
		}
		for _, g := range late {
			e := w.entry(ruling, practice, "break_glass_overdue", g.ID, g.PatientID, text(g.CallID))
			entries = append(entries, e)
			if err := w.DB.Q.TellOfficer(ctx, tx, pgdb.TellOfficerParams{
				ID: med.NewUUID(w.Now()), Severity: "P1", PracticeID: string(practice), PatientID: g.PatientID, EventID: string(e.ID), ReasonCode: "review_overdue",
			}); err != nil {
				return err
			}
			w.Log.ErrorContext(ctx, "ALERT review of a break-glass grant is overdue", slog.String("grant", g.ID), slog.String("practice", string(practice)))
		}
		if len(entries) == 0 {
			return nil
		}
		return appendTx(ctx, tx, entries...)
	})
}

// entry is about a grant, a part of the call that opened it.
func (w GlassWatch) entry(ruling *med.Ruling, practice med.PracticeID, word, grant, patient, call string) *audit.Entry {
	me := Worker()
	e := audit.New(w.Now(), &me, word, "break_glass", grant)
	e.Parent, e.Patient, e.PatientPractice = med.EventID(call), med.PatientID(patient), practice
	e.ContextNonce, e.ContextMAC, e.Detail.Revision = ruling.Nonce, ruling.MAC, ruling.Revision
	e.Outcome = audit.Success
	return e
}
