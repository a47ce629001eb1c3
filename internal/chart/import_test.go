// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

// bundle is a chart as an import brings it; the name is the file's.
func bundle(name string, p med.Patient, records ...med.Record) chart.Bundle {
	if p.SourceID == "" {
		p.SourceID = "urn:source:alice"
	}
	return chart.Bundle{Patient: p, Records: records, Hash: sha256.Sum256([]byte(name))}
}

// rid is the nth record's id, of a kind that is kept.
func rid(n int) med.RecordID { return med.RecordID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n)) }

func observation(id med.RecordID, value med.PHI) med.Record {
	return med.Record{
		ID: id, Kind: med.KindObservation, Type: "Observation", Status: "final", Sensitivity: med.SensitivityNormal,
		Value: med.Value{Quantity: value + " mmol/L"}, Source: `{"resourceType":"Observation","valueQuantity":"` + value + `"}`,
	}
}

// desk is where imports of a test are handed in.
type desk struct {
	*medtest.System
	door  *chart.Service
	super *pgx.Conn
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	s := medtest.New(t)
	return &desk{s, s.Door(t, "import"), s.DB.Super(t)}
}

func (d *desk) put(t *testing.T, practice med.PracticeID, b chart.Bundle) chart.Imported {
	t.Helper()
	done, err := d.door.Import(t.Context(), chart.Importer("test"), practice, b)
	noError(t, err)
	return done
}

func (d *desk) read(t *testing.T, practice med.PracticeID, id med.PatientID) *med.PatientView {
	t.Helper()
	v, err := d.Chart.ReadPatient(t.Context(), d.Caller(t, d.Of(t, med.RoleClinician, practice)), id)
	noError(t, err)
	return v
}

// rows counts what is there: patients, records, indexes, bundles.
func (d *desk) rows(t *testing.T) [4]int {
	t.Helper()
	var n [4]int
	for i, table := range []string{"patient", "record", "blind_index", "intake"} {
		n[i] = count(t, d.super, "medirecord."+table)
	}
	return n
}

func (d *desk) counts(t *testing.T, event med.EventID) map[string]int {
	t.Helper()
	e := entry(t, d.System, string(event))
	if e.Action != "import" || e.Actor != "service:import" || e.Detail.OnBehalfOf != "test" || e.Parent != "" || e.Outcome != "success" || e.PatientPractice == "" {
		t.Errorf("got the entry %+v", e)
	}
	return e.Detail.Counts
}

func TestImportingAgainAndAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	alice := medtest.Alice()
	first := bundle("monday", alice, observation(rid(1), "5.1"), observation(rid(2), "6.2"), observation(rid(3), "7.3"))
	done := d.put(t, medtest.North, first)
	if done.Created != 3 || done.Updated+done.Unchanged != 0 || done.Skipped {
		t.Errorf("first: got %+v", done)
	}
	if diff := cmp.Diff(d.counts(t, done.Event), map[string]int{"created": 3}); diff != "" {
		t.Error("counts (-got +want)\n" + diff)
	}
	rows, was := d.rows(t), d.read(t, medtest.North, done.Patient)

	again := d.put(t, medtest.North, first)
	if !again.Skipped || again.Patient != done.Patient || again.Event == done.Event || d.rows(t) != rows {
		t.Errorf("the same file: got %+v, rows %v, want %v", again, d.rows(t), rows)
	}
	if diff := cmp.Diff(d.counts(t, again.Event), map[string]int{"skipped": 1}); diff != "" {
		t.Error("counts (-got +want)\n" + diff)
	}

	same := first
	same.Hash = sha256.Sum256([]byte("monday, written again"))
	done = d.put(t, medtest.North, same)
	if done.Unchanged != 3 || done.Created+done.Updated != 0 || done.Skipped {
		t.Errorf("the same content: got %+v", done)
	}
	// The literal diagnosis is derived from conditions, of which there are none.
	tuesday := alice
	tuesday.Phone, tuesday.Email, tuesday.Insurance = "555-010-7777", "", med.Insurance{}
	done = d.put(t, medtest.North, bundle("tuesday", tuesday, observation(rid(1), "5.1"), observation(rid(2), "9.9"), observation(rid(4), "8.4")))
	if done.Created != 1 || done.Updated != 1 || done.Unchanged != 1 {
		t.Errorf("another content: got %+v", done)
	}
	if diff := cmp.Diff(d.counts(t, done.Event), map[string]int{"created": 1, "updated": 1, "unchanged": 1}); diff != "" {
		t.Error("counts (-got +want)\n" + diff)
	}
	versions := map[string]int64{}
	for n := 1; n <= 4; n++ {
		var v int64
		medtest.Scan(t, d.super, []any{&v}, `select version from medirecord.record where id = $1`, string(rid(n)))
		versions[fmt.Sprint("r-", n)] = v
	}
	if diff := cmp.Diff(versions, map[string]int64{"r-1": 1, "r-2": 2, "r-3": 1, "r-4": 1}); diff != "" {
		t.Error("versions of the records: what is removed stays (-got +want)\n" + diff)
	}
	now := d.read(t, medtest.North, done.Patient)
	if now.Phone != "555-010-7777" || now.Email != was.Email || now.Insurance != was.Insurance || now.SSN != was.SSN || now.Version <= was.Version {
		t.Errorf("the patient: phone %q, email %q, version %d", now.Phone.Reveal(), now.Email.Reveal(), now.Version)
	}
	// And what stays can still be searched for.
	if n := count(t, d.super, "medirecord.blind_index where field in ('email', 'member_id', 'ssn', 'mrn', 'phone', 'source_id', 'family_dob')"); n != 7 {
		t.Errorf("%d blind indexes, want all 7", n)
	}
}

func TestBlindIndexes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	twin := withSource("source-2")
	twin.MRN, twin.Phone, twin.Email, twin.Insurance = "MRN-000002", "", "bob@patients.example", med.Insurance{}
	a := d.put(t, medtest.North, bundle("a", withSource("source-1")))
	b := d.put(t, medtest.North, bundle("b", twin))
	c := d.put(t, medtest.South, bundle("a", withSource("source-1")))
	tags := func(id med.PatientID) map[string]string {
		rows, err := d.super.Query(t.Context(), `select field, practice_id || ' ' || encode(tag, 'hex') from medirecord.blind_index where patient_id = $1`, string(id))
		noError(t, err)
		out := map[string]string{}
		var field, tag string
		_, err = pgx.ForEachRow(rows, []any{&field, &tag}, func() error { out[field] = tag; return nil })
		noError(t, err)
		return out
	}
	ta, tb, tc := tags(a.Patient), tags(b.Patient), tags(c.Patient)
	fields := func(m map[string]string) string {
		var out []string
		for _, f := range []string{"email", "family_dob", "member_id", "mrn", "phone", "source_id", "ssn"} {
			if m[f] != "" {
				out = append(out, f)
			}
		}
		return strings.Join(out, " ")
	}
	if fields(ta) != "email family_dob member_id mrn phone source_id ssn" || fields(tc) != fields(ta) || fields(tb) != "email family_dob mrn source_id ssn" {
		t.Errorf("got %s; %s; %s", fields(ta), fields(tb), fields(tc))
	}
	for _, f := range []string{"ssn", "family_dob"} {
		if ta[f] != tb[f] {
			t.Errorf("%s: equal values of a practice have different tags", f)
		}
	}
	for _, f := range []string{"mrn", "email", "source_id"} {
		if ta[f] == tb[f] {
			t.Errorf("%s: different values have the same tag", f)
		}
	}
	seen := map[string]bool{}
	for f, tag := range ta {
		_, hex, _ := strings.Cut(tag, " ")
		if _, south, _ := strings.Cut(tc[f], " "); south == hex {
			t.Errorf("%s: two practices have the same tag for it", f)
		}
		if seen[hex] {
			t.Errorf("%s: its tag is another field's", f)
		}
		seen[hex] = true
	}
}

