// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// Who has taken over the API has the trail writer's password, and what they add
// nobody can remove: it must not keep anybody from reading what is around it.
func TestAnEntryThatDoesNotReadHidesNoOther(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := s.Patient(t, medtest.North, medtest.Alice())
	read := s.Get(t, s.Of(t, med.RoleClinician, medtest.North), path(alice)).Header.Get("Audit-Event-Id")
	writer, super := s.DB.As(t, "trail"), s.DB.Super(t)
	t.Cleanup(func() { // before the trail is checked
		medtest.Exec(t, super, `alter table audit.event disable trigger no_change`)
		medtest.Exec(t, super, `delete from audit.event where actor_subject = 'mallory'`)
	})
	for _, detail := range []string{
		``, `[]`, `7`, `no JSON "manifest":"`, `{"roles":7}`, strings.Repeat("[", 9999),
		`{"break_glass":{"grant":"g","reason_code":"c","sealed":"AAAA"}}`, `{"break_glass":{"sealed":"AX////8AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`,
	} {
		now := time.Now().Truncate(time.Millisecond)
		medtest.Exec(t, writer, `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action, resource_type, resource_id,
                         outcome, break_glass, detail, nonce, version)
values ($3, $4, 'https://evil.invalid', 'mallory', 'north', $1, 'north', 'read', 'patient', $1, 'denied', false, $2,
        decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), 1)`, string(alice), detail, med.NewUUID(now), now)
	}
	officer, admin := s.Of(t, med.RoleOfficer, medtest.North), s.Of(t, med.RoleAdmin, medtest.North)
	for _, tc := range []struct{ token, path string }{
		{officer, "/api/v1/audit/logs"},
		{officer, "/api/v1/audit/logs?patient=" + string(alice)},
		{admin, "/patients/" + string(alice) + "/audit"},
		{officer, "/api/v1/patients/" + string(alice) + "/accesses"},
		{s.PatientOf(t, alice, medtest.North), "/api/v1/patients/" + string(alice) + "/accesses"},
	} {
		got := s.Get(t, tc.token, tc.path)
		if got.Status != 200 || !strings.Contains(got.Body, read) || strings.Count(got.Body, "mallory") < 8 {
			t.Errorf("%s: got %d %.300s, want the entry of the read and all of mallory's", tc.path, got.Status, got.Body)
		}
	}
	if got := s.Get(t, officer, "/api/v1/audit/logs/mallory"); strings.Count(got.Body, `"code":"unreadable"`) != 6 {
		t.Errorf("got %d %.300s, want six that say they do not read", got.Status, got.Body)
	}
	if !strings.Contains(s.Log.String(), "ALERT an entry of the trail was written by none of ours") {
		t.Error("nobody was told")
	}
}
