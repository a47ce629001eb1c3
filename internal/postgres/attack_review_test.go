// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"testing"
)

// Grants of the world of TestReviews.
const (
	onNorth  = "00000000-0000-7000-8000-0000000000c1" // on north-1, open, by the-clinician of South
	byAdmin  = "00000000-0000-7000-8000-0000000000c2" // on north-1, by the-admin of North themself
	overdue  = "00000000-0000-7000-8000-0000000000c3" // on north-2, ended
	expired  = "00000000-0000-7000-8000-0000000000c4" // on north-2, its time over since two hours
	reviewed = somebodysGrant                         // on south-1, reviewed
)

// onGrant makes of somebody's context one about a grant.
func onGrant(c caller, action, grant string) *caller {
	c.Action, c.Patient, c.Grant = "break_glass."+action, "", grant
	return &c
}

func review(changes string) string {
	return insertWith("medirecord.glass_review", []string{"grant_id", "reviewer", "verdict", "note", "event_id"}, map[string]string{
		"grant_id": "'" + onNorth + "'", "reviewer": "'" + issuer + `' || e'\x1f' || 'the-officer'`, "verdict": "'justified'", "note": `'\x00'`, "event_id": anyUUID,
	}, changes)
}

// end ends all that it can, now, by whom, with the changes.
func end(at, by string) string {
	return `begin; update medirecord.break_glass set ended_at = ` + at + `, ended_by = '` + issuer + `' || e'\x1f' || '` + by + `' returning id`
}

// swept is what the worker says of a grant.
func swept(what, grant string) string {
	return `begin; update medirecord.break_glass set ` + what + ` where id = '` + grant + `' returning id`
}

func TestReviews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grant(t, grant{id: onNorth, subject: "the-clinician", patient: "north-1"})
	w.grant(t, grant{id: byAdmin, subject: "the-admin", patient: "north-1"})
	w.grant(t, grant{id: overdue, subject: "the-clinician", patient: "north-2", opened: "-30 hours", expires: "-29 hours", ended: "-29 hours"})
	w.grant(t, grant{id: expired, subject: "the-clinician", patient: "north-2", opened: "-3 hours", expires: "-2 hours"})
	t.Run("are of the practice's officer and admin, and never of one's own", func(t *testing.T) { reviewing(t, w) })
	t.Run("of others are not read", func(t *testing.T) { readingReviews(t, w) })
	t.Run("end nothing; who may end a grant ends it now, and once", func(t *testing.T) { ending(t, w) })
	t.Run("leave entries about their grant's patient", func(t *testing.T) { entriesOfGrants(t, w) })
}

