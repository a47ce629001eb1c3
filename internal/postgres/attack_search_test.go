// SPDX-License-Identifier: Apache-2.0

package postgres_test

import "testing"

// searching tries what contexts that look for patients are not for.
func searching(t *testing.T, w *world) {
	looks := func(c caller, rows int) *caller {
		c.Action, c.Patient, c.MaxRows = "patient.search", "", rows
		return &c
	}
	nurses := looks(nurse("north", ""), 200)
	const list = `select id from medirecord.list_patients('', 100) as id`
	find := func(patient string) string {
		return `select id from medirecord.find_patients('ssn', '` + string(tagOf(patient)) + `', 50) as id`
	}
	attacks := []attack{
		// The control.
		{name: "the practice's patients are listed, and none that is deleted", with: nurses, sql: list, want: only("north-1", "north-2")},
		{name: "from one on", with: nurses, sql: `select id from medirecord.list_patients('north-1', 100) as id`, want: only("north-2")},
		{name: "a patient is found", with: nurses, sql: find("north-1"), want: only("north-1")},

		{name: "no more than the context says", with: looks(nurse("north", ""), 1), sql: `select id from medirecord.list_patients('', 100000) as id`, want: only("north-1")},
		{name: "none without a number", with: looks(nurse("north", ""), 0), sql: list, want: refused()},
		{name: "a negative number of rows", with: nurses, sql: `select id from medirecord.list_patients('', -1) as id`, want: nothing},
		{name: "no number of rows", with: looks(nurse("north", ""), 1), sql: `select id from medirecord.list_patients('', null) as id`, want: only("north-1")},
		{name: "a patient of another practice", with: nurses, sql: find("south-1"), want: nothing},
		{name: "a deleted patient", with: nurses, sql: find("north-gone"), want: nothing},
		{name: "by the source of an import", with: nurses, sql: `select id from medirecord.find_patients('source_id', 'x', 50) as id`, want: nothing},
		{name: "rows", with: nurses, sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "tags", with: nurses, sql: `select tag from medirecord.blind_index`, want: nothing},
		{name: "rows through the reading function", with: nurses, sql: `select sealed from medirecord.read_patients(array[current_setting('medirecord.ctx')], null)`, want: nothing},
		{name: "a change", with: nurses, sql: `update medirecord.patient set sealed = '\x01'`, want: nothing},
		{name: "an index", with: nurses, sql: `select medirecord.index_patient(array['mrn'], array['12345678'::bytea], 1)`, want: refused()},
		{name: "without a context", sql: list, want: refused()},
		{name: "the worker lists", as: "worker", with: sweep, sql: list, want: refused()},
		{name: "the trail lists", as: "trail", with: nurses, sql: list, want: refused()},
	}
	late := *nurses
	late.ttl = -1
	other := func(c caller, change func(*caller)) *caller {
		out := looks(c, 200)
		change(out)
		return out
	}
	for name, with := range map[string]*caller{
		"a reader of one patient":         north1,
		"a search that names a patient":   other(nurse("north", ""), func(c *caller) { c.Patient = "north-1" }),
		"an import":                       bulk,
		"a sweeper":                       sweep,
		"a service that says search":      ptr(service("import", "patient.search", "north")),
		"an officer":                      looks(officer("north", ""), 200),
		"a patient":                       looks(patient("north-1", ""), 200),
		"an emergency":                    looks(person("break_glass", "north", ""), 200),
		"a clinician with a broken glass": other(clinician("north", ""), func(c *caller) { c.Grant = somebodysGrant }),
		"a clinician who is an officer":   other(clinician("north", ""), func(c *caller) { c.Roles = []string{"clinician", "officer"} }),
		"a clinician without a practice":  looks(clinician("", ""), 200),
		"a clinician who changes":         doing(clinician("north", "north-1"), "patient.update"),
		"a context that has expired":      &late,
	} {
		attacks = append(attacks, attack{name: name + " lists", with: with, sql: list, want: refused()}, attack{name: name + " finds", with: with, sql: find("north-1"), want: refused()})
	}
	all(t, w, attacks)
}
