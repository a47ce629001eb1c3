// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
)

// strictly is the context of a read that needs a ticket.
func strictly(c caller) caller { return changed(c, func(c *caller) { c.Strict = true }) }

// held is a signed context in somebody's hands, and what it says.
type held struct {
	signed string
	token.Context
}

func (c caller) held(t testing.TB) held {
	t.Helper()
	signed := c.signed(t)
	said, err := token.Verify([]token.ContextKey{medtest.ContextKey}, signed, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return held{signed, said}
}

// ticket is the insert of the entry that opens a strict context, with some of
// its columns changed, and its id.
func (h held) ticket(changes string) (id, sql string) { return h.ticketAt(time.Now(), changes) }

// ticketAt is one of another time. An id has the time of its entry.
func (h held) ticketAt(at time.Time, changes string) (id, sql string) {
	id = med.NewUUID(at)
	text := func(s string) string {
		if s == "" {
			return "null"
		}
		return "'" + s + "'"
	}
	practice := text(string(h.Practice))
	of := "null"
	if h.Grant != "" {
		of = text(practiceOf(h.Patient))
	}
	return id, insertWith("audit.event",
		[]string{
			"event_id", "occurred_at", "parent_id", "actor_issuer", "actor_subject", "actor_practice", "patient_id", "patient_practice",
			"action", "resource_type", "resource_id", "outcome", "break_glass", "ctx_nonce", "detail", "nonce", "version",
		},
		map[string]string{
			"event_id": text(id), "occurred_at": text(at.UTC().Format("2006-01-02T15:04:05.000Z")), "parent_id": anyUUID, "actor_issuer": text(h.Issuer), "actor_subject": text(h.Subject),
			"actor_practice": practice, "patient_id": text(h.Patient), "patient_practice": of, "action": "'read_ticket'", "resource_type": "'patient'",
			"resource_id": text(h.Patient), "outcome": "'access_granted'", "break_glass": fmt.Sprint(h.Grant != ""), "ctx_nonce": text(h.Nonce),
			"detail": "'{}'", "nonce": `sha256('x')`, "version": "1",
		}, "nonce = decode(md5(random()::text), 'hex'); "+changes)
}

// changedTicket is ticket, or for `occurred -29s` one of then.
func (h held) changedTicket(t *testing.T, changes string) (id, sql string) {
	t.Helper()
	since, ok := strings.CutPrefix(changes, "occurred ")
	if !ok {
		return h.ticket(changes)
	}
	d, err := time.ParseDuration(since)
	if err != nil {
		t.Fatal(err)
	}
	return h.ticketAt(time.Now().Add(d), "")
}

// present shows context and ticket to the database, for all the session does.
func (s *session) present(t testing.TB, signed, ticket string) {
	t.Helper()
	s.enter(t, signed)
	r := s.conn.PgConn().ExecParams(t.Context(), `select set_config('medirecord.ticket', $1, false)`, [][]byte{[]byte(ticket)}, nil, nil, nil).Read()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
}

// throughEveryDoor asks for a patient's rows by each way that leads to them.
const throughEveryDoor = `
select 'patient ' || id from medirecord.patient
union all select 'record ' || patient_id from medirecord.record
union all select 'function ' || patient from medirecord.read_patients(array[current_setting('medirecord.ctx')], array[current_setting('medirecord.ticket')]) where sealed is not null
union all select 'yesterday ' || patient from medirecord.read_patients(array[current_setting('medirecord.ctx')]) where sealed is not null
order by 1`

func (s *session) opens(t testing.TB, signed, ticket string) string {
	t.Helper()
	s.present(t, signed, ticket)
	rows, _, err := s.run(t.Context(), throughEveryDoor)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r[0]
	}
	return strings.Join(out, ", ")
}

func opened(patient string) string {
	return "function " + patient + ", patient " + patient + ", record " + patient
}

func TestStrictReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grant(t, grant{id: myGrant, patient: "south-1"})
	t.Run("are given against a ticket about them, and no other", func(t *testing.T) { againstATicket(t, w) })
	t.Run("are not given against a ticket that can be taken back", func(t *testing.T) { ticketsTakenBack(t, w) })
	t.Run("stay strict", func(t *testing.T) { stayStrict(t, w) })
	t.Run("are of what was disclosed too", func(t *testing.T) { strictAccountings(t, w) })
	t.Run("share a statement with others", func(t *testing.T) { strictReadsShare(t, w) })
	t.Run("look at no partition but this month's", func(t *testing.T) { ticketsArePruned(t, w) })
	t.Run("leave an entry whatever a taken-over API does", func(t *testing.T) { takenOver(t, w) })
}

