// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// importWithin bounds one bundle's transaction.
const importWithin = 30 * time.Second

// Bundle is one patient's chart as an import brings it.
type Bundle struct {
	Patient med.Patient // SourceID names them at the source; ID, when set, is kept if it is free
	Records []med.Record
	Hash    [32]byte // of the bundle's bytes
	// Source is the name under which a practice may trust this import to say who
	// treats whom; without one, Treatments are not kept.
	Source     string
	Treatments []med.SourceTreatment
}

// Imported says what an import did.
type Imported struct {
	Patient                     med.PatientID
	Event                       med.EventID
	Created, Updated, Unchanged int // records
	// Skipped: this very bundle was imported before; nothing was written but
	// the entry.
	Skipped bool
}

// Import writes one patient's chart in one transaction, with one primary entry
// that counts: all or nothing. A bundle that was imported before changes
// nothing; a newer one of the same patient changes what differs and removes
// nothing. The caller is the service import.
func (s *Service) Import(ctx context.Context, c med.Caller, practice med.PracticeID, b Bundle) (Imported, error) {
	var out Imported
	err := s.through(ctx, &c, "import", "", func(in *entered) (err error) {
		out, err = s.importBundle(ctx, in, practice, &b)
		out.Event = in.entry.ID
		return err
	})
	return out, err
}

// intake is one bundle while it is imported.
type intake struct {
	practice med.PracticeID
	patient  med.PatientID
	known    bool // the patient is there already
	digest   []byte
	index    *envelope.IndexKey
	key      *envelope.PatientKey
	chart    *chartState
}

func (s *Service) importBundle(ctx context.Context, in *entered, practice med.PracticeID, b *Bundle) (Imported, error) {
	ruling, err := s.gate.Serve(ctx, in.caller, "import", practice)
	if err != nil {
		return Imported{}, err
	}
	in.note(ruling)
	in.entry.PatientPractice = practice
	it := &intake{practice: practice}
	if it.index, err = s.keys.Index(ctx, ruling.Context, practice); err != nil {
		if med.CodeOf(err) == "key_missing" {
			err = med.NotFound.New("There is no such practice: add it with `medirecord practice add`.").Coded("practice_missing").Caused(err)
		}
		return Imported{}, err
	}
	parts := [][]byte{b.Hash[:]}
	if b.Source != "" {
		if !sourceName(b.Source) {
			return Imported{}, errSourceName()
		}
		// The same bundle from a source that is named now brings its relations.
		parts = append(parts, []byte(b.Source))
	}
	digest, err := it.index.Digest("intake", parts...)
	if err != nil {
		return Imported{}, err
	}
	it.digest = digest[:]
	if b.Records, err = it.named(b.Records); err != nil {
		return Imported{}, err
	}
	if before, err := s.importedBefore(ctx, in, it); err != nil || before.Skipped {
		return before, err
	}
	if err := s.whose(ctx, in, it, b); err != nil {
		return Imported{}, err
	}
	in.entry.Patient, in.entry.ResourceID = it.patient, string(it.patient)
	var out Imported
	if it.known {
		out, err = s.importAgain(ctx, in, it, b)
	} else {
		out, err = s.importFirst(ctx, in, it, b)
	}
	if postgres.Duplicate(err) {
		// Another import of the same bundle, or of the same patient, was faster.
		return Imported{}, med.Conflict.Because(err).Coded("imported_meanwhile")
	}
	return out, err
}

// named gives the records ids that tell nothing. A UUID is kept; any other id of
// the source may tell a kind, a number, a name, and is replaced by a keyed
// digest of it, the same at the next import.
func (it *intake) named(records []med.Record) ([]med.Record, error) {
	out := slices.Clone(records)
	for i := range out {
		if med.IsUUID(string(out[i].ID)) {
			continue
		}
		sum, err := it.index.Digest("record_id", []byte(out[i].ID))
		if err != nil {
			return nil, err
		}
		out[i].ID = med.RecordID(hex.EncodeToString(sum[:16]))
	}
	return out, nil
}

