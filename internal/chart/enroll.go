// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"encoding/hex"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// StaffMember says which login a practitioner of a source is.
type StaffMember struct {
	Source, Practitioner string
	Issuer, Subject      string
	Since                time.Time
}

// TrustedSource is a source of imports that a practice believes.
type TrustedSource struct {
	Name  string
	Since time.Time
}

// TrustedSources returns the sources that the practice believes now when they
// say who treats whom, by name. The caller is the operator.
func (s *Service) TrustedSources(ctx context.Context, c med.Caller, practice med.PracticeID) (out []TrustedSource, err error) {
	err = s.enrolled(ctx, &c, "list_sources", practice, func(tx pgx.Tx) (int, error) {
		rows, err := s.db.Q.TrustedSources(ctx, tx, string(practice))
		for _, r := range rows {
			out = append(out, TrustedSource{r.Name, r.CreatedAt.UTC()})
		}
		return len(rows), err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// EnrolledStaff returns which practitioner of which source is which login now, by
// source and practitioner; of untrusted sources too. The caller is the operator.
func (s *Service) EnrolledStaff(ctx context.Context, c med.Caller, practice med.PracticeID) (out []StaffMember, err error) {
	err = s.enrolled(ctx, &c, "list_staff", practice, func(tx pgx.Tx) (int, error) {
		rows, err := s.db.Q.EnrolledStaff(ctx, tx, string(practice))
		for _, r := range rows {
			out = append(out, StaffMember{r.Source, r.Practitioner, r.Issuer, r.Subject, r.CreatedAt.UTC()})
		}
		return len(rows), err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// enrolled lists whom a practice trusts, with its entry.
func (s *Service) enrolled(ctx context.Context, c *med.Caller, action string, practice med.PracticeID, list func(pgx.Tx) (int, error)) error {
	return s.through(ctx, c, action, "", func(in *entered) error {
		in.entry.ResourceType, in.entry.ResourceID = "practice", string(practice)
		ruling, err := s.gate.Serve(ctx, c, "practice.enroll", practice)
		if err != nil {
			return err
		}
		in.note(ruling)
		return s.db.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
			n, err := list(tx)
			in.entry.Detail.Counts = map[string]int{"entries": n}
			return err
		})
	})
}

var sourcePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// sourceName reports whether a source of imports can have the name. "api" is
// what people write.
func sourceName(s string) bool { return s != "api" && sourcePattern.MatchString(s) }

func errSourceName() error {
	return med.Invalid.New("A source has a name of 1 to 64 small letters, digits, dots, hyphens and underscores, and not api.")
}

// TrustSource has the practice believe the source when it says who treats whom,
// or believe it no more. It reports Conflict when it is so already, and Invalid
// for a name that is none. The caller is the operator.
func (s *Service) TrustSource(ctx context.Context, c med.Caller, practice med.PracticeID, source string, trusted bool) error {
	action := "trust_source"
	if !trusted {
		action = "distrust_source"
	}
	return s.enroll(ctx, &c, action, practice, source, func(ctx context.Context, tx pgx.Tx, event string) (int64, error) {
		if !trusted {
			return s.db.Q.DistrustSource(ctx, tx, pgdb.DistrustSourceParams{EventID: event, PracticeID: string(practice), Name: source})
		}
		return 1, s.db.Q.TrustSource(ctx, tx, pgdb.TrustSourceParams{PracticeID: string(practice), Name: source, Author: actor(&c), EventID: event})
	})
}

// EnrollStaff says which login a practitioner is. It reports Conflict when they
// are one already. The caller is the operator.
func (s *Service) EnrollStaff(ctx context.Context, c med.Caller, practice med.PracticeID, m StaffMember) error {
	for _, text := range []string{m.Practitioner, m.Issuer, m.Subject} {
		if text == "" || len(text) > 255 {
			return med.Invalid.New("A practitioner, an issuer and a subject have 1 to 255 bytes each.")
		}
	}
	return s.enroll(ctx, &c, "enroll_staff", practice, m.Source, func(ctx context.Context, tx pgx.Tx, event string) (int64, error) {
		return 1, s.db.Q.EnrollStaff(ctx, tx, pgdb.EnrollStaffParams{
			PracticeID: string(practice), Source: m.Source, Practitioner: m.Practitioner, Issuer: m.Issuer, Subject: m.Subject, Author: actor(&c), EventID: event,
		})
	})
}

// DismissStaff says that a practitioner is that login no more. It reports
// Conflict when they are none. The caller is the operator.
func (s *Service) DismissStaff(ctx context.Context, c med.Caller, practice med.PracticeID, m StaffMember) error {
	return s.enroll(ctx, &c, "dismiss_staff", practice, m.Source, func(ctx context.Context, tx pgx.Tx, event string) (int64, error) {
		return s.db.Q.RemoveStaff(ctx, tx, pgdb.RemoveStaffParams{EventID: event, PracticeID: string(practice), Source: m.Source, Practitioner: m.Practitioner})
	})
}

// enroll changes whom a practice trusts, with its entry.
func (s *Service) enroll(ctx context.Context, c *med.Caller, action string, practice med.PracticeID, source string,
	change func(context.Context, pgx.Tx, string) (int64, error),
) error {
	return s.through(ctx, c, action, "", func(in *entered) error {
		in.entry.ResourceType, in.entry.ResourceID = "practice", string(practice)
		if !sourceName(source) {
			return errSourceName()
		}
		ruling, err := s.gate.Serve(ctx, c, "practice.enroll", practice)
		if err != nil {
			return err
		}
		in.note(ruling)
		err = s.db.InTx(ctx, ruling.Context, func(tx pgx.Tx) error {
			n, err := change(ctx, tx, string(in.entry.ID))
			if err != nil {
				return err
			}
			if n == 0 {
				return med.Conflict.New("It is so already.")
			}
			in.entry.Outcome = audit.Success
			return appendTx(ctx, tx, in.entry)
		})
		if postgres.Duplicate(err) {
			return med.Conflict.New("It is so already.")
		}
		in.written = err == nil
		return err
	})
}

// openEnd stands for no end.
var openEnd = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// importTreatments writes whom of the staff a bundle ties to its patient, and
// what its source took back. Without the name of a source it writes nothing:
// nobody could trust it.
func (s *Service) importTreatments(ctx context.Context, tx pgx.Tx, in *entered, it *intake, b *Bundle) error {
	if b.Source == "" || len(b.Treatments) == 0 {
		return nil
	}
	add := pgdb.ImportTreatmentsParams{
		PatientID: string(it.patient), PracticeID: string(it.practice), Source: b.Source, Author: actor(in.caller), EventID: string(in.entry.ID),
	}
	void := pgdb.VoidTreatmentsParams{Author: actor(in.caller), EventID: string(in.entry.ID), PracticeID: string(it.practice), PatientID: string(it.patient)}
	seen := map[string]bool{}
	for _, t := range b.Treatments {
		sum, err := it.index.Digest("treatment", []byte(it.patient), []byte(b.Source), []byte(t.Origin))
		if err != nil {
			return err
		}
		id := hex.EncodeToString(sum[:16])
		if seen[id] { // somebody who took part twice
			continue
		}
		seen[id] = true
		if t.Void {
			void.Ids = append(void.Ids, id)
			continue
		}
		if t.Open {
			t.To = openEnd
		}
		add.Ids, add.Kinds, add.Practitioners = append(add.Ids, id), append(add.Kinds, string(t.Kind)), append(add.Practitioners, t.Practitioner)
		add.Froms, add.Tos = append(add.Froms, t.From), append(add.Tos, t.To)
	}
	in.entry.Detail.Counts["relations"] = len(add.Ids)
	if err := s.db.Q.ImportTreatments(ctx, tx, add); err != nil {
		return err
	}
	return s.db.Q.VoidTreatments(ctx, tx, void)
}