func TestAnIDThatIsTakenElsewhere(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := withSource("source-1")
	p.ID = "p-001"
	north := d.put(t, medtest.North, bundle("a", p))
	south := d.put(t, medtest.South, bundle("a", p))
	if north.Patient != "p-001" || south.Patient == "p-001" || south.Patient == "" {
		t.Errorf("got %s and %s: want the first to keep it", north.Patient, south.Patient)
	}
	if again := d.put(t, medtest.South, bundle("a, newer", p)); again.Patient != south.Patient {
		t.Errorf("again: got %s, want %s", again.Patient, south.Patient)
	}
	for practice, id := range map[med.PracticeID]med.PatientID{medtest.North: north.Patient, medtest.South: south.Patient} {
		if v := d.read(t, practice, id); v.SSN != "123-45-6789" || v.Practice != practice {
			t.Errorf("%s: got %+v", practice, v)
		}
	}
	// Another patient of the same practice who comes with that id.
	other := withSource("source-2")
	other.ID = "p-001"
	if done := d.put(t, medtest.North, bundle("b", other)); done.Patient == "p-001" {
		t.Error("one id for two patients")
	}
	if d.rows(t)[0] != 3 {
		t.Errorf("%d patients, want 3", d.rows(t)[0])
	}
}

func TestAnImportThatFailsLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := withSource("source-1")
	p.ID = "p-001"
	twice := bundle("bad", p, observation(rid(1), "1"), observation(rid(2), "2"), observation(rid(1), "3"))
	before := d.rows(t)
	_, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, twice)
	if med.KindOf(err) != med.Conflict {
		t.Errorf("a record twice: got %v, want conflict", err)
	}
	id, ok := med.EventOf(err)
	if e := entry(t, d.System, string(id)); !ok || e.Outcome != "failure" || e.Action != "import" || e.Parent != "" {
		t.Errorf("got the entry %+v", e)
	}
	if got := d.rows(t); got != before {
		t.Errorf("rows: got %v, want %v", got, before)
	}
	// The key is there, without its patient, and serves the next attempt.
	keys := d.DB.SuperKeys(t)
	if n := count(t, keys, "keys.patient_key where patient_id = 'p-001' and state = 'pending'"); n != 1 {
		t.Errorf("%d pending keys, want 1", n)
	}
	done := d.put(t, medtest.North, bundle("good", p, observation(rid(1), "1"), observation(rid(2), "2")))
	if done.Patient != "p-001" || done.Created != 2 {
		t.Errorf("afterwards: got %+v", done)
	}
	if v := d.read(t, medtest.North, "p-001"); v.SSN != "123-45-6789" {
		t.Error("afterwards she does not read")
	}
	if n := count(t, keys, "keys.patient_key where patient_id = 'p-001' and state = 'active'"); n != 1 || count(t, keys, "keys.patient_key") != 1 {
		t.Errorf("%d active keys, want the one there is", n)
	}
	// The same in a chart that is there.
	before = d.rows(t)
	for name, bad := range map[string]chart.Bundle{
		"a new record twice":  bundle("bad 2", p, observation(rid(8), "1"), observation(rid(8), "2")),
		"an old record twice": bundle("bad 3", p, observation(rid(1), "8"), observation(rid(1), "9")),
		"an old and a new":    bundle("bad 4", p, observation(rid(1), "8"), observation(rid(9), "1"), observation(rid(9), "1")),
	} {
		_, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, bad)
		id, recorded := med.EventOf(err)
		if err == nil || !recorded {
			t.Fatalf("%s: got %v, want it refused and recorded", name, err)
		}
		if e := entry(t, d.System, string(id)); e.Outcome != "failure" || e.Patient != "p-001" {
			t.Errorf("%s: got the entry %+v", name, e)
		}
		var version int64
		medtest.Scan(t, d.super, []any{&version}, `select max(version) from medirecord.record`)
		if got := d.rows(t); got != before || version != 1 {
			t.Errorf("%s: rows %v, want %v; version %d", name, got, before, version)
		}
	}
}

