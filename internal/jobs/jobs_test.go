// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/jobs"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// worker is the regular work on the system's databases, as the worker's role
// and under the service it asks as.
func worker(t *testing.T, s *medtest.System, service string, every time.Duration) *jobs.Maintenance {
	t.Helper()
	db, err := postgres.Open(context.WithoutCancel(t.Context()), postgres.Config{URL: s.DB.URL("worker"), Conns: 2, Deadline: medtest.Patience})
	noError(t, err)
	t.Cleanup(db.Close)
	return jobs.New(jobs.Config{
		Gate: s.OpenGate(t, s.Sidecar.Addrs()[0].String(), service), DB: db, Keys: s.Keys, Log: slog.New(slog.NewJSONHandler(s.Log, nil)), Every: every,
	})
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key makes a pending key without a patient, as an import that died left it.
func key(t *testing.T, s *medtest.System, practice med.PracticeID, patient med.PatientID) {
	t.Helper()
	signed := medtest.Mint(t, token.Context{
		Issuer: "medirecord", Subject: "service:import", Roles: []string{"service:import"}, Service: "import", Action: "import", Practice: practice, Patient: "*",
	}, time.Minute)
	_, err := s.Keys.CreatePatient(t.Context(), signed, practice, patient)
	noError(t, err)
}

// states lists the keys: patient=state.
func states(t *testing.T, s *medtest.System) string {
	t.Helper()
	super := s.DB.SuperKeys(t)
	defer func() { _ = super.Close(t.Context()) }() // who waits for something calls this often
	rows, err := super.Query(t.Context(), `select patient_id || '=' || state from keys.patient_key order by 1`)
	noError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	noError(t, err)
	return strings.Join(all, " ")
}

func put(t *testing.T, s *medtest.System, practice med.PracticeID, id med.PatientID) {
	t.Helper()
	p := medtest.Alice()
	p.ID, p.SourceID = id, med.PHI("source-"+id)
	done, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), practice, chart.Bundle{Patient: p, Hash: sha256.Sum256([]byte(id))})
	noError(t, err)
	if done.Patient != id {
		t.Fatalf("got %s, want %s", done.Patient, id)
	}
}

// again imports a newer bundle of the patient.
func again(t *testing.T, s *medtest.System, practice med.PracticeID, id med.PatientID) {
	t.Helper()
	p := medtest.Alice()
	p.ID, p.SourceID, p.Phone = id, med.PHI("source-"+id), "555-010-7777"
	_, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), practice, chart.Bundle{Patient: p, Hash: sha256.Sum256([]byte(id + "2"))})
	noError(t, err)
}

