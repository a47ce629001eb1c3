// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

const myLookup = "00000000-0000-7000-8000-0000000000dd"

// asking is the context of a lookup across practices, opening that of one whom
// it found.
func asking(c caller) caller {
	c.Action, c.Patient, c.Grant = "break_glass.lookup", "", myLookup
	c.GrantExpires = time.Now().Add(time.Minute).UnixMilli()
	return c
}

func opening(c caller, patient string) caller {
	c = asking(c)
	c.Patient, c.Strict = patient, true
	return c
}

const (
	smiths = `array['north', 'south'], array['smithNth', 'smithSth']::bytea[]`
	jones  = `array['north', 'south'], array['jonesNth', 'jonesSth']::bytea[]`
)

func ask(what string) string {
	return `select medirecord.ask_lookup(` + what + `, ` + anyUUID + `, 'other')`
}

func answerOf(what string) string {
	return `select patient_id, many from medirecord.answer_lookup(` + what + `, 'other') order by 1`
}

const candidate = `select practice_id, sealed from medirecord.read_candidate()`

// lookingAcross tries what contexts of lookups are not for, one statement each.
func lookingAcross(t *testing.T, w *world) {
	dr, er := ptr(asking(clinician("north", ""))), ptr(asking(person("break_glass", "", "")))
	found := ptr(opening(clinician("north", ""), "south-1"))
	late := *dr
	late.ttl = -1
	attacks := []attack{
		{name: "a question is put", with: dr, sql: rolledBack(ask(smiths)), want: only("done")},
		{name: "by the role break_glass without a practice", with: er, sql: rolledBack(ask(smiths)), want: only("done")},

		{name: "an answer to what nobody asked", with: dr, sql: answerOf(smiths), want: refused()},
		{name: "question and answer in one transaction", with: dr, sql: `begin; ` + ask(smiths) + `; ` + answerOf(smiths), want: refused()},
		{name: "and after a savepoint", with: dr, sql: `begin; savepoint s; ` + ask(smiths) + `; release s; ` + answerOf(smiths), want: refused()},
		{name: "and in one statement", with: dr, sql: `with q as materialized (` + ask(smiths) + `) select l.* from q, lateral medirecord.answer_lookup(` + smiths + `, 'other') l`, want: refused()},
		{name: "two names in one question", with: dr, sql: ask(`array['south', 'south'], array['smithSth', 'jonesSth']::bytea[]`), want: refused("23502")},
		{name: "no practice", with: dr, sql: ask(`'{}', '{}'`), want: refused("23502")},
		{name: "more practices than tags", with: dr, sql: ask(`array['south', 'north'], array['smithSth']::bytea[]`), want: refused("23502")},
		{name: "more tags than practices", with: dr, sql: ask(`array['south'], array['smithSth', 'jonesSth', 'jonesNth']::bytea[]`), want: refused("23502")},
		{name: "a candidate for who asks", with: dr, sql: candidate, want: refused()},
		{name: "a candidate whom nobody found", with: found, sql: candidate, want: nothing},
		{name: "a question for who opens", with: found, sql: ask(smiths), want: refused()},
		{name: "an answer for who opens", with: found, sql: answerOf(smiths), want: refused()},
		{name: "the worker asks", as: "worker", with: dr, sql: ask(smiths), want: refused()},
		{name: "the trail asks", as: "trail", with: dr, sql: ask(smiths), want: refused()},
		{name: "the worker opens", as: "worker", with: found, sql: candidate, want: refused()},
		{name: "a row is cut by oneself", with: found, sql: `select medirecord.cut_row('\x01', '{}')`, want: refused()},
		{name: "a sweeper forgets lookups", as: "worker", with: sweep, sql: `delete from medirecord.lookup`, want: nothing},
	}
	for name, c := range map[string]*caller{"asks": dr, "opens": found, "has no practice": er} {
		for what, a := range map[string]attack{
			"reads patients":                     {sql: `select sealed from medirecord.patient union all select sealed from medirecord.record`, want: nothing},
			"reads through the reading function": {sql: `select sealed from medirecord.read_patients(array[current_setting('medirecord.ctx')], null) where sealed is not null`, want: nothing},
			"reads a chart":                      {sql: `select sealed from medirecord.read_chart(current_setting('medirecord.ctx'), '', 'live') where sealed is not null`, want: harmless},
			"reads tags":                         {sql: `select tag from medirecord.blind_index`, want: nothing},
			"lists patients":                     {sql: `select id from medirecord.list_patients('', 100) as id`, want: refused()},
			"finds by number":                    {sql: `select id from medirecord.find_patients('ssn', '` + string(tagOf("south-1")) + `', 50) as id`, want: refused()},
			"reads grants":                       {sql: `select id from medirecord.break_glass`, want: nothing},
			"reads reviews":                      {sql: `select grant_id from medirecord.glass_review`, want: nothing},
			"reads lookups":                      {sql: `select id from medirecord.lookup`, want: refused()},
			"removes lookups":                    {sql: `delete from medirecord.lookup`, want: refused()},
			"writes a lookup":                    {sql: `insert into medirecord.lookup (id, actor, session, digest, event_id) values (` + anyUUID + `, 'x', 'y', sha256(''), ` + anyUUID + `)`, want: refused()},
			"reads pages":                        {sql: `select id from medirecord.outbox`, want: refused()},
			"reads the trail":                    {sql: `select detail from audit.event`, want: nothing},
			"changes a patient":                  {sql: `update medirecord.patient set sealed = '\x01'`, want: nothing},
			"opens a grant of its id":            {sql: openGrant("id = '" + myLookup + "'; subject = 'the-clinician'"), want: refused()},
		} {
			a.name, a.with = "who "+name+" "+what, c
			attacks = append(attacks, a)
		}
	}
	other := func(c caller, change func(*caller)) *caller { out := asking(c); change(&out); return &out }
	for name, with := range map[string]*caller{
		"a nurse": ptr(asking(nurse("north", ""))), "an officer": ptr(asking(officer("north", ""))), "an admin": ptr(asking(admin("north", "", true))),
		"a patient": ptr(asking(patient("north-1", ""))), "a reader": north1, "an import": bulk, "a sweeper": sweep,
		"a search":                           other(clinician("north", ""), func(c *caller) { c.Action, c.MaxRows = "patient.search", 200 }),
		"an opener of a grant":               other(clinician("north", ""), func(c *caller) { c.Action, c.Patient = "break_glass.open", "south-1" }),
		"a service":                          other(service("worker", "", "north"), func(*caller) {}),
		"a clinician whose lookup has no id": other(clinician("north", ""), func(c *caller) { c.Grant = "" }),
		"a clinician in no session":          other(clinician("north", ""), func(c *caller) { c.Session = "" }),
		"a clinician whose context is over":  &late,
		"nobody":                             nil,
	} {
		attacks = append(attacks, attack{name: name + " asks across", with: with, sql: ask(smiths), want: refused()},
			attack{name: name + " is answered", with: with, sql: answerOf(smiths), want: refused()},
			attack{name: name + " opens one found", with: with, sql: candidate, want: refused()})
	}
	all(t, w, attacks)
}

