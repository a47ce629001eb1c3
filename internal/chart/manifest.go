// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// A manifest says what a chart consists of: how many records there are, in which
// versions, and the version of the patient's own row. It is sealed under the
// patient's key, so that nobody who writes to the database alone can make one,
// and its hash is in the trail's entry of the change, so that an old one that is
// put back is found by the sweeper (decision 0021).
type manifest struct {
	records uint32
	root    [sha256.Size]byte
	patient int64 // version of the patient's row
	// suspect: at some change before, the chart did not match its manifest. What
	// was lost then does not become right by what is written since.
	suspect bool
}

// errNoManifest is no doubt about a chart that was last changed before there were
// manifests: then the trail never told of one.
var errNoManifest = errors.New("the chart has no manifest")

const (
	manifestFormat = 1
	manifestSize   = 1 + 1 + 4 + 8 + sha256.Size
)

func (m *manifest) bytes() []byte {
	b := append(make([]byte, 0, manifestSize), manifestFormat, 0)
	if m.suspect {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint32(b, m.records)
	b = binary.BigEndian.AppendUint64(b, uint64(m.patient)) //nolint:gosec // versions are positive
	return append(b, m.root[:]...)
}

func parseManifest(b []byte) (manifest, error) {
	if len(b) != manifestSize || b[0] != manifestFormat || b[1] > 1 {
		return manifest{}, errors.New("a manifest does not read")
	}
	m := manifest{suspect: b[1] == 1, records: binary.BigEndian.Uint32(b[2:]), patient: int64(binary.BigEndian.Uint64(b[6:]))} //nolint:gosec // as written
	copy(m.root[:], b[14:])
	return m, nil
}

// chartState is what there is of a chart: the version of the patient's row, and
// of each record.
type chartState struct {
	patient  int64
	records  map[med.RecordID]int64
	manifest postgres.ManifestRow
	suspect  bool
}

// of is the manifest that the chart must have.
func (c *chartState) of() manifest {
	h := sha256.New()
	_, _ = h.Write([]byte("mr-manifest-v1"))
	var b []byte
	for _, id := range slices.Sorted(maps.Keys(c.records)) {
		b = binary.BigEndian.AppendUint16(b[:0], uint16(len(id))) //nolint:gosec // at most 64 bytes
		b = append(b, id...)
		b = binary.BigEndian.AppendUint64(b, uint64(c.records[id])) //nolint:gosec // versions are positive
		_, _ = h.Write(b)                                           // a hash does not fail
	}
	m := manifest{records: uint32(len(c.records)), patient: c.patient, suspect: c.suspect} //nolint:gosec // far fewer
	h.Sum(m.root[:0])
	return m
}

// openManifest opens a manifest as it stands. It reports an error for one that
// is missing, that was not sealed for this chart, or does not read.
func openManifest(key *envelope.PatientKey, row *postgres.ManifestRow) (manifest, error) {
	if row.Version == 0 {
		return manifest{}, errNoManifest
	}
	id := key.ID()
	if row.DEKVersion != id.Version {
		return manifest{}, errors.New("the manifest is under another key")
	}
	plain, err := key.Open(manifestPlace(id, row.Version), row.Sealed)
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(plain)
}

func manifestPlace(id envelope.DEKID, version int64) envelope.AAD {
	return envelope.AAD{
		Practice: id.Practice, Patient: id.Patient, Table: "manifest", Record: string(id.Patient), Field: "chart",
		FieldVersion: version, DEKVersion: id.Version,
	}
}

// doubt returns why the chart is not what its manifest says, or nil.
func (c *chartState) doubt(key *envelope.PatientKey) error {
	m, err := openManifest(key, &c.manifest)
	switch {
	case err != nil:
		return err
	case m.suspect:
		return errors.New("the chart did not match its manifest when it was changed")
	case m != c.of():
		return errors.New("the chart does not match its manifest")
	}
	return nil
}

// doubtPatient is doubt about the patient's own row alone, for who reads that
// and no record.
func doubtPatient(key *envelope.PatientKey, version int64, row *postgres.ManifestRow) error {
	m, err := openManifest(key, row)
	switch {
	case err != nil:
		return err
	case m.suspect:
		return errors.New("the chart did not match its manifest when it was changed")
	case m.patient != version:
		return errors.New("the patient's row does not match the manifest")
	}
	return nil
}

// chartOf reads what there is of a chart that LockChart has locked, before it
// is changed.
func (s *Service) chartOf(ctx context.Context, tx pgx.Tx, id med.PatientID, version int64) (*chartState, error) {
	now, err := s.db.Q.ChartState(ctx, tx, string(id))
	if err != nil {
		return nil, err
	}
	c := &chartState{patient: version, records: make(map[med.RecordID]int64, len(now.Ids))}
	for i := range now.Ids {
		c.records[med.RecordID(now.Ids[i])] = now.Versions[i]
	}
	m, err := s.db.Q.Manifest(ctx, tx, string(id))
	if errors.Is(err, pgx.ErrNoRows) {
		return c, nil
	}
	c.manifest = postgres.ManifestRow{Version: m.Version, DEKVersion: m.DekVersion, Sealed: m.Sealed}
	return c, err
}

// newChart is the chart of a patient who is being made.
func newChart() *chartState { return &chartState{records: map[med.RecordID]int64{}} }

// distrust holds a chart against its manifest before it is changed. One that
// does not match is changed all the same, for care goes on, but its next manifest
// says so for ever, and an alarm is raised.
func (s *Service) distrust(ctx context.Context, in *entered, key *envelope.PatientKey, c *chartState) {
	c.suspect = s.doubted(ctx, in, key.ID(), c.doubt(key))
}

// doubted raises the alarm when there is a doubt, and reports whether there is.
func (s *Service) doubted(ctx context.Context, in *entered, id envelope.DEKID, doubt error) bool {
	if errors.Is(doubt, errNoManifest) {
		told := true
		err := s.db.InTx(ctx, in.ruling.Context, func(tx pgx.Tx) (err error) {
			told, err = s.db.Q.ManifestTold(ctx, tx, pgdb.ManifestToldParams{PracticeID: string(id.Practice), PatientID: string(id.Patient)})
			return err
		})
		if err == nil && !told {
			return false
		}
	}
	if doubt != nil {
		s.alarm(ctx, in, id, doubt)
	}
	return doubt != nil
}

// keepManifest seals the manifest of the chart as it is now, in the transaction
// of the change, and puts its hash into the entry. It comes after what it tells
// of, and before the entry is written.
func (s *Service) keepManifest(ctx context.Context, tx pgx.Tx, in *entered, key *envelope.PatientKey, c *chartState) error {
	id, m := key.ID(), c.of()
	sealed, err := key.Seal(manifestPlace(id, c.manifest.Version+1), m.bytes())
	if err != nil {
		return err
	}
	if c.manifest.Version == 0 {
		err = s.db.Q.AddManifest(ctx, tx, pgdb.AddManifestParams{
			PatientID: string(id.Patient), PracticeID: string(id.Practice), DekVersion: id.Version, Sealed: sealed, EventID: string(in.entry.ID),
		})
	} else {
		var n int64
		n, err = s.db.Q.ChangeManifest(ctx, tx, pgdb.ChangeManifestParams{
			PatientID: string(id.Patient), Version: c.manifest.Version, DekVersion: id.Version, Sealed: sealed, EventID: string(in.entry.ID),
		})
		if err == nil && n != 1 {
			err = med.Conflict.Because(errors.New("the manifest changed meanwhile"))
		}
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(sealed)
	in.entry.Detail.Manifest = hex.EncodeToString(sum[:])
	return nil
}

// alarm says that a chart is not what was written: a superuser, or a disk,
// changed it. The answer is given all the same, and says so.
func (s *Service) alarm(ctx context.Context, in *entered, id envelope.DEKID, cause error) {
	s.suspects.Add(1)
	s.log.ErrorContext(ctx, "ALERT a chart does not match its manifest", slog.String("patient", string(id.Patient)),
		slog.String("event", string(in.entry.ID)), slog.Any("error", cause))
	err := s.db.InTx(context.WithoutCancel(ctx), in.ruling.Context, func(tx pgx.Tx) error {
		return s.db.TellIntegrity(ctx, tx, med.NewUUID(s.now()), id.Practice, id.Patient, in.entry.ID)
	})
	if err != nil {
		s.log.ErrorContext(ctx, "an alarm about a chart was not kept", slog.String("patient", string(id.Patient)), slog.Any("error", err))
	}
}

// Suspects is how many times a chart did not match its manifest.
func (s *Service) Suspects() uint64 { return s.suspects.Load() }
