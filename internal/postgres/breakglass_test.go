// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

const myGrant = "00000000-0000-7000-8000-0000000000bb"

// emergency is the context of the-break_glass for a patient of another
// practice, on the grant that the sidecar gave them.
func emergency(patient string) caller {
	c := person("break_glass", "", patient)
	c.Grant, c.GrantExpires = myGrant, time.Now().Add(time.Hour).UnixMilli()
	return c
}

func changed(c caller, change func(*caller)) caller { change(&c); return c }

func TestGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("are honoured only as they were given", func(t *testing.T) { honouredAsGiven(t, w) })
	t.Run("of one issuer and subject are not of another that reads the same", func(t *testing.T) { notRunTogether(t, w) })
	t.Run("open reading and nothing else", func(t *testing.T) { opensReadingOnly(t, w) })
}

func honouredAsGiven(t *testing.T, w *world) {
	t.Helper()
	sees := []string{"south-1", "record-of-south-1"}
	for _, c := range []struct {
		name string
		row  *grant // committed before
		with caller
		want []string
	}{
		{"the committed grant opens its patient", &grant{}, emergency("south-1"), sees},
		{"also for somebody who has a practice", &grant{}, changed(emergency("south-1"), func(c *caller) { c.Practice = "north"; c.Roles = []string{"nurse", "break_glass"} }), sees},
		{"no row", nil, emergency("south-1"), nil},
		{"ended", &grant{ended: "-1 second"}, emergency("south-1"), nil},
		{"to be ended later counts as ended", &grant{ended: "1 minute"}, emergency("south-1"), nil},
		{"expired", &grant{opened: "-1 hour", expires: "-1 second"}, emergency("south-1"), nil},
		{"of another person", &grant{subject: "somebody"}, emergency("south-1"), nil},
		{"of another issuer", &grant{issuer: "https://evil.invalid"}, emergency("south-1"), nil},
		{"of another session", &grant{session: "session-2"}, emergency("south-1"), nil},
		{"of another patient", &grant{patient: "south-2"}, emergency("south-1"), nil},
		{"for another patient than the context is for", &grant{}, emergency("south-2"), nil},
		{"another grant than the context names", &grant{id: "00000000-0000-7000-8000-0000000000cc"}, emergency("south-1"), nil},
		{"somebody else's grant named in one's own context", nil, changed(emergency("south-1"), func(c *caller) { c.Grant = somebodysGrant }), nil},
		{"a context without a session", &grant{}, changed(emergency("south-1"), func(c *caller) { c.Session = "" }), nil},
		{"a context that does not name it", &grant{}, changed(emergency("south-1"), func(c *caller) { c.Grant = "" }), nil},
		{"an action that is not reading a patient", &grant{}, changed(emergency("south-1"), func(c *caller) { c.Action = "patient.update" }), nil},
		{"a deleted patient", &grant{patient: "south-gone"}, emergency("south-gone"), nil},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: they use the same grant
			if c.row != nil {
				g := *c.row
				if g.id == "" {
					g.id = myGrant
				}
				if g.patient == "" {
					g.patient = "south-1"
				}
				w.grant(t, g)
				defer medtest.Exec(t, w.super, `delete from medirecord.break_glass where id = $1`, g.id)
			}
			if got := w.sees(t, c.with); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("a grant that is no UUID opens nothing", func(t *testing.T) {
		s := w.session(t, "app")
		s.enter(t, changed(emergency("south-1"), func(c *caller) { c.Grant = "x" }).signed(t))
		rows, n, err := s.run(t.Context(), `select id from medirecord.patient`)
		if problem := refused("22P02").differs(rows, n, err); problem != "" {
			t.Error(problem)
		}
	})
}

// sees lists the ids of all patients and records that a context shows.
func (w *world) sees(t *testing.T, c caller) []string {
	t.Helper()
	s := w.session(t, "app")
	s.enter(t, c.signed(t))
	rows, _, err := s.run(t.Context(), `select id from medirecord.patient union all select id from medirecord.record`)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, r[0])
	}
	return out
}

