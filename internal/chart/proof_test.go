// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

type proofAnswer struct {
	Data struct {
		Entry string `json:"audit_event_id"`
		Index int64  `json:"index"`
		Proof string `json:"proof"`
	} `json:"data"`
}

type wholeAnswer struct {
	Data struct {
		Count   int `json:"count"`
		Entries []struct {
			Event string `json:"audit_event_id"`
			Leaf  string `json:"leaf"`
		} `json:"entries"`
		Siblings   []string `json:"siblings"`
		Checkpoint struct {
			Note string `json:"note"`
			Size int64  `json:"size"`
		} `json:"checkpoint"`
	} `json:"data"`
}

func readJSON(t *testing.T, a medtest.Answer, into any) {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Fatalf("got %d: %s", a.Status, a.Body)
	}
	if err := json.Unmarshal([]byte(a.Body), into); err != nil {
		t.Fatal(err)
	}
}

func TestProofs(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	log := s.DB.NewLog(t)
	p := s.Patient(t, medtest.North, med.Patient{ID: "p-001", Name: med.Name{Family: "Testfamily", Text: "Ann Testfamily"}, SSN: "123-45-6789", DOB: "1985-06-15"})
	other := s.Patient(t, medtest.North, med.Patient{ID: "p-002", Name: med.Name{Family: "Otherfamily", Text: "Bob Otherfamily"}, SSN: "321-54-9876", DOB: "1970-01-02"})
	clinician := s.Token(t, medtest.Claims{"sub": "dr-1", "roles": []string{"clinician"}, "practice_id": medtest.North})
	stranger := s.Token(t, medtest.Claims{"sub": "dr-2", "roles": []string{"clinician"}, "practice_id": medtest.South})
	colleague := s.Token(t, medtest.Claims{"sub": "dr-3", "roles": []string{"clinician"}, "practice_id": medtest.North})
	officer, admin := s.Of(t, med.RoleOfficer, medtest.North), s.Of(t, med.RoleAdmin, medtest.North)
	foreign := s.Of(t, med.RoleOfficer, medtest.South)
	self, another := s.PatientOf(t, p, medtest.North), s.PatientOf(t, other, medtest.North)

	read := s.Get(t, clinician, "/patients/p-001")
	denied := s.Get(t, stranger, "/patients/p-001")
	s.Get(t, self, "/patients/p-001")
	s.Get(t, clinician, "/patients/p-002")
	event := read.Header.Get("Audit-Event-Id")
	proof := func(id string) string { return "/api/v1/audit/events/" + id + "/proof" }

	if a := s.Get(t, clinician, proof(event)); a.Status != 404 || !strings.Contains(a.Body, "not_sealed") {
		t.Errorf("before it is sealed: got %d %s", a.Status, a.Body)
	}
	log.Seal(t)

	reader, err := trail.OpenReader(t.Context(), s.DB.URL("auditor"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	var all []trail.Sealed
	for {
		more, err := reader.Sealed(t.Context(), 1, int64(len(all)), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(more) == 0 {
			break
		}
		all = append(all, more...)
	}
	record := func(id string) *audit.Record {
		for i := range all {
			if all[i].Record.ID == id {
				return &all[i].Record
			}
		}
		t.Fatalf("entry %s is not sealed", id)
		return nil
	}

	for who, token := range map[string]string{"who made the request": clinician, "the officer": officer, "the admin": admin, "the patient": self} {
		var a proofAnswer
		readJSON(t, s.Get(t, token, proof(event)), &a)
		index, inclusion, text, err := audit.ParseProof(a.Data.Proof)
		if err != nil {
			t.Fatal(err)
		}
		head, err := audit.OpenCheckpoint(text, note.VerifierList(log.Key))
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if err := audit.CheckProof(head, index, inclusion, record(event)); err != nil || index != a.Data.Index {
			t.Errorf("%s: the proof does not hold: %v", who, err)
		}
		forged := *record(event)
		forged.ActorSubject = "somebody else"
		if audit.CheckProof(head, index, inclusion, &forged) == nil {
			t.Errorf("%s: a changed entry is proved", who)
		}
	}
	nobody := s.Get(t, clinician, proof("01a20765-bb9e-70da-9906-9ce13e90d490"))
	for who, token := range map[string]string{"a colleague": colleague, "a stranger": stranger, "another practice's officer": foreign, "another patient": another} {
		a := s.Get(t, token, proof(event))
		if a.Status != 404 || problemOf(a.Body) != problemOf(nobody.Body) {
			t.Errorf("%s: got %d %s, want what an entry that does not exist gives: %s", who, a.Status, a.Body, nobody.Body)
		}
	}
	// What another practice's clinician tried with our patient is theirs to prove,
	// and our officer's.
	for _, token := range []string{stranger, officer, foreign, self} {
		if a := s.Get(t, token, proof(denied.Header.Get("Audit-Event-Id"))); a.Status != 200 {
			t.Errorf("got %d %s", a.Status, a.Body)
		}
	}

	var head struct {
		Data struct{ Note, Origin string }
	}
	readJSON(t, s.Get(t, officer, "/api/v1/audit/checkpoint"), &head)
	if _, err := audit.OpenCheckpoint(head.Data.Note, note.VerifierList(log.Key)); err != nil || head.Data.Origin != medtest.LogOrigin+"/1" {
		t.Errorf("got %+v, %v", head, err)
	}
	for _, token := range []string{clinician, self} {
		if a := s.Get(t, token, "/api/v1/audit/checkpoint"); a.Status != 403 {
			t.Errorf("got %d for the checkpoint", a.Status)
		}
	}
	tile := s.Get(t, officer, "/api/v1/audit/log/1/tile/0/000.p/2")
	if first := all[0].Record.Hash(); tile.Status != 200 || !strings.HasPrefix(tile.Body, string(first[:])) || len(tile.Body) != 64 || !strings.Contains(tile.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("got the tile %d, %d bytes, %v", tile.Status, len(tile.Body), tile.Header)
	}
	for path, want := range map[string]int{"/1/tile/0/000": 404, "/2/tile/0/000.p/1": 404, "/1/tile/0/001.p/1": 404, "/x/tile/0/000.p/1": 404, "/1/tile/data/000.p/1": 404} {
		if a := s.Get(t, officer, "/api/v1/audit/log"+path); a.Status != want {
			t.Errorf("%s: got %d, want %d", path, a.Status, want)
		}
	}
	if a := s.Get(t, clinician, "/api/v1/audit/log/1/tile/0/000.p/2"); a.Status != 403 {
		t.Errorf("got the tile %d as a clinician", a.Status)
	}

	log.Seal(t)
	for who, token := range map[string]string{"the patient": self, "the officer": officer} {
		checkWhole(t, who, s.Get(t, token, "/api/v1/patients/p-001/accesses/proof"), p, log.Key)
	}
	for who, token := range map[string]string{"another patient": another, "a clinician": clinician, "another practice's officer": foreign} {
		if a := s.Get(t, token, "/api/v1/patients/p-001/accesses/proof"); a.Status != 403 {
			t.Errorf("%s: got %d", who, a.Status)
		}
	}
	// Nor does a taken-over API learn anything of another practice's patient from
	// the functions behind it, with that practice's officer's own context.
	for _, call := range []string{`audit.patient_bucket(1)`, `audit.pruned_of_patient(1)`, `audit.patient_leaves(0, '0', '00000000-0000-0000-0000-000000000000', 9, '9', '00000000-0000-0000-0000-000000000000')`} {
		app := s.DB.As(t, "app")
		medtest.Exec(t, app, `select set_config('medirecord.ctx', $1, false)`, medtest.Mint(t, token.Context{
			Issuer: "i", Subject: "s", Roles: []string{"officer"}, Practice: medtest.South, Action: "audit.read", Patient: string(p),
		}, 10*time.Second))
		if _, err := app.Exec(t.Context(), `select * from `+call); err == nil || !strings.Contains(err.Error(), "reads no such trail") {
			t.Errorf("%s: got %v", call, err)
		}
	}
	// A superuser who takes one out cannot have the list called whole any more.
	super := s.DB.Super(t)
	gone := denied.Header.Get("Audit-Event-Id")
	medtest.Exec(t, super, `alter table audit.event disable trigger no_change`)
	medtest.Exec(t, super, `create temporary table aside as select * from audit.event`)
	medtest.Exec(t, super, `delete from audit.event where event_id = $1`, gone)
	if a := s.Get(t, self, "/api/v1/patients/p-001/accesses/proof"); a.Status != 500 {
		t.Errorf("after an entry was taken out: got %d %s", a.Status, a.Body)
	}
	medtest.Exec(t, super, `insert into audit.event select * from aside where event_id = $1`, gone)
}

func problemOf(body string) string {
	var p struct{ Type, Detail, Code string }
	_ = json.Unmarshal([]byte(body), &p)
	return p.Type + p.Detail + p.Code
}

// checkWhole verifies a completeness proof as its reader would: the chain over
// the leaves, the way to the map's root, and the root in the signed head.
func checkWhole(t *testing.T, who string, a medtest.Answer, patient med.PatientID, key note.Verifier) {
	t.Helper()
	var w wholeAnswer
	readJSON(t, a, &w)
	head, err := audit.OpenCheckpoint(w.Data.Checkpoint.Note, note.VerifierList(key))
	if err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	proof := func(leave int) *audit.MapProof {
		p := &audit.MapProof{Head: audit.PatientHead{Key: audit.KeyOf(string(patient))}}
		for i, e := range w.Data.Entries {
			if i != leave {
				p.Head.Add(hash(t, e.Leaf))
			}
		}
		for _, h := range w.Data.Siblings {
			p.Siblings = append(p.Siblings, hash(t, h))
		}
		return p
	}
	if err := proof(-1).Check(head.Patients); err != nil || w.Data.Count < 4 {
		t.Errorf("%s: %d entries, %v", who, w.Data.Count, err)
	}
	for leave := range w.Data.Entries {
		if proof(leave).Check(head.Patients) == nil {
			t.Errorf("%s: entry %d can be left out unseen", who, leave)
		}
	}
}

func hash(t *testing.T, s string) tlog.Hash {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != 32 {
		t.Fatalf("no hash: %v", err)
	}
	return tlog.Hash(b)
}

// An id that people of two practices asked for, and nobody has: there is a list,
// and no proof, and no word of who else asked.
func TestNoProofOfANobody(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	log := s.DB.NewLog(t)
	for _, practice := range []med.PracticeID{medtest.North, medtest.South} {
		s.Get(t, s.Of(t, med.RoleClinician, practice), "/patients/nobody-1")
	}
	log.Seal(t)
	officer := s.Of(t, med.RoleOfficer, medtest.North)
	if a := s.Get(t, officer, "/api/v1/patients/nobody-1/accesses"); a.Status != 200 {
		t.Errorf("the list: got %d %s", a.Status, a.Body)
	}
	if a := s.Get(t, officer, "/api/v1/patients/nobody-1/accesses/proof"); a.Status != 404 || !strings.Contains(a.Body, "No such patient.") {
		t.Errorf("the proof: got %d %s", a.Status, a.Body)
	}
}