// importedBefore reports whether this very bundle is in, and notes so.
func (s *Service) importedBefore(ctx context.Context, in *entered, it *intake) (Imported, error) {
	var out Imported
	err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		row, err := s.db.Q.IntakeOf(ctx, tx, pgdb.IntakeOfParams{PracticeID: string(it.practice), Digest: it.digest})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		out.Skipped, out.Patient = err == nil, med.PatientID(row.PatientID)
		return err
	})
	if out.Skipped {
		in.entry.Patient, in.entry.ResourceID = out.Patient, string(out.Patient)
		in.entry.Detail.Counts = map[string]int{"skipped": 1}
	}
	return out, err
}

// whose finds the bundle's patient in the practice, or gives them an id: their
// own from the source when nobody has it, else a new one.
func (s *Service) whose(ctx context.Context, in *entered, it *intake, b *Bundle) error {
	tag, err := it.index.Tag("source_id", b.Patient.SourceID.Reveal())
	if err != nil {
		return err
	}
	var found []string
	taken := ""
	err = s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) error {
		found, err = s.db.Q.FindPatients(ctx, tx, pgdb.FindPatientsParams{PracticeID: string(it.practice), Field: "source_id", Tag: tag[:]})
		if err != nil || len(found) > 0 || b.Patient.ID == "" {
			return err
		}
		taken, err = s.db.Q.PracticeOf(ctx, tx, string(b.Patient.ID))
		return err
	})
	switch {
	case err != nil:
		return err
	case len(found) > 0:
		it.patient, it.known = med.PatientID(found[0]), true
	case b.Patient.ID != "" && taken == "":
		it.patient = b.Patient.ID
	default:
		it.patient = med.PatientID(med.NewUUID(s.now()))
	}
	return nil
}

// importFirst makes the patient: the key first, pending, then the chart.
func (s *Service) importFirst(ctx context.Context, in *entered, it *intake, b *Bundle) (Imported, error) {
	signed := in.ruling.Context
	id := envelope.DEKID{Practice: it.practice, Patient: it.patient, Version: 1}
	var err error
	it.key, err = s.keys.CreatePatient(ctx, signed, it.practice, it.patient)
	if med.CodeOf(err) == "key_exists" {
		// An import died between key and chart: the orphan is as good as new. It
		// is settled first, so that no sweeper takes it from under the chart.
		if err = s.keys.Settle(ctx, signed, id); err == nil {
			it.key, err = s.keys.Patient(ctx, signed, id)
		}
	}
	if med.CodeOf(err) == "key_missing" && it.patient == b.Patient.ID {
		// Another practice's: of a patient who was deleted there, or is being
		// made. The id is taken all the same.
		it.patient = med.PatientID(med.NewUUID(s.now()))
		in.entry.Patient, in.entry.ResourceID = it.patient, string(it.patient)
		return s.importFirst(ctx, in, it, b)
	}
	if err != nil {
		return Imported{}, err
	}
	where := patientRow(it.practice, it.patient)
	fields, err := patientFields(&b.Patient)
	if err != nil {
		return Imported{}, err
	}
	sealed, err := it.key.SealRow(where, 1, fields)
	if err != nil {
		return Imported{}, fmt.Errorf("sealing patient %s: %w", it.patient, err)
	}
	added, err := s.sealRecords(it, b.Records, nil)
	if err != nil {
		return Imported{}, err
	}
	out := Imported{Patient: it.patient, Created: len(added.ids)}
	in.entry.Detail.Counts = counts(out)
	err = s.db.InTxWithin(ctx, importWithin, signed, func(tx pgx.Tx) error {
		if err := s.db.Q.AddPatient(ctx, tx, pgdb.AddPatientParams{
			ID: string(it.patient), PracticeID: string(it.practice), Version: 1, DekVersion: 1, Sealed: sealed, EventID: string(in.entry.ID),
		}); err != nil {
			return err
		}
		it.chart = newChart()
		it.chart.patient = 1
		return s.finish(ctx, tx, in, it, b, added, nil)
	})
	if err != nil {
		return Imported{}, err
	}
	in.written = true
	// Should this fail, the sweeper settles it: the patient is there.
	_ = s.keys.Settle(ctx, signed, id)
	return out, nil
}

