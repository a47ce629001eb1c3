// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// breaking is a grant that is opened on south-1, its start entry and its call.
type breaking struct {
	grant, start, call string
	at                 time.Time
}

func newBreaking() breaking {
	now := time.Now().Truncate(time.Millisecond)
	return breaking{grant: myGrant, start: med.NewUUID(now), call: med.NewUUID(now), at: now}
}

// with is the context of the opening.
func (o breaking) with() caller {
	return changed(emergency("south-1"), func(c *caller) { c.Grant = o.grant })
}

// row is the grant's row, and entry the entry of its start, with the changes.
func (o breaking) row(changes string) string {
	return openGrant("id = '" + o.grant + "'; event_id = '" + o.start + "'; call_id = '" + o.call + "'; " + changes)
}

func (o breaking) entry(changes string) string {
	return entry("event_id = '" + o.start + "'; occurred_at = '" + o.at.UTC().Format("2006-01-02T15:04:05.000Z") + "'; parent_id = '" + o.call +
		"'; actor_subject = 'the-break_glass'; actor_practice = null; patient_id = 'south-1'; patient_practice = 'south'; resource_id = 'south-1'" +
		"; action = 'break_glass'; outcome = 'access_granted'; break_glass = true; ctx_nonce = ctx.fact('nonce'); " + changes)
}

// sql is a transaction that opens it.
func (o breaking) sql(row, entry string) string {
	return "begin; " + o.row(row) + "; " + o.entry(entry) + "; commit"
}

// pages lists what officers are told of the opening's call.
func (w *world) pages(t *testing.T, o breaking) []string {
	t.Helper()
	var out []string
	medtest.Scan(t, w.super, []any{&out}, `
select coalesce(array_agg(concat_ws(' ', topic, severity, practice_id, patient_id, reason_code, factor) order by severity), '{}')
  from medirecord.outbox where event_id = $1 and delivered_at is null`, o.call)
	return out
}

// A grant is told of, or it is none: whatever whoever has the API's password and
// the genuine context of an opening sends.
func TestWhoOpensAGrantIsToldOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("the page says what is so", func(t *testing.T) { paged(t, w) })
	t.Run("without it there is no grant", func(t *testing.T) { notWithoutPage(t, w) })
}

