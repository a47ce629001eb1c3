// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"testing"
)

// recordsAndManifests tries what the functions that read a chart, its versions
// and its manifest are not for.
func recordsAndManifests(t *testing.T, w *world) {
	rewrite := doing(clinician("north", "north-1"), "record.update")
	note := doing(nurse("north", "north-1"), "record.create")
	reads := doing(nurse("north", "north-1"), "record.read")
	chart := `select unnest(ids) from medirecord.read_chart(current_setting('medirecord.ctx', true), '', '')`
	versions := `select version::text from medirecord.read_versions(current_setting('medirecord.ctx', true), '', 'record-of-north-1')`
	manifest := `update medirecord.manifest set version = version + 1, sealed = '\x02' returning patient_id`
	put := func(changes string) string {
		return insertWith("medirecord.manifest", []string{"patient_id", "practice_id", "version", "dek_version", "sealed", "event_id"},
			map[string]string{"patient_id": "'new-1'", "practice_id": "'north'", "version": "1", "dek_version": "1", "sealed": `'\x01'`, "event_id": anyUUID}, changes)
	}
	version := insertWith("medirecord.record_version", []string{"patient_id", "record_id", "version", "practice_id", "dek_version", "sealed", "event_id", "created_at"},
		map[string]string{"patient_id": "'north-1'", "record_id": "'record-of-north-1'", "version": "5", "practice_id": "'north'", "dek_version": "1", "sealed": `'\x01'`, "event_id": anyUUID, "created_at": "now()"}, "")
	all(t, w, []attack{
		// The control: what each context is there for works.
		{name: "a nurse reads a chart", with: reads, sql: chart, want: only("record-of-north-1")},
		{name: "and the versions", with: reads, sql: versions, want: only("9")},
		{name: "so does who reads the patient", with: north1, sql: chart, want: only("record-of-north-1")},
		{name: "an admin reads a deleted chart", with: doing(admin("north", "north-gone", true), "record.read"), sql: chart, want: only("record-of-north-gone")},
		{name: "the patient reads their chart", with: doing(patient("north-1", "north-1"), "record.read"), sql: chart, want: only("record-of-north-1")},
		{name: "who changes a record changes the manifest", with: rewrite, sql: `begin; ` + manifest, want: only("north-1")},
		{name: "who adds a record changes the manifest", with: note, sql: `begin; ` + manifest, want: only("north-1")},
		{name: "an import changes manifests", with: bulk, sql: `begin; update medirecord.manifest set sealed = '\x02' where patient_id = 'north-2' returning patient_id`, want: only("north-2")},
		{name: "who makes a patient makes the manifest", with: doing(clinician("north", "new-1"), "patient.create"), sql: rolledBack(newPatient("") + `; ` + put("")), want: only("done")},
		{name: "a change keeps the version that was", with: rewrite, sql: `begin; update medirecord.record set version = 2, sealed = '\x05' returning version::text`, want: only("2")},

		// Reading.
		{name: "another practice's chart", with: doing(clinician("south", "north-1"), "record.read"), sql: chart, want: nothing},
		{name: "another practice's versions", with: doing(clinician("south", "north-1"), "record.read"), sql: versions, want: nothing},
		{name: "another patient's versions", with: doing(clinician("north", "north-2"), "record.read"), sql: versions, want: nothing},
		{name: "a deleted chart", with: doing(clinician("north", "north-gone"), "record.read"), sql: chart, want: nothing},
		{name: "an officer reads a chart", with: doing(officer("north", "north-1"), "record.read"), sql: chart, want: nothing},
		{name: "a patient reads another's chart", with: doing(patient("north-2", "north-1"), "record.read"), sql: chart, want: nothing},
		{name: "a broken glass that nobody wrote down", with: func() *caller {
			c := person("break_glass", "", "north-1")
			c.Action, c.Grant = "record.read", somebodysGrant
			return &c
		}(), sql: chart, want: nothing},
		{name: "a writer reads by the reader's function", with: rewrite, sql: chart, want: nothing},
		{name: "a sweep reads charts", with: sweep, sql: chart, want: nothing},
		{name: "a made-up context", with: reads, sql: `select unnest(ids) from medirecord.read_chart('made.up.context', '', '')`, want: nothing},
		{name: "a strict context without its ticket", with: func() *caller { c := *reads; c.Strict = true; return &c }(), sql: chart, want: nothing},
		{name: "the table of versions", with: rewrite, sql: `select sealed from medirecord.record_version`, want: refused()},
		{name: "the manifest by the table", with: reads, sql: `select sealed from medirecord.manifest`, want: nothing},

		// Writing.
		{name: "a version skipped", with: rewrite, sql: `update medirecord.record set version = version + 2`, want: refused("23514")},
		{name: "a version kept", with: rewrite, sql: `update medirecord.record set sealed = '\x05'`, want: refused("23514")},
		{name: "a version made up", with: rewrite, sql: version, want: refused()},
		{name: "a version changed", with: rewrite, sql: `update medirecord.record_version set sealed = '\x05'`, want: refused()},
		{name: "a version dropped", with: rewrite, sql: `delete from medirecord.record_version`, want: refused()},
		{name: "another patient's manifest", with: rewrite, sql: `update medirecord.manifest set sealed = '\x02' where patient_id = 'north-2'`, want: nothing},
		{name: "another practice's manifest", with: bulk, sql: `update medirecord.manifest set sealed = '\x02' where practice_id = 'south'`, want: nothing},
		{name: "a manifest under a reading", with: reads, sql: manifest, want: nothing},
		{name: "a manifest that moves", with: rewrite, sql: `update medirecord.manifest set practice_id = 'south'`, want: refused()},
		{name: "a manifest dropped", with: rewrite, sql: `delete from medirecord.manifest`, want: refused()},
		{name: "a manifest's hash", with: rewrite, sql: `update medirecord.manifest set hash = '\x00'`, want: refused("428C9")},
		{name: "a manifest for another patient", with: doing(clinician("north", "new-1"), "patient.create"), sql: put("patient_id = 'north-3'"), want: refused()},

		// What the sweeper is told.
		{name: "the API sweeps manifests", with: sweep, sql: `select patient_id from medirecord.manifests('', 10)`, want: refused()},
		{name: "the worker under a person's context", as: "worker", with: north1, sql: `select patient_id from medirecord.manifests('', 10)`, want: refused()},
		{name: "the worker reads manifests", as: "worker", with: sweep, sql: `select sealed from medirecord.manifest`, want: refused()},
		{name: "whether another patient's manifest was told of", with: north1, sql: `select medirecord.manifest_told('north', 'north-2')::text`, want: refused()},
		{name: "an alarm about its patient", with: north1, sql: rolledBack(`insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code) values (gen_random_uuid(), 'integrity', 'P1', 'north', 'north-1', gen_random_uuid(), 'manifest')`), want: only("done")},
		{name: "a whisper in the place of an alarm", with: north1, sql: `insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code) values (gen_random_uuid(), 'integrity', 'P4', 'north', 'north-1', gen_random_uuid(), 'manifest')`, want: refused()},
		{name: "an alarm of something else", with: north1, sql: `insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code) values (gen_random_uuid(), 'integrity', 'P1', 'north', 'north-1', gen_random_uuid(), 'nothing')`, want: refused()},
		{name: "a flag of the watch", with: north1, sql: `insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code) values (gen_random_uuid(), 'trail_flag', 'P3', 'north', 'north-1', gen_random_uuid(), 'unknown')`, want: refused()},
		{name: "a false alarm about another patient", with: north1, sql: `insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code) values (gen_random_uuid(), 'integrity', 'P1', 'north', 'north-2', gen_random_uuid(), 'manifest')`, want: refused()},
	})
}