// Two of the same at once: one is in, the other says so, and there is one.
func TestImportsAtOnce(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]med.PatientID{"with an id of their own": "p-001", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			p := withSource("source-1")
			p.ID = id
			b := bundle("a", p, observation(rid(1), "1"), observation(rid(2), "2"))
			var mu sync.Mutex
			n := map[string]int{}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					done, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, b)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil && done.Skipped:
						n["skipped"]++
					case err == nil && done.Created == 2:
						n["imported"]++
					case med.KindOf(err) == med.Conflict:
						n["conflict"]++
					default:
						t.Errorf("got %+v, %v", done, err)
					}
				})
			}
			all.Wait()
			if n["imported"] != 1 {
				t.Errorf("got %v, want one imported", n)
			}
			if rows := d.rows(t); rows[0] != 1 || rows[1] != 2 || rows[3] != 1 {
				t.Errorf("rows: %v", rows)
			}
			var patient string
			medtest.Scan(t, d.super, []any{&patient}, `select id from medirecord.patient`)
			if v := d.read(t, medtest.North, med.PatientID(patient)); v.SSN != "123-45-6789" {
				t.Error("she does not read")
			}
			if again := d.put(t, medtest.North, b); !again.Skipped || string(again.Patient) != patient {
				t.Errorf("afterwards: got %+v", again)
			}
		})
	}
}

func TestWhoMayNotImport(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	before := d.rows(t)
	// A door without the service's token, and one of another service.
	for name, door := range map[string]*chart.Service{"a user's door": d.Chart, "the worker's": d.Door(t, "worker"), "the operator's": d.Door(t, "operator")} {
		_, err := door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("a", medtest.Alice()))
		if k := med.KindOf(err); k != med.Unauthorized && k != med.Forbidden {
			t.Errorf("%s: got %v", name, err)
		}
		id, _ := med.EventOf(err)
		if e := entry(t, d.System, string(id)); e.Outcome != "denied" {
			t.Errorf("%s: got the entry %+v", name, e)
		}
	}
	_, err := d.door.Import(t.Context(), chart.Importer("test"), "nowhere", bundle("a", medtest.Alice()))
	if err == nil || med.KindOf(err) == med.Internal {
		t.Errorf("a practice that is none: got %v", err)
	}
	if got := d.rows(t); got != before {
		t.Errorf("rows: got %v, want %v", got, before)
	}
	if n := count(t, d.DB.SuperKeys(t), "keys.patient_key"); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestImportingADeletedPatient(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := withSource("source-1")
	p.ID = "p-001"
	d.put(t, medtest.North, bundle("a", p, observation(rid(1), "1")))
	medtest.Exec(t, d.super, `update medirecord.patient set deleted_at = now()`)
	before := d.rows(t)
	_, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("b", p, observation(rid(1), "2")))
	if med.KindOf(err) != med.NotFound || med.CodeOf(err) != "patient_deleted" {
		t.Errorf("into the chart of a patient who was deleted: got %v", err)
	}
	if got := d.rows(t); got != before {
		t.Errorf("rows: got %v, want %v", got, before)
	}
	// In another practice the id is taken, though nobody may know by whom.
	done := d.put(t, medtest.South, bundle("a", p, observation(rid(1), "1")))
	if done.Patient == "p-001" || d.read(t, medtest.South, done.Patient).SSN != "123-45-6789" {
		t.Errorf("in another practice: got %+v", done)
	}
	if e := entry(t, d.System, string(done.Event)); e.Patient != string(done.Patient) || e.Resource != "patient/"+string(done.Patient) {
		t.Errorf("got the entry %+v", e)
	}
	medtest.Exec(t, d.super, `update medirecord.patient set deleted_at = null where id = 'p-001'`)
	if v := d.read(t, medtest.North, "p-001"); v.SSN != "123-45-6789" {
		t.Error("the first does not read any more")
	}
}

