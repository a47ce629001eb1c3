// SPDX-License-Identifier: Apache-2.0

package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/keystore/keydb"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// AddPractice makes the practice's keys: for wrapping, for indexes, for audit
// reasons. It reports Conflict when the practice has keys already. The root
// key, and the first epoch, are made when there are none.
func (s *Store) AddPractice(ctx context.Context, signed string, practice med.PracticeID) error {
	if err := s.keeper.CreateKey(ctx, envelope.RootKey); err != nil {
		return unavailable(err)
	}
	if err := s.keeper.CreateKey(ctx, envelope.EpochKey(1)); err != nil && !errors.Is(err, envelope.ErrDestroyed) {
		return unavailable(err)
	}
	return s.inTx(ctx, signed, func(tx pgx.Tx) error {
		if _, err := s.q.FirstEpoch(ctx, tx); err != nil {
			return err
		}
		for _, purpose := range envelope.Purposes {
			k, err := envelope.NewPracticeKey(envelope.PracticeKeyID{Practice: practice, Purpose: purpose, Version: 1})
			if err != nil {
				return err
			}
			wrapped, err := envelope.WrapPracticeKey(ctx, s.keeper, k)
			k.Wipe()
			if err != nil {
				return err
			}
			err = s.q.AddPracticeKey(ctx, tx, keydb.AddPracticeKeyParams{PracticeID: string(practice), Purpose: string(purpose), Version: 1, Wrapped: wrapped})
			if postgres.Duplicate(err) {
				return med.Conflict.New("The practice exists already.")
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// CreatePatient makes a patient's first key and stores it pending: the patient
// is made next, and Settle says that it was. Should we die in between, the
// sweeper takes the orphan away.
func (s *Store) CreatePatient(ctx context.Context, signed string, practice med.PracticeID, patient med.PatientID) (*envelope.PatientKey, error) {
	id := envelope.DEKID{Practice: practice, Patient: patient, Version: 1}
	var key *envelope.PatientKey
	err := s.inTx(ctx, signed, func(tx pgx.Tx) error {
		kek, err := s.kek(ctx, tx, practice, 0)
		if err != nil {
			return err
		}
		epoch, err := s.q.ActiveEpoch(ctx, tx)
		if err != nil {
			return err
		}
		var wrapped []byte
		if key, wrapped, err = envelope.CreatePatientKey(ctx, s.keeper, int64(epoch), kek, id); err != nil {
			return err
		}
		err = s.q.AddPatientKey(ctx, tx, keydb.AddPatientKeyParams{
			PracticeID: string(practice), PatientID: string(patient), Version: id.Version, KekVersion: kek.Version(),
			Epoch: epoch, Wrapped: wrapped, Commitment: key.Commitment(),
		})
		if postgres.Duplicate(err) {
			return med.Conflict.Because(fmt.Errorf("patient %s has a key already", patient)).Coded("key_exists")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Settle says that the patient of a pending key was made.
func (s *Store) Settle(ctx context.Context, signed string, id envelope.DEKID) error {
	return s.inTx(ctx, signed, func(tx pgx.Tx) error {
		_, err := s.q.SettlePatientKey(ctx, tx, keydb.SettlePatientKeyParams{PatientID: string(id.Patient), Version: id.Version})
		return err
	})
}

// Orphan is a patient's key that is pending, and whether its patient is there.
type Orphan struct {
	row   keydb.PendingPatientKeysRow
	Lives bool
}

// Orphans returns the practice's keys that have been pending for the age and
// longer, each with what lives says of its patient. It changes nothing.
func (s *Store) Orphans(ctx context.Context, signed string, practice med.PracticeID, age time.Duration,
	lives func(med.PatientID) (bool, error),
) ([]Orphan, error) {
	var pending []keydb.PendingPatientKeysRow
	err := s.inTx(ctx, signed, func(tx pgx.Tx) (err error) {
		pending, err = s.q.PendingPatientKeys(ctx, tx, keydb.PendingPatientKeysParams{PracticeID: string(practice), AgeSeconds: age.Seconds()})
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]Orphan, len(pending))
	for i, p := range pending {
		alive, err := lives(med.PatientID(p.PatientID))
		if err != nil {
			return nil, err
		}
		out[i] = Orphan{p, alive}
	}
	return out, nil
}

// Sweep settles the keys whose patient is there, and deletes the others.
func (s *Store) Sweep(ctx context.Context, signed string, orphans []Orphan) error {
	for _, o := range orphans {
		err := s.inTx(ctx, signed, func(tx pgx.Tx) (err error) {
			if o.Lives {
				_, err = s.q.SettlePatientKey(ctx, tx, keydb.SettlePatientKeyParams(o.row))
			} else {
				_, err = s.q.SweepPatientKey(ctx, tx, keydb.SweepPatientKeyParams(o.row))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
