// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// CreatePatient makes a patient of the caller's practice, with an id of ours,
// and returns them as the caller may see them. Who sends the same once more
// under the same key gets the patient that is there, read anew as any other. It
// reports Forbidden for a field that the caller may not write, Invalid for
// values that no patient has and for masks, and Conflict for a key that came
// with something else.
func (s *Service) CreatePatient(ctx context.Context, c med.Caller, p med.Patch, o med.Once) (*med.PatientView, error) {
	id := med.PatientID(med.NewUUID(s.now()))
	var out *med.PatientView
	err := s.through(ctx, &c, "create", id, func(in *entered) (err error) {
		out, err = s.createPatient(ctx, in, id, p, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) createPatient(ctx context.Context, in *entered, id med.PatientID, p med.Patch, o med.Once) (*med.PatientView, error) {
	d, err := s.mayWrite(ctx, in, id, "create", p)
	if err != nil {
		return nil, err
	}
	fields, err := patched(p, s.now(), func(med.Field) ([]byte, error) { return nil, nil })
	if err != nil {
		return nil, err
	}
	if fields[string(med.FieldName)] == nil {
		return nil, med.Invalid.New("").With(med.FieldError{Pointer: "/name", Reason: "required"})
	}
	practice := in.caller.Practice
	index, err := s.keys.Index(ctx, in.ruling.Context, practice)
	if err != nil {
		return nil, err
	}
	again, err := s.once(in, index, o)
	if err != nil {
		return nil, err
	}
	if made, err := again.made(ctx, s, in); err != nil || made != "" {
		return s.patientBefore(ctx, in, made, err)
	}
	out, err := s.addPatient(ctx, in, id, d, p, fields, index, again)
	if made, err := again.faster(ctx, s, in, err); err != nil || made != "" {
		return s.patientBefore(ctx, in, made, err) // this one's key is an orphan now
	}
	return out, err
}

// addPatient makes the key, pending, and then the patient.
func (s *Service) addPatient(ctx context.Context, in *entered, id med.PatientID, d med.Decision, p med.Patch, fields map[string][]byte,
	index *envelope.IndexKey, again *once,
) (*med.PatientView, error) {
	practice := in.caller.Practice
	key, err := s.keys.CreatePatient(ctx, in.ruling.Context, practice, id)
	if err != nil {
		return nil, err
	}
	where := patientRow(practice, id)
	sealed, err := key.SealRow(where, 1, fields)
	if err != nil {
		return nil, fmt.Errorf("sealing patient %s: %w", id, err)
	}
	row := &postgres.PatientRow{Practice: practice, Version: 1, DEKVersion: 1, KeyState: "active", Sealed: sealed}
	opened, err := envelope.ParseRow(sealed)
	if err != nil {
		return nil, err
	}
	out, err := s.show(ctx, key, opened, id, row, d.View, med.PatientFields)
	if err != nil {
		return nil, err
	}
	tags, err := s.tags(key, where, opened, index, p.Fields())
	if err != nil {
		return nil, err
	}
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		if err := s.db.Q.AddPatient(ctx, tx, pgdb.AddPatientParams{
			ID: string(id), PracticeID: string(practice), Version: 1, DekVersion: 1, Sealed: sealed, EventID: string(in.entry.ID),
		}); err != nil {
			return err
		}
		if err := again.remember(ctx, tx, s, in, string(id)); err != nil {
			return err
		}
		made := newChart()
		made.patient = 1
		if err := s.keepManifest(ctx, tx, in, key, made); err != nil {
			return err
		}
		return s.finishChange(ctx, tx, in, d, p, tags)
	})
	if err != nil {
		return nil, err
	}
	in.written = true
	// Should this fail, the sweeper settles it: the patient is there.
	_ = s.keys.Settle(ctx, in.ruling.Context, key.ID())
	out.Event = in.entry.ID
	return out, nil
}

// patientBefore reads whom the first of the same requests made. The primary
// entry stays about the id that this call did not use, for which its context was.
func (s *Service) patientBefore(ctx context.Context, in *entered, made string, err error) (*med.PatientView, error) {
	if err != nil {
		return nil, err
	}
	id := med.PatientID(made)
	var out *med.PatientView
	err = s.madeBefore(ctx, in, id, made, func(part *entered) (err error) {
		out, err = s.readPatient(ctx, part, id, med.PatientFields)
		return err
	})
	return out, err
}

// UpdatePatient changes the fields of the patch, and no other: what it does not
// name is carried over unopened. The patient must be as the caller saw them
// last, by the tag of that view; what they do not see may have changed. It
// reports Stale, Forbidden for a field that the caller may not write, Invalid
// for values that no patient has and for masks, and what ReadPatient does.
func (s *Service) UpdatePatient(ctx context.Context, c med.Caller, id med.PatientID, seen string, p med.Patch) (*med.PatientView, error) {
	var out *med.PatientView
	err := s.through(ctx, &c, "update", id, func(in *entered) (err error) {
		out, err = s.updatePatient(ctx, in, id, seen, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) updatePatient(ctx context.Context, in *entered, id med.PatientID, seen string, p med.Patch) (*med.PatientView, error) {
	d, err := s.mayWrite(ctx, in, id, "update", p)
	if err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, med.Invalid.New("There is nothing to change.")
	}
	var index *envelope.IndexKey
	if len(affected(p.Fields())) > 0 {
		if index, err = s.keys.Index(ctx, in.ruling.Context, in.caller.Practice); err != nil {
			return nil, err
		}
	}
	var out *med.PatientView
	err = s.changing(ctx, in, id, d, seen, func(tx pgx.Tx, was *locked) error {
		fields, err := patched(p, s.now(), func(f med.Field) ([]byte, error) { return was.key.OpenField(was.where, was.sealed, string(f)) })
		if err != nil {
			return err
		}
		if v, named := fields[string(med.FieldName)]; named && v == nil {
			return med.Invalid.New("").With(med.FieldError{Pointer: "/name", Reason: "required"})
		}
		next, err := was.next(fields)
		if err != nil {
			return err
		}
		tags, err := s.tags(was.key, was.where, next.sealed, index, p.Fields())
		if err != nil {
			return err
		}
		if next.row.UpdatedAt, err = s.db.Q.UpdatePatient(ctx, tx, pgdb.UpdatePatientParams{
			ID: string(id), Version: was.row.Version, Sealed: next.row.Sealed, EventID: string(in.entry.ID),
		}); err != nil {
			return err
		}
		if out, err = s.show(ctx, was.key, next.sealed, id, next.row, d.View, med.PatientFields); err != nil {
			return err
		}
		out.Event, out.Suspect = in.entry.ID, next.chart.suspect
		if err := s.keepManifest(ctx, tx, in, was.key, next.chart); err != nil {
			return err
		}
		return s.finishChange(ctx, tx, in, d, p, tags)
	})
	return out, err
}

// DeletePatient takes the patient out of sight of everybody but an admin of
// their practice, who can restore them for thirty days. It reports Stale when
// they are not as the caller saw them last, and what ReadPatient does.
func (s *Service) DeletePatient(ctx context.Context, c med.Caller, id med.PatientID, seen string) (med.EventID, error) {
	var event med.EventID
	err := s.through(ctx, &c, "delete", id, func(in *entered) error {
		event = in.entry.ID
		d, err := s.mayWrite(ctx, in, id, "delete", nil)
		if err != nil {
			return err
		}
		return s.changing(ctx, in, id, d, seen, func(tx pgx.Tx, was *locked) error {
			next, err := was.next(nil)
			if err != nil {
				return err
			}
			n, err := s.db.Q.DeletePatient(ctx, tx, pgdb.DeletePatientParams{
				ID: string(id), Version: was.row.Version, Sealed: next.row.Sealed, EventID: string(in.entry.ID),
			})
			if err == nil && n != 1 {
				err = pgx.ErrNoRows
			}
			if err == nil {
				err = s.keepManifest(ctx, tx, in, was.key, next.chart)
			}
			if err != nil {
				return err
			}
			in.entry.Outcome = audit.Success
			return appendTx(ctx, tx, in.entry)
		})
	})
	return event, err
}

// RestorePatient undoes a deletion of the last thirty days. It reports Conflict
// for a patient who is not deleted, or was longer ago, and what ReadPatient does.
func (s *Service) RestorePatient(ctx context.Context, c med.Caller, id med.PatientID) (*med.PatientView, error) {
	var out *med.PatientView
	err := s.through(ctx, &c, "restore", id, func(in *entered) (err error) {
		out, err = s.restorePatient(ctx, in, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func errNotDeleted() error {
	return med.Conflict.New("The patient is not deleted.").Coded("not_deleted")
}

func (s *Service) restorePatient(ctx context.Context, in *entered, id med.PatientID) (*med.PatientView, error) {
	d, err := s.mayWrite(ctx, in, id, "restore", nil)
	if err != nil {
		return nil, err
	}
	var out *med.PatientView
	err = s.reading(ctx, in, func(tx pgx.Tx) error {
		r, err := s.db.Q.DeletedPatient(ctx, tx, string(id))
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errNoRow
		case err != nil:
			return err
		case r.DeletedAt == nil:
			return errNotDeleted()
		case !r.Restorable:
			return med.Conflict.New("The patient was deleted more than thirty days ago.").Coded("window_over")
		}
		was, err := s.open(ctx, tx, in, id, rowOf(pgdb.PatientToChangeRow{
			PracticeID: r.PracticeID, Version: r.Version, DekVersion: r.DekVersion, KeyState: r.KeyState, Sealed: r.Sealed, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		}))
		if err != nil {
			return err
		}
		next, err := was.next(nil)
		if err != nil {
			return err
		}
		if next.row.UpdatedAt, err = s.db.Q.RestorePatient(ctx, tx, pgdb.RestorePatientParams{
			ID: string(id), Version: r.Version, Sealed: next.row.Sealed, EventID: string(in.entry.ID),
		}); errors.Is(err, pgx.ErrNoRows) { // another restoration was faster: of this version there is no other change
			return errNotDeleted()
		} else if err != nil {
			return err
		}
		if out, err = s.show(ctx, was.key, next.sealed, id, next.row, d.View, med.PatientFields); err != nil {
			return err
		}
		out.Event, out.Suspect = in.entry.ID, next.chart.suspect
		if err := s.keepManifest(ctx, tx, in, was.key, next.chart); err != nil {
			return err
		}
		return s.finishChange(ctx, tx, in, d, nil, tags{})
	})
	if errors.Is(err, errNoRow) {
		err = s.absent(ctx, in, id)
	}
	in.written = err == nil
	return out, err
}

// mayWrite asks the gate and says no where the policy does: to the deed, or to a
// field of the patch. A broken glass only reads.
func (s *Service) mayWrite(ctx context.Context, in *entered, id med.PatientID, action string, p med.Patch) (med.Decision, error) {
	if _, err := emergency(in.caller); err != nil {
		return med.Decision{}, err
	}
	if err := s.may(ctx, in, gate.Ask{Action: action, Resource: "patient", Patient: id}); err != nil {
		return med.Decision{}, err
	}
	rel := in.relationTo(id)
	if in.ruling.Context != "" {
		var err error
		if rel, err = s.treated(ctx, in, rel); err != nil {
			return med.Decision{}, err
		}
	}
	d, err := in.settle(rel)
	if err != nil {
		return d, err
	}
	return d, writable(d, p)
}

// locked is a patient's row while it is changed.
type locked struct {
	where  envelope.RowID
	key    *envelope.PatientKey
	sealed *envelope.Row
	row    *postgres.PatientRow
	chart  *chartState
}

// changing runs work on the patient's row, which nobody else changes meanwhile
// and which is as the caller saw it last.
func (s *Service) changing(ctx context.Context, in *entered, id med.PatientID, d med.Decision, seen string, work func(pgx.Tx, *locked) error) error {
	err := s.reading(ctx, in, func(tx pgx.Tx) error {
		r, err := s.db.Q.PatientToChange(ctx, tx, string(id))
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoRow
		}
		if err != nil {
			return err
		}
		in.entry.PatientPractice = med.PracticeID(r.PracticeID)
		was, err := s.open(ctx, tx, in, id, rowOf(r))
		if err != nil {
			return err
		}
		if patientTag(was.sealed, d.View, med.PatientFields) != seen {
			return med.Stale.New("")
		}
		return changedMeanwhile(work(tx, was))
	})
	if errors.Is(err, errNoRow) {
		err = s.absent(ctx, in, id)
	}
	in.written = err == nil
	return err
}

// changedMeanwhile is what a change that met no row of its version ends in.
func changedMeanwhile(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return med.Stale.New("")
	}
	return err
}

func rowOf(r pgdb.PatientToChangeRow) *postgres.PatientRow {
	return &postgres.PatientRow{
		Practice: med.PracticeID(r.PracticeID), Version: r.Version, DEKVersion: r.DekVersion, KeyState: r.KeyState, Sealed: r.Sealed,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
}

// open takes the locked row apart, and holds its chart against the manifest.
func (s *Service) open(ctx context.Context, tx pgx.Tx, in *entered, id med.PatientID, row *postgres.PatientRow) (*locked, error) {
	in.entry.PatientPractice = row.Practice
	key, sealed, err := s.unlock(ctx, in, id, row)
	if err != nil {
		return nil, err
	}
	chart, err := s.chartOf(ctx, tx, id, row.Version)
	if err != nil {
		return nil, err
	}
	s.distrust(ctx, in, key, chart)
	return &locked{where: patientRow(row.Practice, id), key: key, sealed: sealed, row: row, chart: chart}, nil
}

// next is the row's next version, with these fields changed.
func (l *locked) next(fields map[string][]byte) (*locked, error) {
	row := *l.row
	row.Version, row.UpdatedAt = l.row.Version+1, time.Time{}
	var err error
	if row.Sealed, err = l.key.UpdateRow(l.where, l.sealed, row.Version, fields); err != nil {
		return nil, fmt.Errorf("sealing patient %s: %w", l.where.Patient, err)
	}
	chart := *l.chart
	chart.patient = row.Version
	sealed, err := envelope.ParseRow(row.Sealed)
	return &locked{where: l.where, key: l.key, sealed: sealed, row: &row, chart: &chart}, err
}

// tags are the blind indexes that a change makes anew.
type tags struct {
	fields  []string
	tags    [][]byte
	version int32
}

// tags makes the indexes anew that the changed fields are in, from the row as it
// will be.
func (s *Service) tags(key *envelope.PatientKey, where envelope.RowID, sealed *envelope.Row, index *envelope.IndexKey, changed []med.Field) (tags, error) {
	var out tags
	var p med.Patient
	for _, name := range affected(changed) {
		for _, f := range indexed[name] {
			plain, err := key.OpenField(where, sealed, string(f))
			if err == nil && plain != nil {
				err = setField(&p, f, plain)
			}
			if err != nil {
				return out, err
			}
		}
		tag, err := tagOf(index, name, normalOf(name, &p))
		if err != nil {
			return out, err
		}
		out.fields, out.tags, out.version = append(out.fields, name), append(out.tags, tag), index.Version()
	}
	return out, nil
}

// finishChange writes the indexes and the entry: the end of the transaction. The
// entry names what was changed, and what the answer shows.
func (s *Service) finishChange(ctx context.Context, tx pgx.Tx, in *entered, d med.Decision, p med.Patch, t tags) error {
	if len(t.fields) > 0 {
		if err := s.db.Q.IndexPatient(ctx, tx, pgdb.IndexPatientParams{Fields: t.fields, Tags: t.tags, KeyVersion: t.version}); err != nil {
			return err
		}
	}
	in.entry.PatientPractice = in.caller.Practice
	in.entry.Detail.Changed = p.Fields()
	in.discloses(d.View, med.PatientFields)
	in.entry.Outcome = audit.Success
	return appendTx(ctx, tx, in.entry)
}
