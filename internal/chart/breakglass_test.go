// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

func TestBreakGlassFromTheHeaderToTheOfficer(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	s.Secret(reason, "Second look, same patient") // in no log and no entry
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	tok := er(t, s)

	first := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", "  "+reason+" ")
	shown(t, first)
	if !strings.Contains(first.Body, `"dob":"1985-06-15","diagnosis":"Essential hypertension","practice_id":"north"`) {
		t.Errorf("got %s, want everything", first.Body)
	}
	second := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", "Second look, same patient")
	shown(t, second)

	// The grant: one row, signed by the sidecar, its reason sealed.
	var id, session, practice, code, signed, event string
	var sealed []byte
	var opened, expires time.Time
	medtest.Scan(t, super, []any{&id, &session, &practice, &code, &sealed, &signed, &event, &opened, &expires},
		`select id::text, session, practice_id, reason_code, reason, signed, event_id::text, opened_at, expires_at from medirecord.break_glass where patient_id = $1`, string(alice))
	if n := count(t, super, "medirecord.break_glass"); n != 1 {
		t.Errorf("%d grants, want one that is continued", n)
	}
	if session != "er-session" || practice != "north" || code != "other" || strings.Contains(string(sealed), "Patient") || expires.Sub(opened) != time.Hour {
		t.Errorf("the grant: session %s, practice %s, code %s, for %s", session, practice, code, expires.Sub(opened))
	}
	g, err := token.VerifyGrant([]token.ContextKey{medtest.ContextKey}, signed, time.Now())
	if err != nil || g.ID != id || g.Patient != alice || g.Subject != "er-1" || g.Session != "er-session" {
		t.Errorf("its signature: got %+v, %v", g, err)
	}

	// Each use pages: the first as P2, going on as P3.
	rows, err := super.Query(t.Context(), `select severity, practice_id, patient_id, reason_code, event_id::text, delivered_at is null from medirecord.outbox order by created_at`)
	noError(t, err)
	defer rows.Close()
	var pages []string
	for rows.Next() {
		var severity, practice, patient, code, event string
		var waits bool
		noError(t, rows.Scan(&severity, &practice, &patient, &code, &event, &waits))
		if practice != "north" || patient != string(alice) || code != "other" || !waits {
			t.Errorf("a page: %s %s %s, waits %v", practice, patient, code, waits)
		}
		pages = append(pages, severity+" "+event)
	}
	noError(t, rows.Err())
	if want := []string{"P2 " + first.Header.Get("Audit-Event-Id"), "P3 " + second.Header.Get("Audit-Event-Id")}; strings.Join(pages, ", ") != strings.Join(want, ", ") {
		t.Errorf("pages: got %v, want %v", pages, want)
	}

	// The entries: each call's own, and the start of the grant below the first.
	for i, a := range []medtest.Answer{first, second} {
		e := entryOf(t, s, a)
		if !e.BreakGlass || e.Detail.BreakGlass.Grant != id || e.Detail.BreakGlass.ReasonCode != "other" || len(e.Detail.Clear) != 4 || e.Detail.Reason != "break_glass" {
			t.Errorf("entry %d: got %+v", i, e)
		}
	}
	start := entry(t, s, event)
	if start.Parent != first.Header.Get("Audit-Event-Id") || start.Action != "break_glass" || start.Outcome != "access_granted" || !start.BreakGlass || len(start.Detail.Clear) != 0 {
		t.Errorf("the start: got %+v", start)
	}
	if n := count(t, super, "audit.event where parent_id is not null and action <> 'read_ticket'"); n != 1 {
		t.Errorf("%d children, want the one start", n)
	}
	// And what each was read against, which the admin below is not bothered with.
	for i, a := range []medtest.Answer{first, second} {
		ticket := ticketOf(t, s, a)
		if !ticket.BreakGlass || ticket.PatientPractice != "north" || ticket.Detail.BreakGlass.Grant != id || ticket.Detail.BreakGlass.Sealed != nil {
			t.Errorf("ticket %d: got %+v", i, ticket)
		}
	}
	if log := s.Log.String(); strings.Count(log, `"msg":"BREAK GLASS"`) != 2 || !strings.Contains(log, `"grant":"`+id+`"`) || !strings.Contains(log, `"reason_code":"other"`) {
		t.Error("the log does not tell of both")
	}

	// Who reads the reason: the admin of the patient's practice, nobody else.
	read := s.Get(t, s.Of(t, med.RoleAdmin, medtest.North), path(alice)+"/audit")
	if read.Status != 200 || strings.Count(read.Body, `"reason":"`+reason+`","break_glass":true`) != 2 || strings.Count(read.Body, `"reason":"Second look, same patient","break_glass":true`) != 1 ||
		!strings.Contains(read.Body, `"action":"break_glass","resource":"patient/`+string(alice)+`","outcome":"access_granted"`) || strings.Contains(read.Body, "read_ticket") {
		t.Errorf("the admin reads: %d %s", read.Status, read.Body)
	}
	for name, tok := range map[string]string{
		"another practice's admin": s.Of(t, med.RoleAdmin, medtest.South), "an officer": s.Of(t, med.RoleOfficer, medtest.North), "who broke the glass": tok,
		"a clinician": s.Of(t, med.RoleClinician, medtest.North), "the patient": s.PatientOf(t, alice, medtest.North),
	} {
		if got := s.Get(t, tok, path(alice)+"/audit"); got.Status != 403 || strings.Contains(got.Body, "Patient in ER") {
			t.Errorf("%s reads: %d %s", name, got.Status, got.Body)
		}
	}
	// Whom it is about is the practice's to read, even when the ER is of another.
	south := s.Token(t, medtest.Claims{"sub": "er-2", "roles": []string{"break_glass"}, "practice_id": "south"})
	shown(t, s.Get(t, south, path(alice), "X-Break-Glass-Reason", reason))
	if got := s.Get(t, s.Of(t, med.RoleAdmin, medtest.South), path(alice)+"/audit"); got.Status != 403 {
		t.Errorf("the admin of the ER's practice reads: %d %s", got.Status, got.Body)
	}
}