func paged(t *testing.T, w *world) {
	const p2 = "break_glass P2 south south-1 other"
	for name, c := range map[string]struct {
		sql    func(breaking) string
		change func(*caller)
		want   []string
	}{
		"at the commit":          {sql: func(o breaking) string { return o.sql("", "") }, want: []string{p2}},
		"with the entry first":   {sql: func(o breaking) string { return "begin; " + o.entry("") + "; " + o.row("") + "; commit" }, want: []string{p2}},
		"by its reason":          {sql: func(o breaking) string { return o.sql("reason_code = 'on_call_cover'", "") }, want: []string{"break_glass P2 south south-1 on_call_cover"}},
		"beyond what care needs": {sql: func(o breaking) string { return o.sql("", "") }, change: func(c *caller) { c.GrantMany, c.Factor = true, med.MFADone }, want: []string{"break_glass P1 south south-1 other done"}},
		"with a fresh factor":    {sql: func(o breaking) string { return o.sql("", "") }, change: func(c *caller) { c.Factor = med.MFAFresh }, want: []string{p2 + " fresh"}},
		"whatever else is told": {sql: func(o breaking) string {
			return "begin; " + o.row("") + "; " + o.tell("P4") + "; " + o.entry("") + "; commit"
		}, want: []string{p2, "break_glass P4 south south-1 other"}},
		"once, when it is asked early": {sql: func(o breaking) string {
			return "begin; set constraints all immediate; set constraints all deferred; " + o.row("") + "; " + o.entry("") + "; set constraints all immediate; commit"
		}, want: []string{p2}},
		"once, when a savepoint took it back": {sql: func(o breaking) string {
			return "begin; " + o.row("") + "; savepoint s; " + o.entry("") + "; set constraints all immediate; rollback to s; " + o.entry("") + "; commit"
		}, want: []string{p2}},
		"in a savepoint": {sql: func(o breaking) string {
			return "begin; savepoint s; " + o.row("") + "; savepoint q; " + o.entry("") + "; release q; release s; commit"
		}, want: []string{p2}},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := w.session(t, "app"), newBreaking()
			o.grant = med.NewUUID(o.at)
			with := o.with()
			if c.change != nil {
				c.change(&with)
			}
			if _, err := s.as(t, with, c.sql(o)); err != nil {
				t.Fatal(err)
			}
			if got := w.pages(t, o); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// tell is a page that the API writes.
func (o breaking) tell(severity string) string {
	return tell("severity = '" + severity + "'; practice_id = 'south'; patient_id = 'south-1'; event_id = '" + o.call + "'")
}

func notWithoutPage(t *testing.T, w *world) {
	trail, earlier := w.session(t, "trail"), newBreaking()
	earlier.start = med.NewUUID(earlier.at)
	if _, _, err := trail.run(t.Context(), strings.ReplaceAll(earlier.entry(""), "ctx.fact('nonce')", "'x'")); err != nil {
		t.Fatal(err)
	}
	o := newBreaking()
	row, start := o.row(""), o.entry("")
	with := o.with()
	const enter = "set local medirecord.ctx = "
	// Other contexts that they have, too, as long as those live.
	contexts := func() *strings.Replacer {
		return strings.NewReplacer(
			"AGAIN", enter+"'"+with.signed(t)+"'", "OTHER", enter+"'"+changed(with, func(c *caller) { c.Grant = med.NewUUID(time.Now()) }).signed(t)+"'",
			"PLAIN", enter+"'"+person("break_glass", "", "south-1").signed(t)+"'", "NONE", enter+"''")
	}
	attacks := []attack{
		{name: "the grant alone", sql: row},
		{name: "with a page and without its entry", sql: row + "; " + o.tell("P2")},
		{name: "when it is not to be asked", sql: "set constraints all deferred; " + row},
		{name: "asked before there is an entry", sql: row + "; set constraints all immediate; " + start},
		{name: "asked, and the entry taken back", sql: row + "; savepoint s; " + start + "; set constraints all immediate; rollback to s"},
		{name: "asked in a savepoint, and the entry taken back", sql: "savepoint r; " + row + "; savepoint s; " + start + "; set constraints all immediate; release s; rollback to r; " + row},
		{name: "asked for, by name, and taken back", sql: row + "; savepoint s; " + start + "; set constraints medirecord.page immediate; set constraints medirecord.page deferred; rollback to s"},
		{name: "in a block that takes the entry back", sql: row + "; do $$ begin " + start + "; set constraints all immediate; raise 'no'; exception when raise_exception then null; end $$"},
		{name: "with the entry of an earlier transaction", sql: o.row("event_id = '" + earlier.start + "'")},
		{name: "with an entry that the trail has from elsewhere", sql: o.row("event_id = '"+earlier.start+"'; call_id = '"+earlier.call+"'") + "; " + earlier.entry("") + " on conflict do nothing"},
		{name: "with the entry of another context", sql: start + "; AGAIN; " + row},
		{name: "then under another context", sql: row + "; " + start + "; AGAIN"},
		{name: "then under that of another grant", sql: row + "; " + start + "; OTHER"},
		{name: "then under one without a grant", sql: row + "; " + start + "; PLAIN"},
		{name: "then under none", sql: row + "; " + start + "; NONE"},
		{name: "under another, and entered under it", sql: row + "; OTHER; " + start},
		{name: "without a call", sql: o.row("call_id = null") + "; " + start},
		{name: "without a call in the entry", sql: o.row("call_id = null") + "; " + o.entry("parent_id = null")},
		{name: "under another transaction's number", sql: row + "; " + o.entry("tx = '3'::xid8")},
		{name: "the page is taken back", sql: row + "; " + start + "; set constraints all immediate; delete from medirecord.outbox"},
		{name: "the page is said to be delivered", sql: row + "; " + start + "; set constraints all immediate; update medirecord.outbox set delivered_at = now()"},
		{name: "the page is made quieter", sql: row + "; " + start + "; set constraints all immediate; update medirecord.outbox set severity = 'P4'"},
		{name: "the page is read", sql: row + "; " + start + "; set constraints all immediate; select id from medirecord.outbox"},
		{name: "the page is written over", sql: row + "; " + start + "; set constraints all immediate; " + o.tell("P4") + " on conflict (id) do update set severity = 'P4'"},
		{name: "the entry is changed", sql: row + "; " + start + "; set constraints all immediate; update audit.event set action = 'read'"},
		{name: "the grant is moved to another call", sql: row + "; " + start + "; set constraints all immediate; update medirecord.break_glass set call_id = " + anyUUID},
		{name: "the trigger is switched off", sql: "alter table medirecord.break_glass disable trigger page; " + row},
		{name: "no trigger is to be fired", sql: "set session_replication_role = replica; " + row},
		{name: "the trigger is dropped", sql: "drop trigger page on medirecord.break_glass; " + row},
		{name: "its function is called", sql: "select medirecord.page()"},
		{name: "what it asks is asked", sql: "select * from ctx.opening('" + o.grant + "', '" + o.start + "', '" + o.call + "', 'south-1', 'south')"},
		{name: "a page says what the factor was", sql: tell("practice_id = 'south'; patient_id = 'south-1'; factor = 'fresh'")},
	}
	for _, changes := range []string{
		"action = 'read'", "action = 'read_ticket'", "action = 'break_glass_lookup'", "outcome = 'success'", "outcome = 'denied'", "break_glass = false", "parent_id = " + anyUUID, "parent_id = null",
		"patient_practice = 'north'", "patient_practice = null", "patient_id = null", "resource_type = 'record'", "resource_id = 'south-2'", "ctx_nonce = null", "ctx_nonce = 'x'",
		"actor_subject = 'somebody'", "actor_practice = 'north'", "patient_id = 'south-2'; resource_id = 'south-2'",
		"event_id = " + idOfNow + " || substr(md5(random()::text), 13))::uuid; occurred_at = date_trunc('milliseconds', now())",
	} {
		attacks = append(attacks, attack{name: "with an entry of " + changes, sql: row + "; " + o.entry(changes)})
	}
	state := w.fingerprint(t)
	s := w.session(t, "app")
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			rows, err := s.as(t, with, contexts().Replace("begin; "+a.sql+"; commit"))
			if err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("got %q and the error %v, want it refused", rows, err)
			}
			if _, _, err := s.run(t.Context(), "rollback"); err != nil {
				t.Fatal(err)
			}
			if w.fingerprint(t) != state {
				t.Fatal("the database was changed")
			}
		})
	}
}
