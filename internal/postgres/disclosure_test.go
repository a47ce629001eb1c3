// SPDX-License-Identifier: Apache-2.0

package postgres_test

import "testing"

// acting is the context of somebody for a disclosure: to create, amend or read.
func acting(action string, c caller) *caller {
	c.Action = "disclosure." + action
	return &c
}

// newDisclosure is a row that the-officer of north may add about north-1, for
// attacks that change one thing in it.
func newDisclosure(changes string) string {
	return insertWith("medirecord.disclosure", []string{"id", "version", "patient_id", "practice_id", "sealed", "author", "event_id"},
		map[string]string{
			"id": "gen_random_uuid()", "version": "1", "patient_id": "'north-1'", "practice_id": "'north'", "sealed": `'\x00'`,
			"author": "'" + issuer + `' || e'\x1f' || 'the-officer'`, "event_id": anyUUID,
		}, changes)
}

func disclosures(t *testing.T, w *world) {
	const all1 = `select patient_id from medirecord.disclosure`
	north := officer("north", "north-1")
	by := func(role string) string { return "author = '" + issuer + `' || e'\x1f' || 'the-` + role + "'" }
	done := only("done")
	all(t, w, []attack{
		// The control.
		{name: "an officer reads one patient's", with: acting("read", north), sql: all1, want: only("north-1")},
		{name: "an admin with a second factor does", with: acting("read", admin("north", "north-1", true)), sql: all1, want: only("north-1")},
		{name: "the patient does", with: acting("read", patient("north-1", "north-1")), sql: all1, want: only("north-1")},
		{name: "so does who amends", with: acting("amend", north), sql: all1, want: only("north-1")},
		{name: "a deleted patient's are kept", with: acting("read", officer("north", "north-gone")), sql: all1, want: only("north-gone")},
		{name: "an officer records one", with: acting("create", north), sql: rolledBack(newDisclosure("")), want: done},
		{name: "a clinician records one", with: acting("create", clinician("north", "north-1")), sql: rolledBack(newDisclosure(by("clinician"))), want: done},
		{name: "an officer amends one", with: acting("amend", north), sql: rolledBack(newDisclosure("id = md5('north-1')::uuid; version = 2")), want: done},

		// Reading.
		{name: "who records reads nothing", with: acting("create", north), sql: all1, want: nothing},
		{name: "nor gets it back", with: acting("create", north), sql: newDisclosure("") + " returning sealed", want: refused()},
		{name: "a clinician", with: acting("read", clinician("north", "north-1")), sql: all1, want: nothing},
		{name: "a clinician who says amend", with: acting("amend", clinician("north", "north-1")), sql: all1, want: nothing},
		{name: "an admin without a second factor", with: acting("read", admin("north", "north-1", false)), sql: all1, want: nothing},
		{name: "another practice's officer", with: acting("read", officer("south", "north-1")), sql: all1, want: nothing},
		{name: "an officer without a practice", with: acting("read", officer("", "north-1")), sql: all1, want: nothing},
		{name: "an officer without a patient", with: acting("read", officer("north", "")), sql: all1, want: nothing},
		{name: "another patient", with: acting("read", patient("north-2", "north-1")), sql: all1, want: nothing},
		{name: "a patient of another practice", with: acting("read", patient("south-1", "north-1")), sql: all1, want: nothing},
		{name: "a patient who would amend", with: acting("amend", patient("north-1", "north-1")), sql: all1, want: nothing},
		{name: "with the context of another call", with: ptr(clinician("north", "north-1")), sql: all1, want: nothing},
		{name: "with the trail's context", with: ptr(auditor("north")), sql: all1, want: nothing},
		{name: "an import", with: bulk, sql: all1, want: nothing},
		{name: "a sweep", with: sweep, sql: all1, want: nothing},
		{name: "a service that says disclosure", with: acting("read", service("import", "import", "north")), sql: all1, want: nothing},
		{name: "the worker", as: "worker", with: acting("read", north), sql: all1, want: refused()},
		{name: "the trail's writer", as: "trail", with: acting("read", north), sql: all1, want: refused()},

		// Writing.
		{name: "about another patient", with: acting("create", north), sql: newDisclosure("patient_id = 'north-2'"), want: refused()},
		{name: "about another practice's patient", with: acting("create", officer("north", "south-1")), sql: newDisclosure("patient_id = 'south-1'"), want: refused()},
		{name: "into another practice", with: acting("create", officer("north", "south-1")), sql: newDisclosure("patient_id = 'south-1'; practice_id = 'south'"), want: refused()},
		{name: "about nobody", with: acting("create", officer("north", "nobody")), sql: newDisclosure("patient_id = 'nobody'"), want: refused()},
		{name: "about a deleted patient", with: acting("create", officer("north", "north-gone")), sql: newDisclosure("patient_id = 'north-gone'"), want: refused()},
		{name: "in another's name", with: acting("create", north), sql: newDisclosure("author = 'somebody'"), want: refused()},
		{name: "dated back", with: acting("create", north), sql: newDisclosure("created_at = '2001-01-01'"), want: refused()},
		{name: "by a nurse", with: acting("create", nurse("north", "north-1")), sql: newDisclosure(by("nurse")), want: refused()},
		{name: "by a reader", with: acting("read", north), sql: newDisclosure(""), want: refused()},
		{name: "by the patient", with: acting("create", patient("north-1", "north-1")), sql: newDisclosure("author = '" + issuer + `' || e'\x1f' || 'patient-north-1'`), want: refused()},
		{name: "a second version without the right to amend", with: acting("create", north), sql: newDisclosure("id = md5('north-1')::uuid; version = 2"), want: refused()},
		{name: "a version over the last", with: acting("amend", north), sql: newDisclosure("id = md5('north-1')::uuid"), want: refused("23505")},
		{name: "a version that skips one", with: acting("amend", north), sql: newDisclosure("id = md5('north-1')::uuid; version = 3"), want: refused("23503")},
		{name: "a version of another patient's", with: acting("amend", north), sql: newDisclosure("id = md5('north-2')::uuid; version = 2"), want: refused("23503")},
		{name: "a version of nobody's, and gets the same answer", with: acting("amend", north), sql: newDisclosure("id = md5('nobody')::uuid; version = 2"), want: refused("23503")},
		{name: "changed", with: acting("amend", north), sql: `update medirecord.disclosure set sealed = '\x01'`, want: refused()},
		{name: "removed", with: acting("amend", north), sql: `delete from medirecord.disclosure`, want: refused()},
		{name: "changed on conflict", with: acting("amend", north), sql: newDisclosure("id = md5('north-1')::uuid") + ` on conflict (id, version) do update set sealed = excluded.sealed`, want: refused()},
	})
}
