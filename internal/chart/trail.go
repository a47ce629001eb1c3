// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// ReadTrail returns a page of the trail of the caller's practice, for its
// officer and its admin with MFA. Reasons of break-glass are opened where the
// key is the practice's own and the caller has shown a second factor. Asked
// about a patient or a user that the practice does not know, the page is empty,
// whether or not they are known elsewhere. It reports Forbidden, MFARequired,
// and Invalid for a cursor that does not hold.
func (s *Service) ReadTrail(ctx context.Context, c med.Caller, q med.TrailQuery) (*med.TrailPage, error) {
	return s.readTrail(ctx, &c, "audit_logs", "practice", string(c.Practice), q)
}

// ReadUserTrail is ReadTrail of what one user did, named by their subject.
func (s *Service) ReadUserTrail(ctx context.Context, c med.Caller, user string, q med.TrailQuery) (*med.TrailPage, error) {
	q.Actor = user
	return s.readTrail(ctx, &c, "audit_logs_user", "user", user, q)
}

func (s *Service) readTrail(ctx context.Context, c *med.Caller, route, what, id string, q med.TrailQuery) (*med.TrailPage, error) {
	out := &med.TrailPage{}
	entry := audit.New(s.now(), c, "read_audit", what, id)
	entry.Patient = q.Patient
	err := s.enter(ctx, &entered{caller: c, entry: entry}, func(in *entered) (err error) {
		out.Event = entry.ID
		out.Entries, out.Next, err = s.trailPage(ctx, in, listing{route, unpaged(q)}, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// unpaged is the query without the page: what a cursor is bound to.
func unpaged(q med.TrailQuery) med.TrailQuery {
	q.Page = med.Page{}
	return q
}

func (s *Service) trailPage(ctx context.Context, in *entered, l listing, q med.TrailQuery) ([]med.TrailEntry, string, error) {
	if _, err := emergency(in.caller); err != nil {
		return nil, "", err
	}
	// With a patient the context opens what is about them and no more.
	if err := s.may(ctx, in, gate.Ask{Action: "read", Resource: "audit", Patient: q.Patient}); err != nil {
		return nil, "", err
	}
	decision, err := in.settle(med.RelationSamePractice)
	if err != nil {
		return nil, "", err
	}
	ask := postgres.TrailQuery{
		Practice: string(in.caller.Practice), Patient: string(q.Patient), Actor: q.Actor, Action: q.Action, Outcome: q.Outcome, Glass: q.BreakGlass,
		Since: q.From, Until: q.To, Limit: q.Page.Rows(),
	}
	page, err := s.pageOfTrail(ctx, in, l, q.Page, &ask)
	if err != nil {
		return nil, "", err
	}
	reasons := &reasons{s: s, in: in, open: decision.View["reason"] == med.Reveal && in.caller.MFA != med.MFANone}
	out := make([]med.TrailEntry, 0, len(page.Rows))
	patients := map[string]bool{}
	for i := range page.Rows {
		e, err := trailEntry(ctx, reasons, &page.Rows[i])
		if err != nil {
			return nil, "", err
		}
		patients[string(e.Patient)] = e.Patient != ""
		out = append(out, e)
	}
	in.entry.Detail.Counts = map[string]int{"entries": len(out), "patients": trues(patients)}
	next, err := s.nextOfTrail(ctx, in, l, page)
	return out, next, err
}

func trues(m map[string]bool) (n int) {
	for _, yes := range m {
		if yes {
			n++
		}
	}
	return n
}

// place is where a page of the trail ended.
type place struct {
	Until  int64  `json:"u"` // Unix milliseconds
	Before string `json:"b"`
}

// beyond is later than every entry: where a list without an end begins.
const beyond = time.Hour

// pageOfTrail reads the page that the cursor or the query's own end begins.
func (s *Service) pageOfTrail(ctx context.Context, in *entered, l listing, p med.Page, q *postgres.TrailQuery) (postgres.TrailPage, error) {
	if q.Until.IsZero() {
		q.Until = s.now().Add(beyond)
	}
	var at place
	if err := s.resume(ctx, in, l, p.Cursor, &at); err != nil {
		return postgres.TrailPage{}, err
	}
	if at.Before != "" {
		q.Until, q.Before = time.UnixMilli(at.Until), at.Before
	}
	var page postgres.TrailPage
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		if q.Patient != "" {
			if err := s.chooseWalk(ctx, tx, in, q); err != nil {
				return err
			}
		} else {
			q.Who, q.Actor = q.Actor, ""
		}
		page, err = s.db.Trail(ctx, tx, *q)
		return err
	})
	return page, err
}

// chooseWalk settles how a page about one patient is read. Of the practice's
// own patient all entries are walked; of anybody else only the practice's own,
// so that the time it takes tells nothing of what others have.
func (s *Service) chooseWalk(ctx context.Context, tx pgx.Tx, in *entered, q *postgres.TrailQuery) error {
	if err := s.notOwnRecord(ctx, tx, med.PatientID(q.Patient)); err != nil {
		return err
	}
	practice, err := s.db.Q.PracticeOf(ctx, tx, q.Patient)
	if err != nil {
		return err
	}
	in.entry.PatientPractice = med.PracticeID(practice)
	switch {
	case practice == q.Practice:
		q.Whose, q.Patient = q.Patient, ""
	case q.Actor != "":
		q.Who, q.Actor = q.Actor, ""
	}
	return nil
}

func (s *Service) nextOfTrail(ctx context.Context, in *entered, l listing, page postgres.TrailPage) (string, error) {
	if !page.More {
		return "", nil
	}
	return s.cursor(ctx, in, l, place{page.Until.UnixMilli(), page.Before})
}

// unreadable is the code of an entry whose detail is none of ours.
const unreadable = "unreadable"

// detail reads the stored detail of an entry, and says what its code is. One that
// does not read was written past this program: the entry is told without it, for
// nothing that is in the trail may keep others from being read.
func (s *Service) detail(ctx context.Context, event, stored string, code *string) (audit.Detail, string) {
	d, err := audit.ParseDetail(stored)
	if err == nil {
		return d, text(code)
	}
	s.log.ErrorContext(ctx, "ALERT an entry of the trail was written by none of ours", slog.String("event", event))
	return audit.Detail{}, unreadable
}

func trailEntry(ctx context.Context, open *reasons, r *postgres.TrailRow) (e med.TrailEntry, err error) {
	d, code := open.s.detail(ctx, r.EventID, r.Detail, r.Code)
	e = med.TrailEntry{
		ID: med.EventID(r.EventID), Parent: med.EventID(text(r.ParentID)), OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(),
		Issuer: r.ActorIssuer, Subject: r.ActorSubject, Roles: d.Roles, Practice: med.PracticeID(text(r.ActorPractice)),
		Session: d.Session, OnBehalfOf: d.OnBehalfOf, MFA: d.MFA, Action: r.Action, ResourceType: r.ResourceType, ResourceID: r.ResourceID,
		Patient: med.PatientID(text(r.PatientID)), Clear: d.Clear, Masked: d.Masked, Hidden: d.Hidden, Changed: d.Changed,
		Outcome: r.Outcome, Code: code, Purpose: d.Purpose, Revision: d.Revision,
		Origin: med.Origin{IP: d.IP, UserAgent: d.UserAgent, Origin: d.Origin, RequestID: d.RequestID, ClientID: d.ClientID, TraceID: d.TraceID},
	}
	if g := d.BreakGlass; g != nil {
		e.BreakGlass = &med.TrailGlass{Grant: g.Grant, ReasonCode: g.ReasonCode}
		e.BreakGlass.Reason, err = open.reason(ctx, r, g.Sealed)
	}
	return e, err
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// reasons opens the break-glass reasons of one page.
type reasons struct {
	s    *Service
	in   *entered
	open bool
}

// reason opens what was sealed under the caller's own practice's key: the
// reason of an access to its patient. Of an access by its people to another
// practice's patient the reason is theirs to read; of an access to the caller's
// own record, a patient does not see it. Of what is about no patient, a lookup
// across practices, it is sealed under the key of who asked.
func (o *reasons) reason(ctx context.Context, r *postgres.TrailRow, sealed []byte) (med.PHI, error) {
	c := o.in.caller
	own := c.Patient != "" && text(r.PatientID) == string(c.Patient)
	practice := text(r.PatientPractice)
	if r.PatientID == nil {
		practice = text(r.ActorPractice)
	}
	if !o.open || own || len(sealed) == 0 || med.PracticeID(practice) != c.Practice {
		return "", nil
	}
	return o.s.openReason(ctx, o.in, med.EventID(r.EventID), sealed)
}
