// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// ticketOf finds the entry that the answer was read against: a child of the
// answer's own, committed before it, of the same person, patient and context.
func ticketOf(t *testing.T, s *medtest.System, got medtest.Answer) medtest.TrailRow {
	t.Helper()
	own := entryOf(t, s, got)
	tickets := ticketsOf(t, s, own.ID)
	if len(tickets) != 1 {
		t.Fatalf("%d tickets, want 1", len(tickets))
	}
	e := tickets[0]
	if e.Outcome != "access_granted" || e.Code != "" || e.Actor != own.Actor || e.Patient != own.Patient || e.Resource != own.Resource ||
		e.Detail.RequestID != own.Detail.RequestID || e.Detail.Clear != nil || e.RecordedAt.After(own.RecordedAt) {
		t.Errorf("got the ticket %+v of %+v", e, own)
	}
	var same bool
	medtest.Scan(t, s.DB.Super(t), []any{&same}, `select c.ctx_nonce = p.ctx_nonce and c.ctx_mac = p.ctx_mac and c.tx <> p.tx
		from audit.event c join audit.event p on p.event_id = c.parent_id where c.event_id = $1`, e.ID)
	if !same {
		t.Error("the ticket is of another context, or of the same transaction")
	}
	return e
}

func ticketsOf(t *testing.T, s *medtest.System, parent string) (out []medtest.TrailRow) {
	t.Helper()
	for _, e := range s.TrailRows(t) {
		if e.Action == "read_ticket" && e.Parent == parent {
			out = append(out, e)
		}
	}
	return out
}

func TestStrictReadsAnswerAsOthersDo(t *testing.T) {
	t.Parallel()
	lax, strict := medtest.New(t), medtest.New(t, medtest.Options{StrictReads: true})
	alices := map[*medtest.System]med.PatientID{}
	for _, s := range []*medtest.System{lax, strict} {
		alices[s] = s.Patient(t, medtest.North, medtest.Alice())
	}
	for _, tc := range []struct {
		name    string
		token   func(*medtest.System, med.PatientID) string
		suffix  string
		nobody  bool
		tickets int // of a strict read
		always  bool
	}{
		{"a clinician", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleClinician, "north") }, "", false, 1, false},
		{"an admin", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleAdmin, "north") }, "", false, 1, false},
		{"the patient", func(s *medtest.System, id med.PatientID) string { return s.PatientOf(t, id, "north") }, "", false, 1, false},
		{"the patient, whose token is of another practice", func(s *medtest.System, id med.PatientID) string { return s.PatientOf(t, id, "south") }, "", false, 1, false},
		{"another patient", func(s *medtest.System, _ med.PatientID) string { return s.PatientOf(t, "p-other", "north") }, "", false, 1, false},
		{"a clinician of another practice", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleClinician, "south") }, "", false, 1, false},
		{"an officer", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleOfficer, "north") }, "", false, 1, false},
		{"without a second factor", func(s *medtest.System, _ med.PatientID) string {
			return s.Token(t, medtest.Claims{"roles": []string{"admin"}, "practice_id": "north", "mfa_verified": nil})
		}, "", false, 0, false},
		{"nobody's id", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleClinician, "north") }, "", true, 1, false},
		{"broken glass", func(s *medtest.System, _ med.PatientID) string { return er(t, s) }, "", false, 1, true},
		{"broken glass, about nobody", func(s *medtest.System, _ med.PatientID) string { return er(t, s) }, "", true, 0, false},
		{"the trail", func(s *medtest.System, _ med.PatientID) string { return s.Of(t, med.RoleAdmin, "north") }, "/audit", false, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answers := map[*medtest.System]medtest.Answer{}
			for _, s := range []*medtest.System{lax, strict} {
				id := alices[s]
				if tc.nobody {
					id = "nobody"
				}
				got := s.Get(t, tc.token(s, alices[s]), path(id)+tc.suffix, "X-Break-Glass-Reason", reason)
				answers[s] = got
				want := tc.tickets
				if s == lax && !tc.always {
					want = 0
				}
				if n := len(ticketsOf(t, s, entryOf(t, s, got).ID)); n != want {
					t.Errorf("strict %v: %d tickets, want %d", s == strict, n, want)
				}
				if want > 0 && got.Status == 200 {
					ticketOf(t, s, got)
				}
			}
			if tc.suffix != "" { // the trails differ
				return
			}
			if a, b := normal(answers[lax], alices[lax]), normal(answers[strict], alices[strict]); a != b {
				t.Errorf("strict is another answer:\n%s\n%s", a, b)
			}
		})
	}
}

