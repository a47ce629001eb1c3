// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// Two entries of one id would be two truths of one call. Each has its own
// partition, where no key of the other holds; but an id has one time.
func TestTwoEntriesOfOneIDAreRefused(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	writer := db.As(t, "trail")
	put := func(id string, at time.Time, action string) error {
		_, err := writer.Exec(t.Context(), `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
values ($1, $2, 'medirecord', 'service:sealer', $3, 'patient', 'p', 'success', false, '{}', decode(repeat('00', 16), 'hex'), 1)`, id, at, action)
		return err
	}
	now := time.Now().Truncate(time.Millisecond)
	id := med.NewUUID(now)
	if err := put(id, now, "read"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id     string
		at     time.Time
		action string
	}{
		"at another time":                {id, now.Add(-time.Millisecond), "read"},
		"in another month":               {id, now.AddDate(0, 1, 0), "read"},
		"at the same time":               {id, now, "read"},
		"an id of another time":          {med.NewUUID(now.Add(time.Minute)), now, "read"},
		"an id of no time":               {"00000000-0000-0000-0000-000000000000", now, "read"},
		"an id that is all ones":         {"ffffffff-ffff-ffff-ffff-ffffffffffff", now, "read"},
		"the beginning of an epoch":      {med.NewUUID(now.Add(time.Millisecond)), now.Add(time.Millisecond), "epoch.begin"},
		"a time of a finer grain, later": {id, now.Add(700 * time.Microsecond), "read"},
	} {
		err := put(c.id, c.at, c.action)
		if err == nil || !strings.Contains(err.Error(), "row-level security") && !strings.Contains(err.Error(), "duplicate key") {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	var n int
	medtest.Scan(t, db.Super(t), []any{&n}, `select count(*) from audit.event where event_id = $1`, id)
	if n != 1 {
		t.Errorf("got %d entries of one id", n)
	}
}

// An entry whose id is there already is another's: it is refused, and not taken
// for the same entry sent again.
func TestASecondEntryOfAnIDIsNotTakenForTheFirst(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	tr := open(t, db, trail.Config{})
	first := entry("first")
	if err := tr.Append(first); err != nil {
		t.Fatal(err)
	}
	second := *first
	second.Action = "export"
	if err := tr.Append(&second); med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("got %v, want it refused", err)
	}
	if err := tr.Append(entry("third")); err != nil {
		t.Errorf("the next: %v", err)
	}
}