func TestBreakGlassReasons(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	tok := er(t, s)
	for _, tc := range []struct {
		name, reason string
		status       int
		code         string
	}{
		{"9 characters", "123456789", 422, "invalid"},
		{"9 of several bytes", strings.Repeat("é", 9), 422, "invalid"},
		{"9 and blanks around", " 123456789  ", 422, "invalid"},
		{"10 characters", "1234567890", 200, ""},
		{"10 of several bytes", strings.Repeat("é", 10), 200, ""},
		{"500 characters", strings.Repeat("r", 500), 200, ""},
		{"500 of several bytes", strings.Repeat("é", 500), 200, ""},
		{"501 characters", strings.Repeat("r", 501), 422, "invalid"},
		{"blank", "   ", 403, "break_glass_reason_required"},
		{"a zero-width space", reason + "\u200b", 422, "invalid"},
		{"text turned round", reason + "\u202e", 422, "invalid"},
		{"a line separator", reason + "\u2028x", 422, "invalid"},
		{"bytes that are not UTF-8", reason + "\xff", 422, "invalid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", tc.reason)
			if tc.status == 200 {
				shown(t, got)
				return
			}
			undisclosed(t, got, tc.status, tc.code)
			// Existing or not, the answer is the same.
			if away := s.Get(t, tok, "/patients/nobody", "X-Break-Glass-Reason", tc.reason); normal(away, "nobody") != normal(got, alice) {
				t.Errorf("who is a patient can be told:\n%s\n%s", normal(got, alice), normal(away, "nobody"))
			}
		})
	}
	t.Run("no header", func(t *testing.T) {
		t.Parallel()
		got := s.Get(t, tok, path(alice))
		undisclosed(t, got, 403, "break_glass_reason_required")
		if !strings.Contains(got.Body, `"detail":"Break-glass access requires X-Break-Glass-Reason header."`) {
			t.Errorf("got %s, want the guide's words", got.Body)
		}
	})
	t.Run("control characters, which no HTTP header carries", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []string{reason + "\n", "\x00" + reason, reason + "\r\nlevel=INFO", reason + "\u0085x", reason + "\x7f"} {
			c := s.Caller(t, tok)
			c.Emergent, c.Emergency = true, med.PHI(bad+".")
			v, err := s.Chart.ReadPatient(t.Context(), c, alice)
			if v != nil || med.KindOf(err) != med.Invalid {
				t.Errorf("%q: got %v, %v", bad, v, err)
			}
		}
	})
	t.Run("the role with others besides gives its reason too", func(t *testing.T) {
		t.Parallel()
		both := s.Token(t, medtest.Claims{"sub": "er-3", "roles": []string{"clinician", "break_glass"}, "practice_id": "north"})
		undisclosed(t, s.Get(t, both, path(alice)), 403, "break_glass_reason_required")
		shown(t, s.Get(t, both, path(alice), "X-Break-Glass-Reason", reason))
	})
	if n := count(t, s.DB.Super(t), "medirecord.outbox where reason_code <> 'other'"); n != 0 {
		t.Errorf("%d pages with another code", n)
	}
}

