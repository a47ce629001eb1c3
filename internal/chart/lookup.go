// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
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

// LookUp says who, in any practice, has the family name and birth date: the id,
// name and birth date of at most three, and of more only that they are more. It
// is for an unconscious patient, whose id then opens a grant. Officers are paged
// before it is answered: of the caller's practice always, of each patient's
// practice with the patient. It reports Invalid, Forbidden, MFARequired,
// BreakGlassReasonRequired and RateLimited.
func (s *Service) LookUp(ctx context.Context, c med.Caller, ask med.LookupAsk) (*med.Lookup, error) {
	out := &med.Lookup{}
	err := s.through(ctx, &c, "lookup", "", func(in *entered) (err error) {
		in.entry.ResourceID = "*"
		in.entry.Detail.Searched = lookedUpBy
		out.Event = in.entry.ID
		l := lookup{ask: ask}
		if err := l.check(in.caller); err != nil {
			return err
		}
		found, many, err := s.found(ctx, in, &l)
		if err != nil {
			return err
		}
		out.TooMany = many
		for _, id := range found {
			one, err := s.candidate(ctx, in, &l, id)
			if kind := med.KindOf(err); err != nil && kind != med.Forbidden && kind != med.NotFound {
				return err
			}
			if err == nil {
				out.Candidates = append(out.Candidates, *one)
			}
		}
		in.entry.Detail.Counts = map[string]int{"patients": len(out.Candidates)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// lookedUpBy is what a lookup is by, and all that it shows.
var lookedUpBy = []med.Field{med.FieldName, med.FieldDOB}

// lookup is a question that was found to be one.
type lookup struct {
	ask    med.LookupAsk
	reason med.PHI
	normal string // what is looked for, as it is indexed
	id     string // the sidecar's
}

func (l *lookup) check(c *med.Caller) (err error) {
	if _, err := emergency(c); err != nil {
		return err
	}
	if err := med.CheckReasonCode(l.ask.ReasonCode); err != nil {
		return err
	}
	if l.reason, err = med.CheckText("/reason", l.ask.Reason); err != nil {
		return err
	}
	l.normal = normalOf("family_dob", &med.Patient{Name: med.Name{Family: l.ask.Family}, DOB: l.ask.DOB})
	if l.normal == "" {
		return med.Invalid.New("").With(med.FieldError{Pointer: "/family", Reason: "a family name, with a whole birth date: nobody can be found by less"})
	}
	return nil
}

// found puts the question, with its entry and its pages, and then has it
// answered: PostgreSQL answers what is committed, and once.
func (s *Service) found(ctx context.Context, in *entered, l *lookup) (ids []string, many bool, err error) {
	if err := s.may(ctx, in, gate.Ask{Action: "lookup", Resource: "break_glass", ReasonCode: l.ask.ReasonCode}); err != nil {
		return nil, false, err
	}
	if _, err := in.settle(med.RelationOtherPractice); err != nil {
		return nil, false, err
	}
	l.id = in.ruling.Grant.ID
	practices, tags, err := s.everyTag(ctx, in, l.normal)
	if err != nil {
		return nil, false, err
	}
	if err := s.ask(ctx, in, l, practices, tags); err != nil {
		return nil, false, err
	}
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		rows, err := s.db.Q.AnswerLookup(ctx, tx, pgdb.AnswerLookupParams{Practices: practices, Tags: tags, ReasonCode: l.ask.ReasonCode})
		for _, r := range rows {
			if many = many || r.Many; !r.Many {
				ids = append(ids, r.PatientID)
			}
		}
		return err
	})
	return ids, many, s.rated(ctx, in, err)
}

// rated says of the database's refusal of one lookup more that it is one.
func (s *Service) rated(ctx context.Context, in *entered, err error) error {
	if !postgres.Exhausted(err) {
		return err
	}
	s.log.ErrorContext(ctx, "ALERT lookups across practices beyond care", slog.String("event", string(in.entry.ID)), slog.String("actor", in.caller.Subject))
	e := med.RateLimited.Because(err)
	e.RetryAfter = 10 * time.Minute
	return e
}

// everyTag is what each practice has in its index for the value.
func (s *Service) everyTag(ctx context.Context, in *entered, normal string) (practices []string, tags [][]byte, err error) {
	indexes, err := s.keys.Indexes(ctx, in.ruling.Context)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range indexes {
		tag, err := tagOf(x.Key, "family_dob", normal)
		if err != nil {
			return nil, nil, err
		}
		practices, tags = append(practices, string(x.Practice)), append(tags, tag)
	}
	return practices, tags, nil
}

// ask commits the question, the page to the caller's own officer, and an entry
// that says so. The reason is sealed under the audit key of the caller's
// practice; who has none has it sealed with each patient found, and its code.
func (s *Service) ask(ctx context.Context, in *entered, l *lookup, practices []string, tags [][]byte) error {
	start := in.entry.Child(s.now(), "break_glass_lookup", audit.AccessGranted)
	for _, e := range []*audit.Entry{in.entry, start} {
		e.Detail.BreakGlass = &audit.BreakGlass{Grant: l.id, ReasonCode: l.ask.ReasonCode}
		if in.caller.Practice == "" {
			continue
		}
		key, err := s.keys.Audit(ctx, in.ruling.Context, in.caller.Practice, 0)
		if err != nil {
			return err
		}
		if err := glass(key, e, in.ruling.Grant, l.reason); err != nil {
			return err
		}
	}
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if err := s.db.Q.AskLookup(ctx, tx, pgdb.AskLookupParams{Practices: practices, Tags: tags, EventID: string(in.entry.ID), ReasonCode: l.ask.ReasonCode}); err != nil {
			return err
		}
		return appendTx(ctx, tx, start)
	})
	if err == nil {
		s.log.WarnContext(ctx, "LOOKUP ACROSS PRACTICES", slog.String("event", string(in.entry.ID)), slog.String("lookup", l.id),
			slog.String("actor", in.caller.Subject), slog.String("reason_code", l.ask.ReasonCode))
	}
	return s.rated(ctx, in, err)
}

