// SPDX-License-Identifier: Apache-2.0

package med_test

import (
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// Nobody is born, and nobody has died, on a day that has come nowhere on earth.
func TestADayToComeIsNoBirth(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 9, 59, 59, 0, time.UTC) // 23:59:59 in the first zone
	for day, fine := range map[med.PHI]bool{
		"": true, "1971-02-03": true, "2026-11-28": true, "2026-11": true, "2026": true, "2026-11-28T23:00:00+14:00": true,
		"2026-11-29": false, "2026-12": false, "2027": false, "2999-01-01": false, "2999-01-01T00:00:00Z": false,
	} {
		for _, f := range []med.Field{med.FieldDOB, med.FieldDeceasedAt} {
			p := med.Patient{DOB: day, DeceasedAt: day}
			if f == med.FieldDOB && len(day) > len(time.DateOnly) {
				continue // a birth has no time
			}
			if wrong := p.Check(f, now); (len(wrong) == 0) != fine {
				t.Errorf("%s %q: got %v, want it taken: %v", f, day.Reveal(), wrong, fine)
			}
		}
	}
}
