// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// CreateRecord adds a record to the patient's chart, with an id of ours and the
// caller as its author, and returns it as they may see it. Who sends the same
// once more under the same key gets the record that is there. It reports
// Forbidden for a kind, a sensitivity or a field that the caller may not write,
// Invalid for what no record has, Conflict for a key that came with something
// else, and what ReadPatient does of the patient.
func (s *Service) CreateRecord(ctx context.Context, c med.Caller, id med.PatientID, p med.Patch, o med.Once) (*med.RecordView, error) {
	which := med.RecordID(med.NewUUID(s.now()))
	var out *med.RecordView
	err := s.aboutRecord(ctx, &c, "create", id, which, func(in *entered) (err error) {
		out, err = s.createRecord(ctx, in, id, which, p, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) createRecord(ctx context.Context, in *entered, id med.PatientID, which med.RecordID, p med.Patch, o med.Once) (*med.RecordView, error) {
	relation, err := s.mayRecord(ctx, in, id, "create")
	if err != nil {
		return nil, err
	}
	again, err := s.onceHere(ctx, in, o)
	if err != nil {
		return nil, err
	}
	if made, err := again.made(ctx, s, in); err != nil || made != "" {
		return s.recordBefore(ctx, in, id, made, err)
	}
	next := &recordDraft{own: true, head: sealedHeader{
		By: actor(in.caller), At: s.now().UnixMilli(), Author: in.caller.Subject,
	}}
	if err := next.apply(p, true); err != nil {
		return nil, err
	}
	d := in.ruling.Records[relation].Of(next.head.Kind, next.head.Sensitivity, med.AuthorshipOwnRecent)
	if !d.Allow {
		return nil, med.Forbidden.New("Your role may not add this kind of record.")
	}
	if err := writable(d, p); err != nil {
		return nil, err
	}
	var out *med.RecordView
	err = s.changeChart(ctx, in, id, relation, func(tx pgx.Tx, open *changedChart) error {
		if err := open.add(ctx, tx, s, which, next); err != nil {
			return err
		}
		if err := again.remember(ctx, tx, s, in, string(which)); err != nil {
			return err
		}
		out, err = open.finish(ctx, tx, s, p)
		return err
	})
	if made, err := again.faster(ctx, s, in, err); err != nil || made != "" {
		return s.recordBefore(ctx, in, id, made, err)
	}
	return out, err
}

// onceHere digests an idempotency key under the practice's index key, if there
// is one.
func (s *Service) onceHere(ctx context.Context, in *entered, o med.Once) (*once, error) {
	if o.Key == "" {
		return nil, nil
	}
	index, err := s.keys.Index(ctx, in.ruling.Context, in.caller.Practice)
	if err != nil {
		return nil, err
	}
	return s.once(in, index, o)
}

// recordBefore reads what the first of the same requests made.
func (s *Service) recordBefore(ctx context.Context, in *entered, id med.PatientID, made string, err error) (*med.RecordView, error) {
	if err != nil {
		return nil, err
	}
	var out *med.RecordView
	err = s.madeBefore(ctx, in, id, made, func(part *entered) (err error) {
		out, err = s.readRecord(ctx, part, id, med.RecordID(made))
		return err
	})
	return out, err
}

// UpdateRecord makes the next version of a record, with the fields of the patch
// changed; the one before stays. The record must be as the caller saw it last, by
// the tag of that view. It reports Stale, NotFound for a record that they may not
// see, Forbidden for one, or a field of it, that they may not write, Conflict for
// one that was entered in error, and what CreateRecord does.
func (s *Service) UpdateRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID, seen string, p med.Patch) (*med.RecordView, error) {
	return s.nextVersion(ctx, c, id, which, "update", seen, p, func(next *recordDraft) error {
		if len(p) == 0 {
			return med.Invalid.New("There is nothing to change.")
		}
		return next.apply(p, false)
	})
}

// DeleteRecord marks a record as entered in error: it is in no list any more, and
// what it was stays. It reports what UpdateRecord does.
func (s *Service) DeleteRecord(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID, seen string) (med.EventID, error) {
	v, err := s.nextVersion(ctx, c, id, which, "delete", seen, nil, func(next *recordDraft) error {
		next.head.InError, next.head.Active = true, false
		return nil
	})
	if err != nil {
		return "", err
	}
	return v.Event, nil
}

func (s *Service) nextVersion(ctx context.Context, c med.Caller, id med.PatientID, which med.RecordID, action, seen string, p med.Patch, change func(*recordDraft) error) (*med.RecordView, error) {
	var out *med.RecordView
	err := s.aboutRecord(ctx, &c, action, id, which, func(in *entered) error {
		relation, err := s.mayRecord(ctx, in, id, action)
		if err != nil {
			return err
		}
		return s.changeChart(ctx, in, id, relation, func(tx pgx.Tx, open *changedChart) error {
			was, err := open.record(ctx, tx, s, which)
			if err != nil {
				return err
			}
			if err := open.changeable(was, seen, p); err != nil {
				return err
			}
			next := &recordDraft{own: was.own != med.AuthorshipOther, head: *was.head}
			if err := next.load(open.key, was); err != nil {
				return s.suspect(ctx, id, err)
			}
			if err := change(next); err != nil {
				return err
			}
			// What it becomes must be the caller's to write too.
			if !open.rules().Of(next.head.Kind, next.head.Sensitivity, was.own).Allow {
				return med.Forbidden.New("Your role may not write this kind of record.")
			}
			if err := open.replace(ctx, tx, s, was, next); err != nil {
				return err
			}
			out, err = open.finish(ctx, tx, s, p)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// mayRecord asks the gate about a change of records, and returns how the caller
// stands to the patient. A broken glass only reads.
func (s *Service) mayRecord(ctx context.Context, in *entered, id med.PatientID, action string) (med.Relation, error) {
	if _, err := emergency(in.caller); err != nil {
		return "", err
	}
	if err := s.may(ctx, in, gate.Ask{Action: action, Resource: "record", Patient: id}); err != nil {
		return "", err
	}
	relation, err := s.treated(ctx, in, in.relationTo(id))
	if err != nil {
		return "", err
	}
	_, err = in.settle(relation)
	return relation, err
}

// changedChart is a chart that nobody else changes meanwhile.
type changedChart struct {
	openedChart
	sealed  *envelope.Row // the patient's row
	version int64
	state   *chartState
	result  *openRecord
}

func (o *changedChart) rules() *med.RecordTable { return o.in.ruling.Records[o.relation] }

// changeChart runs work on the patient's chart, which nobody else changes
// meanwhile, in one transaction with its entry.
func (s *Service) changeChart(ctx context.Context, in *entered, id med.PatientID, relation med.Relation, work func(pgx.Tx, *changedChart) error) error {
	absent := false
	err := s.reading(ctx, in, func(tx pgx.Tx) error {
		row, err := s.db.Q.LockChart(ctx, tx, string(id))
		if absent = errors.Is(err, pgx.ErrNoRows); err != nil {
			return err
		}
		in.entry.PatientPractice = med.PracticeID(row.PracticeID)
		if row.KeyState != "active" {
			return med.NotFound.New("No such patient.").Coded("key_destroyed")
		}
		key, err := s.keys.Patient(ctx, in.ruling.Context, envelope.DEKID{Practice: med.PracticeID(row.PracticeID), Patient: id, Version: row.DekVersion})
		if err != nil {
			return err
		}
		open := &changedChart{openedChart: openedChart{in: in, now: s.now(), patient: id, relation: relation, key: key}, version: row.Version}
		if open.sealed, err = envelope.ParseRow(row.Sealed); err == nil && open.sealed.Version() != row.Version {
			err = envelope.ErrTampered
		}
		if err != nil {
			return s.suspect(ctx, id, err)
		}
		if open.state, err = s.chartOf(ctx, tx, id, row.Version); err != nil {
			return err
		}
		s.distrust(ctx, in, key, open.state)
		open.suspect = open.state.suspect
		return work(tx, open)
	})
	if absent {
		err = s.absent(ctx, in, id)
	}
	in.written = err == nil
	return err
}

// record returns the record that is to change, if the caller may see it.
func (o *changedChart) record(ctx context.Context, tx pgx.Tx, s *Service, which med.RecordID) (*openRecord, error) {
	row, err := s.db.Q.RecordRow(ctx, tx, pgdb.RecordRowParams{PatientID: string(o.patient), ID: string(which)})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoRecord()
	}
	if err != nil {
		return nil, err
	}
	r, err := o.open(&postgres.RecordRow{
		ID: which, Version: row.Version, DEKVersion: row.DekVersion, Sealed: row.Sealed, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	})
	if err != nil {
		return nil, s.suspect(ctx, o.patient, err)
	}
	if !r.seen {
		return nil, errNoRecord()
	}
	return r, nil
}

// changeable reports why the caller may not change a record that they see.
func (o *changedChart) changeable(was *openRecord, seen string, p med.Patch) error {
	d := o.rules().Of(was.head.Kind, was.head.Sensitivity, was.own)
	if !d.Allow {
		return med.Forbidden.New("Your role may not change this record.")
	}
	if err := writable(d, p); err != nil {
		return err
	}
	if was.tag() != seen {
		return med.Stale.New("")
	}
	if was.head.InError {
		return med.Conflict.New("The record was entered in error: it does not change any more.").Coded("entered_in_error")
	}
	return nil
}

// add seals and writes a new record.
func (o *changedChart) add(ctx context.Context, tx pgx.Tx, s *Service, which med.RecordID, next *recordDraft) error {
	fields, err := next.fields()
	if err != nil {
		return err
	}
	id := o.key.ID()
	sealed, err := o.key.SealRow(recordRow(id.Practice, o.patient, which), 1, fields)
	if err != nil {
		return fmt.Errorf("sealing record %s: %w", which, err)
	}
	at, err := s.db.Q.AddRecord(ctx, tx, pgdb.AddRecordParams{
		PatientID: string(o.patient), ID: string(which), PracticeID: string(id.Practice), DekVersion: id.Version, Sealed: sealed, EventID: string(o.in.entry.ID),
	})
	if err != nil {
		return err
	}
	o.state.records[which] = 1
	return o.wrote(ctx, tx, s, nil, &postgres.RecordRow{ID: which, Version: 1, DEKVersion: id.Version, Sealed: sealed, CreatedAt: at, UpdatedAt: at})
}

// replace seals and writes the next version of a record. What was not changed is
// carried over unopened.
func (o *changedChart) replace(ctx context.Context, tx pgx.Tx, s *Service, was *openRecord, next *recordDraft) error {
	fields, err := next.fields()
	if err != nil {
		return err
	}
	id, version := o.key.ID(), was.row.Version+1
	sealed, err := o.key.UpdateRow(was.where, was.sealed, version, fields)
	if err != nil {
		return fmt.Errorf("sealing record %s: %w", was.row.ID, err)
	}
	at, err := s.db.Q.ChangeRecord(ctx, tx, pgdb.ChangeRecordParams{
		PatientID: string(o.patient), ID: string(was.row.ID), Version: was.row.Version, DekVersion: id.Version, Sealed: sealed, EventID: string(o.in.entry.ID),
	})
	if err != nil {
		return changedMeanwhile(err)
	}
	o.state.records[was.row.ID] = version
	return o.wrote(ctx, tx, s, was, &postgres.RecordRow{
		ID: was.row.ID, Version: version, DEKVersion: id.Version, Sealed: sealed, CreatedAt: was.row.CreatedAt, UpdatedAt: at,
	})
}

// wrote opens what was written, for the answer, and derives the diagnosis line
// anew when it has to do with it.
func (o *changedChart) wrote(ctx context.Context, tx pgx.Tx, s *Service, was *openRecord, row *postgres.RecordRow) error {
	var err error
	if o.result, err = o.open(row); err != nil {
		return err
	}
	if was != nil && inLine(was.head) || inLine(o.result.head) {
		return o.diagnose(ctx, tx, s)
	}
	return nil
}

// inLine says whether a record is in the diagnosis line.
func inLine(h *sealedHeader) bool {
	r := h.record("", "")
	return fhir.InDiagnosis(&r)
}

// diagnose derives the diagnosis line from the conditions as they are now, in the
// transaction that changed one.
func (o *changedChart) diagnose(ctx context.Context, tx pgx.Tx, s *Service) error {
	rows, err := s.db.Q.SealedRecords(ctx, tx, string(o.patient))
	if err != nil {
		return err
	}
	var all []med.Record
	for _, r := range rows {
		h, err := openHeader(o.key, recordRow(o.key.ID().Practice, o.patient, med.RecordID(r.ID)), r.Sealed)
		if damaged(err) { // care goes on, and the chart says so for ever
			o.suspect = s.doubted(ctx, o.in, o.key.ID(), fmt.Errorf("record %s: %w", r.ID, err))
			o.state.suspect = true
			continue
		}
		if err != nil {
			return s.suspect(ctx, o.patient, err)
		}
		all = append(all, h.record(med.RecordID(r.ID), o.patient))
	}
	where, name := patientRow(o.key.ID().Practice, o.patient), string(med.FieldDiagnosis)
	now, err := o.key.OpenField(where, o.sealed, name)
	if err != nil {
		return s.suspect(ctx, o.patient, err)
	}
	line := fhir.Diagnosis(all).Reveal()
	if line == string(now) {
		return nil
	}
	var plain []byte
	if line != "" {
		plain = []byte(line)
	}
	sealed, err := o.key.UpdateRow(where, o.sealed, o.version+1, map[string][]byte{name: plain})
	if err != nil {
		return fmt.Errorf("sealing patient %s: %w", o.patient, err)
	}
	n, err := s.db.Q.ChangePatient(ctx, tx, pgdb.ChangePatientParams{
		ID: string(o.patient), Version: o.version, DekVersion: o.key.ID().Version, Sealed: sealed, EventID: string(o.in.entry.ID),
	})
	if err == nil && n != 1 {
		err = med.Conflict.Because(fmt.Errorf("patient %s changed meanwhile", o.patient))
	}
	o.state.patient = o.version + 1
	return err
}

// finish seals the manifest and writes the entry: the end of the transaction.
func (o *changedChart) finish(ctx context.Context, tx pgx.Tx, s *Service, p med.Patch) (*med.RecordView, error) {
	if err := s.keepManifest(ctx, tx, o.in, o.key, o.state); err != nil {
		return nil, err
	}
	out := &med.RecordView{Suspect: o.suspect}
	if o.result.seen { // it may have become what its writer does not see
		var err error
		if out, err = o.show(o.result, false); err != nil {
			return nil, err
		}
		o.in.discloses(o.result.view, med.RecordFields)
	}
	out.ID, out.Patient, out.Event = o.result.row.ID, o.patient, o.in.entry.ID
	o.in.entry.Detail.Changed = p.Fields()
	o.in.entry.Outcome = audit.Success
	return out, appendTx(ctx, tx, o.in.entry)
}
