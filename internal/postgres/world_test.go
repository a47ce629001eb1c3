// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// world is a clinical database with two practices. Each patient's rows hold a
// secret of their own, so that a leak is known by its words.
//
//	north: north-1, north-2, north-gone (deleted)
//	south: south-1, south-2, south-gone (deleted)
//
// Each patient has a record, a blind index and an intake. linked is the self
// of south-1 by a link; formerly was.
type world struct {
	db    *medtest.Databases
	super *pgx.Conn
}

const issuer = "https://issuer.test.invalid"

var everybody = []string{"north-1", "north-2", "north-gone", "south-1", "south-2", "south-gone"}

// secret is what a patient's rows hold.
func secret(patient string) string { return "the secret of " + patient }

func practiceOf(patient string) string {
	p, _, _ := strings.Cut(patient, "-")
	return p
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{db: medtest.DB(t)}
	w.super = w.db.Super(t)
	medtest.Exec(t, w.super, `begin`)
	medtest.Exec(t, w.super, `insert into medirecord.practice (id, name, event_id) values
		('north', 'The practice north', gen_random_uuid()), ('south', 'The practice south', gen_random_uuid())`)
	for _, p := range everybody {
		w.add(t, p)
	}
	medtest.Exec(t, w.super, `insert into medirecord.patient_link (issuer, subject, patient_id, relation, valid_from, valid_to, author, source) values
		($1, 'linked', 'south-1', 'self', now() - interval '1 day', 'infinity', 'test', 'test'),
		($1, 'linked', 'south-gone', 'self', now() - interval '1 day', 'infinity', 'test', 'test'),
		($1, 'formerly', 'south-1', 'self', now() - interval '2 days', now() - interval '1 second', 'test', 'test'),
		($1, 'soon', 'south-1', 'self', now() + interval '1 hour', 'infinity', 'test', 'test')`, issuer)
	w.grant(t, grant{id: somebodysGrant, subject: "somebody-else", patient: "south-1"})
	medtest.Exec(t, w.super, `insert into medirecord.glass_review (grant_id, reviewer, verdict, note, event_id) values ($1, 'somebody', 'justified', $2, gen_random_uuid())`,
		somebodysGrant, []byte(secret("south-1")))
	medtest.Exec(t, w.super, `insert into medirecord.lookup (id, actor, session, digest, event_id, found) values (gen_random_uuid(), 'somebody', 'x', sha256(''), gen_random_uuid(), '{south-1}')`)
	medtest.Exec(t, w.super, `insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
		values (gen_random_uuid(), 'break_glass', 'P2', 'south', 'south-1', gen_random_uuid(), 'other')`)
	w.relations(t)
	medtest.Exec(t, w.super, `commit`)
	return w
}

const somebodysGrant = "00000000-0000-7000-8000-0000000000aa"

// grant is a row of medirecord.break_glass. What is empty is as it should be
// for the-break_glass in session-1, who opened it a minute ago.
type grant struct {
	id, issuer, subject, session, patient string
	opened, expires, ended                string // intervals from now
}

// grant commits a grant as if all had gone well: as a replica's superuser, for
// there is no context, no entry and no page.
func (w *world) grant(t testing.TB, g grant) {
	t.Helper()
	medtest.Exec(t, w.super, `set session_replication_role = replica`)
	defer medtest.Exec(t, w.super, `set session_replication_role = origin`)
	medtest.Exec(t, w.super, `insert into medirecord.break_glass
			(id, issuer, subject, session, patient_id, practice_id, reason_code, reason, signed, event_id, opened_at, expires_at, ended_at, ended_by)
		values ($1, $2, $3, $4, $5, $6, 'other', '\x00', 'v1.test', gen_random_uuid(), now() + $7::interval, now() + $8::interval, now() + nullif($9, '')::interval,
			case when $9 <> '' then 'somebody' end)`,
		g.id, cmp.Or(g.issuer, issuer), cmp.Or(g.subject, "the-break_glass"), cmp.Or(g.session, "session-1"), g.patient, practiceOf(g.patient),
		cmp.Or(g.opened, "-1 minute"), cmp.Or(g.expires, "59 minutes"), g.ended)
}

