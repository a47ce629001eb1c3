// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"testing"

	"github.com/medirecord/medirecord/internal/medtest"
)

// about is somebody's context for relations: to create, read or end.
func about(action string, c caller) *caller {
	c.Action = "treatment." + action
	return &c
}

// newTreatment is a row that the-nurse of north may add about north-1 and the
// clinician, for attacks that change one thing in it.
func newTreatment(changes string) string {
	return insertWith("medirecord.treatment",
		[]string{"id", "kind", "patient_id", "practice_id", "issuer", "subject", "source", "author", "valid_from", "valid_to", "event_id"},
		map[string]string{
			"id": "gen_random_uuid()", "kind": "'appointment'", "patient_id": "'north-1'", "practice_id": "'north'",
			"issuer": "'" + issuer + "'", "subject": "'the-clinician'", "source": "'api'", "author": "'" + issuer + `' || e'\x1f' || 'the-nurse'`,
			"valid_from": "now()", "valid_to": "now() + interval '1 hour'", "event_id": anyUUID,
		}, changes)
}

// imported makes of it a row that an import of north may add.
const imported = `issuer = null; subject = null; practitioner = 'npi|1'; source = 'ehr'; kind = 'encounter'; author = e'medirecord\x1fservice:import'`

// relations commits what the attacks are after: the-clinician and the-nurse treat
// north-2, south's the-clinician south-1, and an import knows of north-1.
func (w *world) relations(t testing.TB) {
	t.Helper()
	for _, changes := range []string{
		"id = md5('t-north-2')::uuid; patient_id = 'north-2'",
		"id = md5('t-nurse')::uuid; patient_id = 'north-2'; subject = 'the-nurse'; author = 'somebody'; kind = 'assignment'",
		"id = md5('t-south-1')::uuid; patient_id = 'south-1'; practice_id = 'south'",
		"id = md5('t-import')::uuid; patient_id = 'north-1'; " + imported,
	} {
		medtest.Exec(t, w.super, newTreatment(changes))
	}
	medtest.Exec(t, w.super, `insert into medirecord.trusted_source (practice_id, name, author, event_id) values ('south', 'ehr', 'test', gen_random_uuid())`)
	medtest.Exec(t, w.super, `insert into medirecord.staff (practice_id, source, practitioner, issuer, subject, author, event_id)
		values ('south', 'ehr', 'npi|1', $1, 'the-nurse', 'test', gen_random_uuid())`, issuer)
}