func reviewing(t *testing.T, w *world) {
	reviewer := onGrant(officer("north", ""), "review", onNorth)
	own := review("grant_id = '" + byAdmin + "'; reviewer = '" + issuer + `' || e'\x1f' || 'the-admin'`)
	attacks := []attack{
		{name: "an officer reviews", with: reviewer, sql: rolledBack(review("")), want: only("done")},
		{name: "an admin reviews", with: onGrant(admin("north", "", true), "review", onNorth), sql: rolledBack(review("reviewer = '" + issuer + `' || e'\x1f' || 'the-admin'`)), want: only("done")},
		{name: "one that has ended", with: onGrant(officer("north", ""), "review", overdue), sql: rolledBack(review("grant_id = '" + overdue + "'")), want: only("done")},

		{name: "one's own", with: onGrant(admin("north", "", true), "review", byAdmin), sql: own, want: refused()},
		{name: "one's own, in somebody's name", with: onGrant(admin("north", "", true), "review", byAdmin), sql: review("grant_id = '" + byAdmin + "'"), want: refused()},
		{name: "in somebody else's name", with: reviewer, sql: review("reviewer = 'somebody'"), want: refused()},
		{name: "in nobody's name", with: reviewer, sql: review("reviewer = null"), want: refused("42501", "23502")},
		{name: "of another grant than the context names", with: reviewer, sql: review("grant_id = '" + overdue + "'"), want: refused()},
		{name: "of a grant that nobody has", with: onGrant(officer("north", ""), "review", anyUUID[1:37]), sql: review("grant_id = " + anyUUID), want: refused("42501", "23503")},
		{name: "back-dated", with: reviewer, sql: review("reviewed_at = now() - interval '2 days'"), want: refused()},
		{name: "dated by oneself, to now", with: reviewer, sql: review("reviewed_at = now()"), want: refused()},
		{name: "with a word of one's own", with: reviewer, sql: review("verdict = 'fine'"), want: refused("23514")},
		{name: "twice", with: onGrant(officer("south", ""), "review", reviewed), sql: review("grant_id = '" + reviewed + "'"), want: refused("23505")},
		{name: "over the first", with: onGrant(officer("south", ""), "review", reviewed), sql: review("grant_id = '"+reviewed+"'") + ` on conflict (grant_id) do update set verdict = excluded.verdict`, want: refused()},
		{name: "changed", with: onGrant(officer("south", ""), "review", reviewed), sql: `update medirecord.glass_review set verdict = 'not_justified'`, want: refused()},
		{name: "moved to another grant", with: onGrant(officer("south", ""), "review", reviewed), sql: `update medirecord.glass_review set grant_id = '` + onNorth + `'`, want: refused()},
		{name: "removed", with: onGrant(officer("south", ""), "review", reviewed), sql: `delete from medirecord.glass_review`, want: refused()},
		{name: "all removed", with: onGrant(officer("south", ""), "review", reviewed), sql: `truncate medirecord.glass_review`, want: refused()},
		{name: "the worker reviews", as: "worker", with: sweep, sql: review(""), want: refused()},
		{name: "the worker removes", as: "worker", with: sweep, sql: `delete from medirecord.glass_review`, want: refused()},
	}
	late := *reviewer
	late.ttl = -1
	named := func(c caller, change func(*caller)) *caller {
		out := onGrant(c, "review", onNorth)
		change(out)
		return out
	}
	for name, with := range map[string]*caller{
		"another practice's officer": onGrant(officer("south", ""), "review", onNorth), "an officer without a practice": onGrant(officer("", ""), "review", onNorth),
		"an admin without a second factor": onGrant(admin("north", "", false), "review", onNorth), "the opener": onGrant(clinician("south", ""), "review", onNorth),
		"a clinician of the practice": onGrant(clinician("north", ""), "review", onNorth), "a nurse of the practice": onGrant(nurse("north", ""), "review", onNorth),
		"the patient": onGrant(patient("north-1", ""), "review", onNorth), "an officer who names none": onGrant(officer("north", ""), "review", ""),
		"an officer who reads it": onGrant(officer("north", ""), "read", onNorth), "an officer who ends it": onGrant(officer("north", ""), "end", onNorth),
		"an officer who opens it": onGrant(officer("north", ""), "open", onNorth), "an officer who reads the trail": ptr(auditor("north")),
		"an officer whose context is over": &late, "a reader of the patient": north1, "an import": bulk, "nobody": nil,
		"a service": named(service("worker", "", "north"), func(*caller) {}),
	} {
		by := "the-officer"
		if with != nil {
			by = with.Subject
		}
		attacks = append(attacks, attack{name: name + " reviews", with: with, sql: review("reviewer = '" + issuer + `' || e'\x1f' || '` + by + `'`), want: refused()})
	}
	all(t, w, attacks)
}

