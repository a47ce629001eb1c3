// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// What a superuser changes behind our back is noticed and discloses nothing.
func TestTamperingIsNoticed(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	medtest.Exec(t, super, `set session_replication_role = replica`) // no constraint, no trigger
	alice := s.Patient(t, medtest.North, withSource("source-a"))
	bob := s.Patient(t, medtest.North, withSource("source-b"))
	sealed := func(id med.PatientID) (b []byte) {
		medtest.Scan(t, super, []any{&b}, `select sealed from medirecord.patient where id = $1`, string(id))
		return b
	}
	first := sealed(alice)
	newer := withSource("source-a")
	newer.Phone = "555-010-9999"
	_, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), medtest.North, bundle("newer", newer))
	noError(t, err)
	second := sealed(alice)
	if bytes.Equal(first, second) {
		t.Fatal("the second import changed nothing")
	}
	medtest.Exec(t, super, `create table public.kept as select * from medirecord.patient`)

	for _, tc := range []struct {
		name, sql string
		args      []any
		status    int
		code      string // of the entry
	}{
		{"another patient's ciphertext", `update medirecord.patient set sealed = $2, version = 1 where id = $1`, []any{string(alice), sealed(bob)}, 500, "integrity"},
		{"an older ciphertext under the version of now", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), first}, 500, "integrity"},
		{"the version counted up", `update medirecord.patient set version = version + 1 where id = $1`, []any{string(alice)}, 500, "integrity"},
		{"the version counted down", `update medirecord.patient set version = version - 1 where id = $1`, []any{string(alice)}, 500, "integrity"},
		{"two fields swapped", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), swapped(t, second, "dob", "mrn")}, 500, "integrity"},
		{"a field renamed", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), bytes.Replace(second, []byte("\x03ssn"), []byte("\x03sst"), 1)}, 500, "integrity"},
		{"a bit of a field we show", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), flipped(second, indexOf(t, second, "ssn")+20)}, 500, "integrity"},
		{"a bit of the MAC", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), flipped(second, len(second)-1)}, 500, "integrity"},
		{"cut short", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), second[:len(second)-40]}, 500, "integrity"},
		{"nothing left", `update medirecord.patient set sealed = '' where id = $1`, []any{string(alice)}, 500, "integrity"},
		{"noise", `update medirecord.patient set sealed = $2 where id = $1`, []any{string(alice), bytes.Repeat([]byte{7}, 300)}, 500, "integrity"},
		{"the key's state", `update medirecord.patient set key_state = 'destroyed' where id = $1`, []any{string(alice)}, 404, "key_destroyed"},
		{"the key's version", `update medirecord.patient set dek_version = 2 where id = $1`, []any{string(alice)}, 503, "key_missing"},
		{"the practice", `update medirecord.patient set practice_id = 'south' where id = $1`, []any{string(alice)}, 403, "other_practice"},
	} {
		t.Run(tc.name, func(t *testing.T) { // one after the other: they change the same row
			medtest.Exec(t, super, tc.sql, tc.args...)
			alarms := strings.Count(s.Log.String(), `"integrity of a patient row in doubt"`)
			for role, tok := range map[string]string{"a clinician": s.Of(t, med.RoleClinician, medtest.North), "the patient": s.PatientOf(t, alice, medtest.North)} {
				got := s.Get(t, tok, path(alice))
				status, code := tc.status, tc.code
				if tc.name == "the practice" && role == "the patient" { // whose record it is wherever it is said to be
					status, code = 503, "key_missing"
				}
				if got.Status != status || strings.Contains(got.Body, "Alice") || strings.Contains(got.Body, "45-6789") || strings.Contains(got.Body, "**-6789") || got.Header.Get("ETag") != "" {
					t.Errorf("%s: got %d %s, want %d", role, got.Status, got.Body, status)
				}
				if e := entryOf(t, s, got); e.Code != code || e.Outcome == "success" || len(e.Detail.Clear)+len(e.Detail.Masked) > 0 {
					t.Errorf("%s: got the entry %+v, want %s", role, e, code)
				}
			}
			if raised := strings.Count(s.Log.String(), `"integrity of a patient row in doubt"`) - alarms; (raised == 2) != (tc.code == "integrity") {
				t.Errorf("%d alarms", raised)
			}
			var told int
			medtest.Scan(t, super, []any{&told}, `select count(*) from medirecord.outbox where topic = 'integrity' and patient_id = $1`, string(alice))
			if (told == 1) != (tc.code == "integrity") {
				t.Errorf("%d to be told", told)
			}
			medtest.Exec(t, super, `delete from medirecord.outbox`)
			if tc.name == "the practice" { // nor is it the other practice's now
				if got := s.Get(t, s.Of(t, med.RoleClinician, medtest.South), path(alice)); got.Status != 503 || strings.Contains(got.Body, "Alice") {
					t.Errorf("south: got %d %s", got.Status, got.Body)
				}
			}
			medtest.Exec(t, super, `update medirecord.patient p set (practice_id, version, dek_version, key_state, sealed) = (select k.practice_id, k.version, k.dek_version, k.key_state, k.sealed from public.kept k where k.id = p.id)`)
			shown(t, s.Get(t, s.Of(t, med.RoleClinician, medtest.North), path(alice)))
		})
	}
}