// openGrant is what the API writes down of the grant in its context.
func openGrant(changes string) string {
	return insertWith("medirecord.break_glass",
		[]string{"id", "issuer", "subject", "session", "patient_id", "practice_id", "reason_code", "reason", "signed", "event_id", "opened_at", "expires_at"},
		map[string]string{
			"id": "'" + myGrant + "'", "issuer": "'" + issuer + "'", "subject": "'the-break_glass'", "session": "'session-1'", "patient_id": "'south-1'",
			"practice_id": "'south'", "reason_code": "'other'", "reason": `'\x00'`, "signed": "'v1.test'", "event_id": anyUUID, "opened_at": "now()", "expires_at": "now() + interval '59 minutes'",
		}, changes)
}

func forgingAGrant(t *testing.T, w *world) {
	glass := ptr(emergency("south-1"))
	late := ptr(changed(emergency("south-1"), func(c *caller) { c.GrantExpires = time.Now().Add(5 * time.Hour).UnixMilli() }))
	read := `select id from medirecord.patient`
	all(t, w, []attack{
		{name: "the grant of the context is written down", with: glass, sql: rolledBack(openGrant("")), want: only("done")},

		{name: "another grant", with: glass, sql: openGrant("id = " + anyUUID), want: refused()},
		{name: "for another patient", with: glass, sql: openGrant("patient_id = 'south-2'"), want: refused()},
		{name: "for another person", with: glass, sql: openGrant("subject = 'somebody'"), want: refused()},
		{name: "for another issuer", with: glass, sql: openGrant("issuer = 'https://evil.invalid'"), want: refused()},
		{name: "for another session", with: glass, sql: openGrant("session = 'session-2'"), want: refused()},
		{name: "in a practice whose officers will not look", with: glass, sql: openGrant("practice_id = 'north'"), want: refused()},
		{name: "for longer than the sidecar said", with: glass, sql: openGrant("expires_at = now() + interval '61 minutes'"), want: refused()},
		{name: "for ever", with: late, sql: openGrant("expires_at = 'infinity'"), want: refused("42501", "23514")},
		{name: "for more than four hours", with: late, sql: openGrant("expires_at = now() + interval '4 hours 1 minute'"), want: refused("23514")},
		{name: "for later", with: glass, sql: openGrant("opened_at = now() + interval '10 minutes'"), want: refused()},
		{name: "opened by another transaction", with: glass, sql: openGrant("opened_tx = '3'::xid8"), want: refused()},
		{name: "and says whether it has ended", with: glass, sql: openGrant("ended_at = null"), want: refused()},
		{name: "for a deleted patient", with: ptr(emergency("south-gone")), sql: openGrant("patient_id = 'south-gone'"), want: refused()},
		{name: "for nobody", with: ptr(emergency("nobody")), sql: openGrant("patient_id = 'nobody'"), want: refused("42501", "23503")},
		{name: "without one in the context", with: ptr(person("break_glass", "", "south-1")), sql: openGrant(""), want: refused()},
		{name: "without an end in the context", with: ptr(changed(emergency("south-1"), func(c *caller) { c.GrantExpires = 0 })), sql: openGrant(""), want: refused()},
		{name: "with a clinician's context", with: ptr(clinician("north", "south-1")), sql: openGrant("subject = 'the-clinician'"), want: refused()},
		{name: "with an import's context", with: bulk, sql: openGrant(""), want: refused()},
		{name: "without a context", sql: openGrant(""), want: refused()},

		{name: "used in the same transaction", with: glass, sql: `begin; ` + openGrant("") + `; ` + read, want: nothing},
		{name: "used after a savepoint", with: glass, sql: `begin; savepoint s; ` + openGrant("") + `; release savepoint s; ` + read, want: nothing},
		{name: "used in the same statement", with: glass, sql: `begin; with g as (` + openGrant("") + ` returning id) select p.id from medirecord.patient p, g`, want: nothing},
		{name: "used in a block with a handler", with: glass, sql: `begin; do $$ declare n int; begin begin ` + openGrant("") + `; exception when others then null; end;
			select count(*) into n from medirecord.patient; if n > 0 then raise 'seen'; end if; end $$; ` + read, want: nothing},
		{name: "taken back after use", with: glass, sql: `begin; ` + openGrant("") + `; select sealed from medirecord.patient; rollback; ` + read, want: nothing},

		{name: "a grant is ended by the API", with: glass, sql: `update medirecord.break_glass set ended_at = now()`, want: nothing},
		{name: "a grant is opened again", with: glass, sql: `update medirecord.break_glass set ended_at = null`, want: nothing},
		{
			name: "a grant is opened again by a conflict", with: ptr(changed(emergency("south-1"), func(c *caller) { c.Grant = somebodysGrant })),
			sql: openGrant("id = '"+somebodysGrant+"'") + ` on conflict (id) do update set expires_at = excluded.expires_at`, want: refused(),
		},
		{name: "a grant is removed", with: glass, sql: `delete from medirecord.break_glass`, want: refused()},
		{name: "a grant is read", with: ptr(changed(emergency("south-1"), func(c *caller) { c.Grant = somebodysGrant })), sql: `select subject, reason, signed from medirecord.break_glass`, want: refused()},
		{name: "somebody else's grant is read", with: ptr(changed(emergency("south-1"), func(c *caller) { c.Grant = somebodysGrant })), sql: `select subject, reason from medirecord.break_glass`, want: nothing},
	})
}

