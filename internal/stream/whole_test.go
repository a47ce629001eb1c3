// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/trail"
)

// TestWhatTheAPIDidArrives: calls of the API, sealed by the sealer, come to the
// SIEM under the ids that the answers named. The reason of a broken glass and
// what is the patient's do not.
func TestWhatTheAPIDidArrives(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := medtest.Alice()
	id := s.Patient(t, medtest.North, alice)
	read := s.Get(t, s.Of(t, med.RoleClinician, medtest.North), "/patients/"+string(id))
	const reason = "Unconscious in the emergency room"
	glass := s.Get(t, s.Of(t, med.RoleBreakGlass, ""), "/patients/"+string(id), "X-Break-Glass-Reason", reason)
	if read.Status != 200 || glass.Status != 200 {
		t.Fatalf("got %d, %d: %s", read.Status, glass.Status, glass.Body)
	}
	s.DB.NewLog(t).Seal(t)
	w := &world{db: s.DB, log: &logged{}}
	var err error
	if w.reader, err = trail.OpenReader(context.WithoutCancel(t.Context()), s.DB.URL("auditor")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.reader.Close)
	r, sink := hec(t, "siem")
	sink.Format = siem.FHIR
	run(t, w.config(sink))
	await(t, "everything to be taken", func() bool { return w.progress(t, "siem").Next > 0 && w.caughtUp(t, "siem") })
	r.mu.Lock()
	defer r.mu.Unlock()
	var all strings.Builder
	for _, text := range r.took {
		all.WriteString(text)
	}
	got := all.String()
	for _, want := range []string{read.Header.Get("Audit-Event-Id"), glass.Header.Get("Audit-Event-Id"), "110127", `"BTG"`, "IHE.BasicAudit.PatientRead", "Patient/" + string(id)} {
		if want == "" || !strings.Contains(got, want) {
			t.Errorf("%q did not arrive", want)
		}
	}
	for _, secret := range []string{reason, "Alice", "Smith", "123-45-6789", "1985-06-15", "hypertension"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q arrived", secret)
		}
	}
}