// packed is a row in the form of internal/envelope, with these fields sealed.
func packed(fields ...string) []byte {
	b := []byte{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}
	b = binary.BigEndian.AppendUint16(b, uint16(len(fields)/2))
	for i := 0; i < len(fields); i += 2 {
		sealed := strings.Repeat("n", 12) + fields[i+1] + strings.Repeat(string(rune('a'+i)), 16)
		b = append(append(b, byte(len(fields[i]))), fields[i]...)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, 1), uint32(len(sealed)))
		b = append(b, sealed...)
	}
	return append(b, strings.Repeat("M", 32)...)
}

func TestLookups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, p := range everybody {
		medtest.Exec(t, w.super, `update medirecord.patient set sealed = $2 where id = $1`, p, packed("dob", "1985", "name", "Sam", "phone", "", "ssn", secret(p)))
		name := map[bool]string{true: "smith", false: "jones"}[strings.HasSuffix(p, "-1") || strings.HasSuffix(p, "-gone")]
		medtest.Exec(t, w.super, `insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version) values ($1, 'family_dob', $2, $3, 1)`,
			practiceOf(p), []byte(name+map[string]string{"north": "Nth", "south": "Sth"}[practiceOf(p)]), p)
	}
	t.Run("are one question, asked and paged before it is answered, and once", func(t *testing.T) { oneQuestion(t, w) })
	t.Run("open whom they found, and of them name and birth date", func(t *testing.T) { candidates(t, w) })
	t.Run("tell of three and no more", func(t *testing.T) { ofThree(t, w) })
	t.Run("are twenty within an hour, whoever asks the sidecar", func(t *testing.T) { twenty(t, w) })
	t.Run("are forgotten when a day old", func(t *testing.T) { forgotten(t, w) })
}

