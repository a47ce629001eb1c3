// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"strings"
	"testing"
)

// Columns and values of rows that an import of north could add, for attacks
// that change one thing in them.
func newPatient(changes string) string {
	return insertWith("medirecord.patient", []string{"id", "practice_id", "version", "dek_version", "sealed", "event_id"},
		map[string]string{"id": "'new-1'", "practice_id": "'north'", "version": "1", "dek_version": "1", "sealed": `'\x00'`, "event_id": anyUUID}, changes)
}

func newRecord(changes string) string {
	return insertWith("medirecord.record", []string{"patient_id", "id", "practice_id", "version", "dek_version", "sealed", "event_id"},
		map[string]string{"patient_id": "'north-1'", "id": "'new'", "practice_id": "'north'", "version": "1", "dek_version": "1", "sealed": `'\x00'`, "event_id": anyUUID}, changes)
}

func newIndex(changes string) string {
	return insertWith("medirecord.blind_index", []string{"practice_id", "field", "tag", "patient_id", "key_version"},
		map[string]string{"practice_id": "'north'", "field": "'mrn'", "tag": "'12345678'", "patient_id": "'north-1'", "key_version": "1"}, changes)
}

func newIntake(changes string) string {
	return insertWith("medirecord.intake", []string{"practice_id", "digest", "patient_id", "event_id"},
		map[string]string{"practice_id": "'north'", "digest": "sha256('x')", "patient_id": "'north-1'", "event_id": anyUUID}, changes)
}

// rolledBack is a statement that is allowed, and undone.
func rolledBack(sql string) string { return "begin; " + sql + "; rollback; select 'done'" }