func TestTreatments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const ids = `select patient_id || ' ' || kind from medirecord.treatment`
	end := func(row string) string {
		return `select medirecord.end_treatment(md5('` + row + `')::uuid, 'appointment', ` + anyUUID + `)`
	}
	north := nurse("north", "north-1")
	own := func(c caller) *caller { c.Patient = ""; return about("read", c) }
	done := only("done")
	all(t, w, []attack{
		// The control.
		{name: "a nurse lists a patient's", with: about("read", nurse("north", "north-2")), sql: ids + ` order by 1`, want: only("north-2 appointment", "north-2 assignment")},
		{name: "a nurse lists her own", with: own(nurse("north", "")), sql: ids, want: only("north-2 assignment")},
		{name: "a clinician lists their own, of this practice", with: own(clinician("north", "")), sql: ids, want: only("north-2 appointment")},
		{name: "a nurse makes an appointment", with: about("create", north), sql: rolledBack(newTreatment("")), want: done},
		{name: "a nurse writes of herself, and is the author", with: about("create", north), sql: rolledBack(newTreatment("subject = 'the-nurse'")), want: done},
		{name: "a nurse ends one", with: about("end", nurse("north", "north-2")), sql: "begin; " + end("t-north-2") + "; rollback; select 'done'", want: done},
		{name: "an import brings one", with: bulk, sql: rolledBack(newTreatment(imported)), want: done},
		{name: "an import sees what imports brought", with: bulk, sql: ids, want: only("north-1 encounter")},

		// Reading.
		{name: "imported ones by staff", with: about("read", clinician("north", "north-1")), sql: ids, want: nothing},
		{name: "another practice's patient", with: about("read", nurse("north", "south-1")), sql: ids, want: nothing},
		{name: "by an officer", with: about("read", officer("north", "north-2")), sql: ids, want: nothing},
		{name: "by the patient", with: about("read", patient("north-2", "north-2")), sql: ids, want: nothing},
		{name: "by somebody of another practice of the same name", with: own(nurse("south", "")), sql: ids, want: nothing},
		{name: "with the context of another call", with: ptr(nurse("north", "north-2")), sql: ids, want: nothing},
		{name: "by who writes", with: about("create", nurse("north", "north-2")), sql: ids, want: nothing},
		{name: "by a sweep", with: sweep, sql: ids, want: nothing},
		{name: "by the worker", as: "worker", with: about("read", nurse("north", "north-2")), sql: ids, want: refused()},

		// Writing.
		{name: "in another's name", with: about("create", north), sql: newTreatment("author = 'somebody'"), want: refused()},
		{name: "of oneself in another's name", with: about("create", north), sql: newTreatment("subject = 'the-nurse'; author = '" + issuer + `' || e'\x1f' || 'the-admin'`), want: refused()},
		{name: "about another patient", with: about("create", north), sql: newTreatment("patient_id = 'north-2'"), want: refused()},
		{name: "about another practice's", with: about("create", nurse("north", "south-1")), sql: newTreatment("patient_id = 'south-1'"), want: refused()},
		{name: "about another practice's, there", with: about("create", nurse("north", "south-1")), sql: newTreatment("patient_id = 'south-1'; practice_id = 'south'"), want: refused()},
		{name: "about a deleted patient", with: about("create", nurse("north", "north-gone")), sql: newTreatment("patient_id = 'north-gone'"), want: refused()},
		{name: "dated back", with: about("create", north), sql: newTreatment("created_at = '2001-01-01'"), want: refused()},
		{name: "for ever", with: about("create", north), sql: newTreatment("valid_to = 'infinity'"), want: refused("23514")},
		{name: "an assignment of years", with: about("create", north), sql: newTreatment("kind = 'assignment'; valid_to = now() + interval '400 days'"), want: refused("23514")},
		{name: "an encounter by a person", with: about("create", north), sql: newTreatment("kind = 'encounter'"), want: refused("23514")},
		{name: "as if imported", with: about("create", north), sql: newTreatment(imported + "; author = '" + issuer + `' || e'\x1f' || 'the-nurse'`), want: refused()},
		{name: "written by an officer", with: about("create", officer("north", "north-1")), sql: newTreatment("author = '" + issuer + `' || e'\x1f' || 'the-officer'`), want: refused()},
		{name: "written by the patient", with: about("create", patient("north-1", "north-1")), sql: newTreatment("author = '" + issuer + `' || e'\x1f' || 'patient-north-1'`), want: refused()},
		{name: "by a reader", with: about("read", north), sql: newTreatment(""), want: refused()},
		{name: "by a reader of the chart", with: ptr(north), sql: newTreatment(""), want: refused()},
		{name: "of a login by an import", with: bulk, sql: newTreatment("author = e'medirecord\\x1fservice:import'"), want: refused()},
		{name: "by an import into another practice", with: bulk, sql: newTreatment(imported + "; practice_id = 'south'; patient_id = 'south-1'"), want: refused()},

		// Changing and ending.
		{name: "changed by hand", with: about("end", nurse("north", "north-2")), sql: `update medirecord.treatment set valid_to = now() returning 'changed'`, want: nothing},
		{name: "whose they are", with: about("end", nurse("north", "north-2")), sql: `update medirecord.treatment set subject = 'the-nurse'`, want: refused()},
		{name: "removed", with: about("end", nurse("north", "north-2")), sql: `delete from medirecord.treatment`, want: refused()},
		{name: "another patient's ended", with: about("end", north), sql: end("t-north-2"), want: only("f")},
		{name: "another practice's ended", with: about("end", nurse("north", "south-1")), sql: end("t-south-1"), want: only("f")},
		{name: "an imported one ended", with: about("end", north), sql: end("t-import"), want: only("f")},
		{name: "ended by a reader", with: about("read", nurse("north", "north-2")), sql: end("t-north-2"), want: refused()},
		{name: "ended by an officer", with: about("end", officer("north", "north-2")), sql: end("t-north-2"), want: refused()},
		{name: "a person's ended by an import", with: bulk, sql: `update medirecord.treatment set ended_at = now(), ended_by = 'x', ended_event = ` + anyUUID + ` where source = 'api' returning 'ended'`, want: nothing},

		// Whom a practice trusts.
		{name: "a source trusted by staff", with: about("create", admin("north", "north-1", true)), sql: `insert into medirecord.trusted_source (practice_id, name, author, event_id) values ('north', 'ehr', ctx.actor(), ` + anyUUID + `)`, want: refused()},
		{name: "a source trusted by an import", with: bulk, sql: `insert into medirecord.trusted_source (practice_id, name, author, event_id) values ('north', 'ehr', ctx.actor(), ` + anyUUID + `)`, want: refused()},
		{name: "a login made a practitioner by staff", with: about("create", north), sql: `insert into medirecord.staff (practice_id, source, practitioner, issuer, subject, author, event_id) values ('north', 'ehr', 'npi|1', 'x', 'the-nurse', ctx.actor(), ` + anyUUID + `)`, want: refused()},
		{name: "a source trusted for another practice", with: ptr(service("operator", "practice.enroll", "north")), sql: `insert into medirecord.trusted_source (practice_id, name, author, event_id) values ('south', 'ehr', ctx.actor(), ` + anyUUID + `)`, want: refused()},
	})
}