// What the database does not honour is not gone on under. The next emergency is
// not blocked either: it is a new grant, with a page of its own.
func TestAnEndedGrantOpensNothingMore(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	tok := er(t, s)
	shown(t, s.Get(t, tok, path(alice), "X-Break-Glass-Reason", reason))
	for i, tc := range []struct{ name, change string }{
		{"ended", "ended_at = clock_timestamp()"},
		// The context and the sidecar may say otherwise.
		{"its time is over", "opened_at = now() - interval '2 hours', expires_at = now() - interval '1 second'"},
		{"another session's", "session = 'x'"},
		{"another person's", "subject = 'x'"},
		{"another issuer's", "issuer = 'x'"},
	} {
		var last string
		medtest.Scan(t, super, []any{&last}, `select max(id::text) from medirecord.break_glass`)
		medtest.Exec(t, super, `update medirecord.break_glass set `+tc.change+` where id::text = $1`, last)
		got := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", reason)
		shown(t, got)
		if e := entryOf(t, s, got); e.Detail.BreakGlass == nil || e.Detail.BreakGlass.Grant == last {
			t.Errorf("%s: went on under %s", tc.name, last)
		}
		if n := count(t, super, "medirecord.outbox where severity in ('P1', 'P2')"); n != i+2 {
			t.Errorf("%s: %d pages of grants that were opened, want %d", tc.name, n, i+2)
		}
	}
}

func TestTooManyGrantsPageAtOnceAndBlockNoCare(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	tok := er(t, s)
	super := s.DB.Super(t)
	for i := range 7 {
		p := medtest.Alice()
		p.SourceID = med.PHI(fmt.Sprint("source-", i))
		shown(t, s.Get(t, tok, path(s.Patient(t, medtest.North, p)), "X-Break-Glass-Reason", reason))
	}
	for severity, want := range map[string]int{"P1": 2, "P2": 5, "P3": 0} {
		if n := count(t, super, "medirecord.outbox where severity = $1", severity); n != want {
			t.Errorf("%d pages of %s, want %d", n, severity, want)
		}
	}
	if n := count(t, super, "medirecord.outbox where factor = 'fresh'"); n != 7 { // as the tokens of these tests say
		t.Errorf("%d pages say that the factor was fresh, want all", n)
	}
}