func writing(t *testing.T, w *world) {
	done := only("done")
	attacks := []attack{
		// The control: an import of north may do this in north.
		{name: "an import adds a patient", with: bulk, sql: rolledBack(newPatient("")), want: done},
		{name: "an import adds a record", with: bulk, sql: rolledBack(newRecord("")), want: done},
		{name: "an import adds an index", with: bulk, sql: rolledBack(newIndex("")), want: done},
		{name: "an import adds an intake", with: bulk, sql: rolledBack(newIntake("")), want: done},
		{name: "an import changes a patient", with: bulk, sql: `begin; update medirecord.patient set sealed = '\x01', version = version + 1 where id = 'north-1' returning id`, want: only("north-1")},
		{name: "an import changes a record", with: bulk, sql: `begin; update medirecord.record set version = version + 1, sealed = '\x01' where patient_id = 'north-1' returning patient_id`, want: only("north-1")},
		{name: "an import drops an index", with: bulk, sql: `begin; delete from medirecord.blind_index where patient_id = 'north-1' returning patient_id`, want: only("north-1")},

		// What it may not.
		{name: "an import adds a patient to another practice", with: bulk, sql: newPatient("practice_id = 'south'"), want: refused()},
		{name: "an import adds a patient that is deleted", with: bulk, sql: newPatient("deleted_at = now()"), want: refused()},
		{name: "an import adds a patient with a destroyed key", with: bulk, sql: newPatient("key_state = 'destroyed'"), want: refused()},
		{name: "an import dates a patient back", with: bulk, sql: newPatient("created_at = '2001-01-01'"), want: refused()},
		{name: "an import takes another practice's patient over", with: bulk, sql: newPatient("id = 'south-1'"), want: refused("23505")},
		{name: "an import takes them over on conflict", with: bulk, sql: newPatient("id = 'south-1'") + ` on conflict (id) do update set sealed = excluded.sealed`, want: refused()},
		{name: "an import reads them back on conflict", with: bulk, sql: newPatient("id = 'south-1'") + ` on conflict (id) do update set version = patient.version returning sealed`, want: refused()},
		{name: "an import reads nothing back when it does nothing on conflict", with: bulk, sql: newPatient("id = 'south-1'") + ` on conflict do nothing returning sealed`, want: nothing},
		{name: "an import merges into another practice's patient", with: bulk, sql: `merge into medirecord.patient p using (values ('south-1')) v (id) on p.id = v.id when matched then update set sealed = '\x01'`, want: nothing},
		{name: "an import changes another practice's patient", with: bulk, sql: `update medirecord.patient set sealed = '\x01' where practice_id = 'south'`, want: nothing},
		{name: "an import changes a deleted patient", with: bulk, sql: `update medirecord.patient set sealed = '\x01' where id = 'north-gone'`, want: nothing},
		{name: "an import brings a deleted patient back", with: bulk, sql: `update medirecord.patient set deleted_at = null where id = 'north-gone'`, want: nothing},
		{name: "an import deletes a patient softly", with: bulk, sql: `update medirecord.patient set deleted_at = now()`, want: refused()},
		{name: "an import deletes a patient", with: bulk, sql: `delete from medirecord.patient`, want: refused()},
		{name: "an import moves a patient to another practice", with: bulk, sql: `update medirecord.patient set practice_id = 'south' where id = 'north-1'`, want: refused()},
		{name: "an import gives a patient another id", with: bulk, sql: `update medirecord.patient set id = 'north-3' where id = 'north-1'`, want: refused()},
		{name: "an import marks a key as alive", with: bulk, sql: `update medirecord.patient set key_state = 'active'`, want: refused()},
		{name: "an import hangs a record on another practice's patient", with: bulk, sql: newRecord("patient_id = 'south-1'"), want: refused("23503")},
		{name: "an import hangs another practice's record on its own patient", with: bulk, sql: newRecord("practice_id = 'south'"), want: refused()},
		{name: "an import hangs a record on nobody, and gets the same answer", with: bulk, sql: newRecord("patient_id = 'nobody'"), want: refused("23503")},
		{name: "an import changes another practice's record", with: bulk, sql: `update medirecord.record set sealed = '\x01' where practice_id = 'south'`, want: nothing},
		{name: "an import changes a deleted patient's record", with: bulk, sql: `update medirecord.record set sealed = '\x01' where patient_id = 'north-gone'`, want: nothing},
		{name: "an import moves a record", with: bulk, sql: `update medirecord.record set patient_id = 'north-2' where patient_id = 'north-1'`, want: refused()},
		{name: "an import deletes a record", with: bulk, sql: `delete from medirecord.record`, want: refused()},
		{name: "an import indexes another practice's patient", with: bulk, sql: newIndex("practice_id = 'south'; patient_id = 'south-1'"), want: refused()},
		{name: "an import drops another practice's index", with: bulk, sql: `delete from medirecord.blind_index where practice_id = 'south'`, want: nothing},
		{name: "an import changes an index", with: bulk, sql: `update medirecord.blind_index set patient_id = 'north-2'`, want: refused()},
		{name: "an import takes in for another practice", with: bulk, sql: newIntake("practice_id = 'south'; patient_id = 'south-1'"), want: refused()},
		{name: "an import forgets an intake", with: bulk, sql: `delete from medirecord.intake`, want: refused()},
		{name: "an import changes an intake", with: bulk, sql: `update medirecord.intake set patient_id = 'north-2'`, want: refused()},
		{name: "an import adds a practice", with: bulk, sql: `insert into medirecord.practice (id, name, event_id) values ('north2', 'x', ` + anyUUID + `)`, want: refused()},
		{name: "an operator adds another practice than asked", with: adding, sql: `insert into medirecord.practice (id, name, event_id) values ('west', 'x', ` + anyUUID + `)`, want: refused()},
		{name: "an operator renames a practice", with: adding, sql: `update medirecord.practice set name = 'x'`, want: refused()},
		{name: "an operator removes a practice", with: adding, sql: `delete from medirecord.practice`, want: refused()},
		{name: "an operator adds a patient", with: adding, sql: newPatient(""), want: refused()},
		{name: "a sweeper's context adds a patient", with: sweep, sql: newPatient(""), want: refused()},
		{name: "a sweeper's context changes a patient", with: sweep, sql: `update medirecord.patient set sealed = '\x01'`, want: nothing},
		{name: "the worker changes a patient", as: "worker", with: sweep, sql: `update medirecord.patient set deleted_at = now()`, want: refused()},
		{name: "the worker adds a patient", as: "worker", with: bulk, sql: newPatient(""), want: refused()},
		{name: "the worker writes an entry", as: "worker", with: sweep, sql: entry(""), want: refused()},
		{name: "a copy into patients", with: bulk, sql: `copy medirecord.patient (id, practice_id, version, dek_version, sealed, event_id) from stdin`, want: refused("0A000", "42501")},
		{name: "a copy into patients from a file", with: bulk, sql: `copy medirecord.patient (id) from '/etc/passwd'`, want: refused()},
		{name: "a link of one's own", with: ptr(known("nobody", "north-1")), sql: `insert into medirecord.patient_link (issuer, subject, patient_id, relation, author, source) values ('` + issuer + `', 'nobody', 'north-1', 'self', 'x', 'x')`, want: refused()},
		{name: "a link that lasts longer", with: ptr(known("formerly", "south-1")), sql: `update medirecord.patient_link set valid_to = 'infinity'`, want: refused()},
		{name: "links are removed", with: bulk, sql: `delete from medirecord.patient_link`, want: refused()},
		{name: "an officer is told of another patient", with: north1, sql: tell(`patient_id = 'north-2'`), want: refused()},
		{name: "an officer of another practice is told", with: north1, sql: tell(`practice_id = 'south'`), want: refused()},
		{name: "what officers were told is taken back", with: north1, sql: `delete from medirecord.outbox`, want: refused()},
		{name: "what officers were told is marked as delivered", with: north1, sql: `update medirecord.outbox set delivered_at = now()`, want: refused()},
		{name: "what officers are told is marked as delivered from the start", with: north1, sql: tell(`delivered_at = now()`), want: refused()},
	}
	// A reader writes nothing, not even about its own patient.
	for _, c := range []struct {
		who  string
		with *caller
	}{
		{"a clinician", north1},
		{"a nurse", ptr(nurse("north", "north-1"))},
		{"an admin with a second factor", ptr(admin("north", "north-1", true))},
		{"a patient", ptr(patient("north-1", "north-1"))},
		{"an auditor", ptr(auditor("north"))},
		{"an expired context", &caller{Context: bulk.Context, ttl: -1}},
	} {
		end := refused()
		if !strings.Contains(c.who, "expired") {
			end = nothing
		}
		attacks = append(attacks,
			attack{name: c.who + " adds a patient", with: c.with, sql: newPatient(""), want: refused()},
			attack{name: c.who + " adds a record", with: c.with, sql: newRecord(""), want: refused()},
			attack{name: c.who + " adds an index", with: c.with, sql: newIndex(""), want: refused()},
			attack{name: c.who + " adds an intake", with: c.with, sql: newIntake(""), want: refused()},
			attack{name: c.who + " adds a practice", with: c.with, sql: `insert into medirecord.practice (id, name, event_id) values ('new', 'x', ` + anyUUID + `)`, want: refused()},
			attack{name: c.who + " changes patients", with: c.with, sql: `update medirecord.patient set sealed = '\x01'`, want: end},
			attack{name: c.who + " changes records", with: c.with, sql: `update medirecord.record set sealed = '\x01'`, want: end},
			attack{name: c.who + " drops indexes", with: c.with, sql: `delete from medirecord.blind_index`, want: end},
		)
	}
	for _, role := range []string{"app", "trail", "worker", "keys", "retention", "migrator"} {
		for _, table := range tables {
			attacks = append(attacks, attack{name: role + " empties " + table, as: role, with: bulk, sql: "truncate " + table + " cascade", want: refused()})
		}
	}
	all(t, w, attacks)
}