// candidate opens name and birth date of one who was found, as a part of the
// call: under a context and with an entry of their own. It reports NotFound for
// one who has another name, whose tag happens to be the same.
func (s *Service) candidate(ctx context.Context, call *entered, l *lookup, id string) (*med.Candidate, error) {
	part := &entered{caller: call.caller, entry: call.entry.Child(s.now(), "lookup", audit.Failure)}
	part.entry.Patient, part.entry.ResourceID = med.PatientID(id), id
	part.entry.Detail.BreakGlass = nil // another one's: sealed for their practice below
	var out *med.Candidate
	err := s.enter(ctx, part, func(in *entered) error {
		view, err := s.openCandidate(ctx, in, l, med.PatientID(id))
		if err != nil {
			return err
		}
		if normalOf("family_dob", &view.Patient) != l.normal {
			return med.NotFound.New("")
		}
		in.discloses(view.View, lookedUpBy)
		out = &med.Candidate{ID: view.Patient.ID, Name: view.Patient.Name, DOB: view.Patient.DOB}
		return nil
	})
	return out, err
}

func (s *Service) openCandidate(ctx context.Context, in *entered, l *lookup, id med.PatientID) (*med.PatientView, error) {
	err := s.may(ctx, in, gate.Ask{Action: "lookup", Resource: "break_glass", Patient: id, ReasonCode: l.ask.ReasonCode, Grant: l.id})
	if err != nil {
		return nil, err
	}
	if err := s.reasonFor(ctx, in, l, id); err != nil {
		return nil, err
	}
	var row pgdb.CandidateRow
	err = s.reading(ctx, in, func(tx pgx.Tx) (err error) {
		row, err = s.db.Q.Candidate(ctx, tx)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, med.NotFound.New("")
	}
	if err != nil {
		return nil, err
	}
	found := &postgres.PatientRow{
		Practice: med.PracticeID(row.PracticeID), Version: row.Version, DEKVersion: row.DekVersion, KeyState: "active", Sealed: row.Sealed,
	}
	key, sealed, err := s.unlock(ctx, in, id, found)
	if err != nil {
		return nil, err
	}
	return s.show(ctx, key, sealed, id, found, med.View{med.FieldName: med.Reveal, med.FieldDOB: med.Reveal}, lookedUpBy)
}

// reasonFor settles whose patient it is, and seals the reason for their officer.
func (s *Service) reasonFor(ctx context.Context, in *entered, l *lookup, id med.PatientID) error {
	practice, err := s.practiceOf(ctx, in.ruling.Context, id)
	if err != nil {
		return err
	}
	if practice == "" { // deleted meanwhile
		return med.NotFound.New("")
	}
	in.entry.PatientPractice = practice
	if _, err := in.settle(relation(in.caller, id, &postgres.PatientRow{Practice: practice})); err != nil {
		return err
	}
	var key *envelope.AuditKey
	if key, err = s.keys.Audit(ctx, in.ruling.Context, practice, 0); err != nil {
		return err
	}
	return glass(key, in.entry, in.ruling.Grant, l.reason)
}
