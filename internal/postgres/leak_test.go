// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
)

// open opens the database as the API does.
func open(t testing.TB, db *medtest.Databases, cfg postgres.Config) *postgres.DB {
	t.Helper()
	cfg.URL = db.URL("app")
	if cfg.Deadline == 0 {
		cfg.Deadline = medtest.Patience // not what is tested
	}
	p, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// eventually asks until the answer is yes.
func eventually(t testing.TB, what string, yes func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !yes(); {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		select { // a poll, not a wait for something to have happened
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// Sessions of the same role see each other's statements. A context among them
// would be anybody's for ten seconds.
func activityShowsNoContext(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{})
	blocker, err := w.db.Super(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blocker.Exec(t.Context(), `lock table medirecord.patient in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	signed := clinician("north", "north-1").signed(t)
	done := make(chan error, 2)
	go func() {
		_, err := db.Patient(t.Context(), signed, "", "north-1")
		done <- err
	}()
	go func() {
		done <- db.InTx(t.Context(), signed, func(tx pgx.Tx) error {
			_, err := db.Q.PatientExists(t.Context(), tx, "north-1")
			return err
		})
	}()
	spy := w.session(t, "app")
	seen := func() (out []string) {
		rows, _, err := spy.run(t.Context(), `select query from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`)
		if err != nil {
			t.Error(err)
		}
		for _, r := range rows {
			out = append(out, r[0])
		}
		return out
	}
	_, _, payload, mac := parts(signed)
	eventually(t, "both reads to show", func() bool {
		all := strings.Join(seen(), "\n")
		if strings.Contains(all, payload[:16]) || strings.Contains(all, mac) {
			t.Error("pg_stat_activity shows a context")
		}
		return strings.Contains(all, "read_patient") && strings.Contains(all, "exists")
	})
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if all := strings.Join(seen(), "\n"); strings.Contains(all, mac) {
		t.Error("pg_stat_activity shows a context of a statement that is over")
	}
}

// After its transaction a connection of the pool has no context any more.
func contextLeftBehind(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{Conns: 1, Readers: 1})
	signed := clinician("north", "north-1").signed(t)
	nobody := func(t *testing.T) {
		t.Helper()
		var left string
		if err := db.Pool().QueryRow(t.Context(), `select coalesce(current_setting('medirecord.ctx', true), '')`).Scan(&left); err != nil || left != "" {
			t.Errorf("got %d bytes of context and error %v, want none", len(left), err)
		}
		var n int
		if err := db.Pool().QueryRow(t.Context(), `select count(*) from medirecord.patient`).Scan(&n); !postgres.Refused(err) {
			t.Errorf("got %d patients and error %v, want a refusal", n, err)
		}
	}
	t.Run("after a commit", func(t *testing.T) {
		if err := db.InTx(t.Context(), signed, func(pgx.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		nobody(t)
	})
	t.Run("after a failure", func(t *testing.T) {
		if err := db.InTx(t.Context(), signed, func(pgx.Tx) error { return errors.New("no") }); err == nil {
			t.Fatal("got no error")
		}
		nobody(t)
	})
	t.Run("after a read", func(t *testing.T) {
		if _, err := db.Patient(t.Context(), signed, "", "north-1"); err != nil {
			t.Fatal(err)
		}
		nobody(t)
	})
	t.Run("after a read that was refused", func(t *testing.T) {
		if _, err := db.Patient(t.Context(), "x", "", "north-1"); !postgres.Refused(err) {
			t.Fatalf("got %v, want a refusal", err)
		}
		nobody(t)
	})
}

// EXPLAIN ANALYZE counts the rows that a policy took away. What a plan fetches
// by a search key must therefore be the practice's own, whatever the plan.
func TestPlansAndViewsTellNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("EXPLAIN of an identifier", func(t *testing.T) { explained(t, w) })
	t.Run("a careless view", func(t *testing.T) { carelessView(t, w) })
}

func explained(t *testing.T, w *world) {
	// Enough for the planner to want the index.
	medtest.Exec(t, w.super, `insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version)
		select p, 'mrn', convert_to(lpad(n::text, 8, '0'), 'UTF8'), p || '-1', 1 from generate_series(1, 2000) n, (values ('north'), ('south')) v (p)`)
	medtest.Exec(t, w.super, `analyze medirecord.blind_index`)
	medtest.Exec(t, w.super, `analyze medirecord.intake`)
	explain := func(t *testing.T, c caller, settings, sql string) string {
		t.Helper()
		s := w.session(t, "app")
		s.enter(t, c.signed(t))
		rows, _, err := s.run(t.Context(), settings+`explain (analyze, buffers off, costs off, timing off, summary off) `+sql)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range rows {
			out = append(out, r[0])
		}
		return strings.Join(out, "\n")
	}
	// What is asked for stands in the plan; all else must be the same.
	same := func(plan, value string) string { return strings.ReplaceAll(plan, value, "?") }
	hexTag := func(b []byte) string { return hex.EncodeToString(b) }
	nobody := []byte("nobody  ")
	for _, plan := range []string{"", "set enable_seqscan = off; ", "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_seqscan = off; "} {
		for _, who := range []struct {
			name string
			with caller
		}{
			{"a clinician of the same practice", clinician("south", "south-2")},
			{"a clinician of another practice", clinician("north", "north-1")},
			{"an import of another practice", importer("north")},
			{"an operator", service("operator", "practice.add", "south")},
		} {
			for _, where := range []string{
				`select patient_id from medirecord.blind_index where tag = '\x%s'`,
				`select patient_id from medirecord.blind_index where practice_id = 'south' and field = 'ssn' and tag = '\x%s'`,
				`delete from medirecord.blind_index where practice_id = 'south' and field = 'ssn' and tag = '\x%s'`,
			} {
				there, absent := hexTag(tagOf("south-1")), hexTag(nobody)
				got := same(explain(t, who.with, plan, fmt.Sprintf(where, there)), there)
				want := same(explain(t, who.with, plan, fmt.Sprintf(where, absent)), absent)
				if got != want {
					t.Errorf("%s can tell by EXPLAIN whether somebody has a number (%s%s):\n%s\n-- and for nobody's:\n%s", who.name, plan, where, got, want)
				}
			}
		}
	}
	t.Run("nor does it count another practice's intakes", func(t *testing.T) {
		for _, sql := range []string{
			`select from medirecord.intake where practice_id = 'south'`, `select from medirecord.blind_index where practice_id = 'south' and field = 'mrn'`,
		} {
			plan := explain(t, importer("north"), "set enable_seqscan = off; ", sql)
			if m := regexp.MustCompile(`Rows Removed[^\n]*`).FindString(plan); m != "" {
				t.Errorf("%s: %s", sql, m)
			}
		}
	})
}

// practice_of tells one thing, to whoever has a context: which practice an id
// belongs to.
func learningWhosePatient(t *testing.T, w *world) {
	of := func(t *testing.T, c caller, id string) string {
		t.Helper()
		s := w.session(t, "app")
		s.enter(t, c.signed(t))
		rows, _, err := s.run(t.Context(), `select coalesce(medirecord.practice_of('`+id+`'), 'none')`)
		if err != nil {
			t.Fatal(err)
		}
		return rows[0][0]
	}
	for _, c := range []struct {
		name, id, want string
	}{
		{"of a patient of another practice", "south-1", "south"},
		{"of nobody", "nobody", "none"},
		{"of a deleted patient, who is nobody", "south-gone", "none"},
		{"of a pattern, which is nobody", "%", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := of(t, clinician("north", "north-1"), c.id); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// COPY is a read like any other.
func copying(t *testing.T, w *world) {
	s := w.session(t, "app")
	s.enter(t, clinician("north", "north-1").signed(t))
	for _, table := range []string{"medirecord.patient", "medirecord.record", "medirecord.blind_index", "medirecord.intake", "medirecord.practice", "audit.event"} {
		var out bytes.Buffer
		if _, err := s.conn.PgConn().CopyTo(t.Context(), &out, `copy (select * from `+table+`) to stdout`); err != nil {
			t.Errorf("%s: %v", table, err)
		}
		for _, p := range everybody {
			got := strings.Contains(out.String(), secret(p)) || strings.Contains(out.String(), hex.EncodeToString([]byte(secret(p))))
			if want := p == "north-1" && (table == "medirecord.patient" || table == "medirecord.record"); got != want {
				t.Errorf("a copy of %s shows %s: got %v, want %v", table, p, got, want)
			}
		}
	}
	t.Run("what is copied in is refused before the first row", func(t *testing.T) {
		for _, role := range []string{"app", "trail"} {
			s := w.session(t, role)
			s.enter(t, importer("north").signed(t))
			_, err := s.conn.PgConn().CopyFrom(t.Context(), strings.NewReader("a\tb\n"), `copy audit.event (event_id, occurred_at) from stdin`)
			if problem := refused("0A000").differs(nil, 0, err); problem != "" {
				t.Errorf("%s: %s", role, problem)
			}
		}
	})
}

// A view runs as its owner: a careless one must show nothing, because even the
// owner is under row security; one that runs as its user shows what its user may see.
func carelessView(t *testing.T, w *world) {
	migrator := w.db.As(t, "migrator")
	medtest.Exec(t, migrator, `set role medirecord_owner`)
	medtest.Exec(t, migrator, `create view medirecord.careless as select * from medirecord.patient`)
	medtest.Exec(t, migrator, `create view medirecord.careful with (security_invoker = true) as select * from medirecord.patient`)
	medtest.Exec(t, migrator, `create view medirecord.barred with (security_barrier = true) as select * from medirecord.patient`)
	medtest.Exec(t, migrator, `grant select on medirecord.careless, medirecord.careful, medirecord.barred to medirecord_app`)
	for view, want := range map[string]want{"careless": nothing, "barred": nothing, "careful": only("north-1")} {
		s := w.session(t, "app")
		s.enter(t, clinician("north", "north-1").signed(t))
		rows, n, err := s.run(t.Context(), `select id from medirecord.`+view)
		if problem := want.differs(rows, n, err); problem != "" {
			t.Errorf("the %s view: %s", view, problem)
		}
	}
}

// A backup role with the right to read everything reads nothing that row
// security guards. That it does not notice is why backups need BYPASSRLS.
func readingAllData(t *testing.T, w *world) {
	conn := medtest.Connect(t, roleOf(t, w, "inherit", "pg_read_all_data"))
	var partition string
	medtest.Scan(t, conn, []any{&partition}, `select max(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf`)
	for _, table := range append([]string{partition}, tables...) {
		var n int
		if err := conn.QueryRow(t.Context(), `select count(*) from `+table).Scan(&n); n > 0 || err != nil {
			t.Errorf("%s: got %d rows and error %v, want none", table, n, err)
		}
		// As pg_dump does: rather nothing than a part.
		_, err := conn.PgConn().Exec(t.Context(), `set row_security = off; select * from `+table).ReadAll()
		if problem := refused().differs(nil, 0, err); problem != "" {
			t.Errorf("dumping %s: %s", table, problem)
		}
		medtest.Exec(t, conn, `set row_security = on`)
	}
}

// A query of the trail for a day reads one partition, row security or not.
func partitionsArePruned(t *testing.T, w *world) {
	s := w.session(t, "app")
	s.enter(t, auditor("north").signed(t))
	rows, _, err := s.run(t.Context(), fmt.Sprintf(`explain (costs off) select event_id from audit.event where occurred_at >= '%s' and occurred_at < '%s'`,
		time.Now().UTC().Format("2006-01-02"), time.Now().UTC().Add(time.Minute).Format(time.RFC3339)))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(rows)
	if got := len(regexp.MustCompile(`event_\d{4}_\d{2} `).FindAllString(text, -1)); got < 1 || got > 2 { // 2 at the turn of a month
		t.Errorf("got %d partitions, want 1:\n%s", got, text)
	}
}

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker := w.db.As(t, "worker")
	count := func(t *testing.T) (n, closed int) {
		t.Helper()
		medtest.Scan(t, w.super, []any{&n, &closed}, `
select count(*), count(*) filter (where c.relrowsecurity and c.relforcerowsecurity and c.relacl::text !~ 'medirecord_(app|trail|worker)|=.*/' is not true
         and (select count(*) from pg_trigger t where t.tgrelid = c.oid and t.tgenabled = 'A') = 2 and c.relowner = 'medirecord_owner'::regrole)
  from pg_partition_tree('audit.event') p join pg_class c on c.oid = p.relid where isleaf`)
		return n, closed
	}
	t.Run("though somebody else holds the lock of that name", func(t *testing.T) {
		evil := w.session(t, "auditor")
		if _, _, err := evil.run(t.Context(), `select pg_advisory_lock(hashtext('audit.make_partitions')), pg_advisory_lock(n) from generate_series(1, 9) n`); err != nil {
			t.Fatal(err)
		}
		var made int
		medtest.Scan(t, worker, []any{&made}, `select audit.make_partitions(7)`)
		if made != 1 {
			t.Errorf("got %d, want 1", made)
		}
	})
	t.Run("once, by many at once", func(t *testing.T) {
		type result struct {
			made int
			err  error
		}
		results := make(chan result, 6)
		for range cap(results) {
			conn := w.db.As(t, "worker")
			go func() {
				var r result
				r.err = conn.QueryRow(t.Context(), `select audit.make_partitions(9)`).Scan(&r.made)
				results <- r
			}()
		}
		sum := 0
		for range cap(results) {
			r := <-results
			if r.err != nil {
				t.Error(r.err)
			}
			sum += r.made
		}
		if n, closed := count(t); sum != 2 || closed != n {
			t.Errorf("got %d made by all and %d of %d closed, want 2 and all", sum, closed, n)
		}
	})
	t.Run("while entries are being written and read", func(t *testing.T) {
		// An open transaction with an entry, and a long read, as a backup is.
		writer, reader := w.session(t, "trail"), w.db.Super(t)
		if _, _, err := writer.run(t.Context(), `begin; `+entry("")); err != nil {
			t.Fatal(err)
		}
		medtest.Exec(t, reader, `begin`)
		medtest.Exec(t, reader, `lock table audit.event in access share mode`)
		before, _ := count(t)
		var made int
		medtest.Scan(t, worker, []any{&made}, `select audit.make_partitions(12)`)
		if n, closed := count(t); made != 3 || n != before+3 || closed != n {
			t.Errorf("got %d made, %d partitions of which %d are closed, want 3, %d and all", made, n, closed, before+3)
		}
		if _, _, err := writer.run(t.Context(), entry("")+`; commit`); err != nil {
			t.Error(err)
		}
	})
	t.Run("again makes none", func(t *testing.T) {
		var made int
		medtest.Scan(t, worker, []any{&made}, `select audit.make_partitions(12)`)
		if made != 0 {
			t.Errorf("got %d, want 0", made)
		}
	})
	t.Run("never more than two years, and none back in time", func(t *testing.T) {
		before, _ := count(t)
		for _, ahead := range []string{"2147483647", "-2147483648", "null"} {
			medtest.Exec(t, worker, `select audit.make_partitions(`+ahead+`)`)
		}
		if n, closed := count(t); n > 26 || n < before || closed != n {
			t.Errorf("got %d partitions of which %d are closed, want at most 26 and all", n, closed)
		}
	})
}

// An error of the server can quote a row. What we say of it does not.
func learningFromErrors(t *testing.T, w *world) {
	db := open(t, w.db, postgres.Config{})
	for name, sql := range map[string]string{
		"a duplicate":        newPatient("id = 'north-1'"),
		"a broken check":     newPatient("id = 'the secret of north-1'"),
		"a cast":             `select convert_from(sealed, 'UTF8')::integer from medirecord.patient`,
		"a foreign key":      newRecord("patient_id = 'the-secret-of-north-1'"),
		"an exception":       `do $$ begin raise exception 'the secret of north-1' using detail = 'the secret of north-1', hint = 'the secret of north-1'; end $$`,
		"a syntax error":     `select 'the secret of north-1' the secret of north-1`,
		"an unknown setting": `select current_setting('the secret of north-1')`,
	} {
		err := db.InTx(t.Context(), importer("north").signed(t), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return fmt.Errorf("doing it: %w", err)
		})
		var se *postgres.ServerError
		if !errors.As(err, &se) || se.Code == "" {
			t.Errorf("%s: got %v, want a ServerError with its code", name, err)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", err, err, se, errorTree(err)); strings.Contains(text, "secret") {
			t.Errorf("%s: the error tells a value: %s", name, text)
		}
		if med.KindOf(err) != med.Internal {
			t.Errorf("%s: got kind %s, want internal", name, med.KindOf(err).Slug)
		}
	}
}

// errorTree prints every error that an error wraps.
func errorTree(err error) string {
	var out []string
	for ; err != nil; err = errors.Unwrap(err) {
		out = append(out, err.Error())
	}
	return strings.Join(out, " | ")
}