func TestImportingAPatientWhoseKeyIsDestroyed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.put(t, medtest.North, bundle("a", withSource("source-1"), observation(rid(1), "1")))
	medtest.Exec(t, d.super, `update medirecord.patient set key_state = 'destroyed'`)
	before := d.rows(t)
	_, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle("b", withSource("source-1"), observation(rid(2), "2")))
	if med.KindOf(err) != med.NotFound || med.CodeOf(err) != "key_destroyed" || d.rows(t) != before {
		t.Errorf("got %v, rows %v, want %v", err, d.rows(t), before)
	}
}

func TestAddPracticeAfterACrash(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super, keys := s.DB.Super(t), s.DB.SuperKeys(t)
	operator := s.Door(t, "operator")
	add := func(id med.PracticeID, name string) error {
		return operator.AddPractice(t.Context(), chart.Operator("test"), id, name)
	}
	// It died between the keys and the row: the keys are there.
	signed := medtest.Mint(t, token.Context{
		Issuer: "medirecord", Subject: "service:operator", Roles: []string{"service:operator"}, Service: "operator", Action: "practice.add", Practice: "west", Patient: "*",
	}, time.Minute)
	noError(t, s.Keys.AddPractice(t.Context(), signed, "west"))
	var wrapped []byte
	medtest.Scan(t, keys, []any{&wrapped}, `select wrapped from keys.practice_key where practice_id = 'west' and purpose = 'kek'`)
	noError(t, add("west", "Practice west"))
	var still []byte
	medtest.Scan(t, keys, []any{&still}, `select wrapped from keys.practice_key where practice_id = 'west' and purpose = 'kek'`)
	if string(still) != string(wrapped) || count(t, keys, "keys.practice_key where practice_id = 'west'") != len(envelope.Purposes) {
		t.Error("the keys were made again")
	}
	if err := add("west", "Practice west"); med.KindOf(err) != med.Conflict {
		t.Errorf("again: got %v, want conflict", err)
	}
	if n := count(t, super, "medirecord.practice where id = 'west'"); n != 1 {
		t.Errorf("%d rows", n)
	}
	d := &desk{s, s.Door(t, "import"), super}
	if v := d.read(t, "west", d.put(t, "west", bundle("a", medtest.Alice())).Patient); v.Practice != "west" {
		t.Errorf("its patient: got %+v", v)
	}

	for name, tc := range map[string]struct {
		id   med.PracticeID
		name string
	}{
		"no name": {"east", ""}, "a blank name": {"east", "  "}, "a name too long": {"east", strings.Repeat("n", 201)}, "a line break": {"east", "a\nb"},
		"no id": {"", "East"}, "an id that is none": {"east side", "East"}, "every practice": {"*", "East"},
	} {
		if err := add(tc.id, tc.name); med.KindOf(err) != med.Invalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	if err := s.Chart.AddPractice(t.Context(), chart.Operator("test"), "east", "East"); med.KindOf(err) != med.Unauthorized {
		t.Errorf("not by the operator: got %v", err)
	}

	// Two at once: one makes it.
	var all sync.WaitGroup
	errs := make(chan error, 3)
	for range 3 {
		all.Go(func() { errs <- add("east", "Practice east") })
	}
	all.Wait()
	close(errs)
	made := 0
	for err := range errs {
		switch {
		case err == nil:
			made++
		case med.KindOf(err) != med.Conflict:
			t.Error(err)
		}
	}
	if made != 1 || count(t, keys, "keys.practice_key where practice_id = 'east'") != len(envelope.Purposes) {
		t.Errorf("made %d times", made)
	}
	list, err := operator.Practices(t.Context(), chart.Operator("test"))
	noError(t, err)
	var ids []string
	for _, p := range list {
		ids = append(ids, fmt.Sprint(p.ID, "=", p.Name))
	}
	if want := "north=Practice north south=Practice south west=Practice west east=Practice east"; strings.Join(ids, " ") != want {
		t.Errorf("got %v, want %s", ids, want)
	}
	for action, want := range map[string]map[string]int{
		"practice_add": {"success": 4, "failure": 3}, "practice_list": {"success": 1},
	} {
		for outcome, n := range want {
			if got := count(t, super, "audit.event where action = $1 and outcome = $2", action, outcome); got < n {
				t.Errorf("%s, %s: %d entries, want %d", action, outcome, got, n)
			}
		}
	}
}

// What a source calls its records may tell what they are about.
func TestIDsOfRecordsTellNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	telling := func(name string) chart.Bundle {
		return bundle(name, withSource("source-1"), observation("hiv-viral-load-2024", "1"), observation("HIV-VIRAL-LOAD-2024", "2"), observation(rid(1), "3"))
	}
	d.Secret("hiv-viral-load", "HIV-VIRAL-LOAD")
	ids := func(practice med.PracticeID) string {
		rows, err := d.super.Query(t.Context(), `select id from medirecord.record where practice_id = $1 order by id`, string(practice))
		noError(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		noError(t, err)
		return strings.Join(all, " ")
	}
	d.put(t, medtest.North, telling("a"))
	north := ids(medtest.North)
	if strings.Contains(strings.ToLower(north), "hiv") || len(strings.Fields(north)) != 3 || !strings.Contains(north, string(rid(1))) {
		t.Errorf("got %s", north)
	}
	if done := d.put(t, medtest.North, telling("a, written again")); done.Unchanged != 3 || ids(medtest.North) != north {
		t.Errorf("again: got %+v", done)
	}
	d.put(t, medtest.South, telling("a"))
	for _, id := range strings.Fields(ids(medtest.South)) {
		if id != string(rid(1)) && strings.Contains(north, id) {
			t.Error("two practices give a record the same id: it can be matched")
		}
	}
}

func TestSomebodyElseUnderTheSameIDAtTheSource(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.put(t, medtest.North, bundle("a", withSource("source-1"), observation(rid(1), "1")))
	before := d.rows(t)
	for name, change := range map[string]func(*med.Patient){
		"another SSN": func(p *med.Patient) { p.SSN = "999-99-9999" }, "another MRN": func(p *med.Patient) { p.MRN = "MRN-9" }, "another birth date": func(p *med.Patient) { p.DOB = "1999-09-09" },
	} {
		p := withSource("source-1")
		change(&p)
		if _, err := d.door.Import(t.Context(), chart.Importer("test"), medtest.North, bundle(name, p, observation(rid(1), "2"))); med.KindOf(err) != med.Conflict || med.CodeOf(err) != "identity_conflict" {
			t.Errorf("%s: got %v, want a conflict", name, err)
		}
	}
	var version int64
	medtest.Scan(t, d.super, []any{&version}, `select max(version) from medirecord.record`)
	if d.rows(t) != before || version != 1 {
		t.Errorf("rows %v, want %v; version %d", d.rows(t), before, version)
	}
	// A bundle that does not say is no contradiction.
	p := withSource("source-1")
	p.SSN, p.MRN, p.DOB = "", "", ""
	if v := d.read(t, medtest.North, d.put(t, medtest.North, bundle("silent", p)).Patient); v.SSN != "123-45-6789" || v.DOB != "1985-06-15" {
		t.Error("what the newer bundle does not say is gone")
	}
}
