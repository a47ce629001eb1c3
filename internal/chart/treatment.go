// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// treated is the relation made exact: of who works in the patient's practice the
// database says whether they treat the patient, where the policy makes a
// difference. Nothing that the caller says has a part in it.
func (s *Service) treated(ctx context.Context, in *entered, rel med.Relation) (med.Relation, error) {
	if _, differs := in.ruling.Decisions[med.RelationTreating]; !differs || rel != med.RelationSamePractice {
		return rel, nil
	}
	treating := false
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
		treating, err = s.db.Q.Treating(ctx, tx)
		return err
	})
	if treating {
		rel = med.RelationTreating
	}
	return rel, err
}

// AddTreatment writes that a member of staff has to do with the patient, in one
// transaction with its entry, and returns it with its id. An ID that it is given
// is kept: a second attempt gets Conflict. Who sends the same once more under the
// same key gets what is there, as it is now. Without an Issuer the member of staff
// has the caller's. It reports Invalid, Forbidden, MFARequired, Conflict for a key
// that came with something else, and NotFound for an id nobody has.
func (s *Service) AddTreatment(ctx context.Context, c med.Caller, t med.Treatment, o med.Once) (*med.Treatment, error) {
	err := s.through(ctx, &c, "add_"+string(t.Kind), t.Patient, func(in *entered) error {
		in.entry.ResourceType, in.entry.ResourceID = string(t.Kind), ""
		if err := s.mayTreat(ctx, in, "create", t.Patient); err != nil {
			return err
		}
		again, err := s.onceHere(ctx, in, o)
		if err != nil {
			return err
		}
		if made, err := again.made(ctx, s, in); err != nil || made != "" {
			return s.treatmentBefore(ctx, in, &t, made, err)
		}
		if t.Issuer == "" {
			t.Issuer = c.Issuer
		}
		if err := t.Check(s.now()); err != nil {
			return err
		}
		if t.ID == "" {
			t.ID = med.TreatmentID(med.NewUUID(s.now()))
		}
		t.ID = med.TreatmentID(strings.ToLower(string(t.ID)))
		t.SelfWritten = t.Issuer == c.Issuer && t.Subject == c.Subject
		t.From, t.To = t.From.UTC().Truncate(time.Millisecond), t.To.UTC().Truncate(time.Millisecond)
		t.Event, t.CreatedAt = in.entry.ID, in.entry.OccurredAt
		err = s.writeTreatment(ctx, in, &t, again)
		if made, err := again.faster(ctx, s, in, err); err != nil || made != "" {
			return s.treatmentBefore(ctx, in, &t, made, err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// treatmentBefore reads what the first of the same requests made into t.
func (s *Service) treatmentBefore(ctx context.Context, in *entered, t *med.Treatment, made string, err error) error {
	if err != nil {
		return err
	}
	in.entry.PatientPractice = in.caller.Practice
	return s.madeBefore(ctx, in, t.Patient, made, func(part *entered) error {
		part.entry.Action = "list_" + string(t.Kind) + "s"
		if err := s.mayTreat(ctx, part, "read", t.Patient); err != nil {
			return err
		}
		return s.db.InTx(ctx, part.ruling.Context, func(tx pgx.Tx) error {
			if err := s.ofThisPractice(ctx, tx, part, t.Patient); err != nil {
				return err
			}
			row, err := s.db.Q.TreatmentOfPatient(ctx, tx, pgdb.TreatmentOfPatientParams{
				PracticeID: string(in.caller.Practice), PatientID: string(t.Patient), Kind: string(t.Kind), ID: made,
			})
			if err != nil {
				return err
			}
			*t = treatmentOf(t.Kind, pgdb.TreatmentsOfPatientRow(row))
			t.Event = in.entry.ID
			return nil
		})
	})
}

// mayTreat asks the gate about an action on relations: of one patient, or of
// nobody in particular. A broken glass opens nothing here.
func (s *Service) mayTreat(ctx context.Context, in *entered, action string, id med.PatientID) error {
	if _, err := emergency(in.caller); err != nil {
		return err
	}
	if err := s.may(ctx, in, gate.Ask{Action: action, Resource: "treatment", Patient: id}); err != nil {
		return err
	}
	_, err := in.settle(in.relationTo(id))
	return err
}

func (s *Service) writeTreatment(ctx context.Context, in *entered, t *med.Treatment, again *once) error {
	practice := in.caller.Practice
	in.entry.PatientPractice = practice
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if err := s.ofThisPractice(ctx, tx, in, t.Patient); err != nil {
			return err
		}
		if err := s.db.Q.AddTreatment(ctx, tx, pgdb.AddTreatmentParams{
			ID: string(t.ID), Kind: string(t.Kind), PatientID: string(t.Patient), PracticeID: string(practice), Issuer: t.Issuer, Subject: t.Subject,
			Author: actor(in.caller), ValidFrom: t.From, ValidTo: t.To, EventID: string(in.entry.ID),
		}); err != nil {
			return err
		}
		if err := again.remember(ctx, tx, s, in, string(t.ID)); err != nil {
			return err
		}
		in.entry.ResourceID = string(t.ID)
		in.entry.Outcome = audit.Success
		return appendTx(ctx, tx, in.entry)
	})
	if postgres.Duplicate(err) {
		return med.Conflict.Because(err).Coded("written_before")
	}
	in.written = err == nil
	return err
}

// EndTreatment ends a relation of the patient that somebody wrote, now; it stays
// in the list as ended. It reports NotFound for one that is not there, is of
// another patient or kind, or is ended already.
func (s *Service) EndTreatment(ctx context.Context, c med.Caller, kind med.TreatmentKind, patient med.PatientID, id med.TreatmentID) (med.EventID, error) {
	var event med.EventID
	err := s.through(ctx, &c, "end_"+string(kind), patient, func(in *entered) error {
		event = in.entry.ID
		in.entry.ResourceType, in.entry.ResourceID = string(kind), string(id)
		if err := s.mayTreat(ctx, in, "end", patient); err != nil {
			return err
		}
		in.entry.PatientPractice = c.Practice
		err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
			if err := s.ofThisPractice(ctx, tx, in, patient); err != nil {
				return err
			}
			ended := false
			if med.IsUUID(string(id)) {
				var err error
				if ended, err = s.db.Q.EndTreatment(ctx, tx, pgdb.EndTreatmentParams{
					Treatment: string(id), Kind: string(kind), Event: string(in.entry.ID),
				}); err != nil {
					return err
				}
			}
			if !ended {
				return med.NotFound.New("There is nothing of this id to end.")
			}
			in.entry.Outcome = audit.Success
			return appendTx(ctx, tx, in.entry)
		})
		in.written = err == nil
		return err
	})
	return event, err
}

// Treatments returns a page of the relations that people wrote: of a patient of
// the caller's practice, or the caller's own. It reports Forbidden, MFARequired,
// NotFound for an id nobody has, and Invalid for a cursor that does not hold.
func (s *Service) Treatments(ctx context.Context, c med.Caller, q med.TreatmentQuery) (*med.TreatmentPage, error) {
	out := &med.TreatmentPage{}
	err := s.through(ctx, &c, "list_"+string(q.Kind)+"s", q.Patient, func(in *entered) (err error) {
		out.Event = in.entry.ID
		if q.Patient == "" {
			in.entry.ResourceType, in.entry.ResourceID = "practice", string(c.Practice)
		}
		out.Treatments, out.Next, err = s.treatments(ctx, in, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// begun is the relation at which a page ended.
type begun struct {
	From int64  `json:"f"` // Unix milliseconds
	ID   string `json:"i"`
}

func (s *Service) treatments(ctx context.Context, in *entered, q med.TreatmentQuery) ([]med.Treatment, string, error) {
	if err := s.mayTreat(ctx, in, "read", q.Patient); err != nil {
		return nil, "", err
	}
	list := listing{"treatments", []string{string(q.Kind), string(q.Patient)}}
	at := begun{From: s.now().Add(10 * 366 * 24 * time.Hour).UnixMilli(), ID: "ffffffff-ffff-ffff-ffff-ffffffffffff"}
	if err := s.resume(ctx, in, list, q.Page.Cursor, &at); err != nil {
		return nil, "", err
	}
	rows, err := s.pageOfTreatments(ctx, in, q, at)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if most := int(q.Page.Rows()); len(rows) > most {
		rows = rows[:most]
		last := rows[most-1]
		if next, err = s.cursor(ctx, in, list, begun{last.ValidFrom.UnixMilli(), last.ID}); err != nil {
			return nil, "", err
		}
	}
	out := make([]med.Treatment, len(rows))
	patients := map[string]bool{}
	for i, r := range rows {
		out[i] = treatmentOf(q.Kind, r)
		patients[r.PatientID] = true
	}
	in.entry.Detail.Counts = map[string]int{"entries": len(out), "patients": len(patients)}
	return out, next, nil
}

// pageOfTreatments reads one row more than the page has, which says whether
// there is a next.
func (s *Service) pageOfTreatments(ctx context.Context, in *entered, q med.TreatmentQuery, at begun) (rows []pgdb.TreatmentsOfPatientRow, err error) {
	practice := string(in.caller.Practice)
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if q.Patient == "" {
			own, err := s.db.Q.TreatmentsOfStaff(ctx, tx, pgdb.TreatmentsOfStaffParams{
				PracticeID: practice, Issuer: in.caller.Issuer, Subject: in.caller.Subject, Kind: string(q.Kind),
				BeforeFrom: time.UnixMilli(at.From), BeforeID: at.ID, MaxRows: q.Page.Rows() + 1,
			})
			for _, r := range own {
				rows = append(rows, pgdb.TreatmentsOfPatientRow(r))
			}
			return err
		}
		if err := s.ofThisPractice(ctx, tx, in, q.Patient); err != nil {
			return err
		}
		in.entry.PatientPractice = in.caller.Practice
		rows, err = s.db.Q.TreatmentsOfPatient(ctx, tx, pgdb.TreatmentsOfPatientParams{
			PracticeID: practice, PatientID: string(q.Patient), Kind: string(q.Kind),
			BeforeFrom: time.UnixMilli(at.From), BeforeID: at.ID, MaxRows: q.Page.Rows() + 1,
		})
		return err
	})
	return rows, err
}

func treatmentOf(kind med.TreatmentKind, r pgdb.TreatmentsOfPatientRow) med.Treatment {
	t := med.Treatment{
		ID: med.TreatmentID(r.ID), Kind: kind, Patient: med.PatientID(r.PatientID), From: r.ValidFrom.UTC(), To: r.ValidTo.UTC(),
		Event: med.EventID(r.EventID), CreatedAt: r.CreatedAt.UTC(),
	}
	if r.Issuer != nil && r.Subject != nil {
		t.Issuer, t.Subject = *r.Issuer, *r.Subject
	}
	t.SelfWritten = r.Author == t.Issuer+"\x1f"+t.Subject
	if r.EndedAt != nil {
		t.EndedAt = r.EndedAt.UTC()
	}
	return t
}
