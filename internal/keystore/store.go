// SPDX-License-Identifier: Apache-2.0

// Package keystore keeps the wrapped keys in a database of their own and the
// unwrapped ones for a short while in memory. It never returns a key to a
// caller whose signed context does not open it, and it never writes one down
// unwrapped.
package keystore

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/keystore/keydb"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the migrations of the key store, in order.
func Migrations() ([]postgres.Step, error) {
	first, err := postgres.ContextSteps()
	if err != nil {
		return nil, err
	}
	own, err := postgres.Steps(migrations, "migrations")
	return append(first, own...), err
}

// Config says how to reach the key store and its keeper.
type Config struct {
	URL    string // as the keys' own role
	Keeper envelope.Keeper
	// PracticeTTL and PatientTTL are how long an unwrapped key may serve while
	// the keeper is away: 15 and 5 minutes when 0, at most 60 and 15.
	PracticeTTL, PatientTTL time.Duration
	// Patients is how many patients' keys are held; 0 means 10,000.
	Patients int
	Deadline time.Duration // 0 means 2 s
}

// Store is the key store.
type Store struct {
	pool      *pgxpool.Pool
	keeper    envelope.Keeper
	q         *keydb.Queries
	deadline  time.Duration
	patients  *expirable.LRU[envelope.DEKID, *envelope.PatientKey]
	practices *expirable.LRU[envelope.PracticeKeyID, *envelope.PracticeKey]
	active    *expirable.LRU[practicePurpose, int32]
	loading   singleflight.Group
}

type practicePurpose struct {
	practice med.PracticeID
	purpose  envelope.Purpose
}

// Open connects as the keys' role. It reports KeysUnavailable when the store
// cannot be reached.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	pool, err := postgres.OpenPool(ctx, cfg.URL, 4)
	if err != nil {
		return nil, unavailable(err)
	}
	practiceTTL := min(cmp.Or(cfg.PracticeTTL, 15*time.Minute), time.Hour)
	patientTTL := min(cmp.Or(cfg.PatientTTL, 5*time.Minute), 15*time.Minute)
	return &Store{
		pool: pool, keeper: cfg.Keeper, q: keydb.New(), deadline: cmp.Or(cfg.Deadline, 2*time.Second),
		patients:  expirable.NewLRU[envelope.DEKID, *envelope.PatientKey](cmp.Or(cfg.Patients, 10_000), nil, patientTTL),
		practices: expirable.NewLRU[envelope.PracticeKeyID, *envelope.PracticeKey](1000, nil, practiceTTL),
		active:    expirable.NewLRU[practicePurpose, int32](1000, nil, practiceTTL),
	}, nil
}

// Close closes the connections and forgets the keys.
func (s *Store) Close() {
	s.pool.Close()
	s.patients.Purge()
	s.practices.Purge()
}

// Pool is for checks of the keys' role.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Healthy reports whether store and keeper answer now, caches aside.
func (s *Store) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	if err := s.pool.Ping(ctx); err != nil {
		return unavailable(err)
	}
	canary, err := s.keeper.Wrap(ctx, envelope.RootKey, []byte("canary"), []byte("health"))
	if err != nil {
		return err
	}
	_, err = s.keeper.Unwrap(ctx, envelope.RootKey, canary, []byte("health"))
	return err
}

// unavailable gives the kind KeysUnavailable to whatever kept a key from us,
// except errors that already have a kind of their own.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	var known *med.Error
	if errors.As(err, &known) && known.Kind != med.DatabaseUnavailable {
		return err
	}
	return med.KeysUnavailable.Because(postgres.Unavailable(err))
}

func (s *Store) inTx(ctx context.Context, signed string, work func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	return unavailable(postgres.InTx(ctx, s.pool, signed, work))
}

// Patient returns a patient's key of the version that the row just read names.
// It reports KeysUnavailable when it is in no cache and cannot be loaded. The
// caller has seen the row under the same context, and the row says active: a
// cached key serves nobody whom the database did not let in.
func (s *Store) Patient(ctx context.Context, signed string, id envelope.DEKID) (*envelope.PatientKey, error) {
	if k, ok := s.patients.Get(id); ok {
		return k, nil
	}
	// Each caller asks under a context of its own, so the flights are per
	// context as well: nobody rides on another's right.
	v, err, _ := s.loading.Do(fmt.Sprintf("%s/%d/%s", id.Patient, id.Version, signed), func() (any, error) {
		return s.loadPatient(ctx, signed, id)
	})
	if err != nil {
		return nil, err
	}
	return v.(*envelope.PatientKey), nil
}

