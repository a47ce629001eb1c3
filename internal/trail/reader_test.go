// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"slices"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// subjects returns who did what is sealed, in the order of the log.
func subjects(t *testing.T, r *trail.Reader, most int) (out []string) {
	t.Helper()
	for {
		sealed, err := r.Sealed(t.Context(), 1, int64(len(out)), most)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) == 0 {
			return out
		}
		for _, e := range sealed {
			out = append(out, e.Record.ActorSubject)
		}
	}
}

// Whoever watches the sealed trail sees every entry of it: a compromised API
// cannot hide one behind another of the same id, and one that a superuser moved
// out of its place is still found.
func TestEverySealedEntryIsHandedOn(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr, err := trail.Open(t.Context(), trail.Config{URL: db.URL("trail"), Deadline: medtest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	// The database refuses a second of one id; one from before it did is there.
	medtest.Exec(t, db.Super(t), `drop policy id_of_its_time on audit.event`)
	entry := func(subject string, id med.EventID, later time.Duration) med.EventID {
		e := audit.New(time.Now().Add(later), &med.Caller{Issuer: "i", Subject: subject}, "read", "patient", "p-1")
		e.Outcome = audit.Denied
		if id != "" {
			e.ID = id
		}
		if err := tr.Append(e); err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	log := db.NewLog(t)
	first := entry("first", "", 0)
	log.Seal(t) // a batch of its own, in whose place another will stand
	entry("framed", first, time.Second)
	moved := entry("moved", "", 0)
	entry("last", "", 0)
	log.Seal(t)
	reader, err := trail.OpenReader(t.Context(), db.URL("auditor"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	want := []string{"first", "framed", "moved", "last"}
	for _, most := range []int{1, 2, 3, 100} {
		if got := subjects(t, reader, most); !slices.Equal(got, want) {
			t.Errorf("%d at a time: got %v, want %v", most, got, want)
		}
	}
	super := db.Super(t)
	medtest.Exec(t, super, `alter table audit.event disable trigger no_change`)
	medtest.Exec(t, super, `update audit.event set tx = '1' where event_id = $1::text::uuid`, string(moved))
	if got := subjects(t, reader, 100); !slices.Equal(got, want) {
		t.Errorf("moved: got %v, want %v", got, want)
	}
}