// importAgain changes what differs in a chart that is there.
func (s *Service) importAgain(ctx context.Context, in *entered, it *intake, b *Bundle) (Imported, error) {
	out := Imported{Patient: it.patient}
	err := s.db.InTxWithin(ctx, importWithin, in.ruling.Context, func(tx pgx.Tx) error {
		row, err := s.db.Q.PatientForUpdate(ctx, tx, string(it.patient))
		if errors.Is(err, pgx.ErrNoRows) {
			return med.NotFound.New("The patient was deleted: restore them first.").Coded("patient_deleted")
		}
		if err != nil {
			return err
		}
		it.key, err = s.keys.Patient(ctx, in.ruling.Context, envelope.DEKID{Practice: it.practice, Patient: it.patient, Version: row.DekVersion})
		if err != nil {
			return err
		}
		if row.KeyState != "active" {
			return med.NotFound.New("The patient's key was destroyed: there is nothing to add to.").Coded("key_destroyed")
		}
		if it.chart, err = s.chartOf(ctx, tx, it.patient, row.Version); err != nil {
			return err
		}
		s.distrust(ctx, in, it.key, it.chart)
		rows, err := s.db.Q.RecordsForUpdate(ctx, tx, string(it.patient))
		if err != nil {
			return err
		}
		have := make(map[string]pgdb.RecordsForUpdateRow, len(rows))
		for _, r := range rows {
			have[r.ID] = r
		}
		var fresh, kept []med.Record
		for _, r := range b.Records {
			if _, ok := have[string(r.ID)]; ok {
				kept = append(kept, r)
			} else {
				fresh = append(fresh, r)
			}
		}
		added, err := s.sealRecords(it, fresh, nil)
		if err != nil {
			return err
		}
		changed, err := s.sealRecords(it, kept, have)
		if err != nil {
			return err
		}
		out.Created, out.Updated = len(added.ids), len(changed.ids)
		out.Unchanged = len(kept) - out.Updated
		if b.Patient.Diagnosis, err = s.diagnosis(it, b, rows); err != nil {
			return err
		}
		if err := s.changePatient(ctx, tx, in, it, row, b); err != nil {
			return err
		}
		in.entry.Detail.Counts = counts(out)
		return s.finish(ctx, tx, in, it, b, added, changed)
	})
	in.written = err == nil
	return out, err
}

// diagnosis derives the diagnosis line anew, from the conditions that the
// bundle brings and those that were there before.
func (s *Service) diagnosis(it *intake, b *Bundle, rows []pgdb.RecordsForUpdateRow) (med.PHI, error) {
	all := slices.Clone(b.Records)
	brought := make(map[string]bool, len(b.Records))
	for i := range b.Records {
		brought[string(b.Records[i].ID)] = true
	}
	for _, r := range rows {
		if brought[r.ID] {
			continue
		}
		h, err := openHeader(it.key, recordRow(it.practice, it.patient, med.RecordID(r.ID)), r.Sealed)
		if err != nil {
			return "", err
		}
		all = append(all, h.record(med.RecordID(r.ID), it.patient))
	}
	return fhir.Diagnosis(all), nil
}

