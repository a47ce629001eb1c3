// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// attack is what somebody with one of our roles' passwords tries. Whatever it
// is, no secret is told but those that the context shows, and nothing in the
// database is changed by it.
type attack struct {
	name string
	as   string  // the role; "app" when empty
	with *caller // whose context; none when nil
	sql  string
	want want
}

// want is how an attack ends: with an error, or with these rows (their first
// column) and no other.
type want struct {
	codes []string
	rows  []string
	any   bool // it may succeed: what counts is that nothing is told or changed
}

func refused(codes ...string) want {
	if len(codes) == 0 {
		codes = []string{"42501"}
	}
	return want{codes: codes}
}

func only(rows ...string) want { return want{rows: rows} }

var (
	nothing  = want{}
	harmless = want{any: true}
)

// shows lists whose rows a context is there to show.
func (c *caller) shows() []string {
	var out []string
	for _, p := range everybody {
		gone := strings.Contains(p, "gone")
		switch {
		case c == nil || c.ttl < 0:
		case c.Service == "import" && c.Action == "import":
			if practiceOf(p) == string(c.Practice) && !gone {
				out = append(out, p)
			}
		case c.Action == "audit.read":
			// What is in the trail's detail.
			self := c.Patient != "" && (c.Self == c.Patient || c.Subject == "linked" && c.Patient == "south-1")
			about := c.Patient == "" || c.Patient == p
			if about && (self || practiceOf(p) == string(c.Practice)) {
				out = append(out, p)
			}
		case changesOf[c.Action] && c.Patient == p:
			// A change reads what it changes.
			if practiceOf(p) == string(c.Practice) && (!gone || c.Action == "patient.restore") {
				out = append(out, p)
			}
		case (c.Action == "patient.read" || c.Action == "record.read") && c.Patient == p:
			mine := slices.ContainsFunc(c.Roles, func(r string) bool { return r == "nurse" || r == "clinician" || r == "admin" }) && practiceOf(p) == string(c.Practice)
			if mine && (!gone || c.Admin) || !gone && (c.Self == p || c.Subject == "linked" && p == "south-1") {
				out = append(out, p)
			}
		}
	}
	return out
}

// changesOf are the actions that change a patient, or something of theirs.
var changesOf = map[string]bool{
	"patient.update": true, "patient.delete": true, "patient.restore": true, "record.create": true, "record.update": true, "record.delete": true,
}

func (a *attack) run(t *testing.T, w *world, s *session, state string) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if a.with != nil {
		s.enter(t, a.with.signed(t))
	}
	rows, touched, err := s.run(ctx, a.sql)
	defer s.anew(t)
	if _, rolled := s.conn.PgConn().Exec(ctx, "rollback").ReadAll(); rolled != nil {
		t.Fatal(rolled)
	}
	if problem := a.want.differs(rows, touched, err); problem != "" {
		t.Error(problem)
	}
	for _, p := range s.told() {
		if !slices.Contains(a.with.shows(), p) {
			t.Errorf("the server told the secret of %s", p)
		}
	}
	if w.fingerprint(t) != state {
		t.Fatal("the database was changed")
	}
}

func (want want) differs(rows [][]string, touched int64, err error) string {
	var pe *pgconn.PgError
	isServer := errors.As(err, &pe)
	first := make([]string, 0, len(rows))
	for _, r := range rows {
		first = append(first, r[0])
	}
	switch {
	case err != nil && !isServer:
		return fmt.Sprintf("got the error %v, want an answer of the server", err)
	case want.any:
		return ""
	case err != nil && slices.Contains(want.codes, pe.Code):
		return ""
	case err != nil:
		return fmt.Sprintf("got the error %v, want %s", err, want)
	case len(want.codes) > 0:
		return fmt.Sprintf("got no error, want %s", want)
	case !slices.Equal(first, want.rows) && len(first)+len(want.rows) > 0:
		return fmt.Sprintf("got rows %q, want %s", first, want)
	case len(want.rows) == 0 && touched > 0:
		return fmt.Sprintf("got %d rows touched, want %s", touched, want)
	}
	return ""
}

func (want want) String() string {
	switch {
	case len(want.codes) > 0:
		return "SQLSTATE " + strings.Join(want.codes, " or ")
	case len(want.rows) > 0:
		return fmt.Sprintf("only %q", want.rows)
	}
	return "nothing"
}

func ptr(c caller) *caller { return &c }

