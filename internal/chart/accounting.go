// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// maxAccounted is how many disclosures one accounting may be made of.
const maxAccounted = 10_000

// ReadAccounting returns the accounting of the patient's disclosures by the
// caller's practice (45 CFR 164.528): for the patient themselves, or for an
// admin or officer. What an agency had suspended is left out for the patient,
// and of the copy that is made for them; for the others it is marked. It outlives the patient's record: a deleted patient
// still has one.
//
// It reports Invalid for a longer period or one of too many disclosures, and
// Forbidden, MFARequired and NotFound as ReadAccessLog does.
func (s *Service) ReadAccounting(ctx context.Context, c med.Caller, id med.PatientID, ask med.AccountingAsk) (*med.Accounting, error) {
	var out *med.Accounting
	err := s.through(ctx, &c, "read_disclosures", id, func(in *entered) (err error) {
		out, err = s.readAccounting(ctx, in, id, ask)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) readAccounting(ctx context.Context, in *entered, id med.PatientID, ask med.AccountingAsk) (*med.Accounting, error) {
	if err := s.mayDisclose(ctx, in, id, "read"); err != nil {
		return nil, err
	}
	today := med.DayOf(s.now())
	window, err := med.AccountingWindow(ask.From, ask.To, today)
	if err != nil {
		return nil, err
	}
	rows, name, err := s.disclosures(ctx, in, id, window)
	if err != nil {
		return nil, err
	}
	keys, all := disclosureKeys{}, make([]med.Disclosure, 0, len(rows))
	for _, row := range rows {
		d, err := s.openDisclosure(ctx, in, keys, id, row)
		if err != nil {
			return nil, err
		}
		all = append(all, *d)
	}
	out := &med.Accounting{
		Patient: id, Practice: in.caller.Practice, Name: name, Window: window, Made: today,
		ForPatient: ask.ForPatient || in.relationTo(id) == med.RelationSelf, Event: in.entry.ID,
	}
	out.Lines = med.Account(all, window, today, out.ForPatient)
	in.entry.PatientPractice = in.caller.Practice
	// The patient reads the trail: what they are not told, they are not told there.
	in.entry.Detail.Counts = map[string]int{"disclosures": out.Told()}
	return out, nil
}

// disclosures reads the sealed rows, and the name of the practice. Whether an
// id that has none is a patient at all, the practice is told and the patient
// is not.
func (s *Service) disclosures(ctx context.Context, in *entered, id med.PatientID, w med.Window) (rows []pgdb.DisclosuresRow, name string, err error) {
	practice := in.caller.Practice
	err = s.reading(ctx, in, func(tx pgx.Tx) error {
		rows, err = s.db.Q.Disclosures(ctx, tx, pgdb.DisclosuresParams{
			PracticeID: string(practice), PatientID: string(id), MaxRows: maxAccounted + 1,
			// The days are sealed. None lies ahead of when it was written down,
			// give or take what two clocks differ.
			RecordedSince: w.From.Start().Add(-24 * time.Hour),
		})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			if err := s.ofThisPractice(ctx, tx, in, id); err != nil {
				return err
			}
		}
		name, err = s.db.Q.PracticeName(ctx, tx, string(practice))
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // of a practice that was never added here
		}
		return err
	})
	if err == nil && len(rows) > maxAccounted {
		return nil, "", med.Invalid.New("More than 10,000 disclosures were recorded: ask for a later from.").
			With(med.FieldError{Pointer: "from", Reason: "too many disclosures"})
	}
	return rows, name, err
}