func readingReviews(t *testing.T, w *world) {
	const reads = `select grant_id from medirecord.glass_review`
	const grants = `select id from medirecord.break_glass order by id`
	attacks := []attack{
		{name: "the practice's officer", with: onGrant(officer("south", ""), "read", ""), sql: reads, want: only(reviewed)},
		{name: "the opener", with: onGrant(changed(clinician("south", ""), func(c *caller) { c.Subject = "somebody-else" }), "read", ""), sql: reads, want: only(reviewed)},
		{name: "the officer lists", with: onGrant(officer("north", ""), "read", ""), sql: grants, want: only(onNorth, byAdmin, overdue, expired)},
		{name: "the opener lists", with: onGrant(clinician("south", ""), "read", ""), sql: grants, want: only(onNorth, overdue, expired)},
		{name: "one is named", with: onGrant(officer("north", ""), "read", onNorth), sql: grants, want: only(onNorth)},

		{name: "another practice's officer", with: onGrant(officer("north", ""), "read", ""), sql: reads, want: nothing},
		{name: "another practice's officer who names it", with: onGrant(officer("north", ""), "read", reviewed), sql: reads + ` union all select id from medirecord.break_glass`, want: nothing},
		{name: "another practice's officer who reviews it", with: onGrant(officer("north", ""), "review", reviewed), sql: reads + ` union all select id from medirecord.break_glass`, want: nothing},
		{name: "another practice's admin", with: onGrant(admin("north", "", true), "read", reviewed), sql: reads, want: nothing},
		{name: "an admin without a second factor", with: onGrant(admin("south", "", false), "read", reviewed), sql: reads, want: nothing},
		{name: "a clinician of the practice", with: onGrant(clinician("south", ""), "read", reviewed), sql: reads, want: nothing},
		{name: "the patient", with: onGrant(patient("south-1", ""), "read", reviewed), sql: reads, want: nothing},
		{name: "an officer who opens", with: onGrant(officer("south", ""), "open", reviewed), sql: reads, want: nothing},
		{name: "an officer who reads the trail", with: ptr(auditor("south")), sql: reads, want: nothing},
		{name: "a reader of the patient", with: south1, sql: reads, want: nothing},
		{name: "a reader of the patient who names the grant", with: ptr(changed(clinician("north", "south-1"), func(c *caller) { c.Grant = reviewed })), sql: reads, want: nothing},
		{name: "the worker reads what was written", as: "worker", with: sweep, sql: `select note from medirecord.glass_review`, want: refused()},
		{name: "the worker reads another practice's", as: "worker", with: sweep, sql: reads, want: nothing},
		{name: "the trail reads", as: "trail", with: onGrant(officer("south", ""), "read", ""), sql: reads, want: refused()},
	}
	for _, action := range []string{"read", "end", "review", "open"} {
		for what, sql := range map[string]string{
			"patients": `select sealed from medirecord.patient union all select sealed from medirecord.record`, "tags": `select tag from medirecord.blind_index`,
			"the trail": `select detail from audit.event`, "rows by the function": `select sealed from medirecord.read_patients(array[current_setting('medirecord.ctx')], null) where sealed is not null`,
		} {
			attacks = append(attacks, attack{name: "who is to " + action + " grants reads " + what, with: onGrant(officer("north", ""), action, onNorth), sql: sql, want: nothing})
			attacks = append(attacks, attack{name: "a clinician who is to " + action + " a grant on the patient reads " + what, with: ptr(changed(*onGrant(clinician("south", ""), action, onNorth), func(c *caller) { c.Patient = "north-1" })), sql: sql, want: nothing})
		}
	}
	all(t, w, attacks)
}