// changePatient writes the fields that differ, and nothing when none does.
// What the bundle does not have stays; the diagnosis line, which is derived,
// goes when there is none any more. It reports Conflict when the bundle is
// about somebody else who has the same id at their source.
func (s *Service) changePatient(ctx context.Context, tx pgx.Tx, in *entered, it *intake, row pgdb.PatientForUpdateRow, b *Bundle) error {
	where := patientRow(it.practice, it.patient)
	old, err := envelope.ParseRow(row.Sealed)
	if err != nil {
		return s.suspect(ctx, it.patient, err)
	}
	want, err := patientFields(&b.Patient)
	if err != nil {
		return err
	}
	if _, ok := want[string(med.FieldDiagnosis)]; !ok {
		want[string(med.FieldDiagnosis)] = nil
	}
	differ := map[string][]byte{}
	for _, name := range append(old.Fields(), slices.Collect(maps.Keys(want))...) {
		now, err := it.key.OpenField(where, old, name)
		if err != nil {
			return s.suspect(ctx, it.patient, err)
		}
		v, brought := want[name]
		switch {
		case !brought: // for the indexes, which are made of all there is
			if err := setField(&b.Patient, med.Field(name), now); err != nil {
				return s.suspect(ctx, it.patient, err)
			}
		case slices.Contains(identity, med.Field(name)) && now != nil && !bytes.Equal(now, v):
			return med.Conflict.New("Somebody else with the same id at the source is in this practice already: SSN, MRN or birth date differ. " +
				"Import them into another practice, or under ids of their own.").Coded("identity_conflict")
		case !bytes.Equal(now, v):
			differ[name] = v
		}
	}
	if len(differ) == 0 {
		return nil
	}
	sealed, err := it.key.UpdateRow(where, old, row.Version+1, differ)
	if err != nil {
		return fmt.Errorf("sealing patient %s: %w", it.patient, err)
	}
	n, err := s.db.Q.ChangePatient(ctx, tx, pgdb.ChangePatientParams{
		ID: string(it.patient), Version: row.Version, DekVersion: row.DekVersion, Sealed: sealed, EventID: string(in.entry.ID),
	})
	if err == nil && n != 1 {
		return med.Conflict.Because(fmt.Errorf("patient %s changed meanwhile", it.patient))
	}
	it.chart.patient = row.Version + 1
	return err
}

// identity is what no newer bundle of the same person changes.
var identity = []med.Field{med.FieldSSN, med.FieldMRN, med.FieldDOB}

// sealedRecords are rows ready to be written.
type sealedRecords struct {
	ids      []string
	versions []int64
	sealed   [][]byte
}

// sealRecords seals the records: as new ones, or, given what is there, as the
// next version of those whose source differs.
func (s *Service) sealRecords(it *intake, records []med.Record, have map[string]pgdb.RecordsForUpdateRow) (*sealedRecords, error) {
	out := &sealedRecords{}
	for i := range records {
		r := &records[i]
		digest, err := it.index.Digest("record", []byte(it.patient), []byte(r.ID), []byte(r.Source.Reveal()))
		if err != nil {
			return nil, err
		}
		where, version := recordRow(it.practice, it.patient, r.ID), int64(1)
		if old, ok := have[string(r.ID)]; ok {
			h, err := openHeader(it.key, where, old.Sealed)
			if err != nil {
				return nil, err
			}
			if h.InError || bytes.Equal(h.Digest, digest[:]) {
				continue // what somebody here marked as wrong does not come back
			}
			r.Sensitivity = med.Strictest(r.Sensitivity, h.Mark)
			version = old.Version + 1
		}
		r.Sensitivity = med.Strictest(r.Sensitivity, fhir.Sensitivity(r))
		fields, err := recordFields(r, digest[:])
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", r.ID, err)
		}
		sealed, err := it.key.SealRow(where, version, fields)
		if err != nil {
			return nil, fmt.Errorf("sealing record %s: %w", r.ID, err)
		}
		out.ids, out.versions, out.sealed = append(out.ids, string(r.ID)), append(out.versions, version), append(out.sealed, sealed)
	}
	return out, nil
}

// openHeader opens what a list of records needs to know of one.
func openHeader(key *envelope.PatientKey, where envelope.RowID, sealed []byte) (*sealedHeader, error) {
	row, err := envelope.ParseRow(sealed)
	if err != nil {
		return nil, err
	}
	plain, err := key.OpenField(where, row, fieldHeader)
	if err != nil {
		return nil, err
	}
	var h sealedHeader
	if err := json.Unmarshal(plain, &h); err != nil {
		return nil, errors.New("a record's header does not read")
	}
	return &h, nil
}