func TestTheSweepSettlesAndDeletes(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	keys, super := s.DB.SuperKeys(t), s.DB.Super(t)
	for _, p := range []med.PatientID{"living", "deleted", "settled"} {
		put(t, s, medtest.North, p)
	}
	put(t, s, medtest.South, "elsewhere")
	// The chart was written, and the word that it was got lost.
	medtest.Exec(t, keys, `update keys.patient_key set state = 'pending' where patient_id <> 'settled'`)
	medtest.Exec(t, super, `update medirecord.patient set deleted_at = now() where id = 'deleted'`)
	key(t, s, medtest.North, "orphan-old")
	key(t, s, medtest.South, "orphan-south")
	medtest.Exec(t, keys, `update keys.patient_key set created_at = now() - interval '61 minutes'`)
	key(t, s, medtest.North, "orphan-new") // whose import may be under way
	key(t, s, medtest.North, "orphan-59")
	medtest.Exec(t, keys, `update keys.patient_key set created_at = now() - interval '59 minutes' where patient_id = 'orphan-59'`)

	m := worker(t, s, "worker", time.Hour)
	m.Once(t.Context())
	const want = "deleted=active elsewhere=active living=active orphan-59=pending orphan-new=pending settled=active"
	if got := states(t, s); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	log := s.Log.String()
	if !strings.Contains(log, `"practice":"north","settled":2,"deleted":1`) || !strings.Contains(log, `"practice":"south","settled":1,"deleted":1`) {
		t.Error("the log does not tell: " + log)
	}
	told := func(practice med.PracticeID) (out []string) {
		for _, e := range s.TrailRows(t) {
			if e.Action == "sweep" && e.Resource == "practice/"+string(practice) {
				if e.Actor != "service:worker" || e.Outcome != "success" || e.Patient != "" || e.Parent != "" {
					t.Errorf("got the entry %+v", e)
				}
				n := e.Detail.Counts
				out = append(out, fmt.Sprintf("%d forgotten, %d settled, %d deleted", n["requests_forgotten"], n["keys_settled"], n["keys_deleted"]))
			}
		}
		return out
	}
	if n, so := told(medtest.North), told(medtest.South); !slices.Equal(n, []string{"0 forgotten, 2 settled, 1 deleted"}) || !slices.Equal(so, []string{"0 forgotten, 1 settled, 1 deleted"}) {
		t.Errorf("the trail tells %q and %q", n, so)
	}
	// Again, and by two at once: nothing changes.
	done := make(chan struct{})
	other := worker(t, s, "worker", time.Hour)
	go func() { defer close(done); other.Once(t.Context()) }()
	m.Once(t.Context())
	<-done
	if got := states(t, s); got != want {
		t.Errorf("again: got %s\nwant %s", got, want)
	}
	if n := told(medtest.North); len(n) != 1 {
		t.Errorf("sweeps that changed nothing: the trail tells %q", n)
	}
	// The patients read as before, the deleted one to whoever may.
	for _, tc := range []struct {
		role med.Role
		id   string
	}{{med.RoleClinician, "living"}, {med.RoleAdmin, "deleted"}} {
		if got := s.Get(t, s.Of(t, tc.role, medtest.North), "/patients/"+tc.id); got.Status != 200 || !strings.Contains(got.Body, "123-45-6789") {
			t.Errorf("%s: got %d %s", tc.id, got.Status, got.Body)
		}
	}
	if strings.Contains(s.Log.String(), `"level":"ERROR"`) {
		t.Error("something failed: " + s.Log.String())
	}
}