// F1 to F8 hold for the ticket as for the entry.
func TestWithoutATicketNothingIsRead(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{StrictReads: true, Trail: trail.Config{Deadline: 4 * time.Second}})
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	clinician := s.Of(t, med.RoleClinician, medtest.North)
	shown(t, s.Get(t, clinician, path(alice)))

	// Only tickets fail: the entry of the failure is written. Whoever asked for
	// the patient's row would wait for the lock, and say that the database is away.
	medtest.Exec(t, super, `alter table audit.event add constraint no_tickets check (action <> 'read_ticket') not valid`)
	for name, tok := range map[string]string{
		"a clinician": clinician, "the patient": s.PatientOf(t, alice, medtest.North), "another practice": s.Of(t, med.RoleClinician, medtest.South),
		"broken glass": er(t, s),
	} {
		release := func() {}
		if name != "broken glass" { // whose grant refers to the patient
			release = locked(t, s.DB.Super(t), "medirecord.patient")
		}
		got := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", reason)
		release()
		undisclosed(t, got, 503, "audit_unavailable")
		if e := entryOf(t, s, got); e.Outcome != "failure" || e.Code != "audit_unavailable" || e.Detail.Clear != nil {
			t.Errorf("%s: got the entry %+v", name, e)
		}
	}
	medtest.Exec(t, super, `alter table audit.event drop constraint no_tickets`)
	eventually(t, "served again", func() bool { return s.Get(t, clinician, path(alice)).Status == 200 })

	// The trail does not answer: neither does anything else.
	release := locked(t, s.DB.Super(t), "audit.event")
	begin := time.Now()
	undisclosed(t, s.Get(t, clinician, path(alice)), 503, "audit_unavailable")
	if took := time.Since(begin); took > medtest.Patience {
		t.Errorf("answered after %s", took)
	}
	release()
	eventually(t, "served again", func() bool { return s.Get(t, clinician, path(alice)).Status == 200 })
}

// A ticket without an entry that owns up to it is shown to who looks.
func TestAnAdminSeesTicketsThatNobodyOwnsUpTo(t *testing.T) {
	t.Parallel()
	s := medtest.New(t, medtest.Options{StrictReads: true})
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	admin := s.Of(t, med.RoleAdmin, medtest.North)
	list := func() string {
		got := s.Get(t, admin, path(alice)+"/audit")
		if got.Status != 200 {
			t.Fatalf("got %d %s", got.Status, got.Body)
		}
		return got.Body
	}
	read := s.Get(t, s.Of(t, med.RoleClinician, medtest.North), path(alice))
	shown(t, read)
	ticket := ticketOf(t, s, read)
	if body := list(); strings.Contains(body, "read_ticket") || !strings.Contains(body, read.Header.Get("Audit-Event-Id")) {
		t.Errorf("an ordinary read: got %s", body)
	}
	// What a taken-over API could leave: a ticket under no entry, under one that
	// is somebody else's, or under one that denies it.
	put := func(of, parent, outcome, nonce string) (id string) {
		id = med.NewUUID(time.Now())
		medtest.Exec(t, super, `insert into audit.event (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
				action, resource_type, resource_id, outcome, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
			select $2, clock_timestamp(), nullif($3, '')::uuid, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
				action, resource_type, resource_id, coalesce(nullif($4, ''), outcome), break_glass, coalesce(nullif($5, ''), ctx_nonce), ctx_mac, detail,
				decode(md5(random()::text), 'hex'), version from audit.event where event_id = $1`, of, id, parent, outcome, nonce)
		return id
	}
	denial := put(ticket.Parent, "", "denied", "")
	others := s.Get(t, s.Of(t, med.RoleNurse, medtest.North), path(alice)).Header.Get("Audit-Event-Id")
	left := []string{
		put(ticket.ID, "", "", ""), put(ticket.ID, denial, "", ""), put(ticket.ID, others, "", ""), put(ticket.ID, ticket.Parent, "", "another"),
	}
	body := list()
	for i, id := range left {
		if !strings.Contains(body, id) {
			t.Errorf("ticket %d is not shown", i)
		}
	}
	if n := strings.Count(body, `"action":"read_ticket"`); n != len(left) {
		t.Errorf("%d tickets are shown, want %d", n, len(left))
	}
	// The rest of the trail is checked when the test ends; these would not pass.
	medtest.Exec(t, super, `alter table audit.event disable trigger no_change`)
	medtest.Exec(t, super, `delete from audit.event where event_id = any($1)`, append(left, denial))
}

// What was disclosed is the patient's as the record is: an accounting and an
// amendment read it against a ticket. Recording one leaves a ticket as well, or
// the patient could count by them what an agency had suspended.
func TestStrictAccountings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, medtest.Options{StrictReads: true})
	d := w.record(t, w.clinician, w.alice, reported())
	if n := len(ticketsOf(t, w.System, string(d.Event))); n != 1 {
		t.Errorf("recording: %d tickets, want 1", n)
	}
	for who, tok := range map[string]string{"herself": w.herself, "an admin": w.admin, "an officer": w.officer} {
		a := w.account(t, tok, w.alice)
		tickets := ticketsOf(t, w.System, string(a.Event))
		if len(a.Lines) != 1 || len(tickets) != 1 || tickets[0].Patient != string(w.alice) || tickets[0].Resource != "patient/"+string(w.alice) {
			t.Errorf("%s: got %d lines against the tickets %+v", who, len(a.Lines), tickets)
		}
	}
	super := w.DB.Super(t)
	medtest.Exec(t, super, `alter table audit.event add constraint no_tickets check (action <> 'read_ticket') not valid`)
	if a, err := w.Chart.ReadAccounting(t.Context(), w.Caller(t, w.admin), w.alice, med.AccountingAsk{}); a != nil || med.KindOf(err) != med.AuditUnavailable {
		t.Errorf("without a ticket: got %v, %v", a, err)
	}
}
