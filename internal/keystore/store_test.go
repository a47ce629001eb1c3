// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// keeper counts the keys that are unwrapped, and can be away.
type keeper struct {
	envelope.Keeper
	unwrapped atomic.Int32
	away      atomic.Bool
}

var errAway = med.KeysUnavailable.Because(errors.New("the keeper is away"))

func (k *keeper) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, errAway
	}
	k.unwrapped.Add(1)
	return k.Keeper.Unwrap(ctx, name, wrapped, aad)
}

// opened is a store of its own on the system's key store.
func opened(t *testing.T, s *medtest.System, cfg keystore.Config) (*keystore.Store, *keeper) {
	t.Helper()
	files, err := envelope.OpenKeeper("file://" + s.Keeper)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{Keeper: files}
	cfg.URL, cfg.Keeper, cfg.Deadline = s.DB.KeysURL("keys"), k, medtest.Patience
	store, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, k
}

// reading is a clinician's context for one patient of a practice.
func reading(t *testing.T, practice med.PracticeID, patient med.PatientID) string {
	t.Helper()
	return medtest.Mint(t, token.Context{
		Issuer: "https://issuer.example", Subject: "dr", Roles: []string{"clinician"}, Practice: practice, Action: "patient.read", Patient: string(patient), Session: "s",
	}, token.MaxContextTTL)
}

func dek(practice med.PracticeID, patient med.PatientID) envelope.DEKID {
	return envelope.DEKID{Practice: practice, Patient: patient, Version: 1}
}

func wantCode(t *testing.T, err error, kind *med.ErrorKind, code string) {
	t.Helper()
	if med.KindOf(err) != kind || code != "" && med.CodeOf(err) != code {
		t.Errorf("got %v (%s), want %s %s", err, med.CodeOf(err), kind.Slug, code)
	}
}

func TestAKeyIsUnwrappedOnceAndServesWhileTheKeeperIsAway(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, "north", medtest.Alice())
	store, k := opened(t, s, keystore.Config{})
	first, err := store.Patient(t.Context(), reading(t, "north", id), dek("north", id))
	if err != nil {
		t.Fatal(err)
	}
	before := k.unwrapped.Load()
	k.away.Store(true)
	again, err := store.Patient(t.Context(), reading(t, "north", id), dek("north", id))
	if err != nil || again != first || k.unwrapped.Load() != before {
		t.Errorf("got %v and %d unwrapped more, want the key that is there", err, k.unwrapped.Load()-before)
	}
	other := s.Patient(t, "north", func() med.Patient { p := medtest.Alice(); p.ID, p.SourceID = "p-other", "other"; return p }())
	_, err = store.Patient(t.Context(), reading(t, "north", other), dek("north", other))
	wantCode(t, err, med.KeysUnavailable, "")
}

func TestAKeyIsForgottenAfterItsTime(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, "north", medtest.Alice())
	store, k := opened(t, s, keystore.Config{PatientTTL: time.Millisecond, PracticeTTL: time.Millisecond})
	if _, err := store.Patient(t.Context(), reading(t, "north", id), dek("north", id)); err != nil {
		t.Fatal(err)
	}
	k.away.Store(true)
	for end := time.Now().Add(time.Minute); ; {
		_, err := store.Patient(t.Context(), reading(t, "north", id), dek("north", id))
		if med.KindOf(err) == med.KeysUnavailable {
			return
		}
		if time.Now().After(end) {
			t.Fatal("served for a minute beyond its time")
		}
	}
}