func (w *world) noLookups(t *testing.T) {
	t.Helper()
	medtest.Exec(t, w.super, `delete from medirecord.lookup`)
}

// as runs SQL under a context and returns its rows, each as one text.
func (s *session) as(t *testing.T, c caller, sql string) ([]string, error) {
	t.Helper()
	s.enter(t, c.signed(t))
	rows, _, err := s.run(t.Context(), sql)
	var out []string
	for _, r := range rows {
		out = append(out, strings.Join(r, " "))
	}
	return out, err
}

func oneQuestion(t *testing.T, w *world) {
	w.noLookups(t)
	s := w.session(t, "app")
	dr := asking(clinician("north", ""))
	refuses := func(what string, c caller, sql string, codes ...string) {
		t.Helper()
		s.enter(t, c.signed(t))
		rows, n, err := s.run(t.Context(), sql)
		if problem := refused(codes...).differs(rows, n, err); problem != "" {
			t.Errorf("%s: %s", what, problem)
		}
	}
	if _, err := s.as(t, dr, ask(smiths)); err != nil {
		t.Fatal(err)
	}
	var pages int
	medtest.Scan(t, w.super, []any{&pages}, `select count(*) from medirecord.outbox where patient_id = '*' and practice_id = 'north' and event_id = `+anyUUID)
	if pages != 1 {
		t.Errorf("%d pages, want one with the question", pages)
	}
	refuses("asked twice", dr, ask(jones), "23505")
	refuses("answered what was not asked", dr, answerOf(jones))
	refuses("answered a part of it", dr, answerOf(`array['south'], array['smithSth']::bytea[]`))
	refuses("answered to another session", changed(dr, func(c *caller) { c.Session = "session-2" }), answerOf(smiths))
	refuses("answered to another person", changed(dr, func(c *caller) { c.Subject = "another" }), answerOf(smiths))
	refuses("answered to another lookup", changed(dr, func(c *caller) { c.Grant = somebodysGrant }), answerOf(smiths))
	got, err := s.as(t, dr, answerOf(smiths))
	if want := []string{"north-1 f", "south-1 f"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	medtest.Scan(t, w.super, []any{&pages}, `select count(*) from medirecord.outbox where (practice_id, patient_id) in (('north', 'north-1'), ('south', 'south-1')) and event_id = `+anyUUID)
	if pages != 2 {
		t.Errorf("%d pages to the practices of those found, want two", pages)
	}
	refuses("answered twice", dr, answerOf(smiths))
}

func candidates(t *testing.T, w *world) {
	w.noLookups(t)
	s, trail := w.session(t, "app"), w.session(t, "trail")
	dr := asking(clinician("north", ""))
	for _, sql := range []string{ask(smiths), answerOf(smiths)} {
		if _, err := s.as(t, dr, sql); err != nil {
			t.Fatal(err)
		}
	}
	// against opens the context's patient against a ticket with the changes.
	against := func(c caller, changes string) []string {
		t.Helper()
		signed := c.signed(t)
		s.enter(t, signed)
		rows, _, err := s.run(t.Context(), `select ctx.fact('nonce')`)
		if err != nil {
			t.Fatal(err)
		}
		nonce := rows[0][0]
		id, entry := ticketOf(nonce, c, changes)
		if _, _, err := trail.run(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
		s.present(t, signed, id)
		rows, _, err = s.run(t.Context(), candidate)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for _, r := range rows {
			out = append(out, r[0])
		}
		return out
	}
	good := opening(clinician("north", ""), "south-1")
	if got := against(good, ""); !slices.Equal(got, []string{"south"}) {
		t.Fatalf("got %q, want the one who was found", got)
	}
	if told := s.told(); len(told) != 0 {
		t.Errorf("more was told of %v than name and birth date", told)
	}
	if said := s.said.String(); !strings.Contains(said, fmt.Sprintf("%x", packed("dob", "1985", "name", "Sam")[15:])[:80]) {
		t.Error("name and birth date are not there")
	}
	for name, got := range map[string][]string{
		"somebody who was not found":             against(opening(clinician("north", ""), "south-2"), ""),
		"somebody deleted":                       against(opening(clinician("north", ""), "south-gone"), ""),
		"another session":                        against(changed(good, func(c *caller) { c.Session = "session-2" }), ""),
		"another person":                         against(changed(good, func(c *caller) { c.Subject = "another" }), ""),
		"another lookup":                         against(changed(good, func(c *caller) { c.Grant = somebodysGrant }), ""),
		"oneself":                                against(changed(good, func(c *caller) { c.Self = "south-1" }), ""),
		"an entry that hides the way":            against(good, "break_glass = false"),
		"an entry of another practice's patient": against(good, "patient_practice = 'north'"),
		"an entry of nobody's patient":           against(good, "patient_practice = null"),
		"an entry of another context":            against(good, "ctx_nonce = 'x'"),
		"an entry of another patient":            against(good, "patient_id = 'north-1'; resource_id = 'north-1'"),
		"an entry of a denial":                   against(good, "outcome = 'denied'"),
	} {
		if len(got) != 0 {
			t.Errorf("%s: got a row of %q", name, got)
		}
	}
	s.present(t, good.signed(t), "")
	if rows, _, err := s.run(t.Context(), candidate); err != nil || len(rows) != 0 {
		t.Errorf("without a ticket: got %q, %v", rows, err)
	}
	medtest.Exec(t, w.super, `update medirecord.lookup set asked_at = now() - interval '61 seconds'`)
	if got := against(good, ""); len(got) != 0 {
		t.Errorf("a minute later: got a row of %q", got)
	}

	// What an answer found counts when it is committed.
	w.noLookups(t)
	if _, err := s.as(t, dr, ask(smiths)); err != nil {
		t.Fatal(err)
	}
	signed := good.signed(t)
	s.enter(t, signed)
	rows, _, err := s.run(t.Context(), `select ctx.fact('nonce')`)
	if err != nil {
		t.Fatal(err)
	}
	id, entry := ticketOf(rows[0][0], good, "")
	if _, _, err := trail.run(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if _, err := s.as(t, dr, `begin; `+answerOf(smiths)); err != nil {
		t.Fatal(err)
	}
	s.present(t, signed, id)
	if rows, _, err = s.run(t.Context(), candidate); err != nil || len(rows) != 0 {
		t.Errorf("before the answer and its pages are committed: got %q, %v", rows, err)
	}
	if rows, _, err = s.run(t.Context(), `commit; `+candidate); err != nil || len(rows) != 1 {
		t.Errorf("after: got %q, %v", rows, err)
	}
}

// ticketOf is the entry that the trail writes before a candidate is read.
func ticketOf(nonce string, c caller, changes string) (id, sql string) {
	now := time.Now()
	id = med.NewUUID(now)
	practice := "null"
	if c.Practice != "" {
		practice = "'" + string(c.Practice) + "'"
	}
	return id, insertWith("audit.event",
		[]string{
			"event_id", "occurred_at", "actor_issuer", "actor_subject", "actor_practice", "patient_id", "patient_practice", "action", "resource_type", "resource_id",
			"outcome", "break_glass", "ctx_nonce", "detail", "nonce", "version",
		},
		map[string]string{
			"event_id": "'" + id + "'", "occurred_at": "'" + now.UTC().Format("2006-01-02T15:04:05.000Z") + "'", "actor_issuer": "'" + c.Issuer + "'", "actor_subject": "'" + c.Subject + "'", "actor_practice": practice,
			"patient_id": "'" + c.Patient + "'", "patient_practice": "'" + practiceOf(c.Patient) + "'", "action": "'read_ticket'", "resource_type": "'patient'",
			"resource_id": "'" + c.Patient + "'", "outcome": "'access_granted'", "break_glass": "true", "ctx_nonce": "'" + nonce + "'", "detail": "'{}'",
			"nonce": "decode(md5(random()::text), 'hex')", "version": "1",
		}, changes)
}

func ofThree(t *testing.T, w *world) {
	w.noLookups(t)
	s := w.session(t, "app")
	for i := range 2 {
		p := fmt.Sprintf("south-more-%d", i)
		w.add(t, p)
		medtest.Exec(t, w.super, `insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version) values ('south', 'family_dob', 'smithSth', $1, 1)`, p)
		dr := changed(asking(clinician("north", "")), func(c *caller) { c.Grant = med.NewUUID(time.Now()) })
		if _, err := s.as(t, dr, ask(smiths)); err != nil {
			t.Fatal(err)
		}
		got, err := s.as(t, dr, answerOf(smiths))
		want := [][]string{{"north-1 f", "south-1 f", "south-more-0 f"}, {" t"}}[i]
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of %d: got %q, %v, want %q", 3+i, got, err, want)
		}
	}
	var found []string
	medtest.Scan(t, w.super, []any{&found}, `select found from medirecord.lookup order by id desc limit 1`)
	if len(found) != 0 {
		t.Errorf("of too many, %v open", found)
	}
}

func twenty(t *testing.T, w *world) {
	w.noLookups(t)
	s := w.session(t, "app")
	next := func() error {
		_, err := s.as(t, changed(asking(clinician("north", "")), func(c *caller) { c.Grant, c.Session = med.NewUUID(time.Now()), med.NewUUID(time.Now()) }), ask(smiths))
		return err
	}
	// Asked at once they do not see each other; answered they do.
	last := w.session(t, "app")
	held := changed(asking(clinician("north", "")), func(c *caller) { c.Grant = med.NewUUID(time.Now()) })
	if _, err := last.as(t, held, `begin; `+ask(smiths)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := last.as(t, held, `commit; `+answerOf(smiths)); err == nil || !strings.Contains(err.Error(), "53400") {
			t.Errorf("one held back: %v", err)
		}
	}()
	for i := range 20 {
		if err := next(); err != nil {
			t.Fatalf("lookup %d: %v", i+1, err)
		}
	}
	if err := next(); err == nil || !strings.Contains(err.Error(), "53400") {
		t.Errorf("one more: %v", err)
	}
	if _, err := s.as(t, changed(asking(clinician("north", "")), func(c *caller) { c.Grant, c.Subject = med.NewUUID(time.Now()), "another" }), ask(smiths)); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	medtest.Exec(t, w.super, `update medirecord.lookup set asked_at = asked_at - interval '1 hour' where id = (select min(id::text)::uuid from medirecord.lookup)`)
	if err := next(); err != nil {
		t.Errorf("when one was an hour ago: %v", err)
	}
}

func forgotten(t *testing.T, w *world) {
	w.noLookups(t)
	s, worker := w.session(t, "app"), w.session(t, "worker")
	for range 2 {
		if _, err := s.as(t, changed(asking(clinician("north", "")), func(c *caller) { c.Grant = med.NewUUID(time.Now()) }), ask(smiths)); err != nil {
			t.Fatal(err)
		}
	}
	medtest.Exec(t, w.super, `update medirecord.lookup set asked_at = now() - interval '25 hours' where id = (select min(id::text)::uuid from medirecord.lookup)`)
	list := service("worker", "practice.list", "")
	if _, err := worker.as(t, list, `delete from medirecord.lookup`); err != nil {
		t.Fatal(err)
	}
	var left int
	medtest.Scan(t, w.super, []any{&left}, `select count(*) from medirecord.lookup`)
	if left != 1 {
		t.Errorf("%d lookups are left, want the one of today", left)
	}
}

// What is cut is what the envelope reads: see TestACutRowOpensWhatItKeeps in
// internal/chart. Whatever is wrong with a row ends in an error.
func TestRowsThatAreNoneAreNotCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := packed("dob", "1985", "name", "Sam", "ssn", "secret")
	for i := range len(good) - 32 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		var cut []byte
		err := w.super.QueryRow(t.Context(), `select medirecord.cut_row($1, array['name', 'dob'])`, bad).Scan(&cut)
		if err == nil && bytes.Contains(cut, []byte("secret")) {
			t.Errorf("byte %d changed: a field that is not to be kept is there", i)
		}
	}
}