// Who treats whom is what the database finds, for the person, patient and
// practice of a signed context, and nothing that anybody says.
func TestWhoTreatsWhom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// The practitioner npi|1, whom the import knows with north-1, is a login of
	// north; the source is trusted in south only.
	medtest.Exec(t, w.super, `insert into medirecord.staff (practice_id, source, practitioner, issuer, subject, author, event_id)
		values ('north', 'ehr', 'npi|1', $1, 'the-nurse', 'test', gen_random_uuid())`, issuer)
	app := w.session(t, "app")
	ask := func(name string, c caller, want string) {
		t.Helper()
		app.enter(t, c.signed(t))
		rows, _, err := app.run(t.Context(), `select ctx.treating()`)
		if err != nil || rows[0][0] != want {
			t.Errorf("%s: got %v, %v, want %s", name, rows, err, want)
		}
	}
	other := func(c caller) caller { c.Issuer = "https://other.test.invalid"; return c }
	ask("who has an appointment", clinician("north", "north-2"), "t")
	ask("who is assigned by somebody else", nurse("north", "north-2"), "t")
	ask("about another patient", clinician("north", "north-1"), "f")
	ask("in another practice", clinician("south", "north-2"), "f")
	ask("the same subject of another issuer", other(clinician("north", "north-2")), "f")
	ask("without a patient", clinician("north", ""), "f")
	officer := officer("north", "north-2")
	officer.Subject = "the-clinician"
	ask("an officer of the same login", officer, "f")
	ask("a source that another practice trusts", nurse("north", "north-1"), "f")
	medtest.Exec(t, w.super, `insert into medirecord.trusted_source (practice_id, name, author, event_id) values ('north', 'ehr', 'test', gen_random_uuid())`)
	ask("a trusted source", nurse("north", "north-1"), "t")
	medtest.Exec(t, w.super, `update medirecord.trusted_source set ended_at = now(), ended_event = gen_random_uuid() where practice_id = 'north'`)
	ask("a source that is trusted no more", nurse("north", "north-1"), "f")

	change := func(set string) {
		medtest.Exec(t, w.super, `update medirecord.treatment set `+set+` where id = md5('t-north-2')::uuid`)
	}
	for _, when := range []struct{ name, set, want string }{
		{"two weeks before", "valid_from = now() + interval '13 days', valid_to = now() + interval '13 days'", "t"},
		{"earlier", "valid_from = now() + interval '15 days', valid_to = now() + interval '15 days'", "f"},
		{"a month after", "valid_from = now() - interval '29 days', valid_to = now() - interval '29 days'", "t"},
		{"later", "valid_from = now() - interval '31 days', valid_to = now() - interval '31 days'", "f"},
		{"ended", "valid_from = now(), valid_to = now(), ended_at = now(), ended_by = 'x', ended_event = gen_random_uuid()", "f"},
		{"written by oneself", `ended_at = null, ended_by = null, ended_event = null, author = issuer || e'\x1f' || subject`, "f"},
		{"written by a namesake", `author = 'other' || e'\x1f' || subject`, "t"},
	} {
		change(when.set)
		ask("an appointment "+when.name, clinician("north", "north-2"), when.want)
	}
}