func tell(changes string) string {
	return insertWith("medirecord.outbox", []string{"id", "topic", "severity", "practice_id", "patient_id", "event_id", "reason_code"},
		map[string]string{"id": "gen_random_uuid()", "topic": "'break_glass'", "severity": "'P2'", "practice_id": "'north'", "patient_id": "'north-1'", "event_id": anyUUID, "reason_code": "'other'"}, changes)
}

func writingTheTrail(t *testing.T, w *world) {
	done := only("done")
	// nonce makes the entry say which context it is of, as the door does.
	nonce := "ctx_nonce = ctx.fact('nonce')"
	as := func(changes string) string { return entry(nonce + "; " + changes) }
	all(t, w, []attack{
		// The control.
		{name: "the API writes what its caller did", with: north1, sql: rolledBack(as("")), want: done},
		{name: "the trail sends the same entry twice", as: "trail", sql: rolledBack(entry("event_id = "+oneIDOfNow) + " on conflict do nothing; " + entry("event_id = "+oneIDOfNow) + " on conflict do nothing"), want: done},
		{name: "an import writes of a patient of its practice", with: bulk, sql: rolledBack(as("actor_issuer = 'medirecord'; actor_subject = 'service:import'; actor_practice = null")), want: done},
		{name: "an operator writes of a practice", with: adding, sql: rolledBack(as("actor_issuer = 'medirecord'; actor_subject = 'service:operator'; actor_practice = null; patient_id = null; patient_practice = null")), want: done},
		{name: "the trail writes for anybody", as: "trail", sql: rolledBack(entry("actor_subject = 'anybody'")), want: done},

		{name: "the API says that somebody else did it", with: north1, sql: as("actor_subject = 'the-nurse'"), want: refused()},
		{name: "the API says that somebody of another issuer did it", with: north1, sql: as("actor_issuer = 'https://evil.invalid'"), want: refused()},
		{name: "the API cuts issuer and subject elsewhere", with: north1, sql: as(`actor_issuer = '` + issuer + `' || e'\x1f' || 'the'; actor_subject = '-clinician'`), want: refused()},
		{name: "the API says that another practice did it", with: north1, sql: as("actor_practice = 'south'"), want: refused()},
		{name: "the API says that it was done to another patient", with: north1, sql: as("patient_id = 'north-2'"), want: refused()},
		{name: "the API says that it was done under another context", with: north1, sql: as("ctx_nonce = 'another'"), want: refused()},
		{name: "the API does not say under which context", with: north1, sql: as("ctx_nonce = null"), want: refused()},
		{name: "an import writes of a person", with: bulk, sql: as(""), want: refused()},
		{name: "the API writes without a context", sql: entry(""), want: refused()},
		{name: "the API dates an entry back", with: north1, sql: as("occurred_at = now() - interval '11 minutes'"), want: refused()},
		{name: "the API dates an entry forward", with: north1, sql: as("occurred_at = now() + interval '2 minutes'"), want: refused()},
		{name: "the API says when it was recorded", with: north1, sql: as("recorded_at = now()"), want: refused()},
		{name: "the API says in which transaction", with: north1, sql: as("tx = '1'::xid8"), want: refused()},
		{name: "the API reads an entry back", with: north1, sql: as("") + " returning tx", want: refused()},
		{name: "the API writes over an entry", with: north1, sql: as("") + " on conflict (event_id, occurred_at) do update set outcome = 'denied'", want: refused()},
		{name: "the API changes the trail", with: ptr(auditor("north")), sql: `update audit.event set outcome = 'denied'`, want: refused()},
		{name: "the API deletes from the trail", with: ptr(auditor("north")), sql: `delete from audit.event`, want: refused()},
		{name: "the API copies into the trail", with: north1, sql: `copy audit.event (event_id) from stdin`, want: refused("0A000", "42501")},
		{name: "an outcome that is none", with: north1, sql: as("outcome = 'fine'"), want: refused("23514")},

		{name: "the trail reads", as: "trail", sql: `select count(*) from audit.event`, want: refused()},
		{name: "the trail reads with an auditor's context", as: "trail", with: ptr(auditor("north")), sql: `select detail from audit.event`, want: refused()},
		{name: "the trail reads back what it wrote", as: "trail", sql: entry("") + " returning event_id", want: refused()},
		{name: "the trail writes over an entry", as: "trail", sql: entry("") + " on conflict (event_id, occurred_at) do update set outcome = 'denied'", want: refused()},
		{name: "the trail reads by way of a conflict", as: "trail", sql: entry("") + " on conflict (event_id, occurred_at) do nothing", want: refused()},
		{name: "the trail changes", as: "trail", sql: `update audit.event set outcome = 'denied'`, want: refused()},
		{name: "the trail deletes", as: "trail", sql: `delete from audit.event`, want: refused()},
		{name: "the trail dates an entry back", as: "trail", sql: entry("occurred_at = now() - interval '11 minutes'"), want: refused()},
		{name: "the trail dates an entry forward", as: "trail", sql: entry("occurred_at = now() + interval '2 minutes'"), want: refused()},
		{name: "the trail says when it was recorded", as: "trail", sql: entry("recorded_at = now()"), want: refused()},
		{name: "the trail says in which transaction", as: "trail", sql: entry("tx = '1'::xid8"), want: refused()},
		{name: "the trail writes what nobody could read", as: "trail", sql: entry("detail = repeat('x', 65537)"), want: refused("23514")},
		{name: "the trail writes a name that nobody has", as: "trail", sql: entry("actor_subject = repeat('x', 9999)"), want: refused("23514")},
		{name: "the trail copies in", as: "trail", sql: `copy audit.event (event_id) from stdin`, want: refused("0A000", "42501")},
		{name: "the trail writes into a partition", as: "trail", sql: `do $$ begin execute 'insert into ' || (select max(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf) || ' default values'; end $$`, want: refused()},
		{name: "the trail reads patients", as: "trail", with: north1, sql: `select * from medirecord.patient`, want: refused()},
		{name: "the trail asks whose patient it is", as: "trail", with: north1, sql: `select medirecord.practice_of('north-1')`, want: refused()},
		{name: "the trail asks for a fact", as: "trail", with: north1, sql: `select ctx.fact('practice')`, want: refused()},
		{name: "the keys' role writes an entry", as: "keys", sql: entry(""), want: refused()},
		{name: "the retention's role writes an entry", as: "retention", sql: entry(""), want: refused()},
		{name: "the retention's role deletes", as: "retention", sql: `delete from audit.event`, want: refused()},
	})
}

