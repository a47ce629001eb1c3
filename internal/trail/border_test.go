// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// An entry of a month's last millisecond is in that month's export and in no
// other, as is one of the next month's first; one that is sealed when the month
// was exported already is in the next export of it, and the old one stays good.
func TestTheBorderOfAMonthLosesNoEntry(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
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
	export := func(month time.Time) []byte {
		t.Helper()
		snap, err := trail.OpenSnapshot(ctx, s.db.URL("auditor"), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close(ctx)
		logs, err := snap.Logs(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m, err := snap.Month(ctx, logs[0], month)
		if err != nil || m == nil {
			t.Fatalf("%v, %v", m, err)
		}
		var file bytes.Buffer
		if _, err := snap.Export(ctx, m, &file, nil); err != nil {
			t.Fatal(err)
		}
		return file.Bytes()
	}
	holds := func(what string, file []byte, want int64) {
		t.Helper()
		var found []audit.Finding
		res, err := audit.VerifyExport(bytes.NewReader(file), func(f audit.Finding) { found = append(found, f) }, trail.Trust(s.policy), nil, nil)
		if err != nil || len(found) > 0 || !res.Proved || res.Rows != want {
			t.Errorf("%s: got %+v, %v, %v; want %d entries, proved", what, res, found, err, want)
		}
	}
	first := export(may)
	holds("May", first, 5)
	holds("June", export(june), 1)
	late(time.Millisecond)
	s.sealSink(t)
	holds("May again", export(may), 6)
	holds("May as it was", first, 5)
}
