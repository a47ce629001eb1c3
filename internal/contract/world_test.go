// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"net/http"
	"testing"
	"time"

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
	people            map[med.PatientID]med.Patient // what they were made with
	tokens            map[string]string
}

// roles that a caller of each practice can have, but for patients.
var roles = []med.Role{med.RoleNurse, med.RoleClinician, med.RoleAdmin, med.RoleOfficer, med.RoleBreakGlass}

func newWorld(t testing.TB, opts ...medtest.Options) *world {
	t.Helper()
	s := medtest.New(t, opts...)
	w := &world{System: s, spec: readSpec(t), log: s.DB.NewLog(t), tokens: map[string]string{}, people: map[med.PatientID]med.Patient{}}
	w.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
	t.Cleanup(w.client.CloseIdleConnections)
	w.alice = w.person(t, medtest.North, "Alice", "Umbridge-Smythe", "123-45-6789", "1985-06-15")
	w.bob = w.person(t, medtest.North, "Bob", "Quillfeather", "900-11-2222", "1971-02-03")
	w.carol = w.person(t, medtest.South, "Carol", "Zweifelhofer", "900-33-4444", "1964-11-30")
	for practice, mark := range map[med.PracticeID]string{medtest.North: "", medtest.South: " of South"} {
		for _, r := range roles {
			w.tokens[string(r)+mark] = s.Of(t, r, practice)
		}
	}
	w.tokens["patient"], w.tokens["bob"], w.tokens["carol"] = s.PatientOf(t, w.alice, medtest.North), s.PatientOf(t, w.bob, medtest.North), s.PatientOf(t, w.carol, medtest.South)
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

// person is a patient each of whose values is nobody else's.
func (w *world) person(t testing.TB, practice med.PracticeID, given, family, ssn, dob string) med.PatientID {
	t.Helper()
	p := med.Patient{
		Name: med.Name{Family: med.PHI(family), Given: []med.PHI{med.PHI(given)}, Text: med.PHI(given + " " + family)}, SSN: med.PHI(ssn), DOB: med.PHI(dob),
		Diagnosis: med.PHI("Diagnosis of " + given + " " + family), MRN: med.PHI("MRN-" + family), Sex: "female", Phone: med.PHI("555-" + ssn), Email: med.PHI(given + "@" + family + ".example"),
		Insurance: med.Insurance{Payer: med.PHI("Payer of " + family), MemberID: med.PHI("M-" + family)},
	}
	id := w.Patient(t, practice, p)
	w.people[id] = p
	return id
}