func TestAContextOpensTheKeyOfItsPatientOnly(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, "north", medtest.Alice())
	for name, c := range map[string]struct {
		signed string
		id     envelope.DEKID
	}{
		"another patient's context":  {reading(t, "north", "p-nobody"), dek("north", id)},
		"another practice's context": {reading(t, "south", id), dek("north", id)},
		"another practice's name":    {reading(t, "north", id), dek("south", id)},
		"another version":            {reading(t, "north", id), envelope.DEKID{Practice: "north", Patient: id, Version: 2}},
	} {
		store, _ := opened(t, s, keystore.Config{})
		_, err := store.Patient(t.Context(), c.signed, c.id)
		if med.KindOf(err) != med.KeysUnavailable {
			t.Errorf("%s: got %v", name, err)
		}
	}
	store, _ := opened(t, s, keystore.Config{})
	for name, signed := range map[string]string{"no context": "", "a forged one": reading(t, "north", id) + "x"} {
		if _, err := store.Patient(t.Context(), signed, dek("north", id)); err == nil {
			t.Errorf("%s opened a key", name)
		}
	}
}

func TestNobodyRidesOnAnothersFlight(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, "north", medtest.Alice())
	store, _ := opened(t, s, keystore.Config{Patients: 1})
	var group sync.WaitGroup
	good, bad := reading(t, "north", id), reading(t, "south", id)
	for range 8 {
		group.Go(func() {
			if _, err := store.Patient(t.Context(), good, dek("north", id)); err != nil {
				t.Errorf("the practice's own: %v", err)
			}
		})
	}
	group.Wait()
	store, _ = opened(t, s, keystore.Config{})
	for range 8 {
		group.Go(func() {
			if _, err := store.Patient(t.Context(), bad, dek("south", id)); med.KindOf(err) != med.KeysUnavailable {
				t.Errorf("the other practice: %v", err)
			}
		})
		group.Go(func() { _, _ = store.Patient(t.Context(), good, dek("north", id)) })
	}
	group.Wait()
}

func TestAPatientHasOneFirstKey(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	store, _ := opened(t, s, keystore.Config{})
	creating := medtest.Mint(t, token.Context{
		Issuer: "https://issuer.example", Subject: "dr", Roles: []string{"clinician"}, Practice: "north", Action: "patient.create", Patient: "p-new", Session: "s",
	}, token.MaxContextTTL)
	made, err := store.CreatePatient(t.Context(), creating, "north", "p-new")
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.CreatePatient(t.Context(), creating, "north", "p-new")
	wantCode(t, err, med.Conflict, "key_exists")
	_, err = store.CreatePatient(t.Context(), creating, "north", "p-another")
	if err == nil {
		t.Error("a context for p-new made a key for p-another")
	}
	if err := store.Settle(t.Context(), creating, made.ID()); err != nil {
		t.Fatal(err)
	}
	// What the store holds opens to the key that was made, and is not it.
	read, err := store.Patient(t.Context(), reading(t, "north", "p-new"), dek("north", "p-new"))
	if err != nil || string(read.Commitment()) != string(made.Commitment()) {
		t.Errorf("got %v, want the key that was made", err)
	}
}

func TestAPracticeIsAddedOnce(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	store, _ := opened(t, s, keystore.Config{})
	adding := func(p med.PracticeID) string {
		return medtest.Mint(t, token.Context{
			Issuer: "medirecord", Subject: "service:operator", Roles: []string{"service:operator"}, Service: "operator", Action: "practice.add", Practice: p, Patient: "*",
		}, time.Minute)
	}
	if err := store.AddPractice(t.Context(), adding("west"), "west"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, store.AddPractice(t.Context(), adding("west"), "west"), med.Conflict, "")
	if err := store.AddPractice(t.Context(), adding("west"), "east"); err == nil {
		t.Error("a context for west added east")
	}
	_, err := store.Index(t.Context(), reading(t, "nowhere", "p-1"), "nowhere")
	if med.KindOf(err) != med.KeysUnavailable {
		t.Errorf("keys of a practice that is none: %v", err)
	}
}

func TestTheStoreIsUnhealthyWithoutItsKeeper(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	store, k := opened(t, s, keystore.Config{})
	if err := store.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.away.Store(true)
	wantCode(t, store.Healthy(t.Context()), med.KeysUnavailable, "")
}

