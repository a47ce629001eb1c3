// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"fmt"
	"testing"
)

// doing makes of somebody's context one for an action.
func doing(c caller, action string) *caller {
	c.Action = action
	return &c
}

// changing tries what contexts of persons who change something are not for.
func changing(t *testing.T, w *world) {
	done := only("done")
	create := doing(clinician("north", "new-1"), "patient.create")
	update := doing(clinician("north", "north-1"), "patient.update")
	remove := doing(admin("north", "north-1", true), "patient.delete")
	restore := doing(admin("north", "north-gone", true), "patient.restore")
	note := doing(nurse("north", "north-1"), "record.create")
	rewrite := doing(clinician("north", "north-1"), "record.update")
	change := func(of string) string {
		return `begin; update medirecord.patient set sealed = '\x01', version = version + 1 ` + of + ` returning id`
	}
	index := func(fields, tags string) string {
		return `select medirecord.index_patient(` + fields + `, ` + tags + `, 1)`
	}
	remember := func(changes string) string {
		return insertWith("medirecord.idempotency", []string{"practice_id", "key", "actor", "body", "resource", "event_id"},
			map[string]string{"practice_id": "'north'", "key": "sha256('k')", "actor": `'` + issuer + `' || e'\x1f' || 'the-clinician'`, "body": "sha256('b')", "resource": "'new-1'", "event_id": anyUUID}, changes)
	}
	attacks := []attack{
		// The control: what each context is there for works.
		{name: "a clinician makes the patient", with: create, sql: rolledBack(newPatient("")), want: done},
		{name: "and their index", with: create, sql: rolledBack(newPatient("") + `; ` + index(`array['ssn']`, `array['12345678'::bytea]`)), want: done},
		{name: "a clinician changes the patient", with: update, sql: change(""), want: only("north-1")},
		{name: "a nurse changes the patient", with: doing(nurse("north", "north-1"), "patient.update"), sql: change(""), want: only("north-1")},
		{name: "a clinician changes the index", with: update, sql: rolledBack(index(`array['ssn', 'mrn']`, `array[null, '12345678'::bytea]`)), want: done},
		{name: "an admin deletes the patient", with: remove, sql: `begin; update medirecord.patient set deleted_at = clock_timestamp() where id = 'north-1' returning id`, want: only("north-1")},
		{name: "an admin restores the patient", with: restore, sql: `begin; update medirecord.patient set deleted_at = null where id = 'north-gone' returning id`, want: only("north-gone")},
		{name: "a nurse makes a record", with: note, sql: rolledBack(newRecord("")), want: done},
		{name: "and changes the row of its patient", with: note, sql: change(""), want: only("north-1")},
		{name: "a clinician changes a record", with: rewrite, sql: `begin; update medirecord.record set version = version + 1, sealed = '\x01' returning patient_id`, want: only("north-1")},
		{name: "a record is read under its own action", with: doing(nurse("north", "north-1"), "record.read"), sql: `select id from medirecord.record`, want: only("record-of-north-1")},
		{name: "who writes something is known by practice and patient", with: update, sql: `select ctx.writes(array['patient.update'])`, want: only("north|north-1")},
		{name: "what was made is remembered", with: create, sql: rolledBack(remember("")), want: done},

		// Making a patient.
		{name: "a creation makes another id", with: create, sql: newPatient("id = 'new-2'"), want: refused()},
		{name: "a creation makes one in another practice", with: create, sql: newPatient("practice_id = 'south'"), want: refused()},
		{name: "a creation makes one that is deleted", with: create, sql: newPatient("deleted_at = now()"), want: refused()},
		{name: "a creation for another practice's id", with: doing(clinician("north", "south-1"), "patient.create"), sql: newPatient("id = 'south-1'"), want: refused("23505")},
		{name: "a creation takes a patient over on conflict", with: doing(clinician("north", "north-1"), "patient.create"), sql: newPatient("id = 'north-1'") + ` on conflict (id) do update set sealed = excluded.sealed`, want: refused()},
		{name: "a creation reads", with: doing(clinician("north", "north-1"), "patient.create"), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a creation changes", with: doing(clinician("north", "north-1"), "patient.create"), sql: change(""), want: nothing},
		{name: "a creation makes a record", with: create, sql: `begin; ` + newPatient("") + `; ` + newRecord("patient_id = 'new-1'"), want: refused()},
		{name: "a creation indexes another patient", with: create, sql: newIndex("patient_id = 'north-2'"), want: refused()},
		{name: "a creation indexes by hand", with: create, sql: `begin; ` + newPatient("") + `; ` + newIndex("patient_id = 'new-1'"), want: refused()},
		{name: "a creation indexes a patient of another practice", with: doing(clinician("north", "south-1"), "patient.create"), sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused("23503")},
		{name: "a nurse makes a patient", with: doing(nurse("north", "new-1"), "patient.create"), sql: newPatient(""), want: refused()},

		// Changing one.
		{name: "a change of another patient", with: update, sql: change("where id = 'north-2'"), want: nothing},
		{name: "a change of another practice's patient", with: doing(clinician("north", "south-1"), "patient.update"), sql: change(""), want: nothing},
		{name: "a change of a deleted patient", with: doing(clinician("north", "north-gone"), "patient.update"), sql: change(""), want: nothing},
		{name: "a change of a deleted patient by an admin", with: doing(admin("north", "north-gone", true), "patient.update"), sql: change(""), want: nothing},
		{name: "a change moves the patient to another practice", with: update, sql: `update medirecord.patient set practice_id = 'south'`, want: refused()},
		{name: "a change gives another id", with: update, sql: `update medirecord.patient set id = 'north-3'`, want: refused()},
		{name: "a change deletes", with: update, sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: refused()},
		{name: "a change deletes for good", with: update, sql: `delete from medirecord.patient`, want: refused()},
		{name: "a change makes a patient", with: update, sql: newPatient("id = 'north-1'"), want: refused()},
		{name: "a change of a record under a change of the patient", with: update, sql: `update medirecord.record set sealed = '\x01'`, want: nothing},
		{name: "a change reads tags", with: update, sql: `select tag from medirecord.blind_index`, want: nothing},
		{name: "a change drops tags by hand", with: update, sql: `delete from medirecord.blind_index`, want: nothing},
		{name: "a change indexes a field that is none", with: update, sql: index(`array['diagnosis']`, `array['12345678'::bytea]`), want: refused("23514")},
		{name: "a change says who the patient is at their source", with: update, sql: rolledBack(index(`array['source_id']`, `array['12345678'::bytea]`)), want: done},
		{name: "a record's context indexes", with: note, sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused()},
		{name: "a reader indexes", with: north1, sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused()},
		{name: "an index without a context", sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused()},

		// Deleting and restoring.
		{name: "a deletion of another patient", with: remove, sql: `update medirecord.patient set deleted_at = clock_timestamp() where id = 'north-2'`, want: nothing},
		{name: "a deletion that only changes", with: remove, sql: `update medirecord.patient set sealed = '\x01'`, want: refused()},
		{name: "a deletion that is dated back", with: remove, sql: `update medirecord.patient set deleted_at = clock_timestamp() - interval '31 days'`, want: refused()},
		{name: "a deletion that lasts", with: remove, sql: `update medirecord.patient set deleted_at = 'infinity'`, want: refused()},
		{name: "a deletion under a context that restores", with: doing(admin("north", "north-1", true), "patient.restore"), sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: nothing},
		{name: "a restoring under a context that deletes", with: doing(admin("north", "north-gone", true), "patient.delete"), sql: `update medirecord.patient set deleted_at = null`, want: nothing},
		{name: "a restoring of another practice's patient", with: doing(admin("north", "south-gone", true), "patient.restore"), sql: `update medirecord.patient set deleted_at = null`, want: nothing},
		{name: "a deletion of one restored meanwhile by a date", with: restore, sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: refused()},
		{name: "a deletion by an admin without a second factor", with: doing(admin("north", "north-1", false), "patient.delete"), sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: nothing},
		{name: "a restoring by an admin without a second factor", with: doing(admin("north", "north-gone", false), "patient.restore"), sql: `update medirecord.patient set deleted_at = null`, want: nothing},
		{name: "a deletion by a clinician", with: doing(clinician("north", "north-1"), "patient.delete"), sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: nothing},
		{name: "a deletion by a nurse", with: doing(nurse("north", "north-1"), "patient.delete"), sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: nothing},

		// Records.
		{name: "a record for another patient", with: note, sql: newRecord("patient_id = 'north-2'"), want: refused()},
		{name: "a record for another practice's patient", with: doing(nurse("north", "south-1"), "record.create"), sql: newRecord("patient_id = 'south-1'"), want: refused("23503")},
		{name: "a record that hangs in another practice", with: note, sql: newRecord("practice_id = 'south'"), want: refused()},
		{name: "who makes a record makes a patient", with: doing(nurse("north", "new-1"), "record.create"), sql: newPatient(""), want: refused()},
		{name: "who makes a record changes another", with: note, sql: `update medirecord.record set sealed = '\x01'`, want: nothing},
		{name: "who changes a record makes one", with: rewrite, sql: newRecord(""), want: refused()},
		{name: "who changes a record deletes it", with: rewrite, sql: `delete from medirecord.record`, want: refused()},
		{name: "who reads records changes them", with: doing(clinician("north", "north-1"), "record.read"), sql: `update medirecord.record set sealed = '\x01'`, want: nothing},

		// What was made before.
		{name: "another's key", with: create, sql: remember(`actor = 'somebody'`), want: refused()},
		{name: "a key of another practice", with: create, sql: remember(`practice_id = 'south'`), want: refused()},
		{name: "a key that is old when it is made", with: create, sql: remember(`created_at = now() - interval '2 days'`), want: refused()},
		{name: "a key that is changed", with: create, sql: `update medirecord.idempotency set resource = 'x'`, want: refused()},
		{name: "a key that is forgotten before its day is over", with: create, sql: `begin; ` + remember("") + `; delete from medirecord.idempotency`, want: nothing},
		{name: "another's keys", with: doing(nurse("north", "north-1"), "record.create"), sql: `select resource from medirecord.idempotency`, want: nothing},
		{name: "a service's keys", with: bulk, sql: remember(`actor = e'medirecord\x1fservice:import'`), want: refused()},
	}
	// Who changes nothing, whatever their context says of its action.
	for _, c := range []struct {
		who  string
		with caller
	}{
		{"a patient", patient("north-1", "north-1")},
		{"a linked patient", known("linked", "south-1")},
		{"an officer", officer("north", "north-1")},
		{"a clinician who is an officer", func() caller {
			c := clinician("north", "north-1")
			c.Roles = []string{"clinician", "officer"}
			return c
		}()},
		{"a clinician whose own record it is", func() caller { c := clinician("north", "north-1"); c.Self = "north-1"; return c }()},
		{"an admin linked to the patient", func() caller { c := admin("south", "south-1", true); c.Subject = "linked"; return c }()},
		{"a clinician with a broken glass", func() caller { c := clinician("north", "north-1"); c.Grant = somebodysGrant; return c }()},
		{"somebody with the role break_glass", person("break_glass", "north", "north-1")},
		{"a clinician without a practice", clinician("", "north-1")},
		{"an unknown role", person("janitor", "north", "north-1")},
		{"a service's name in a person's role", person("service:import", "north", "north-1")},
	} {
		for _, action := range []string{"patient.create", "patient.update", "patient.delete", "patient.restore", "record.create", "record.update", "record.delete"} {
			with := doing(c.with, action)
			name := fmt.Sprintf("%s, %s: ", c.who, action)
			attacks = append(attacks,
				attack{name: name + "makes the patient", with: with, sql: newPatient("id = '" + c.with.Patient + "'; practice_id = '" + string(c.with.Practice) + "'"), want: refused()},
				attack{name: name + "makes a record", with: with, sql: newRecord("patient_id = '" + c.with.Patient + "'; practice_id = '" + string(c.with.Practice) + "'"), want: refused()},
				attack{name: name + "reads", with: with, sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
				attack{name: name + "changes", with: with, sql: `update medirecord.patient set sealed = '\x01'`, want: nothing},
				attack{name: name + "deletes", with: with, sql: `update medirecord.patient set deleted_at = clock_timestamp()`, want: nothing},
				attack{name: name + "changes records", with: with, sql: `update medirecord.record set sealed = '\x01'`, want: nothing},
				attack{name: name + "indexes", with: with, sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused()},
			)
		}
	}
	for _, c := range []*caller{create, update, remove, restore, note, rewrite} {
		late, strict := *c, *c
		late.ttl, strict.Strict = -1, true
		attacks = append(attacks,
			attack{name: c.Action + " too late: makes", with: &late, sql: newPatient(""), want: refused()},
			attack{name: c.Action + " too late: changes", with: &late, sql: change(""), want: refused()},
			attack{name: c.Action + " too late: indexes", with: &late, sql: index(`array['mrn']`, `array['12345678'::bytea]`), want: refused()},
			attack{name: c.Action + " without its ticket: reads", with: &strict, sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
			attack{name: c.Action + " without its ticket: changes", with: &strict, sql: change(""), want: nothing},
		)
	}
	all(t, w, attacks)
}