// The key store's superuser gets no further.
func TestTamperingWithKeysIsNoticed(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.SuperKeys(t)
	alice := s.Patient(t, medtest.North, withSource("source-a"))
	bob := s.Patient(t, medtest.North, withSource("source-b"))
	medtest.Exec(t, super, `create table public.kept as select * from keys.patient_key`)
	medtest.Exec(t, super, `create table public.kept_practice as select * from keys.practice_key`)
	clinician := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	// read enters by a door that remembers no key.
	read := func(t *testing.T) (*med.PatientView, error) {
		t.Helper()
		keeper, err := envelope.OpenFileKeeper(s.Keeper)
		noError(t, err)
		keys, err := keystore.Open(t.Context(), keystore.Config{URL: s.DB.KeysURL("keys"), Keeper: keeper, Deadline: medtest.Patience})
		noError(t, err)
		defer keys.Close()
		door, err := chart.New(chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: keys, Trail: s.Trail})
		noError(t, err)
		return door.ReadPatient(t.Context(), clinician, alice)
	}
	whole := func(t *testing.T) {
		t.Helper()
		if v, err := read(t); err != nil || v.SSN != "123-45-6789" {
			t.Fatalf("untouched: %v", err)
		}
	}
	whole(t)
	for name, sql := range map[string]string{
		"another patient's key":        `update keys.patient_key a set wrapped = b.wrapped from keys.patient_key b where a.patient_id = $1 and b.patient_id = $2`,
		"that and its commitment":      `update keys.patient_key a set wrapped = b.wrapped, commitment = b.commitment from keys.patient_key b where a.patient_id = $1 and b.patient_id = $2`,
		"another commitment":           `update keys.patient_key a set commitment = b.commitment from keys.patient_key b where a.patient_id = $1 and b.patient_id = $2`,
		"a bit of the key":             `update keys.patient_key set wrapped = set_byte(wrapped, length(wrapped) / 2, get_byte(wrapped, length(wrapped) / 2) # 1) where patient_id = $1 and $2 <> ''`,
		"a wrapping that never was":    `update keys.patient_key set kek_version = 2 where patient_id = $1 and $2 <> ''`,
		"another practice":             `update keys.patient_key set practice_id = 'south' where patient_id = $1 and $2 <> ''`,
		"no key at all":                `delete from keys.patient_key where patient_id = $1 and $2 <> ''`,
		"nothing in its place":         `update keys.patient_key set wrapped = '' where patient_id = $1 and $2 <> ''`,
		"the key of a key of somebody": `update keys.practice_key a set wrapped = b.wrapped from keys.practice_key b where a.practice_id = 'north' and b.practice_id = 'south' and a.purpose = 'kek' and b.purpose = 'kek' and $1 <> $2`,
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they change the same row
			tag, err := super.Exec(t.Context(), sql, string(alice), string(bob))
			if err != nil || tag.RowsAffected() == 0 {
				t.Fatalf("nothing was changed: %v", err)
			}
			v, err := read(t)
			if k := med.KindOf(err); v != nil || k != med.KeysUnavailable && k != med.Internal {
				t.Errorf("got %v, %v", v, err)
			}
			id, _ := med.EventOf(err)
			if e := entry(t, s, string(id)); e.Outcome != "failure" || len(e.Detail.Clear) > 0 {
				t.Errorf("got the entry %+v", e)
			}
			medtest.Exec(t, super, `delete from keys.patient_key`)
			medtest.Exec(t, super, `insert into keys.patient_key select * from public.kept`)
			medtest.Exec(t, super, `update keys.practice_key p set wrapped = k.wrapped from public.kept_practice k where (k.practice_id, k.purpose, k.version) = (p.practice_id, p.purpose, p.version)`)
			whole(t)
		})
	}
}

func withSource(id med.PHI) med.Patient {
	p := medtest.Alice()
	p.SourceID = id
	return p
}

// indexOf is where a field's head begins in a packed row: see envelope/row.go.
func indexOf(t *testing.T, row []byte, field string) int {
	t.Helper()
	i := bytes.Index(row, append([]byte{byte(len(field))}, field...))
	if i < 0 {
		t.Fatalf("the row has no field %s", field)
	}
	return i
}

// swapped exchanges what stands in two fields of the same length.
func swapped(t *testing.T, row []byte, a, b string) []byte {
	t.Helper()
	out := bytes.Clone(row)
	const head = 8 + 4 // version and size, after the name
	i, j := indexOf(t, row, a)+1+len(a)+head, indexOf(t, row, b)+1+len(b)+head
	n := 12 + 10 + 16 // nonce, "1985-06-15" or "MRN-000001", tag
	copy(out[i:i+n], row[j:j+n])
	copy(out[j:j+n], row[i:i+n])
	return out
}

func flipped(row []byte, at int) []byte {
	out := bytes.Clone(row)
	out[at] ^= 1
	return out
}
