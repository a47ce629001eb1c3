// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// ManifestRow is a chart's manifest as it stands: sealed. Version 0: there is none.
type ManifestRow struct {
	Version    int64
	DEKVersion int32
	Sealed     []byte
}

// ChartRow is a patient's records as they stand, in no order.
type ChartRow struct {
	Practice   med.PracticeID
	Version    int64 // of the patient's own row
	DEKVersion int32
	KeyState   string
	Deleted    bool
	Self       bool // the context's person is this patient
	Manifest   ManifestRow
	Records    []RecordRow
}

// RecordRow is one record as it stands, or one version of it. Sealed is nil of
// one that was not asked for.
type RecordRow struct {
	ID         med.RecordID
	Version    int64
	DEKVersion int32
	Sealed     []byte
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Chart reads one patient's records under a signed context: all of them, or only
// which, of the others no more than id and version. It reports what Patient does.
func (db *DB) Chart(ctx context.Context, signed string, ticket med.EventID, id med.PatientID, which med.RecordID) (*ChartRow, error) {
	ctx, cancel := context.WithTimeout(ctx, db.deadline)
	defer cancel()
	out, err := scanChart(db.pool.QueryRow(ctx, readChart, signed, string(ticket), string(which)), id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrContext
	}
	return out, Unavailable(err)
}

const readChart = `
select patient, practice_id, version, dek_version, key_state, deleted, self, coalesce(manifest_version, 0), coalesce(manifest_dek, 0), manifest,
       ids, versions, deks, sealed, created, updated
  from medirecord.read_chart($1, $2, $3)`

func scanChart(row pgx.Row, id med.PatientID) (*ChartRow, error) {
	var patient string
	var practice, keyState *string
	var version *int64
	var dek *int32
	var deleted, self *bool
	var m ManifestRow
	var ids []string
	var versions []int64
	var deks []int32
	var sealed [][]byte
	var created, updated []time.Time
	err := row.Scan(&patient, &practice, &version, &dek, &keyState, &deleted, &self, &m.Version, &m.DEKVersion, &m.Sealed,
		&ids, &versions, &deks, &sealed, &created, &updated)
	if err != nil {
		return nil, err
	}
	if practice == nil || patient != string(id) { // a context for another patient shows nothing of this one
		return nil, med.NotFound.New("")
	}
	out := &ChartRow{
		Practice: med.PracticeID(*practice), Version: *version, DEKVersion: *dek, KeyState: *keyState, Deleted: *deleted, Self: *self,
		Manifest: m, Records: make([]RecordRow, len(ids)),
	}
	for i := range ids {
		out.Records[i] = RecordRow{med.RecordID(ids[i]), versions[i], deks[i], sealed[i], created[i], updated[i]}
	}
	return out, nil
}

// Versions reads what one record of the patient was before, newest first, under
// a signed context: none when it was never changed, or is not there.
func (db *DB) Versions(ctx context.Context, signed string, ticket med.EventID, which med.RecordID) ([]RecordRow, error) {
	ctx, cancel := context.WithTimeout(ctx, db.deadline)
	defer cancel()
	rows, err := db.pool.Query(ctx, `select version, dek_version, sealed, created_at from medirecord.read_versions($1, $2, $3)`, signed, string(ticket), string(which))
	if err != nil {
		return nil, Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (RecordRow, error) {
		r := RecordRow{ID: which}
		err := row.Scan(&r.Version, &r.DEKVersion, &r.Sealed, &r.CreatedAt)
		r.UpdatedAt = r.CreatedAt
		return r, err
	})
	return out, Unavailable(err)
}

// ManifestTold is a chart's manifest as the trail told of it last, and as it
// stands: hashes, and the entries they belong to. Found is empty when there is none.
type ManifestTold struct {
	Patient       med.PatientID
	Told, Found   string
	ToldIn, Since med.EventID
}

// Differs reports whether the manifest is not the one that the trail told of last.
func (m *ManifestTold) Differs() bool { return m.Told != m.Found || m.ToldIn != m.Since }

// Manifests lists the manifests of the practice that a context sweeps, by patient
// id, after one, at most so many.
func (db *DB) Manifests(ctx context.Context, tx pgx.Tx, after med.PatientID, most int32) ([]ManifestTold, error) {
	rows, err := db.Q.Manifests(ctx, tx, pgdb.ManifestsParams{After: string(after), Most: most})
	out := make([]ManifestTold, len(rows))
	for i, r := range rows {
		out[i] = ManifestTold{med.PatientID(r.PatientID), r.Told, r.Found, med.EventID(r.ToldIn), med.EventID(r.FoundIn)}
	}
	return out, err
}

// TellIntegrity leaves word for an officer that a chart is in doubt, with the
// entry that says since when; once for each chart until they were told.
func (db *DB) TellIntegrity(ctx context.Context, tx pgx.Tx, id string, practice med.PracticeID, patient med.PatientID, event med.EventID) error {
	return db.Q.TellIntegrity(ctx, tx, pgdb.TellIntegrityParams{ID: id, PracticeID: string(practice), PatientID: string(patient), EventID: string(event)})
}