// add makes a patient of the practice that their id begins with; "gone" in the
// id makes them a deleted one.
func (w *world) add(t testing.TB, p string) {
	t.Helper()
	sealed := []byte(secret(p))
	medtest.Exec(t, w.super, `insert into medirecord.patient (id, practice_id, version, dek_version, sealed, event_id, deleted_at)
		values ($1, $2, 1, 1, $3, gen_random_uuid(), case when $1 like '%gone%' then now() end)`, p, practiceOf(p), sealed)
	medtest.Exec(t, w.super, `insert into medirecord.record (patient_id, id, practice_id, version, dek_version, sealed, event_id)
		values ($1, 'record-of-' || $1, $2, 1, 1, $3, gen_random_uuid())`, p, practiceOf(p), sealed)
	medtest.Exec(t, w.super, `insert into medirecord.record_version (patient_id, record_id, version, practice_id, dek_version, sealed, event_id, created_at)
		values ($1, 'record-of-' || $1, 9, $2, 1, $3, gen_random_uuid(), now())`, p, practiceOf(p), sealed)
	medtest.Exec(t, w.super, `insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id)
		values ($1, $2, 1, 1, $3, gen_random_uuid())`, p, practiceOf(p), sealed)
	medtest.Exec(t, w.super, `insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version)
		values ($2, 'ssn', $3, $1, 1)`, p, practiceOf(p), tagOf(p))
	medtest.Exec(t, w.super, `insert into medirecord.intake (practice_id, digest, patient_id, event_id)
		values ($2, sha256(convert_to($1, 'UTF8')), $1, gen_random_uuid())`, p, practiceOf(p))
	medtest.Exec(t, w.super, `insert into medirecord.disclosure (id, version, patient_id, practice_id, sealed, author, event_id)
		values (md5($1)::uuid, 1, $1, $2, $3, 'somebody', gen_random_uuid())`, p, practiceOf(p), sealed)
	medtest.Exec(t, w.super, `insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
			action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
		values (gen_random_uuid(), now(), $4, 'somebody', $2, $1, $2, 'read', 'patient', $1, 'success', false, $3,
			decode(md5(random()::text), 'hex'), 1)`, p, practiceOf(p), secret(p), issuer)
}

func tagOf(patient string) []byte {
	return []byte(fmt.Sprintf("%-8.8s", strings.ReplaceAll(patient, "-", "")))
}

// caller is somebody's signed context, before it is signed.
type caller struct {
	token.Context
	ttl time.Duration // a few seconds when zero; negative: expired so long ago
}

func person(role, practice, patient string) caller {
	return caller{Context: token.Context{
		Issuer: issuer, Subject: "the-" + role, Roles: []string{role}, Practice: med.PracticeID(practice), Action: "patient.read",
		Patient: patient, Session: "session-1",
	}}
}

// The readers of one patient.
func clinician(practice, patient string) caller { return person("clinician", practice, patient) }
func nurse(practice, patient string) caller     { return person("nurse", practice, patient) }
func officer(practice, patient string) caller   { return person("officer", practice, patient) }

func admin(practice, patient string, mfa bool) caller {
	c := person("admin", practice, patient)
	c.Admin = mfa
	return c
}

func patient(self, wanted string) caller {
	c := person("patient", practiceOf(self), wanted)
	c.Subject, c.Self = "patient-"+self, self
	return c
}

// known is somebody by their subject only: what they may see stands on links.
func known(subject, wanted string) caller {
	c := person("patient", "north", wanted)
	c.Subject = subject
	return c
}

// auditor reads a practice's trail.
func auditor(practice string) caller {
	c := officer(practice, "")
	c.Action = "audit.read"
	return c
}

// reading makes of somebody's context one that reads the trail.
func reading(c caller) *caller {
	c.Action = "audit.read"
	return &c
}

// service is unattended work on one practice.
func service(name, action, practice string) caller {
	c := caller{Context: token.Context{
		Issuer: "medirecord", Subject: "service:" + name, Roles: []string{"service:" + name}, Service: name, Action: action,
	}}
	if practice != "" {
		c.Practice, c.Patient = med.PracticeID(practice), "*"
	}
	return c
}

func importer(practice string) caller { return service("import", "import", practice) }

// signed is the context as the sidecar would have signed it.
func (c caller) signed(t testing.TB) string {
	t.Helper()
	if c.ttl < 0 {
		return c.signedWith(t, medtest.ContextKey, func() time.Time { return time.Now().Add(c.ttl - 5*time.Second) })
	}
	return c.signedWith(t, medtest.ContextKey, ahead)
}

// ahead is the clock of whoever signs, some seconds before all others': a context
// lives ten seconds, and on a busy machine what is done with one takes longer.
func ahead() time.Time { return time.Now().Add(20 * time.Second) }