func (s *Store) loadPatient(ctx context.Context, signed string, id envelope.DEKID) (*envelope.PatientKey, error) {
	var key *envelope.PatientKey
	err := s.inTx(ctx, signed, func(tx pgx.Tx) error {
		row, err := s.q.PatientKey(ctx, tx, keydb.PatientKeyParams{PatientID: string(id.Patient), Version: id.Version})
		if errors.Is(err, pgx.ErrNoRows) || err == nil && row.PracticeID != string(id.Practice) {
			return med.KeysUnavailable.Because(fmt.Errorf("no key %d of patient %s", id.Version, id.Patient)).Coded("key_missing")
		}
		if err != nil {
			return err
		}
		kek, err := s.kek(ctx, tx, id.Practice, row.KekVersion)
		if err != nil {
			return err
		}
		key, err = envelope.OpenPatientKey(ctx, s.keeper, int64(row.Epoch), kek, id, row.Wrapped, row.Commitment)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.patients.Add(id, key)
	return key, nil
}

// practiceKey returns a practice's key: the version asked for, or the active
// one for 0.
func (s *Store) practiceKey(ctx context.Context, tx pgx.Tx, practice med.PracticeID, purpose envelope.Purpose, version int32) (*envelope.PracticeKey, error) {
	if version == 0 {
		version, _ = s.active.Get(practicePurpose{practice, purpose})
	}
	id := envelope.PracticeKeyID{Practice: practice, Purpose: purpose, Version: version}
	if k, ok := s.practices.Get(id); ok {
		return k, nil
	}
	var wrapped []byte
	var err error
	if version == 0 {
		var row keydb.ActivePracticeKeyRow
		row, err = s.q.ActivePracticeKey(ctx, tx, keydb.ActivePracticeKeyParams{PracticeID: string(practice), Purpose: string(purpose)})
		id.Version, wrapped = row.Version, row.Wrapped
	} else {
		wrapped, err = s.q.PracticeKey(ctx, tx, keydb.PracticeKeyParams{PracticeID: string(practice), Purpose: string(purpose), Version: version})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, med.KeysUnavailable.Because(fmt.Errorf("practice %s has no %s key; run `medirecord practice add`", practice, purpose)).Coded("key_missing")
	}
	if err != nil {
		return nil, err
	}
	k, err := s.unwrapped(ctx, id, wrapped)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		s.active.Add(practicePurpose{practice, purpose}, id.Version)
	}
	return k, nil
}

func (s *Store) kek(ctx context.Context, tx pgx.Tx, practice med.PracticeID, version int32) (*envelope.KEK, error) {
	k, err := s.practiceKey(ctx, tx, practice, envelope.PurposeKEK, version)
	if err != nil {
		return nil, err
	}
	return envelope.NewKEK(k)
}

// Index returns the practice's key for blind indexes and digests.
func (s *Store) Index(ctx context.Context, signed string, practice med.PracticeID) (key *envelope.IndexKey, err error) {
	err = s.inTx(ctx, signed, func(tx pgx.Tx) error {
		k, err := s.practiceKey(ctx, tx, practice, envelope.PurposeIndex, 0)
		if err != nil {
			return err
		}
		key, err = envelope.NewIndexKey(k)
		return err
	})
	return key, err
}

// PracticeIndex is the key for blind indexes of one practice.
type PracticeIndex struct {
	Practice med.PracticeID
	Key      *envelope.IndexKey
}

// Indexes returns every practice's key for blind indexes, in the order of the
// practices, to who looks for somebody across them.
func (s *Store) Indexes(ctx context.Context, signed string) ([]PracticeIndex, error) {
	var rows []keydb.IndexKeysRow
	err := s.inTx(ctx, signed, func(tx pgx.Tx) (err error) {
		rows, err = s.q.IndexKeys(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	out := make([]PracticeIndex, len(rows))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(unwrapsAtOnce)
	for i, r := range rows {
		group.Go(func() error {
			id := envelope.PracticeKeyID{Practice: med.PracticeID(r.PracticeID), Purpose: envelope.PurposeIndex, Version: r.Version}
			key, err := s.unwrapped(ctx, id, r.Wrapped)
			if err != nil {
				return err
			}
			out[i].Practice = id.Practice
			out[i].Key, err = envelope.NewIndexKey(key)
			return err
		})
	}
	return out, unavailable(group.Wait())
}

// unwrapsAtOnce is how many keys of different practices are unwrapped at a time.
const unwrapsAtOnce = 16

// unwrapped returns the practice's key, which is kept for the next who needs it.
func (s *Store) unwrapped(ctx context.Context, id envelope.PracticeKeyID, wrapped []byte) (*envelope.PracticeKey, error) {
	if k, ok := s.practices.Get(id); ok {
		return k, nil
	}
	k, err := envelope.UnwrapPracticeKey(ctx, s.keeper, id, wrapped)
	if err == nil {
		s.practices.Add(id, k)
	}
	return k, err
}

// Audit returns the practice's key for break-glass reasons: the version asked
// for, or the active one for 0.
func (s *Store) Audit(ctx context.Context, signed string, practice med.PracticeID, version int32) (key *envelope.AuditKey, err error) {
	err = s.inTx(ctx, signed, func(tx pgx.Tx) error {
		k, err := s.practiceKey(ctx, tx, practice, envelope.PurposeAudit, version)
		if err != nil {
			return err
		}
		key, err = envelope.NewAuditKey(k)
		return err
	})
	return key, err
}

// Cursor returns the practice's key for the cursors of lists: of the version
// asked for, or of the active one for 0.
func (s *Store) Cursor(ctx context.Context, signed string, practice med.PracticeID, version int32) (key *envelope.CursorKey, err error) {
	err = s.inTx(ctx, signed, func(tx pgx.Tx) error {
		k, err := s.practiceKey(ctx, tx, practice, envelope.PurposeAudit, version)
		if err != nil {
			return err
		}
		key, err = envelope.NewCursorKey(k)
		return err
	})
	return key, err
}

// Disclosures returns the practice's key for disclosures, which is made of its
// audit key: the version asked for, or the active one for 0.
func (s *Store) Disclosures(ctx context.Context, signed string, practice med.PracticeID, version int32) (key *envelope.DisclosureKey, err error) {
	err = s.inTx(ctx, signed, func(tx pgx.Tx) error {
		k, err := s.practiceKey(ctx, tx, practice, envelope.PurposeAudit, version)
		if err != nil {
			return err
		}
		key, err = envelope.NewDisclosureKey(k)
		return err
	})
	return key, err
}