func ending(t *testing.T, w *world) {
	const now = "clock_timestamp()"
	opener, watcher := onGrant(clinician("south", ""), "end", onNorth), onGrant(officer("north", ""), "end", onNorth)
	attacks := []attack{
		{name: "the opener ends it", with: opener, sql: end(now, "the-clinician"), want: only(onNorth)},
		{name: "the practice's officer ends it", with: watcher, sql: end(now, "the-officer"), want: only(onNorth)},
		{name: "the practice's admin ends it", with: onGrant(admin("north", "", true), "end", onNorth), sql: end(now, "the-admin"), want: only(onNorth)},

		{name: "in somebody else's name", with: watcher, sql: end(now, "the-clinician"), want: refused()},
		{name: "an hour ago", with: opener, sql: end("now() - interval '1 hour'", "the-clinician"), want: refused()},
		{name: "in an hour", with: opener, sql: end("now() + interval '1 hour'", "the-clinician"), want: refused()},
		{name: "never", with: opener, sql: end("null", "the-clinician"), want: refused()},
		{name: "one that has ended", with: onGrant(clinician("south", ""), "end", overdue), sql: end(now, "the-clinician"), want: nothing},
		{name: "one that has ended is opened again", with: onGrant(clinician("south", ""), "end", overdue), sql: end("null", "the-clinician"), want: nothing},
		{name: "for longer", with: opener, sql: `update medirecord.break_glass set expires_at = expires_at + interval '1 hour'`, want: refused()},
		{name: "for another patient", with: opener, sql: `update medirecord.break_glass set patient_id = 'north-2'`, want: refused()},
		{name: "for another session", with: opener, sql: `update medirecord.break_glass set session = 'session-2'`, want: refused()},
		{name: "with another reason", with: opener, sql: `update medirecord.break_glass set reason = '\x01'`, want: refused()},
		{name: "opened later", with: opener, sql: `update medirecord.break_glass set opened_at = now()`, want: refused()},
		{name: "escalated already", with: opener, sql: `update medirecord.break_glass set escalated_at = now()`, want: refused()},
		{name: "removed", with: opener, sql: `delete from medirecord.break_glass`, want: refused()},
		{name: "a new one of the same name", with: opener, sql: openGrant("id = '" + onNorth + "'; subject = 'the-clinician'; patient_id = 'north-1'; practice_id = 'north'"), want: refused()},
		{name: "the worker ends one whose time is not over", as: "worker", with: sweep, sql: `update medirecord.break_glass set ended_at = now() where id = '` + onNorth + `'`, want: nothing},
		{name: "the worker opens one again", as: "worker", with: sweep, sql: `update medirecord.break_glass set ended_at = null where id = '` + overdue + `'`, want: refused()},
		{name: "the worker says that the time of one was over, when it was", as: "worker", with: sweep, sql: swept("ended_at = expires_at", expired), want: only(expired)},
		{name: "the worker says that the time of one is over", as: "worker", with: sweep, sql: swept("ended_at = date_trunc('milliseconds', clock_timestamp())", expired), want: only(expired)},
		{name: "the worker says that the time of one was over before it was", as: "worker", with: sweep, sql: swept("ended_at = expires_at - interval '1 millisecond'", expired), want: refused()},
		{name: "the worker says that the time of one will be over", as: "worker", with: sweep, sql: swept("ended_at = clock_timestamp() + interval '2 seconds'", expired), want: refused()},
		{name: "the worker says that one never ended", as: "worker", with: sweep, sql: swept("ended_at = null", expired), want: refused()},
		{name: "the worker ends one twice", as: "worker", with: sweep, sql: swept("ended_at = expires_at", expired) + `; ` + swept("ended_at = expires_at + interval '1 minute'", expired), want: refused()},
		{name: "the worker says that one ended later than somebody ended it", as: "worker", with: sweep, sql: swept("ended_at = expires_at + interval '1 minute'", overdue), want: refused()},
		{name: "the worker says that one is overdue", as: "worker", with: sweep, sql: swept("escalated_at = clock_timestamp()", overdue), want: only(overdue)},
		{name: "the worker says so twice", as: "worker", with: sweep, sql: swept("escalated_at = clock_timestamp()", overdue) + `; ` + swept("escalated_at = null", overdue), want: refused()},
		{name: "the worker says that one will be overdue", as: "worker", with: sweep, sql: swept("escalated_at = clock_timestamp() + interval '1 hour'", overdue), want: refused()},
		{name: "the worker says so before it is", as: "worker", with: sweep, sql: swept("ended_at = expires_at, escalated_at = clock_timestamp()", expired), want: refused()},
		{name: "the worker says who ended one", as: "worker", with: sweep, sql: swept("ended_at = now(), ended_by = 'somebody'", expired), want: refused()},
		{name: "the worker lets one live longer", as: "worker", with: sweep, sql: `update medirecord.break_glass set expires_at = now() + interval '1 hour'`, want: refused()},
		{name: "the worker ends another practice's", as: "worker", with: ptr(service("worker", "sweep", "south")), sql: `update medirecord.break_glass set ended_at = now() where practice_id = 'north'`, want: nothing},
	}
	for name, with := range map[string]*caller{
		"another clinician of the opener's practice": onGrant(changed(clinician("south", ""), func(c *caller) { c.Subject = "another" }), "end", onNorth),
		"a clinician of the patient's practice":      onGrant(changed(clinician("north", ""), func(c *caller) { c.Subject = "another" }), "end", onNorth),
		"somebody of another issuer":                 onGrant(changed(clinician("south", ""), func(c *caller) { c.Issuer = issuer + "x" }), "end", onNorth),
		"another practice's officer":                 onGrant(officer("south", ""), "end", onNorth),
		"another practice's admin":                   onGrant(admin("south", "", true), "end", onNorth),
		"an admin without a second factor":           onGrant(admin("north", "", false), "end", onNorth),
		"the patient":                                onGrant(patient("north-1", ""), "end", onNorth),
		"the opener who names none":                  onGrant(clinician("south", ""), "end", ""),
		"the opener who names another":               onGrant(clinician("south", ""), "end", byAdmin),
		"the opener who reads it":                    onGrant(clinician("south", ""), "read", onNorth),
		"the opener who opens it":                    onGrant(clinician("south", ""), "open", onNorth),
		"the officer who reviews it":                 onGrant(officer("north", ""), "review", onNorth),
		"the opener who reads the patient":           ptr(changed(clinician("south", "north-1"), func(c *caller) { c.Grant = onNorth })),
	} {
		attacks = append(attacks, attack{name: name + " ends it", with: with, sql: end(now, with.Subject), want: nothing})
	}
	all(t, w, attacks)
}