func (c caller) signedWith(t testing.TB, key token.ContextKey, now func() time.Time) string {
	t.Helper()
	ttl := 10 * time.Second // the longest that the sidecar signs
	if c.Service != "" {
		ttl = 60 * time.Second
	}
	if c.ttl < 0 {
		ttl = 5 * time.Second
	}
	s, _, _, err := token.NewMinter(key, now).Mint(c.Context, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// session is a connection of one of our roles that keeps all that the server
// said: rows, messages and notices.
type session struct {
	conn *pgx.Conn
	said *strings.Builder
}

func (w *world) session(t testing.TB, role string) *session {
	t.Helper()
	cfg, err := pgx.ParseConfig(w.db.URL(role))
	if err != nil {
		t.Fatal(err)
	}
	return listening(t, cfg)
}

// listening connects, and keeps what the server says.
func listening(t testing.TB, cfg *pgx.ConnConfig) *session {
	t.Helper()
	said := &strings.Builder{}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { writeError(said, (*pgconn.PgError)(n)) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &session{conn, said}
}

func writeError(to *strings.Builder, e *pgconn.PgError) {
	fmt.Fprintln(to, e.Message, e.Detail, e.Hint, e.Where, e.InternalQuery, e.ConstraintName)
}

// enter puts the context into the session, for all its transactions.
func (s *session) enter(t testing.TB, signed string) {
	t.Helper()
	r := s.conn.PgConn().ExecParams(t.Context(), `select set_config('medirecord.ctx', $1, false)`, [][]byte{[]byte(signed)}, nil, nil, nil).Read()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
}

// anew makes the session what it was when it began: whatever was open, set or
// become is gone.
func (s *session) anew(t testing.TB) {
	t.Helper()
	if _, err := s.conn.PgConn().Exec(t.Context(), `discard all`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	s.said.Reset()
}

// run sends SQL as an attacker would, many statements if need be, and returns
// the rows of the last, as text, the number of rows it touched, and its error.
func (s *session) run(ctx context.Context, sql string) (rows [][]string, touched int64, err error) {
	results, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	for _, r := range results {
		rows, touched = nil, r.CommandTag.RowsAffected()
		for _, row := range r.Rows {
			cells := make([]string, len(row))
			for i, c := range row {
				cells[i] = string(c)
			}
			rows = append(rows, cells)
			fmt.Fprintln(s.said, strings.Join(cells, " "))
		}
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		writeError(s.said, pe)
	}
	return rows, touched, err
}

// told lists whose secrets the server has told to the session, in whatever
// spelling of bytes.
func (s *session) told() []string {
	var out []string
	for _, p := range everybody {
		if text := s.said.String(); strings.Contains(text, secret(p)) || strings.Contains(text, hex.EncodeToString([]byte(secret(p)))) {
			out = append(out, p)
		}
	}
	return out
}

// fingerprint is a digest of all rows and of all that guards them.
func (w *world) fingerprint(t testing.TB) string {
	t.Helper()
	var sum string
	medtest.Scan(t, w.super, []any{&sum}, `
select md5(string_agg(line, e'\n' order by line collate "C")) from (
  select 'practice' || p::text from medirecord.practice p
  union all select 'patient' || p::text from medirecord.patient p
  union all select 'record' || p::text from medirecord.record p
  union all select 'index' || p::text from medirecord.blind_index p
  union all select 'intake' || p::text from medirecord.intake p
  union all select 'link' || p::text from medirecord.patient_link p
  union all select 'grant' || p::text from medirecord.break_glass p
  union all select 'outbox' || p::text from medirecord.outbox p
  union all select 'disclosure' || p::text from medirecord.disclosure p
  union all select 'review' || p::text from medirecord.glass_review p
  union all select 'lookup' || p::text from medirecord.lookup p
  union all select 'idempotency' || p::text from medirecord.idempotency p
  union all select 'event' || p::text from audit.event p
  union all select 'step' || p::text from migration.step p
  union all select 'key' || p::text from ctx_private.key p
  union all select concat_ws(' ', 'class', n.nspname, c.relname, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.relnatts, c.relhastriggers)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_toast'
  union all select concat_ws(' ', 'column', attrelid, attname, attacl) from pg_attribute where attnum > 0 and attrelid >= 16384
  union all select concat_ws(' ', 'proc', oid, proname, proowner, prosecdef, proconfig, proacl, md5(concat(prosrc, prosqlbody))) from pg_proc where oid >= 16384 or pronamespace <> 'pg_catalog'::regnamespace
  union all select concat_ws(' ', 'policy', p.oid, polrelid, polname, polcmd, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from pg_policy p
  union all select concat_ws(' ', 'trigger', oid, tgrelid, tgname, tgenabled, tgfoid) from pg_trigger
  union all select concat_ws(' ', 'rule', oid, ev_class, rulename) from pg_rewrite where oid >= 16384
  union all select concat_ws(' ', 'namespace', nspname, nspowner, nspacl) from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
  union all select concat_ws(' ', 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls) from pg_roles where rolname ~ '^(medirecord|postgres)'
  union all select concat_ws(' ', 'member', roleid::regrole, member::regrole) from pg_auth_members where member::regrole::text ~ '^medirecord'
  union all select concat_ws(' ', 'setting', setdatabase, setrole, setconfig) from pg_db_role_setting
    where setdatabase = (select oid from pg_database where datname = current_database()) or setrole::regrole::text ~ '^medirecord'
  union all select concat_ws(' ', 'operator', oid) from pg_operator where oid >= 16384
  union all select concat_ws(' ', 'cast', oid) from pg_cast where oid >= 16384
  union all select concat_ws(' ', 'extension', extname) from pg_extension
) as lines (line)`)
	return sum
}
