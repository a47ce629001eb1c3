// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

const chartAlert = "ALERT a chart does not match its manifest"

// A patient's row that a superuser puts back, or whose manifest they take away
// or swap, is served with a warning and raises the alarm; what comes after does
// not make it right.
func TestAPatientsRowIsHeldAgainstItsManifest(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	medtest.Exec(t, super, `set session_replication_role = replica`)
	ann, bob := s.Patient(t, medtest.North, withSource("source-a")), s.Patient(t, medtest.North, withSource("source-b"))
	medtest.Exec(t, super, `create table public.week as select * from medirecord.patient`)
	newer := withSource("source-a")
	newer.Phone = "555-010-9999"
	_, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), medtest.North, bundle("newer", newer))
	noError(t, err)
	medtest.Exec(t, super, `create table public.kept as select * from medirecord.patient`)
	medtest.Exec(t, super, `create table public.keptm as select patient_id, practice_id, version, dek_version, sealed, event_id from medirecord.manifest`)
	clinician := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	suspect := func() bool {
		t.Helper()
		v, err := s.Chart.ReadPatient(t.Context(), clinician, ann)
		noError(t, err)
		if v.Name.Text == "" {
			t.Error("not served")
		}
		list, err := s.Chart.ListPatients(t.Context(), clinician, med.Page{})
		noError(t, err)
		found, err := s.Chart.SearchPatients(t.Context(), clinician, "phone", med.Patient{Phone: newer.Phone})
		noError(t, err)
		if list.Suspect != v.Suspect || found.Suspect != v.Suspect {
			t.Errorf("the patient says %v, a list %v, a search %v", v.Suspect, list.Suspect, found.Suspect)
		}
		return v.Suspect
	}
	if suspect() || strings.Contains(s.Log.String(), chartAlert) {
		t.Fatal("an untouched chart is in doubt")
	}
	for _, tc := range []struct {
		name, sql string
		args      []any
	}{
		{"last week's row", `update medirecord.patient p set (version, sealed) = (select w.version, w.sealed from public.week w where w.id = p.id) where id = $1`, []any{string(ann)}},
		{"no manifest", `delete from medirecord.manifest where patient_id = $1`, []any{string(ann)}},
		{"another's manifest", `update medirecord.manifest m set (version, sealed) = (select o.version, o.sealed from medirecord.manifest o where o.patient_id = $2) where patient_id = $1`, []any{string(ann), string(bob)}},
		{"its version counted up", `update medirecord.manifest set version = version + 1 where patient_id = $1`, []any{string(ann)}},
		{"noise", `update medirecord.manifest set sealed = '\x00' where patient_id = $1`, []any{string(ann)}},
	} {
		t.Run(tc.name, func(t *testing.T) { // one after the other: they change the same rows
			before := strings.Count(s.Log.String(), chartAlert)
			medtest.Exec(t, super, tc.sql, tc.args...)
			if !suspect() {
				t.Error("it was not noticed")
			}
			if strings.Count(s.Log.String(), chartAlert) != before+3 { // each reading of it
				t.Error("no alarm")
			}
			var told int
			medtest.Scan(t, super, []any{&told}, `select count(*) from medirecord.outbox where topic = 'integrity' and patient_id = $1`, string(ann))
			if told != 1 {
				t.Errorf("%d to be told, want one", told)
			}
			medtest.Exec(t, super, `delete from medirecord.manifest`)
			medtest.Exec(t, super, `insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id) select * from public.keptm`)
			medtest.Exec(t, super, `update medirecord.patient p set (version, sealed) = (select k.version, k.sealed from public.kept k where k.id = p.id)`)
			if suspect() {
				t.Fatal("not as before")
			}
		})
	}
	t.Run("a change after it does not make it right", func(t *testing.T) {
		medtest.Exec(t, super, `delete from medirecord.manifest where patient_id = $1`, string(ann))
		newer.Phone = "555-010-8888"
		_, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), medtest.North, bundle("newest", newer))
		noError(t, err)
		if !suspect() {
			t.Error("forgotten")
		}
	})
	t.Run("a chart from before there were manifests is in no doubt", func(t *testing.T) {
		medtest.Exec(t, super, `delete from medirecord.manifest where patient_id = $1`, string(bob))
		medtest.Exec(t, super, `do $$ declare p regclass; begin
			for p in select inhrelid::regclass from pg_inherits where inhparent = 'audit.event'::regclass loop execute format('alter table %s disable trigger user', p); end loop; end $$`)
		medtest.Exec(t, super, `update audit.event set detail = replace(detail, '"manifest":"', '"manifest2":"') where patient_id = $1`, string(bob))
		v, err := s.Chart.ReadPatient(t.Context(), clinician, bob)
		noError(t, err)
		if v.Suspect {
			t.Error("in doubt")
		}
	})
}