func TestTheSweepDeletesNothingItCannotJudge(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	keys, super := s.DB.SuperKeys(t), s.DB.Super(t)
	put(t, s, medtest.North, "living")
	key(t, s, medtest.North, "orphan")
	medtest.Exec(t, keys, `update keys.patient_key set state = 'pending', created_at = now() - interval '2 hours'`)
	const untouched = "living=pending orphan=pending"

	for name, service := range map[string]string{"nobody": "", "the importer": "import", "the operator": "operator"} {
		worker(t, s, service, time.Hour).Once(t.Context())
		if got := states(t, s); got != untouched {
			t.Errorf("as %s: got %s", name, got)
		}
	}
	// The patients cannot be looked at: whether they exist is not known.
	medtest.Exec(t, super, `revoke select on medirecord.patient from medirecord_worker`)
	m := worker(t, s, "worker", time.Hour)
	m.Once(t.Context())
	if got := states(t, s); got != untouched {
		t.Errorf("without the right to look: got %s", got)
	}
	if !strings.Contains(s.Log.String(), "orphan keys not swept") {
		t.Error("the log does not tell")
	}
	medtest.Exec(t, super, `grant select (id, practice_id, deleted_at) on medirecord.patient to medirecord_worker`)
	s.Sidecar.Stop()
	m.Once(t.Context())
	if got := states(t, s); got != untouched {
		t.Errorf("without the sidecar: got %s", got)
	}
}

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	// The template has them; take the last two months away.
	const name = `'audit_part.event_' || to_char(now() at time zone 'UTC' + interval '%d months', 'YYYY_MM')`
	last := func(months string) (table string) {
		medtest.Scan(t, super, []any{&table}, `select `+strings.Replace(name, "%d", months, 1))
		return table
	}
	for _, n := range []string{"5", "6"} {
		medtest.Exec(t, super, `alter table audit.event detach partition `+last(n))
		medtest.Exec(t, super, `drop table `+last(n))
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	m := worker(t, s, "worker", 10*time.Millisecond)
	go func() { ran <- m.Run(ctx) }()
	for _, n := range []string{"5", "6"} {
		eventually(t, func() error {
			var forced *bool
			medtest.Scan(t, super, []any{&forced}, `select (select relrowsecurity and relforcerowsecurity from pg_class where oid = to_regclass($1))`, last(n))
			if forced == nil {
				return errors.New(last(n) + " is not there")
			}
			if !*forced {
				t.Error(last(n) + ": row security is not forced")
			}
			return nil
		})
	}
	stop()
	noError(t, <-ran)
	var there bool
	medtest.Scan(t, super, []any{&there}, `select to_regclass('`+last("7")+`') is not null`)
	if there {
		t.Error("more than six months are made")
	}
	if !strings.Contains(s.Log.String(), `"msg":"partitions of the trail made","made":2`) {
		t.Error("the log does not tell: " + s.Log.String())
	}
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTheWorkGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super, keys := s.DB.Super(t), s.DB.SuperKeys(t)
	key(t, s, medtest.North, "orphan")
	medtest.Exec(t, keys, `update keys.patient_key set created_at = now() - interval '2 hours'`)
	medtest.Exec(t, super, `revoke execute on function audit.make_partitions(integer) from medirecord_worker`)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	m := worker(t, s, "worker", 10*time.Millisecond)
	go func() { ran <- m.Run(ctx) }()
	// The sweep does not wait for the partitions.
	eventually(t, func() error {
		if got := states(t, s); got != "" {
			return errors.New(got)
		}
		return nil
	})
	if !strings.Contains(s.Log.String(), "partitions of the trail not made") {
		t.Error("the log does not tell")
	}
	medtest.Exec(t, super, `grant execute on function audit.make_partitions(integer) to medirecord_worker`)
	medtest.Exec(t, super, `alter table audit.event detach partition `+sixth(t, super))
	medtest.Exec(t, super, `drop table `+sixth(t, super))
	eventually(t, func() error {
		var there bool
		medtest.Scan(t, super, []any{&there}, `select to_regclass($1) is not null`, sixth(t, super))
		if !there {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	noError(t, <-ran)
}

func sixth(t *testing.T, super *pgx.Conn) (table string) {
	t.Helper()
	medtest.Scan(t, super, []any{&table}, `select 'audit_part.event_' || to_char(now() at time zone 'UTC' + interval '6 months', 'YYYY_MM')`)
	return table
}

// What was made under an Idempotency-Key is known for a day, and then forgotten.
func TestTheSweepForgetsOldIdempotencyKeys(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	const body = `{"name":{"family":"Once"}}`
	for _, key := range []string{"old", "young"} {
		if a := s.Post(t, s.Of(t, med.RoleClinician, medtest.North), "/api/v1/patients", body, "Idempotency-Key", key); a.Status != 201 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		if key == "old" {
			medtest.Exec(t, super, `update medirecord.idempotency set created_at = now() - interval '25 hours'`)
		}
	}
	key(t, s, medtest.North, "orphan")
	medtest.Exec(t, s.DB.SuperKeys(t), `update keys.patient_key set created_at = now() - interval '61 minutes' where patient_id = 'orphan'`)
	m := worker(t, s, "worker", time.Hour)

	// What cannot be recorded is not done.
	medtest.Exec(t, super, `create policy nothing on audit.event as restrictive for insert to medirecord_worker with check (action <> 'sweep')`)
	m.Once(t.Context())
	var kept int
	medtest.Scan(t, super, []any{&kept}, `select count(*) from medirecord.idempotency`)
	if kept != 2 || !strings.Contains(states(t, s), "orphan=pending") || !strings.Contains(s.Log.String(), "orphan keys not swept") {
		t.Errorf("without the trail: %d keys of requests, and %s", kept, states(t, s))
	}
	medtest.Exec(t, super, `drop policy nothing on audit.event`)
	errors := strings.Count(s.Log.String(), `"level":"ERROR"`)

	m.Once(t.Context())
	var left int
	medtest.Scan(t, super, []any{&left}, `select count(*) from medirecord.idempotency where created_at > now() - interval '24 hours'`)
	var all int
	medtest.Scan(t, super, []any{&all}, `select count(*) from medirecord.idempotency`)
	if all != 1 || left != 1 {
		t.Errorf("%d are left, %d of them young; want the young one", all, left)
	}
	var told string
	medtest.Scan(t, super, []any{&told}, `select string_agg(detail, ' ') from audit.event where action = 'sweep'`)
	if !strings.Contains(told, `"requests_forgotten":1`) || !strings.Contains(told, `"keys_deleted":1`) || strings.Contains(states(t, s), "orphan") {
		t.Errorf("the trail tells %s of %s", told, states(t, s))
	}
	if strings.Count(s.Log.String(), `"level":"ERROR"`) != errors {
		t.Error("something failed: " + s.Log.String())
	}
}