// A lookup across practices has every practice's index key for its question, and
// for one of those found that patient's: never one with the other, and nobody
// else either.
func TestKeysOfALookup(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	id := s.Patient(t, "north", medtest.Alice())
	other := s.Patient(t, "north", func() med.Patient { p := medtest.Alice(); p.SourceID = "other"; return p }())
	base := token.Context{
		Issuer: "https://issuer.example", Subject: "dr", Roles: []string{"clinician"}, Practice: "south", Action: "break_glass.lookup", Session: "s",
		Grant: "00000000-0000-7000-8000-0000000000dd",
	}
	conn, err := pgx.Connect(t.Context(), s.DB.KeysURL("keys"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, tc := range []struct {
		name      string
		change    func(*token.Context)
		practices string // purposes of north that show
		patients  string
	}{
		{"the question", func(*token.Context) {}, "index", ""},
		{"who has no practice", func(c *token.Context) { c.Practice, c.Roles = "", []string{"break_glass"} }, "index", ""},
		{"one found", func(c *token.Context) { c.Patient = string(id) }, "audit index kek", string(id)},
		{"oneself", func(c *token.Context) { c.Patient, c.Self = string(id), string(id) }, "", ""},
		{"a nurse", func(c *token.Context) { c.Roles = []string{"nurse"} }, "", ""},
		{"an officer, an admin", func(c *token.Context) { c.Roles, c.Admin = []string{"officer", "admin"}, true }, "", ""},
		{"no id", func(c *token.Context) { c.Grant = "" }, "", ""},
		{"no session", func(c *token.Context) { c.Session = "" }, "", ""},
		{"a service", func(c *token.Context) { c.Service, c.Roles = "import", []string{"clinician"} }, "", ""},
		{"another action", func(c *token.Context) { c.Action = "patient.search" }, "", ""},
		{"a grant that is opened", func(c *token.Context) { c.Action, c.Patient = "break_glass.open", string(id) }, "audit", ""},
		{"a grant that is opened, without one", func(c *token.Context) { c.Action, c.Patient, c.Grant = "break_glass.open", string(id), "" }, "", ""},
		{"a grant that is reviewed", func(c *token.Context) { c.Action, c.Roles = "break_glass.review", []string{"officer"} }, "", ""},
		{"a grant that is ended", func(c *token.Context) { c.Action = "break_glass.end" }, "", ""},
		{"grants that are read", func(c *token.Context) { c.Action, c.Grant = "break_glass.read", "" }, "", ""},
		{"a grant and a patient beside it", func(c *token.Context) { c.Action, c.Patient = "break_glass.review", string(id) }, "", ""},
	} {
		c := base
		tc.change(&c)
		var practices, patients string
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `select set_config('medirecord.ctx', $1, true)`, medtest.Mint(t, c, token.MaxContextTTL)); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), `select
				coalesce((select string_agg(purpose, ' ' order by purpose) from keys.practice_key where practice_id = 'north'), ''),
				coalesce((select string_agg(patient_id, ' ') from keys.patient_key where patient_id in ($1, $2)), '')`, string(id), string(other)).Scan(&practices, &patients)
		})
		if err != nil || practices != tc.practices || patients != tc.patients {
			t.Errorf("%s: got the keys %q and those of %q, %v, want %q and %q", tc.name, practices, patients, err, tc.practices, tc.patients)
		}
	}
	store, _ := opened(t, s, keystore.Config{})
	all, err := store.Indexes(t.Context(), medtest.Mint(t, base, token.MaxContextTTL))
	if err != nil || len(all) != 2 || all[0].Practice != "north" || all[1].Practice != "south" {
		t.Fatalf("got %v, %v, want two practices", all, err)
	}
	own, err := s.Keys.Index(t.Context(), reading(t, "north", id), "north")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := all[0].Key.Tag("family_dob", "smith")
	want, _ := own.Tag("family_dob", "smith")
	if got != want {
		t.Error("the key of a lookup makes other tags than the practice's own")
	}
}
