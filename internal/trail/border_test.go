// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/medtest"
)

// An entry of a month's last millisecond is in that month's export and in no
// other, as is one of the next month's first; one that is sealed when the month
// was exported already is in the next export of it, and the old one stays good.
func TestTheBorderOfAMonthLosesNoEntry(t *testing.T) {
	t.Parallel()
	s := newSealedLog(t)
	s.connect(t)
	t.Cleanup(s.trail.Close)
	may, june := time.Date(2021, 5, 1, 0, 0, 0, 0, time.UTC), time.Date(2021, 6, 1, 0, 0, 0, 0, time.UTC)
	aged(t, s.super, may, 3)
	late := func(before time.Duration) {
		medtest.Exec(t, s.super, `
insert into audit.event (event_id, occurred_at, recorded_at, actor_issuer, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
values (gen_random_uuid(), $1, $1, 'test', 'late', 'read', 'patient', 'p', 'success', false, '{}', decode(repeat('0a', 16), 'hex'), 1)`, june.Add(-before))
	}
	late(time.Minute)
	aged(t, s.super, june, 1) // at 00:00:00.000
	late(time.Millisecond)
	s.sealSink(t)
	first, _ := s.exported(t, may)
	s.holds(t, "May", first, 5)
	next, _ := s.exported(t, june)
	s.holds(t, "June", next, 1)
	late(time.Millisecond)
	s.sealSink(t)
	again, _ := s.exported(t, may)
	s.holds(t, "May again", again, 6)
	s.holds(t, "May as it was", first, 5)
}