// Whoever reads or changes a chart that is not what was written is told so, on
// every route.
func TestEveryAnswerAboutASuspectChartSaysSo(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"), obs(r1, "2026-01-01"))
	clinician, admin := s.Of(t, med.RoleClinician, medtest.North), s.Of(t, med.RoleAdmin, medtest.North)
	const all, word = "/api/v1/patients", `"integrity":"suspect"`
	one, records, record := all+"/"+string(ann), all+"/"+string(ann)+"/records", all+"/"+string(ann)+"/records/"+r1
	if a := s.Get(t, clinician, one); a.Status != 200 || strings.Contains(a.Body, "integrity") {
		t.Fatalf("an untouched chart: got %d %s", a.Status, a.Body)
	}
	super := s.DB.Super(t)
	medtest.Exec(t, super, `update medirecord.manifest set sealed = sealed || '\x00'`)
	for _, ask := range []struct{ method, tok, path, body, tagOf string }{
		{"GET", clinician, one, "", ""},
		{"GET", clinician, all, "", ""},
		{"POST", clinician, all + "/search", `{"phone":"` + withSource("").Phone.Reveal() + `"}`, ""},
		{"GET", clinician, records, "", ""},
		{"GET", clinician, record, "", ""},
		{"GET", clinician, record + "/versions", "", ""},
		{"POST", clinician, records, `{"kind":"observation","note":"new"}`, ""},
		{"PATCH", clinician, record, `{"note":"changed"}`, record},
		{"PATCH", clinician, one, `{"phone":"5550100"}`, one},
		{"DELETE", admin, one, "", one},
		{"POST", admin, one + "/restore", "", ""},
	} {
		var headers []string
		if ask.tagOf != "" {
			headers = []string{"If-Match", s.Get(t, ask.tok, ask.tagOf).Header.Get("ETag")}
		}
		a := s.Do(t, ask.method, ask.tok, ask.path, ask.body, headers...)
		if a.Status/100 != 2 || a.Status != 204 && !strings.Contains(a.Body, word) {
			t.Errorf("%s %s: got %d %s", ask.method, ask.path, a.Status, a.Body)
		}
	}
}

// A record that somebody spoiled hides no other: the list is without it and says
// so, and care goes on.
func TestASpoiledRecordHidesNoOther(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	ann := s.Patient(t, medtest.North, withSource("source-a"), obs(r1, "2026-01-01"), of(obs(r2, "2026-02-01"), med.KindCondition, med.SensitivityNormal), obs(r3, "2026-03-01"))
	doctor := s.Caller(t, s.Of(t, med.RoleClinician, medtest.North))
	var sealed, other []byte
	medtest.Scan(t, super, []any{&sealed}, `select sealed from medirecord.record where id = $1`, r2)
	medtest.Scan(t, super, []any{&other}, `select sealed from medirecord.record where id = $1`, r1)
	medtest.Exec(t, super, `alter table medirecord.record disable trigger user`)
	for _, tc := range []struct {
		name string
		now  []byte
	}{
		{"nothing left", []byte{}},
		{"noise", bytes.Repeat([]byte{7}, 300)},
		{"cut short", sealed[:len(sealed)-9]},
		{"another's bytes", other},
		{"a bit of its header", flipped(sealed, indexOf(t, sealed, "header")+20)},
		{"a bit of its note", flipped(sealed, indexOf(t, sealed, "note")+20)},
		{"a bit of its MAC", flipped(sealed, len(sealed)-1)},
	} {
		t.Run(tc.name, func(t *testing.T) { // one after the other: they change the same row
			medtest.Exec(t, super, `delete from medirecord.outbox`)
			medtest.Exec(t, super, `update medirecord.record set sealed = $2 where id = $1`, r2, tc.now)
			before := strings.Count(s.Log.String(), chartAlert)
			page, err := s.Chart.ReadRecords(t.Context(), doctor, ann, med.RecordAsk{}, med.Page{})
			noError(t, err)
			if got := listOf(page); got != r3+" "+r1 || !page.Suspect {
				t.Errorf("got %s, suspect %v", got, page.Suspect)
			}
			if n := strings.Count(s.Log.String(), chartAlert) - before; n != 1 {
				t.Errorf("%d alarms", n)
			}
			var told int
			medtest.Scan(t, super, []any{&told}, `select count(*) from medirecord.outbox where topic = 'integrity' and patient_id = $1`, string(ann))
			if told != 1 {
				t.Errorf("%d to be told, want one", told)
			}
			if v, err := s.Chart.ReadRecord(t.Context(), doctor, ann, r1); err != nil || v.Note != "note-"+r1 {
				t.Errorf("another one: got %v", err)
			}
			if _, err := s.Chart.ReadRecord(t.Context(), doctor, ann, r2); med.KindOf(err) != med.Internal || med.CodeOf(err) != "integrity" {
				t.Errorf("itself: got %v", err)
			}
			medtest.Exec(t, super, `update medirecord.record set sealed = $2 where id = $1`, r2, sealed)
			if page, err := s.Chart.ReadRecords(t.Context(), doctor, ann, med.RecordAsk{}, med.Page{}); err != nil || page.Suspect || len(page.Records) != 3 {
				t.Fatalf("not as before: %v", err)
			}
		})
	}
	t.Run("a condition is added all the same, and the chart says so for ever", func(t *testing.T) {
		medtest.Exec(t, super, `update medirecord.record set sealed = $2 where id = $1`, r2, other)
		v, err := s.Chart.CreateRecord(t.Context(), doctor, ann, patch("kind", `"condition"`, "status", `"active"`, "code", `[{"display":"Gout"}]`), med.Once{})
		noError(t, err)
		medtest.Exec(t, super, `update medirecord.record set sealed = $2 where id = $1`, r2, sealed)
		page, err := s.Chart.ReadRecords(t.Context(), doctor, ann, med.RecordAsk{}, med.Page{})
		noError(t, err)
		if !v.Suspect || !page.Suspect || len(page.Records) != 4 {
			t.Errorf("got %v, %v, %d records", v.Suspect, page.Suspect, len(page.Records))
		}
	})
}
