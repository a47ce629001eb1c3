// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// ReadAccesses returns a page of what was done with a patient's record, newest
// first, in the patient's words: every entry about them, refusals and failures
// too, so that nothing can be left out unseen. It is for the patient, and for
// the officer and the admin with MFA of their practice. It reports Forbidden for
// a patient caller for every id but their own, existing or not; otherwise
// Forbidden for a patient of another practice and NotFound for an id that
// neither exists nor has entries.
func (s *Service) ReadAccesses(ctx context.Context, c med.Caller, id med.PatientID, p med.Page) (*med.AccessPage, error) {
	out := &med.AccessPage{}
	err := s.through(ctx, &c, "read_audit", id, func(in *entered) (err error) {
		out.Event = in.entry.ID
		out.Accesses, out.Next, err = s.readAccesses(ctx, in, id, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) readAccesses(ctx context.Context, in *entered, id med.PatientID, p med.Page) ([]med.Access, string, error) {
	if _, err := emergency(in.caller); err != nil {
		return nil, "", err
	}
	if err := s.may(ctx, in, gate.Ask{Action: "read", Resource: "audit", Patient: id}); err != nil {
		return nil, "", err
	}
	if in.ruling.Context == "" { // denied, whatever the relation
		_, err := in.settle(med.RelationSamePractice)
		return nil, "", err
	}
	list := listing{"accesses", id}
	at := place{Until: s.now().Add(beyond).UnixMilli()}
	if err := s.resume(ctx, in, list, p.Cursor, &at); err != nil {
		return nil, "", err
	}
	page, self, err := s.pageOfAccesses(ctx, in, id, p, at)
	if err != nil {
		return nil, "", err
	}
	in.entry.Detail.Counts = map[string]int{"entries": len(page.Rows)}
	out := make([]med.Access, 0, len(page.Rows))
	for i := range page.Rows {
		d, _ := s.detail(ctx, page.Rows[i].EventID, page.Rows[i].Detail, nil)
		out = append(out, told(in.caller, self, &page.Rows[i], &d))
	}
	next, err := s.nextOfTrail(ctx, in, list, page)
	return out, next, err
}

// pageOfAccesses reads the page, and says whether it is the caller's own. The
// database says how the caller stands to the patient before anything is looked
// for: who may only read their own learns nothing of anybody else's id.
func (s *Service) pageOfAccesses(ctx context.Context, in *entered, id med.PatientID, p med.Page, at place) (page postgres.TrailPage, self bool, err error) {
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		scope, err := s.db.Q.TrailScope(ctx, tx)
		if err != nil {
			return err
		}
		self = slices.Contains(scope, "patient|"+string(id))
		relation := med.RelationSamePractice
		if self {
			relation = med.RelationSelf
		}
		if _, err := in.settle(relation); err != nil {
			return err
		}
		practice, err := s.db.Q.PracticeOf(ctx, tx, string(id))
		if err != nil {
			return err
		}
		in.entry.PatientPractice = med.PracticeID(practice)
		if !self && practice != "" && practice != string(in.caller.Practice) {
			in.entry.Detail.Reason = "other_practice"
			return errOtherPractice()
		}
		page, err = s.db.Trail(ctx, tx, postgres.TrailQuery{Whose: string(id), Until: time.UnixMilli(at.Until), Before: at.Before, Limit: p.Rows()})
		if err == nil && !self && practice == "" && len(page.Rows) == 0 && p.Cursor == "" {
			return med.NotFound.New("No such patient.")
		}
		return err
	})
	return page, self, err
}