// Beyond what care needs, the answer is whole, and asks for a second factor.
func TestBeyondCareTheAnswerAsksForAFreshFactor(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	super := s.DB.Super(t)
	old := s.Token(t, medtest.Claims{"sub": "er-1", "sid": "er-session", "roles": []string{"break_glass"}, "auth_time": time.Now().Add(-time.Hour).Unix()})
	dr := visitor(t, s)
	asked := func(what string, a medtest.Answer, want bool) {
		t.Helper()
		const challenge = `Bearer error="insufficient_user_authentication", error_description="`
		got := a.Header.Get("WWW-Authenticate")
		if asks := strings.HasPrefix(got, challenge) && strings.HasSuffix(got, `", max_age="300"`); asks != want || !want && got != "" {
			t.Errorf("%s: got WWW-Authenticate %q, want it asked for: %v", what, got, want)
		}
	}
	var last med.PatientID
	for i := range 6 {
		id := fmt.Sprintf("00000000-0000-4000-8000-0000000000a%d", i)
		last = s.Patient(t, medtest.North, withSource(med.PHI(fmt.Sprint("source-", i))), obs(id, "2026-03-01"))
		got := s.Get(t, old, path(last), "X-Break-Glass-Reason", reason)
		shown(t, got)
		asked(fmt.Sprint("grant ", i+1), got, i == 5)
		// Whoever opens by POST has proved one.
		asked(fmt.Sprint("by POST ", i+1), s.Post(t, dr, glassPath, openBody(last, "other", reason)), false)
	}
	if n := count(t, super, "medirecord.outbox where severity = 'P1' and factor = 'done' and patient_id = $1", string(last)); n != 1 {
		t.Errorf("%d pages of the sixth say that the factor was not fresh, want one", n)
	}
	versioned := "/api/v1/patients/" + string(last)
	one := versioned + "/records/00000000-0000-4000-8000-0000000000a5"
	for _, at := range []string{path(last), versioned, versioned + "/records", one, one + "/versions"} {
		got := s.Get(t, old, at, "X-Break-Glass-Reason", reason)
		if got.Status != 200 {
			t.Errorf("%s: got %d", at, got.Status)
		}
		asked("going on, "+at, got, true)
		asked("who is not asked, "+at, s.Get(t, dr, at), false)
	}
	asked("refused", s.Get(t, old, versioned, "X-Break-Glass-Reason", "short"), false)
	asked("with a new factor", s.Get(t, er(t, s), versioned, "X-Break-Glass-Reason", reason), false)
}

func TestADeletedPatient(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	super := s.DB.Super(t)
	medtest.Exec(t, super, `update medirecord.patient set deleted_at = now() where id = $1`, string(alice))

	for name, tok := range map[string]string{
		"a clinician": s.Of(t, med.RoleClinician, medtest.North), "a nurse": s.Of(t, med.RoleNurse, medtest.North),
		"an admin of another practice": s.Of(t, med.RoleAdmin, medtest.South), "a clinician of another practice": s.Of(t, med.RoleClinician, medtest.South),
		"break-glass": er(t, s), "break-glass of the practice": s.Token(t, medtest.Claims{"sub": "er-4", "roles": []string{"break_glass"}, "practice_id": "north"}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.Get(t, tok, path(alice), "X-Break-Glass-Reason", reason)
			undisclosed(t, got, 404, "not_found")
			if away := s.Get(t, tok, "/patients/nobody", "X-Break-Glass-Reason", reason); normal(got, alice) != normal(away, "nobody") {
				t.Errorf("deleted is not the same as never there:\n%s\n%s", normal(got, alice), normal(away, "nobody"))
			}
		})
	}
	t.Run("the patient themselves", func(t *testing.T) {
		t.Parallel()
		undisclosed(t, s.Get(t, s.PatientOf(t, alice, medtest.North), path(alice)), 404, "not_found")
		undisclosed(t, s.Get(t, s.PatientOf(t, "p-other", medtest.North), path(alice)), 403, "not_self")
	})
	t.Run("an admin of the practice, with a second factor", func(t *testing.T) {
		t.Parallel()
		shown(t, s.Get(t, s.Of(t, med.RoleAdmin, medtest.North), path(alice)))
		noMFA := s.Token(t, medtest.Claims{"roles": []string{"admin"}, "practice_id": "north", "mfa_verified": nil})
		undisclosed(t, s.Get(t, noMFA, path(alice)), 403, "mfa_required")
	})
	if n := count(t, super, "medirecord.break_glass"); n != 0 {
		t.Errorf("%d grants for a patient who is gone", n)
	}
}
