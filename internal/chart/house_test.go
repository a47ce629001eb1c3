// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// What these tests share. Each has a system of its own, whose trail is checked
// at its end: see medtest.

const reason = "Patient in ER, consent unreachable"

// er is a token of the emergency room: break_glass, of no practice.
func er(t *testing.T, s *medtest.System) string {
	t.Helper()
	return s.Token(t, medtest.Claims{"sub": "er-1", "sid": "er-session", "roles": []string{"break_glass"}})
}

func path(id med.PatientID) string { return "/patients/" + string(id) }

// noError, and eventually for what takes its time.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); {
		if time.Now().After(end) {
			t.Fatal("did not happen: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// undisclosed checks that the answer is this problem and holds nothing of Alice.
func undisclosed(t *testing.T, got medtest.Answer, status int, code string) {
	t.Helper()
	if got.Status != status || !strings.Contains(got.Body, `"code":"`+code+`"`) {
		t.Errorf("got %d %s, want %d with the code %s", got.Status, got.Body, status, code)
	}
	alice := medtest.Alice()
	for _, p := range []med.PHI{alice.Name.Text, alice.Name.Family, alice.SSN, alice.SSN[7:], alice.DOB, alice.Diagnosis, "****-**-"} {
		if strings.Contains(got.Body, p.Reveal()) {
			t.Errorf("the answer %d holds PHI", got.Status)
		}
	}
	if got.Header.Get("ETag") != "" {
		t.Errorf("the answer %d tells a version", got.Status)
	}
}

// shown checks that the answer is Alice, whole.
func shown(t *testing.T, got medtest.Answer) {
	t.Helper()
	if got.Status != 200 || !strings.Contains(got.Body, "123-45-6789") || got.Header.Get("Audit-Event-Id") == "" {
		t.Errorf("got %d %s, want the patient", got.Status, got.Body)
	}
}

// entryOf finds the entry that the answer names.
func entryOf(t *testing.T, s *medtest.System, got medtest.Answer) medtest.TrailRow {
	t.Helper()
	return entry(t, s, got.Header.Get("Audit-Event-Id"))
}

func entry(t *testing.T, s *medtest.System, id string) medtest.TrailRow {
	t.Helper()
	for _, e := range s.TrailRows(t) {
		if e.ID == id {
			return e
		}
	}
	t.Fatalf("no entry %q in the trail", id)
	return medtest.TrailRow{}
}

// ours are what is new in each answer: ids and times.
var ours = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// normal is all of an answer that a client could compare with another's.
func normal(a medtest.Answer, ids ...med.PatientID) string {
	h := a.Header.Clone()
	h.Del("Date")
	var b strings.Builder
	b.WriteString(a.Body)
	b.WriteByte('\n')
	if err := h.Write(&b); err != nil {
		b.WriteString(err.Error())
	}
	s := b.String()
	for _, id := range ids {
		s = strings.ReplaceAll(s, string(id), "PATIENT")
	}
	return ours.ReplaceAllString(s, "UUID")
}

// locked holds a table until the function it returns is called, or the test ends.
func locked(t *testing.T, conn *pgx.Conn, table string) (release func()) {
	t.Helper()
	medtest.Exec(t, conn, "begin")
	medtest.Exec(t, conn, "lock table "+table+" in access exclusive mode")
	done := false
	release = func() {
		if !done {
			done = true
			medtest.Exec(t, conn, "rollback")
		}
	}
	t.Cleanup(release)
	return release
}

// count counts rows as the superuser sees them.
func count(t *testing.T, conn *pgx.Conn, from string, args ...any) (n int) {
	t.Helper()
	medtest.Scan(t, conn, []any{&n}, "select count(*) from "+from, args...)
	return n
}