func entriesOfGrants(t *testing.T, w *world) {
	with := onGrant(officer("north", ""), "end", onNorth)
	s := w.session(t, "app")
	signed := with.signed(t)
	s.enter(t, signed)
	rows, _, err := s.run(t.Context(), `select ctx.fact('nonce')`)
	if err != nil {
		t.Fatal(err)
	}
	part := func(changes string) string {
		return insertWith("audit.event",
			[]string{
				"event_id", "occurred_at", "parent_id", "actor_issuer", "actor_subject", "actor_practice", "patient_id", "patient_practice", "action", "resource_type", "resource_id",
				"outcome", "break_glass", "ctx_nonce", "detail", "nonce", "version",
			},
			map[string]string{
				"event_id": idOfNow + ` || substr(md5(random()::text), 13))::uuid`, "occurred_at": "date_trunc('milliseconds', now())", "parent_id": anyUUID, "actor_issuer": "'" + issuer + "'", "actor_subject": "'the-officer'",
				"actor_practice": "'north'", "patient_id": "'north-1'", "patient_practice": "'north'", "action": "'break_glass_end'", "resource_type": "'break_glass'",
				"resource_id": "'" + onNorth + "'", "outcome": "'success'", "break_glass": "false", "ctx_nonce": "'" + rows[0][0] + "'", "detail": "'{}'",
				"nonce": "decode(md5(random()::text), 'hex')", "version": "1",
			}, changes)
	}
	for name, c := range map[string]struct {
		changes string
		ok      bool
	}{
		"the grant's patient": {"", true},
		"another patient":     {"patient_id = 'north-2'", false}, "another practice's patient": {"patient_id = 'south-1'; patient_practice = 'south'", false},
		"another practice": {"patient_practice = 'south'", false}, "another grant": {"resource_id = '" + overdue + "'; patient_id = 'north-2'", false},
		"no call": {"parent_id = null", false}, "somebody else": {"actor_subject = 'the-clinician'", false}, "another context": {"ctx_nonce = 'x'", false},
		"another practice's officer": {"actor_practice = 'south'", false}, "yesterday": {"occurred_at = now() - interval '1 day'", false},
		"another matter": {"resource_type = 'patient'", false},
	} {
		s.enter(t, signed)
		_, _, err := s.run(t.Context(), `begin; `+part(c.changes))
		if _, _, rolled := s.run(t.Context(), `rollback`); rolled != nil {
			t.Fatal(rolled)
		}
		if (err == nil) != c.ok {
			t.Errorf("an entry about %s: %v", name, err)
		}
		s.anew(t)
	}
}