// TestAttacks runs every list of attacks against one database, which none of
// them may change: at once, because so they come.
func TestAttacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("slips of a superuser", func(t *testing.T) { slipsOfASuperuser(t, w) }) // alone: it locks everything for a moment
	for _, list := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"without a context", withoutAContext},
		{"forged contexts", forgedContexts},
		{"reading what the context does not show", readingElsewhere},
		{"reading the key", readingTheKey},
		{"becoming somebody else", becomingSomebodyElse},
		{"changing what guards", changingWhatGuards},
		{"writing", writing},
		{"changing as a person", changing},
		{"looking for patients", searching},
		{"looking across practices", lookingAcross},
		{"records, their versions and manifests", recordsAndManifests},
		{"writing the trail", writingTheTrail},
		{"forging a grant", forgingAGrant},
		{"disclosures", disclosures},
		{"copying", copying},
		{"reading all data", readingAllData},
		{"learning whose patient it is", learningWhosePatient},
		{"learning from errors", learningFromErrors},
		{"finding a context left behind", contextLeftBehind},
		{"ids that nobody has", idsThatNobodyHas},
		{"what the schema gives away", schemaGivesAway},
		{"partitions are pruned all the same", partitionsArePruned},
	} {
		t.Run(list.name, func(t *testing.T) {
			t.Parallel()
			list.run(t, &world{db: w.db, super: w.db.Super(t)}) // a connection of its own
		})
	}
}

// all runs attacks one after the other, because each is held against the state
// before it.
func all(t *testing.T, w *world, attacks []attack) {
	t.Helper()
	state := w.fingerprint(t)
	names, sessions := map[string]bool{}, map[string]*session{}
	for _, a := range attacks {
		if names[a.name] {
			t.Errorf("two attacks are named %q", a.name)
		}
		names[a.name] = true
		role := cmp.Or(a.as, "app")
		if sessions[role] == nil {
			sessions[role] = w.session(t, role)
		}
		t.Run(a.name, func(t *testing.T) { a.run(t, w, sessions[role], state) })
	}
}

// tables are all that hold something of a patient, and the practices.
var tables = []string{
	"medirecord.patient", "medirecord.record", "medirecord.blind_index", "medirecord.intake", "medirecord.patient_link",
	"medirecord.break_glass", "medirecord.glass_review", "medirecord.lookup", "medirecord.outbox", "medirecord.disclosure", "medirecord.treatment", "medirecord.trusted_source", "medirecord.staff", "medirecord.idempotency", "medirecord.practice", "audit.event",
}

func withoutAContext(t *testing.T, w *world) {
	var attacks []attack
	for _, role := range []string{"app", "worker", "trail", "keys", "retention", "migrator"} {
		for _, table := range tables {
			attacks = append(attacks, attack{name: role + " reads " + table, as: role, sql: "select count(*) from " + table, want: refused()})
		}
		gated := refused()
		if role == "app" {
			gated = nothing // it may call the function, which leaves out what is no context
		}
		attacks = append(attacks,
			attack{name: role + " asks whose patient it is", as: role, sql: `select medirecord.practice_of('south-1')`, want: refused()},
			attack{name: role + " reads through the reading function", as: role, sql: `select * from medirecord.read_patients(array[''])`, want: gated},
			attack{name: role + " reads through the reading function with null", as: role, sql: `select * from medirecord.read_patients(null)`, want: gated},
			attack{name: role + " asks for its scope", as: role, sql: `select ctx.scope('select')`, want: refused()},
			attack{name: role + " asks for a fact", as: role, sql: `select ctx.fact('practice')`, want: refused()},
			attack{name: role + " asks for the trail's scope", as: role, sql: `select ctx.trail_scope()`, want: refused()},
			attack{name: role + " asks whom they treat", as: role, sql: `select ctx.treating()`, want: refused()},
			attack{name: role + " asks for the scope of disclosures", as: role, sql: `select ctx.disclosure_scope('select')`, want: refused()},
		)
	}
	all(t, w, attacks)
}

// insertWith is an insert of the columns with their values, some of them
// replaced: `column = expression; ...`. A column that is not among them is added.
func insertWith(table string, columns []string, values map[string]string, changes string) string {
	columns = slices.Clone(columns)
	for change := range strings.SplitSeq(changes, ";") {
		if name, value, ok := strings.Cut(strings.TrimSpace(change), " = "); ok {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
			values[name] = value
		}
	}
	exprs := make([]string, len(columns))
	for i, c := range columns {
		exprs[i] = values[c]
	}
	return fmt.Sprintf("insert into %s (%s) values (%s)", table, strings.Join(columns, ", "), strings.Join(exprs, ", "))
}