func againstATicket(t *testing.T, w *world) {
	app, writer := w.session(t, "app"), w.session(t, "trail")
	north, glass := strictly(clinician("north", "north-1")), strictly(emergency("south-1"))
	self, linked := strictly(patient("south-1", "south-1")), strictly(known("linked", "south-1"))
	for _, c := range []struct {
		name    string
		with    caller
		changes string // of the ticket
		want    string
	}{
		{"a clinician", north, "", opened("north-1")},
		{"a nurse", strictly(nurse("north", "north-1")), "", opened("north-1")},
		{"a clinician, whose ticket says the practice too", north, "patient_practice = 'north'", opened("north-1")},
		{"an admin, of a deleted patient", strictly(admin("north", "north-gone", true)), "", opened("north-gone")},
		{"a patient", self, "", opened("south-1")},
		{"a patient, whose ticket says the practice too", self, "patient_practice = 'south'", opened("south-1")},
		{"a patient by a link", linked, "", opened("south-1")},
		{"broken glass", glass, "", opened("south-1")},
		{"29 seconds old", north, "occurred -29s", opened("north-1")},

		{"a clinician of another practice", strictly(clinician("north", "south-1")), "", ""},
		{"another patient", strictly(patient("north-1", "south-1")), "", ""},
		{"an officer", strictly(officer("north", "north-1")), "", ""},
		{"broken glass without its grant", strictly(changed(emergency("south-1"), func(c *caller) { c.Session = "session-2" })), "", ""},

		{"of another patient", north, "patient_id = 'north-2'; resource_id = 'north-2'", ""},
		{"of another patient, in the patient's place", north, "patient_id = 'north-2'", ""},
		{"about another thing", north, "resource_id = 'north-2'", ""},
		{"about another kind of thing", north, "resource_type = 'practice'", ""},
		{"of no patient", north, "patient_id = null", ""},
		{"of another person", north, "actor_subject = 'somebody'", ""},
		{"of another issuer", north, "actor_issuer = 'https://evil.invalid'", ""},
		{"of nobody's practice", north, "actor_practice = null", ""},
		{"of a person of another practice", north, "actor_practice = 'south'", ""},
		{"of another context", north, "ctx_nonce = 'AAAAAAAAAAAAAAAAAAAAAA'", ""},
		{"of no context", north, "ctx_nonce = null", ""},
		{"shown to the officers of another practice", north, "patient_practice = 'south'", ""},
		{"of a patient, shown to the officers of another practice", self, "patient_practice = 'north'", ""},
		{"older than 30 seconds", north, "occurred -31s", ""},
		{"of later", north, "occurred +32s", ""},
		{"another action", north, "action = 'read'", ""},
		{"a denial", north, "outcome = 'denied'", ""},
		{"a failure", north, "outcome = 'failure'", ""},
		{"a success", north, "outcome = 'success'", ""},
		{"that cries break-glass", north, "break_glass = true", ""},
		{"that says nothing of broken glass", glass, "break_glass = false", ""},
		{"of broken glass that no officer of the patient's would find", glass, "patient_practice = null", ""},
		{"of broken glass that other officers would find", glass, "patient_practice = 'north'", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.with.held(t)
			if got := app.opens(t, h.signed, ""); got != "" {
				t.Errorf("without a ticket: got %q", got)
			}
			id, sql := h.changedTicket(t, c.changes)
			if _, _, err := writer.run(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			if got := app.opens(t, h.signed, id); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := app.opens(t, c.with.signed(t), id); got != "" {
				t.Errorf("the same ticket with a fresh context: got %q", got)
			}
			if got := app.opens(t, h.signed, med.NewUUID(time.Now())); got != "" {
				t.Errorf("a made-up ticket: got %q", got)
			}
		})
	}
	t.Run("recorded longer ago than it says", func(t *testing.T) {
		h := north.held(t)
		id, sql := h.ticket("recorded_at = clock_timestamp() - interval '31 seconds'")
		medtest.Exec(t, w.super, sql)
		if got := app.opens(t, h.signed, id); got != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("written by the API's own role", func(t *testing.T) {
		h := north.held(t)
		id, sql := h.ticket("")
		app.enter(t, h.signed)
		if _, _, err := app.run(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if got := app.opens(t, h.signed, id); got != opened("north-1") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("what is no id is an error", func(t *testing.T) {
		app.present(t, north.signed(t), "x")
		rows, n, err := app.run(t.Context(), `select id from medirecord.patient`)
		if problem := refused("22P02").differs(rows, n, err); problem != "" {
			t.Error(problem)
		}
	})
}

// An entry of this transaction, or of one that has not committed, is no ticket.
func ticketsTakenBack(t *testing.T, w *world) {
	read := `select id from medirecord.patient`
	north, glass := strictly(clinician("north", "north-1")), strictly(emergency("south-1"))
	now := time.Now()
	myTicket, write := held{Context: north.Context}.ticketAt(now, "ctx_nonce = (select ctx.fact('nonce'))")
	_, broken := held{Context: glass.Context}.ticketAt(now, "event_id = '"+myTicket+"'; ctx_nonce = (select ctx.fact('nonce'))")
	present := `set medirecord.ticket = '` + myTicket + `'; `
	function := `select patient from medirecord.read_patients(array[current_setting('medirecord.ctx')], array['` + myTicket + `']) where sealed is not null`
	all(t, w, []attack{
		{name: "the entry may be written", with: &north, sql: rolledBack(write), want: only("done")},
		{name: "in the same transaction", with: &north, sql: present + `begin; ` + write + `; ` + read, want: nothing},
		{name: "in the same transaction, through the function", with: &north, sql: `begin; ` + write + `; ` + function, want: nothing},
		{name: "in the same transaction, under broken glass", with: &glass, sql: present + `begin; ` + broken + `; ` + read, want: nothing},
		{name: "in a savepoint", with: &north, sql: present + `begin; savepoint s; ` + write + `; ` + read, want: nothing},
		{name: "in a savepoint that is released", with: &north, sql: present + `begin; savepoint s; ` + write + `; release savepoint s; ` + read, want: nothing},
		{name: "in a savepoint that is released, through the function", with: &north, sql: `begin; savepoint s; ` + write + `; release savepoint s; ` + function, want: nothing},
		{name: "in a savepoint that is taken back", with: &north, sql: present + `begin; savepoint s; ` + write + `; rollback to savepoint s; ` + read, want: nothing},
		{name: "in the same statement", with: &north, sql: present + `begin; with g as (` + write + `) select p.id from medirecord.patient p`, want: nothing},
		{name: "in a block with a handler", with: &north, sql: present + `begin; do $$ declare n int; begin begin ` + write + `; exception when others then null; end;
			select count(*) into n from medirecord.patient; if n > 0 then raise 'seen'; end if; end $$; ` + read, want: nothing},
		{name: "in a serializable transaction", with: &north, sql: present + `begin isolation level serializable; ` + write + `; ` + read, want: nothing},
		{name: "by a cursor", with: &north, sql: present + `begin; ` + write + `; declare c cursor for select sealed from medirecord.patient; fetch all from c`, want: nothing},
		{name: "by a cursor that outlives the transaction", with: &north, sql: present + `begin; ` + write + `; declare c cursor with hold for select sealed from medirecord.patient; rollback`, want: harmless},
		{name: "taken back after it was seen", with: &north, sql: present + `begin; ` + write + `; select sealed from medirecord.patient; rollback; ` + read, want: nothing},
		{name: "prepared and never committed", with: &north, sql: present + `begin; ` + write + `; prepare transaction 'x'`, want: refused("55000")},
		{name: "by parallel workers", with: &north, sql: present + `set force_parallel_mode = on; begin; ` + write + `; ` + function, want: nothing},
	})
	t.Run("in a transaction of another session that has not committed", func(t *testing.T) {
		app, writer, h := w.session(t, "app"), w.session(t, "trail"), north.held(t)
		id, sql := h.ticket("")
		for _, step := range []struct{ do, want string }{
			{"begin; " + sql, ""}, {"rollback", ""}, {"begin; savepoint s; " + sql + "; release savepoint s", ""}, {"commit", opened("north-1")},
		} {
			if _, _, err := writer.run(t.Context(), step.do); err != nil {
				t.Fatal(err)
			}
			if got := app.opens(t, h.signed, id); got != step.want {
				t.Errorf("after %.20s: got %q, want %q", step.do, got, step.want)
			}
		}
	})
	t.Run("by a snapshot from before it", func(t *testing.T) {
		app, writer, h := w.session(t, "app"), w.session(t, "trail"), north.held(t)
		id, sql := h.ticket("")
		if _, _, err := app.run(t.Context(), `begin isolation level repeatable read; select 1`); err != nil {
			t.Fatal(err)
		}
		if _, _, err := writer.run(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if got := app.opens(t, h.signed, id); got != "" {
			t.Errorf("got %q", got)
		}
	})
}

const myTicket = "00000000-0000-7000-8000-0000000000dd"

// Who holds the API's passwords does not make a strict context another.
func stayStrict(t *testing.T, w *world) {
	h := strictly(clinician("north", "north-1")).held(t)
	part := strings.Split(h.signed, ".")
	payload, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil || !strings.Contains(string(payload), `"strict":true,`) {
		t.Fatalf("the payload does not say strict: %v", err)
	}
	again := func(payload string) string {
		return strings.Join([]string{part[0], part[1], base64.RawURLEncoding.EncodeToString([]byte(payload)), part[3]}, ".")
	}
	var attacks []attack
	for name, signed := range map[string]string{
		"taken out":       again(strings.Replace(string(payload), `"strict":true,`, "", 1)),
		"made false":      again(strings.Replace(string(payload), `"strict":true`, `"strict":false`, 1)),
		"contradicted":    again(strings.Replace(string(payload), `{`, `{"strict":false,`, 1)),
		"in another case": again(strings.Replace(string(payload), `"strict"`, `"Strict"`, 1)),
	} {
		enter := `select set_config('medirecord.ctx', '` + signed + `', false); `
		attacks = append(attacks,
			attack{name: name, sql: enter + `select id from medirecord.patient`, want: refused()},
			attack{name: name + ", through the function", sql: `select * from medirecord.read_patients(array['` + signed + `'], array['` + myTicket + `'])`, want: nothing},
			attack{name: name + ", through yesterday's function", sql: `select * from medirecord.read_patients(array['` + signed + `'])`, want: nothing})
	}
	north, function := strictly(clinician("north", "north-1")), "medirecord.read_patients(array[current_setting('medirecord.ctx')]"
	attacks = append(attacks,
		attack{name: "yesterday's function", with: &north, sql: `select patient from ` + function + `) where sealed is not null`, want: nothing},
		attack{name: "no tickets", with: &north, sql: `select patient from ` + function + `, null) where sealed is not null`, want: nothing},
		attack{name: "an empty list of tickets", with: &north, sql: `select patient from ` + function + `, '{}') where sealed is not null`, want: nothing},
		attack{name: "a ticket that is null", with: &north, sql: `select patient from ` + function + `, array[null]) where sealed is not null`, want: nothing},
		attack{name: "looking tickets up", with: &north, sql: `select * from ctx_private.held(array['` + myTicket + `'])`, want: refused()},
		attack{name: "asking for doors", with: &north, sql: `select * from ctx.opened(array[current_setting('medirecord.ctx')], null)`, want: refused()},
		attack{name: "asking for doors as yesterday", with: &north, sql: `select * from ctx.opened(array[current_setting('medirecord.ctx')])`, want: refused()},
		attack{name: "reading the trail for a ticket", with: &north, sql: `select event_id from audit.event`, want: nothing},
		attack{name: "a table in the place of the trail", with: &north, sql: `create temp table event (event_id uuid)`, want: refused("42501")},
	)
	all(t, w, attacks)
	t.Run("a context that is not is as it was", func(t *testing.T) {
		app, c := w.session(t, "app"), clinician("north", "north-1")
		want := opened("north-1") + ", yesterday north-1"
		for _, ticket := range []string{"", myTicket} {
			if got := app.opens(t, c.signed(t), ticket); got != want {
				t.Errorf("with the ticket %q: got %q, want %q", ticket, got, want)
			}
		}
	})
}

// An accounting is read against a ticket as the record is.
func strictAccountings(t *testing.T, w *world) {
	app, writer := w.session(t, "app"), w.session(t, "trail")
	count := func(h held, ticket string) string {
		app.present(t, h.signed, ticket)
		rows, _, err := app.run(t.Context(), `select case when count(*) > 0 then 'shown' else '' end from medirecord.disclosure where patient_id = 'north-1'`)
		if err != nil {
			t.Fatal(err)
		}
		return rows[0][0]
	}
	reads := strictly(*acting("read", officer("north", "north-1")))
	if got := count(acting("read", officer("north", "north-1")).held(t), ""); got != "shown" {
		t.Error("a context that is not strict shows nothing")
	}
	for _, c := range []struct{ name, changes, want string }{
		{"its own", "", "shown"},
		{"that says the practice too", "patient_practice = 'north'", "shown"},
		{"of another patient", "patient_id = 'north-2'; resource_id = 'north-2'", ""},
		{"of another person", "actor_subject = 'somebody'", ""},
		{"of another context", "ctx_nonce = 'x'", ""},
		{"of another practice", "actor_practice = 'south'", ""},
		{"shown to others", "patient_practice = 'south'", ""},
		{"that cries break-glass", "break_glass = true", ""},
		{"that is old", "occurred -31s", ""},
	} {
		h := reads.held(t)
		id, sql := h.changedTicket(t, c.changes)
		if _, _, err := writer.run(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if got := count(h, id) + count(h, "") + count(reads.held(t), id); got != c.want {
			t.Errorf("a ticket %s: got %q, want %q", c.name, got, c.want)
		}
	}
	myTicket, write := held{Context: reads.Context}.ticket("ctx_nonce = (select ctx.fact('nonce'))")
	all(t, w, []attack{{
		name: "a ticket that can be taken back", with: &reads,
		sql: `set medirecord.ticket = '` + myTicket + `'; begin; ` + write + `; select patient_id from medirecord.disclosure`, want: nothing,
	}})
}

// Reads that travel together are each held against their own ticket.
func strictReadsShare(t *testing.T, w *world) {
	db := patiently(t, w)
	writer := w.session(t, "trail")
	take := func(h held) med.EventID {
		id, sql := h.ticket("")
		if _, _, err := writer.run(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		return med.EventID(id)
	}
	one, two := strictly(clinician("north", "north-1")).held(t), strictly(clinician("north", "north-2")).held(t)
	three, four := strictly(nurse("north", "north-1")).held(t), clinician("south", "south-1").held(t)
	ones, twos := take(one), take(two)
	var contexts, tickets []string
	var want []int64
	for i, c := range []struct {
		held
		ticket med.EventID
		shown  bool
	}{
		{one, ones, true}, {one, twos, false}, {two, ones, false}, {three, ones, false}, {three, "", false}, {four, "", true}, {two, twos, true}, {four, ones, true},
	} {
		contexts, tickets = append(contexts, c.signed), append(tickets, string(c.ticket))
		if c.shown {
			want = append(want, int64(i+1))
		}
		row, err := db.Patient(t.Context(), c.signed, c.ticket, med.PatientID(c.Patient))
		if shown := err == nil && string(row.Sealed) == secret(c.Patient); shown != c.shown || !shown && med.KindOf(err) != med.NotFound {
			t.Errorf("question %d alone: got %v, want shown %v", i+1, err, c.shown)
		}
	}
	rows, err := w.db.As(t, "app").Query(t.Context(), `select n from medirecord.read_patients($1::text[], $2::text[]) where sealed is not null order by n`, contexts, tickets)
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if rows.Err() != nil || !slices.Equal(got, want) {
		t.Errorf("together: got %v, %v, want %v", got, rows.Err(), want)
	}
	if _, err := db.Patient(t.Context(), one.signed, "x", "north-1"); err == nil || postgres.Refused(err) {
		t.Errorf("what is no id: got %v, want an error", err)
	}
}

// The look-up of a ticket costs no more with the years of the trail.
func ticketsArePruned(t *testing.T, w *world) {
	super := listening(t, w.super.Config())
	h := strictly(clinician("north", "north-1")).held(t)
	id, sql := h.ticket("")
	medtest.Exec(t, w.super, sql)
	super.present(t, h.signed, id)
	_, _, err := super.run(t.Context(), `load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
		set auto_explain.log_level = 'notice'; set auto_explain.log_analyze = on; set auto_explain.log_timing = off`)
	if err != nil {
		t.Skip("this PostgreSQL has no auto_explain: ", err)
	}
	for range 8 { // until plpgsql would have chosen a plan for all values
		super.said.Reset()
		if _, _, err := super.run(t.Context(), `select patient from medirecord.read_patients(array[current_setting('medirecord.ctx')], array[current_setting('medirecord.ticket')])`); err != nil {
			t.Fatal(err)
		}
	}
	plan := super.said.String()
	found := regexp.MustCompile(`(Index Only|Index|Bitmap Heap|Seq) Scan[^\n]* on event_\d{4}_\d{2}[^\n]*`).FindAllString(plan, -1)
	if len(found) < 1 || len(found) > 2 { // 2 at the turn of a month
		t.Errorf("got scans %q, want one:\n%s", found, plan)
	}
}

// takenOver plays an API that somebody else runs: it holds the passwords of
// both roles and the contexts of live callers, and does at random whatever
// could give it a row. Whatever it has seen, an entry that names caller,
// patient and context is in the trail for good.
func takenOver(t *testing.T, w *world) {
	dice := seed(t)
	app, other, writer := w.session(t, "app"), w.session(t, "app"), w.session(t, "trail")
	seen, games := 0, 300
	if testing.Short() {
		games = 60
	}
	for game := range games {
		contexts := []held{
			strictly(clinician("north", "north-1")).held(t), strictly(emergency("south-1")).held(t), strictly(patient("south-2", "south-2")).held(t),
		}
		var ids []string
		var played []string
		for range 24 {
			s := []*session{app, app, other, writer}[dice.IntN(4)]
			h := contexts[dice.IntN(len(contexts))]
			var sql string
			switch dice.IntN(12) {
			case 0, 1:
				sql = "begin"
			case 2:
				sql = "rollback"
			case 3:
				sql = "commit"
			case 4:
				sql = "savepoint s"
			case 5:
				sql = []string{"rollback to savepoint s", "release savepoint s"}[dice.IntN(2)]
			case 6, 7:
				id, insert := h.ticket("")
				ids = append(ids, id)
				sql = "select set_config('medirecord.ctx', '" + h.signed + "', false), set_config('medirecord.ticket', '" + id + "', false); " + insert
			case 8:
				sql = "select set_config('medirecord.ctx', '" + h.signed + "', false)"
			case 9:
				if len(ids) > 0 {
					sql = "set medirecord.ticket = '" + ids[dice.IntN(len(ids))] + "'"
				}
			case 10:
				sql = "select sealed from medirecord.patient"
			case 11:
				if len(ids) > 0 {
					sql = "select sealed from medirecord.read_patients(array['" + h.signed + "'], array['" + ids[dice.IntN(len(ids))] + "'])"
				}
			}
			if s == writer && strings.Contains(sql, "sealed") {
				continue
			}
			played = append(played, sql)
			_, _, _ = s.run(t.Context(), sql) // most of it fails, and so it should
		}
		told := slices.Concat(app.told(), other.told())
		for _, s := range []*session{app, other, writer} {
			_, _, _ = s.run(t.Context(), "rollback")
			s.anew(t)
		}
		for _, p := range told {
			seen++
			i := slices.IndexFunc(contexts, func(h held) bool { return h.Patient == p })
			if i < 0 {
				t.Fatalf("game %d: saw %s, whom no context is about", game, p)
			}
			h := contexts[i]
			var n int
			medtest.Scan(t, w.super, []any{&n}, `select count(*) from audit.event where patient_id = $1 and actor_issuer = $2 and actor_subject = $3 and ctx_nonce = $4`,
				p, h.Issuer, h.Subject, h.Nonce)
			if n == 0 {
				t.Fatalf("game %d: saw %s and left no entry:\n%s", game, p, strings.Join(played, ";\n"))
			}
		}
	}
	if seen == 0 {
		t.Errorf("in %d games nothing was ever seen: the play proves nothing", games)
	}
	t.Logf("%d rows seen in %d games", seen, games)
}

// A ticket is looked up by its id, whatever plan a session keeps: with one for all
// entries of the last half minute, strict reads took half a second each.
func TestATicketIsFoundAmongMany(t *testing.T) {
	t.Parallel()
	super := medtest.DB(t).Super(t)
	const many = 3000
	medtest.Exec(t, super, `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, patient_id, action, resource_type, resource_id, outcome, break_glass, detail, nonce, version)
select gen_random_uuid(), clock_timestamp(), 'i', 's', 'p', 'read_ticket', 'patient', 'p', 'access_granted', false, '{}', decode(repeat('00', 16), 'hex'), 1
  from generate_series(1, $1)`, many)
	medtest.Exec(t, super, `begin`) // the counts are of a transaction
	const times = 12                // a session has a plan to keep after five
	for range times {
		var found int
		medtest.Scan(t, super, []any{&found}, `
select count(*) from (select array_agg(event_id::text) as ids from (select event_id from audit.event limit 20) e) x, ctx_private.held(x.ids)`)
		if found != 20 {
			t.Fatalf("%d of 20 tickets were found", found)
		}
	}
	var read int
	medtest.Scan(t, super, []any{&read}, `
select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_all_tables where schemaname = 'audit_part'`)
	if read > times*many/2 {
		t.Errorf("%d rows were read to find 20 tickets %d times among %d", read, times, many)
	}
}
