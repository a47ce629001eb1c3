// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// ReadPatient returns the patient as the caller may see it: of the fields
// wanted (all, when none are named) those of the view, masked ones already as
// their mask. Fields outside the view are not opened. It reports Forbidden for
// a patient of another practice, and for a patient caller for every id but
// their own; NotFound for an id nobody has; MFARequired;
// BreakGlassReasonRequired; and one of the kinds that end in Unavailable when
// a part of the door is away.
func (s *Service) ReadPatient(ctx context.Context, c med.Caller, id med.PatientID, want ...med.Field) (*med.PatientView, error) {
	if len(want) == 0 {
		want = med.PatientFields
	}
	var out *med.PatientView
	err := s.through(ctx, &c, "read", id, func(in *entered) error {
		v, err := s.readPatient(ctx, in, id, want)
		out = v
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) readPatient(ctx context.Context, in *entered, id med.PatientID, want []med.Field) (*med.PatientView, error) {
	if err := s.mayRead(ctx, in, gate.Ask{Action: "read", Resource: "patient", Patient: id}); err != nil {
		return nil, err
	}
	if err := s.takeTicket(in); err != nil {
		return nil, err
	}
	row, err := s.db.Patient(ctx, in.ruling.Context, in.ticket, id)
	if errors.Is(err, errNoRow) {
		return nil, s.absent(ctx, in, id)
	}
	if err != nil {
		return nil, err
	}
	in.entry.PatientPractice = row.Practice
	standing, err := s.treated(ctx, in, relation(in.caller, id, row))
	if err != nil {
		return nil, err
	}
	decision, err := in.settle(standing)
	if err != nil {
		return nil, err
	}
	view, err := s.openPatient(ctx, in, id, row, decision.View, want)
	if err != nil {
		return nil, err
	}
	in.discloses(decision.View, want)
	view.Event, view.MaxAge = in.call(), in.maxAge()
	return view, nil
}

// discloses notes how much of the fields the answer shows.
func (in *entered) discloses(view med.View, want []med.Field) {
	for _, f := range want {
		switch view[f] {
		case med.Reveal:
			in.entry.Detail.Clear = append(in.entry.Detail.Clear, f)
		case med.Mask:
			in.entry.Detail.Masked = append(in.entry.Detail.Masked, f)
		case med.Hide:
			in.entry.Detail.Hidden = append(in.entry.Detail.Hidden, f)
		}
	}
}

var errNoRow = med.NotFound.New("")

// relation is how the caller stands to the row that the database gave.
func relation(c *med.Caller, id med.PatientID, row *postgres.PatientRow) med.Relation {
	switch {
	case row.Self || c.Patient == id:
		return med.RelationSelf
	case c.Practice == row.Practice:
		return med.RelationSamePractice
	}
	return med.RelationOtherPractice
}

// openPatient opens the wanted fields of the view, and no other.
func (s *Service) openPatient(ctx context.Context, in *entered, id med.PatientID, row *postgres.PatientRow, view med.View, want []med.Field) (*med.PatientView, error) {
	key, sealed, err := s.unlock(ctx, in, id, row)
	if err != nil {
		return nil, err
	}
	out, err := s.show(ctx, key, sealed, id, row, view, want)
	if med.CodeOf(err) == "integrity" {
		s.alarm(ctx, in, key.ID(), err)
	}
	if err == nil {
		out.Suspect = s.doubted(ctx, in, key.ID(), doubtPatient(key, row.Version, &row.Manifest))
	}
	return out, err
}

// unlock returns the key of the row, and the row taken apart and found to be
// what was written.
func (s *Service) unlock(ctx context.Context, in *entered, id med.PatientID, row *postgres.PatientRow) (*envelope.PatientKey, *envelope.Row, error) {
	if row.KeyState != "active" {
		return nil, nil, med.NotFound.New("No such patient.").Coded("key_destroyed")
	}
	key, err := s.keys.Patient(ctx, in.ruling.Context, envelope.DEKID{Practice: row.Practice, Patient: id, Version: row.DEKVersion})
	if err != nil {
		return nil, nil, err
	}
	sealed, err := envelope.ParseRow(row.Sealed)
	if err == nil && sealed.Version() != row.Version {
		err = envelope.ErrTampered
	}
	if err == nil {
		err = key.Check(patientRow(row.Practice, id), sealed)
	}
	if err != nil {
		s.alarm(ctx, in, key.ID(), err)
		return nil, nil, s.suspect(ctx, id, err)
	}
	return key, sealed, nil
}

// show opens the wanted fields of the view, and no other.
func (s *Service) show(ctx context.Context, key *envelope.PatientKey, sealed *envelope.Row, id med.PatientID, row *postgres.PatientRow, view med.View, want []med.Field) (*med.PatientView, error) {
	where := patientRow(row.Practice, id)
	out := &med.PatientView{View: view, Deleted: row.Deleted, Patient: med.Patient{ID: id, Practice: row.Practice, CreatedAt: row.CreatedAt}}
	out.Tag = patientTag(sealed, view, want)
	if whole(view, med.PatientFields) {
		// Whoever does not see everything would learn by these that something
		// changed which they do not see.
		out.Version, out.UpdatedAt = row.Version, row.UpdatedAt
	}
	for _, f := range want {
		show := view[f]
		if show == med.Hide || show == med.Mask && !hasShape(f) {
			if show == med.Mask {
				maskShapeless(&out.Patient, f)
			}
			continue
		}
		plain, err := key.OpenField(where, sealed, string(f))
		if err != nil {
			return nil, s.suspect(ctx, id, err)
		}
		if plain == nil {
			continue // nothing there: null stays null
		}
		if show == med.Mask {
			plain = []byte(mask(f, string(plain)))
		}
		if err := setField(&out.Patient, f, plain); err != nil {
			return nil, s.suspect(ctx, id, err)
		}
	}
	return out, nil
}

// patientTag names what is seen of a patient's row, without opening it: the
// versions of the wanted fields, and its own for whom nothing is hidden from.
func patientTag(sealed *envelope.Row, view med.View, want []med.Field) string {
	t := viewTag{}
	if whole(view, med.PatientFields) {
		t.number(sealed.Version())
	}
	for _, f := range want {
		t.field(f, view[f], sealed.FieldVersion(string(f)))
	}
	return t.String()
}

// suspect says that a row is not what was written, and raises the alarm: a
// superuser, or a disk, changed it.
func (s *Service) suspect(ctx context.Context, id med.PatientID, cause error) error {
	s.log.ErrorContext(ctx, "integrity of a patient row in doubt", slog.String("patient", string(id)), slog.Any("error", cause))
	return med.Internal.Because(fmt.Errorf("patient %s: %w", id, cause)).Coded("integrity")
}

func patientRow(practice med.PracticeID, id med.PatientID) envelope.RowID {
	return envelope.RowID{Practice: practice, Patient: id, Table: "patient", Record: string(id)}
}

func recordRow(practice med.PracticeID, patient med.PatientID, id med.RecordID) envelope.RowID {
	return envelope.RowID{Practice: practice, Patient: patient, Table: "record", Record: string(id)}
}

// emergency returns the break-glass reason of a caller with that role. The
// guide wants it on every request of such a token; without the role the header
// means nothing.
func emergency(c *med.Caller) (med.PHI, error) {
	if !slices.Contains(c.Roles, med.RoleBreakGlass) {
		return "", nil
	}
	return med.CheckReason(c.Emergency)
}