// finish writes records, indexes, the intake and the entry: the end of the one
// transaction.
func (s *Service) finish(ctx context.Context, tx pgx.Tx, in *entered, it *intake, b *Bundle, added, changed *sealedRecords) error {
	patient, practice, event := string(it.patient), string(it.practice), string(in.entry.ID)
	if len(added.ids) > 0 {
		if _, err := s.db.Q.AddRecords(ctx, tx, pgdb.AddRecordsParams{
			PatientID: patient, PracticeID: practice, DekVersion: it.key.ID().Version, EventID: event, Ids: added.ids, Sealed: added.sealed,
		}); err != nil {
			return err
		}
	}
	if changed != nil && len(changed.ids) > 0 {
		n, err := s.db.Q.ChangeRecords(ctx, tx, pgdb.ChangeRecordsParams{
			PatientID: patient, DekVersion: it.key.ID().Version, EventID: event, Ids: changed.ids, Versions: changed.versions, Sealed: changed.sealed,
		})
		if err == nil && int(n) != len(changed.ids) {
			err = med.Conflict.Because(fmt.Errorf("records of patient %s changed meanwhile", patient))
		}
		if err != nil {
			return err
		}
	}
	if err := s.index(ctx, tx, it, &b.Patient); err != nil {
		return err
	}
	if err := s.importTreatments(ctx, tx, in, it, b); err != nil {
		return err
	}
	if err := s.db.Q.AddIntake(ctx, tx, pgdb.AddIntakeParams{PracticeID: practice, Digest: it.digest, PatientID: patient, EventID: event}); err != nil {
		return err
	}
	for i, id := range added.ids {
		it.chart.records[med.RecordID(id)] = added.versions[i]
	}
	if changed != nil {
		for i, id := range changed.ids {
			it.chart.records[med.RecordID(id)] = changed.versions[i]
		}
	}
	if err := s.keepManifest(ctx, tx, in, it.key, it.chart); err != nil {
		return err
	}
	in.entry.Outcome = audit.Success
	return appendTx(ctx, tx, in.entry)
}

// index writes the patient's blind indexes anew.
func (s *Service) index(ctx context.Context, tx pgx.Tx, it *intake, p *med.Patient) error {
	if it.known {
		if err := s.db.Q.DropBlindIndexes(ctx, tx, pgdb.DropBlindIndexesParams{PracticeID: string(it.practice), PatientID: string(it.patient)}); err != nil {
			return err
		}
	}
	params := pgdb.AddBlindIndexesParams{PracticeID: string(it.practice), PatientID: string(it.patient), KeyVersion: it.index.Version()}
	for field, normal := range normals(p) {
		tag, err := tagOf(it.index, field, normal)
		if err != nil {
			return err
		}
		if tag != nil {
			params.Fields, params.Tags = append(params.Fields, field), append(params.Tags, tag)
		}
	}
	return s.db.Q.AddBlindIndexes(ctx, tx, params)
}

// counts is what the entry says of the bundle: how many records, never of which
// kind.
func counts(out Imported) map[string]int {
	n := map[string]int{"created": out.Created, "updated": out.Updated, "unchanged": out.Unchanged}
	maps.DeleteFunc(n, func(_ string, v int) bool { return v == 0 })
	return n
}

// Importer is the caller of the import service.
func Importer(onBehalfOf string) med.Caller {
	return service("import", onBehalfOf)
}

// Operator is the caller of the operator's commands.
func Operator(onBehalfOf string) med.Caller { return service("operator", onBehalfOf) }

// Worker is the caller of the worker's jobs.
func Worker() med.Caller { return service("worker", "") }

func service(name, onBehalfOf string) med.Caller {
	return med.Caller{
		Issuer: "medirecord", Subject: "service:" + name, Service: name, OnBehalfOf: onBehalfOf,
		Roles: slices.Clone([]med.Role{med.Role("service:" + name)}),
	}
}