// The superuser can be stopped by nobody; a slip of theirs can.
func slipsOfASuperuser(t *testing.T, w *world) {
	state := w.fingerprint(t)
	partition := `(select max(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf)`
	for _, a := range []struct{ name, sql string }{
		{"changes", `update audit.event set outcome = 'denied'`},
		{"deletes", `delete from audit.event`},
		{"empties", `truncate audit.event`},
		{"empties with all that hangs on it", `truncate medirecord.patient, audit.event cascade`},
		{"deletes as a replica", `set session_replication_role = replica; delete from audit.event`},
		{"changes as a replica", `set session_replication_role = replica; update audit.event set outcome = 'denied'`},
		{"empties as a replica", `set session_replication_role = replica; truncate audit.event`},
		{"empties a partition", `do $$ begin execute 'truncate ' || ` + partition + `; end $$`},
		{"empties a partition as a replica", `set session_replication_role = replica; do $$ begin execute 'truncate ' || ` + partition + `; end $$`},
		{"deletes from every partition as a replica", `set session_replication_role = replica; do $$ declare p text; begin
			for p in select relid::regclass::text from pg_partition_tree('audit.event') where isleaf loop execute 'delete from ' || p; end loop; end $$`},
	} {
		t.Run("a superuser "+a.name, func(t *testing.T) {
			conn := w.db.Super(t)
			_, err := conn.PgConn().Exec(t.Context(), a.sql).ReadAll()
			if problem := refused().differs(nil, 0, err); problem != "" {
				t.Error(problem)
			}
			if got := w.fingerprint(t); got != state {
				t.Error("the database was changed")
			}
		})
	}
}