func opensReadingOnly(t *testing.T, w *world) {
	s := w.session(t, "app")
	s.enter(t, emergency("south-1").signed(t))
	if _, _, err := s.run(t.Context(), newBreaking().sql("", "")); err != nil {
		t.Fatal(err)
	}
	if got, want := w.sees(t, emergency("south-1")), []string{"south-1", "record-of-south-1"}; !slices.Equal(got, want) {
		t.Fatalf("got %q after the grant was committed, want %q", got, want)
	}
	state := w.fingerprint(t)
	for _, a := range []struct {
		name, sql string
		want      want
	}{
		{"changing the patient", `update medirecord.patient set sealed = '\x01'`, nothing},
		{"changing a record", `update medirecord.record set sealed = '\x01'`, nothing},
		{"adding a record", newRecord("patient_id = 'south-1'; practice_id = 'south'"), refused()},
		{"finding by number", `select patient_id from medirecord.blind_index`, nothing},
		{"other patients of that practice", `select id from medirecord.patient where id <> 'south-1'`, nothing},
		{"the practice", `select id from medirecord.practice`, nothing},
		{"the trail", `select event_id from audit.event`, nothing},
		{"the same grant once more", openGrant(""), refused("23505")},
		{"the same grant once more, quietly", openGrant("") + ` on conflict (id) do nothing`, nothing},
	} {
		t.Run(a.name, func(t *testing.T) {
			s.enter(t, emergency("south-1").signed(t))
			rows, n, err := s.run(t.Context(), a.sql)
			if problem := a.want.differs(rows, n, err); problem != "" {
				t.Error(problem)
			}
		})
	}
	if got := w.fingerprint(t); got != state {
		t.Error("the database was changed")
	}
	t.Run("and ends at once when it is ended", func(t *testing.T) {
		medtest.Exec(t, w.super, `update medirecord.break_glass set ended_at = now() where id = $1`, myGrant)
		if got := w.sees(t, emergency("south-1")); len(got) > 0 {
			t.Errorf("got %q, want nothing", got)
		}
	})
}

// However it is cut, what the signed context says of issuer and subject is
// compared as two things.
func notRunTogether(t *testing.T, w *world) {
	for _, g := range []grant{
		{id: med.NewUUID(time.Now()), issuer: issuer + "x", subject: "y", patient: "south-1"},
		{id: med.NewUUID(time.Now()), issuer: issuer, subject: "xy", patient: "south-2"},
	} {
		w.grant(t, g)
		for _, cut := range []struct{ issuer, subject string }{{issuer, "xy"}, {issuer + "x", "y"}, {issuer + "xy", " "}} {
			c := changed(emergency(g.patient), func(c *caller) { c.Issuer, c.Subject, c.Grant = cut.issuer, cut.subject, g.id })
			honoured := cut.issuer == g.issuer && cut.subject == g.subject
			if got := len(w.sees(t, c)) > 0; got != honoured {
				t.Errorf("a grant of %s cut as %s: got seen %v, want %v", fmt.Sprint(len(g.issuer), "+", len(g.subject)), fmt.Sprint(len(cut.issuer), "+", len(cut.subject)), got, honoured)
			}
		}
	}
}
