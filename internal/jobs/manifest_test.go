// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/jobs"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

const manifestAlert = "ALERT a chart's manifest is not the one that the trail told of last"

// swept runs the sweep once and returns whom it raised an alarm about.
func swept(t *testing.T, s *medtest.System, m *jobs.Maintenance) string {
	t.Helper()
	before := s.Log.String()
	m.Once(t.Context())
	var whom []string
	for line := range strings.Lines(strings.TrimPrefix(s.Log.String(), before)) {
		if strings.Contains(line, manifestAlert) {
			_, rest, _ := strings.Cut(line, `"patient":"`)
			id, _, _ := strings.Cut(rest, `"`)
			whom = append(whom, id)
		} else if strings.Contains(line, `"level":"ERROR"`) {
			t.Error(line)
		}
	}
	return strings.Join(whom, " ")
}

// A superuser who puts back a chart as it was, with its manifest, has sealed
// bytes that open. The trail told of newer ones.
func TestTheSweepFindsManifestsThatTheTrailDidNotTellOfLast(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	m := worker(t, s, "worker", 0)
	for _, p := range []med.PatientID{"ann", "bob", "cid"} {
		put(t, s, medtest.North, p)
	}
	put(t, s, medtest.South, "dee")
	if got := swept(t, s, m); got != "" {
		t.Fatalf("alarms about untouched charts: %s", got)
	}
	medtest.Exec(t, super, `set session_replication_role = replica`)
	medtest.Exec(t, super, `create table public.week as select * from medirecord.manifest`)
	medtest.Exec(t, super, `create table public.weekp as select * from medirecord.patient`)
	again(t, s, medtest.North, "ann")
	if got := swept(t, s, m); got != "" {
		t.Fatalf("alarms about a changed chart: %s", got)
	}
	for _, tc := range []struct{ name, sql, want string }{
		{"row and manifest of last week together", `delete from medirecord.manifest where patient_id = 'ann';
			delete from medirecord.patient where id = 'ann';
			insert into medirecord.patient select * from public.weekp where id = 'ann';
			insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id) select patient_id, practice_id, version, dek_version, sealed, event_id from public.week where patient_id = 'ann'`, "ann"},
		{"the old manifest under the new entry", `update medirecord.manifest m set sealed = w.sealed from public.week w where w.patient_id = 'ann' and m.patient_id = 'ann'`, "ann"},
		{"the manifest is deleted", `delete from medirecord.manifest where patient_id = 'bob'`, "bob"},
		{"the whole chart is deleted", `delete from medirecord.manifest where patient_id = 'bob'; delete from medirecord.patient where id = 'bob'`, "bob"},
		{"two manifests are swapped", `update medirecord.manifest m set sealed = o.sealed, event_id = o.event_id from medirecord.manifest o
			where m.patient_id in ('bob', 'cid') and o.patient_id in ('bob', 'cid') and m.patient_id <> o.patient_id`, "bob cid"},
		{"it moves to another practice", `update medirecord.manifest set practice_id = 'south' where patient_id = 'cid'`, "cid"},
		{"the other practice's", `update medirecord.manifest set sealed = sealed || '\x00' where patient_id = 'dee'`, "dee"},
	} {
		t.Run(tc.name, func(t *testing.T) { // one after the other: they change the same rows
			for _, table := range []string{"patient", "manifest", "outbox"} {
				medtest.Exec(t, super, `create table public.kept_`+table+` as select * from medirecord.`+table)
			}
			_, err := super.Exec(t.Context(), tc.sql, pgx.QueryExecModeSimpleProtocol)
			noError(t, err)
			if got := swept(t, s, m); got != tc.want {
				t.Errorf("got alarms about %q, want %q", got, tc.want)
			}
			swept(t, s, m)
			var told int
			medtest.Scan(t, super, []any{&told}, `select count(*) from medirecord.outbox where topic = 'integrity'`)
			if want := len(strings.Fields(tc.want)); told != want {
				t.Errorf("got %d to be told, want %d, each once", told, want)
			}
			_, err = super.Exec(t.Context(), `delete from medirecord.outbox; delete from medirecord.manifest; delete from medirecord.patient;
				insert into medirecord.patient select * from public.kept_patient;
				insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id) select patient_id, practice_id, version, dek_version, sealed, event_id from public.kept_manifest;
				drop table public.kept_patient, public.kept_manifest, public.kept_outbox`, pgx.QueryExecModeSimpleProtocol)
			noError(t, err)
			if got := swept(t, s, m); got != "" {
				t.Fatalf("not as before: %s", got)
			}
		})
	}
}

// Who has taken over the API adds an entry that is no JSON, and cannot be removed:
// the charts are compared all the same, and the one it is about is in doubt.
func TestTheSweepGetsPastAnEntryThatDoesNotRead(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	m := worker(t, s, "worker", 0)
	for _, p := range []med.PatientID{"ann", "bob"} {
		put(t, s, medtest.North, p)
	}
	put(t, s, medtest.South, "dee")
	t.Cleanup(func() { // before the trail is checked
		medtest.Exec(t, super, `alter table audit.event disable trigger no_change`)
		medtest.Exec(t, super, `delete from audit.event where actor_subject = 'mallory'`)
	})
	now := time.Now().Truncate(time.Millisecond)
	medtest.Exec(t, s.DB.As(t, "trail"), `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, patient_id, patient_practice, action, resource_type, resource_id,
                         outcome, break_glass, detail, nonce, version)
values ($1, $2, 'https://evil.invalid', 'mallory', 'ann', 'north', 'read', 'patient', 'ann', 'denied', false,
        'no JSON "manifest":"', decode(repeat('00', 16), 'hex'), 1)`, med.NewUUID(now), now)
	medtest.Exec(t, super, `update medirecord.manifest set sealed = sealed || '\x00' where patient_id in ('bob', 'dee')`)
	if got := swept(t, s, m); got != "ann bob dee" {
		t.Errorf("got alarms about %q, want ann, whose last entry does not read, bob and dee", got)
	}
}
