// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// world is a whole system with somebody of every role, and the file.
type world struct {
	*medtest.System
	spec   *spec
	client *http.Client
	log    *medtest.TrailLog
	entry  string // an entry of it
	// alice and bob are of North, carol of South.
	alice, bob, carol med.PatientID
	people            cast
	tokens            map[string]string
	strangers         atomic.Uint32
}

// roles that a caller of each practice can have, but for patients.
var roles = []med.Role{med.RoleNurse, med.RoleClinician, med.RoleAdmin, med.RoleOfficer, med.RoleBreakGlass}

func newWorld(t testing.TB, opts ...medtest.Options) *world {
	t.Helper()
	return newWorldOf(t, everybody(), opts...)
}

func newWorldOf(t testing.TB, who cast, opts ...medtest.Options) *world {
	t.Helper()
	s := medtest.New(t, opts...)
	w := &world{System: s, spec: readSpec(t), log: s.DB.NewLog(t), tokens: map[string]string{}, alice: alice, bob: bob, carol: carol, people: who}
	w.client = clientAt(nil)
	t.Cleanup(w.client.CloseIdleConnections)
	for _, id := range slices.Sorted(maps.Keys(who)) {
		p := who[id]
		for _, r := range p.records {
			s.Secret(r.Note, r.Value.Text)
		}
		if got := s.Patient(t, p.practice, p.Patient, p.records...); got != id {
			t.Fatalf("%s was made %s", id, got)
		}
	}
	for _, r := range roles {
		w.tokens[string(r)] = s.Of(t, r, medtest.North)
		// Other people: a subject is one person, in whatever practice.
		w.tokens[string(r)+" of South"] = s.Token(t, medtest.Claims{"sub": "south-" + string(r), "roles": []string{string(r)}, "practice_id": string(medtest.South)})
	}
	w.tokens["patient"], w.tokens["bob"], w.tokens["carol"] = s.PatientOf(t, alice, medtest.North), s.PatientOf(t, bob, medtest.North), s.PatientOf(t, carol, medtest.South)
	w.tokens["nobody"] = s.Token(t, medtest.Claims{"sub": "no-role", "roles": []string{}, "practice_id": string(medtest.North)})
	for _, r := range roles {
		w.tokens[string(r)+" without mfa"] = s.Token(t, medtest.Claims{
			"sub": "the-" + string(r), "roles": []string{string(r)}, "practice_id": string(medtest.North), "mfa_verified": nil, "auth_time": nil,
		})
	}
	// Somebody used an emergency, and somebody looked, before anything is asked.
	w.read(t, "break_glass", "X-Break-Glass-Reason", "Unconscious in the emergency room")
	w.read(t, "clinician")
	return w
}
