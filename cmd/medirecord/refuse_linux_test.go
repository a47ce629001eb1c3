// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// as returns the clinical database's address for one of its roles.
func (s *devServer) as(t *testing.T, role string) string {
	t.Helper()
	u, err := url.Parse(s.info.Database.AppURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("medirecord_"+role, contents(t, filepath.Join(s.data, "secrets", role)))
	return u.String()
}

// startUpRefusals tries to start the API, and the worker, on databases and
// with settings that are not safe. Each time it says which, and exits 1.
func startUpRefusals(t *testing.T, s *devServer) {
	super := s.super(t, s.info.Database.Name)
	keys := s.super(t, "medirecord_keystore")
	part := "event_" + time.Now().UTC().AddDate(0, 0, 1-time.Now().UTC().Day()).AddDate(0, 2, 0).Format("2006_01")
	change := func(conn *pgx.Conn, there, back string) func(*testing.T) func() {
		return func(t *testing.T) func() {
			exec1(t, conn, there)
			return func() {
				if _, err := conn.Exec(context.WithoutCancel(t.Context()), back); err != nil {
					t.Errorf("%s: %v", back, err)
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		part   string // serve when ""
		change func(*testing.T) (back func())
		env    []string
		want   string
	}{
		{name: "the API's role is superuser", env: []string{"MEDIRECORD_DATABASE_URL=" + s.info.Database.SuperuserURL}, want: "database role postgres is a superuser"},
		{name: "the trail's role is superuser", env: []string{"MEDIRECORD_TRAIL_DATABASE_URL=" + s.info.Database.SuperuserURL}, want: "database role postgres is a superuser"},
		{name: "the worker's role is superuser", part: "worker", env: []string{"MEDIRECORD_WORKER_DATABASE_URL=" + s.info.Database.SuperuserURL}, want: "database role postgres is a superuser"},
		{name: "the API's role may become the owner", env: []string{"MEDIRECORD_DATABASE_URL=" + s.as(t, "migrator")}, want: "database role medirecord_migrator owns or may become the owner"},
		{name: "the worker's role may become the owner", part: "worker", env: []string{"MEDIRECORD_WORKER_DATABASE_URL=" + s.as(t, "migrator")}, want: "database role medirecord_migrator owns or may become the owner"},
		{name: "the sealer's role is superuser", part: "worker", env: []string{"MEDIRECORD_SEALER_DATABASE_URL=" + s.info.Database.SuperuserURL}, want: "database role postgres is a superuser"},
		{name: "the auditor's role is superuser", part: "worker", env: []string{"MEDIRECORD_AUDITOR_DATABASE_URL=" + s.info.Database.SuperuserURL}, want: "database role postgres is a superuser"},
		{name: "a log without its keys", part: "worker", env: []string{"MEDIRECORD_TRAIL_KEY_FILE=none.key"}, want: "MEDIRECORD_TRAIL_KEY_FILE: "},
		{
			name: "a database restored into another cluster", want: "`medirecord audit epoch`",
			change: change(super, `update audit.epoch set system_id = system_id + 1`, `update audit.epoch set system_id = system_id - 1`),
		},
		{
			name: "a role bypasses row security", want: "database role medirecord_app bypasses row-level security",
			change: change(super, `alter role medirecord_app bypassrls`, `alter role medirecord_app nobypassrls`),
		},
		{
			name: "a role may make temporary tables", want: "database role medirecord_app may create temporary objects",
			change: change(super, `grant temporary on database medirecord to medirecord_app`, `revoke temporary on database medirecord from medirecord_app`),
		},
		{
			name: "a table without forced row security", want: "row-level security is not forced on medirecord.patient",
			change: change(super, `alter table medirecord.patient no force row level security`, `alter table medirecord.patient force row level security`),
		},
		{
			name: "a partition of the trail without row security", want: "row-level security is not forced on audit_part." + part,
			change: change(super, `alter table audit_part.`+part+` disable row level security`, `alter table audit_part.`+part+` enable row level security`),
		},
		{
			name: "a key table without forced row security", want: "row-level security is not forced on keys.patient_key",
			change: change(keys, `alter table keys.patient_key no force row level security`, `alter table keys.patient_key force row level security`),
		},
		{
			name: "no partition for the month after next", want: "the audit trail has no partition for " + strings.ReplaceAll(strings.TrimPrefix(part, "event_"), "_", "-"),
			change: change(super, `drop table audit_part.`+part, `select audit.make_partitions(6)`),
		},
		{
			name: "commits that are not durable", want: "synchronous_commit = off for this role",
			change: change(super, `alter role medirecord_trail set synchronous_commit = off`, `alter role medirecord_trail set synchronous_commit = on`),
		},
		{
			name: "a database before its migrations", want: "the database lacks 1 migrations: run `medirecord migrate`",
			change: change(super, `create table migration.aside as select * from migration.step order by ctid desc limit 1;
				delete from migration.step where ctid = (select ctid from migration.step order by ctid desc limit 1)`,
				`insert into migration.step select * from migration.aside; drop table migration.aside`),
		},
		{name: "a database that was never migrated", env: []string{"MEDIRECORD_DATABASE_URL=" + strings.Replace(s.info.Database.AppURL, "/medirecord?", "/postgres?", 1)}, want: "database"},
		{name: "a wrong password", env: []string{"MEDIRECORD_DATABASE_URL=" + strings.Replace(s.info.Database.AppURL, "medirecord_app:", "medirecord_app:x", 1)}, want: "clinical database"},
		{name: "a trail that cannot be reached", env: []string{"MEDIRECORD_TRAIL_DATABASE_URL=postgres://medirecord_trail:hunter2@/medirecord?host=/nowhere"}, want: "audit trail"},
		{name: "a key store that cannot be reached", env: []string{"MEDIRECORD_KEYSTORE_DATABASE_URL=postgres://medirecord_keys:hunter2@/medirecord_keystore?host=/nowhere"}, want: "key store"},
		{name: "listening to the network in the clear", env: []string{"MEDIRECORD_LISTEN=0.0.0.0:0"}, want: "MEDIRECORD_LISTEN 0.0.0.0:0 would serve patient data in the clear"},
		{name: "a certificate without its key", env: []string{"MEDIRECORD_HTTP_TLS_CERT=cert.pem"}, want: "MEDIRECORD_HTTP_TLS_CERT and MEDIRECORD_HTTP_TLS_KEY belong together"},
		{name: "a key without its certificate", env: []string{"MEDIRECORD_HTTP_TLS_KEY=key.pem"}, want: "MEDIRECORD_HTTP_TLS_CERT and MEDIRECORD_HTTP_TLS_KEY belong together"},
		{name: "a certificate that is none", env: []string{"MEDIRECORD_HTTP_TLS_CERT=none.pem", "MEDIRECORD_HTTP_TLS_KEY=none.pem"}, want: "MEDIRECORD_HTTP_TLS_CERT: "},
		{name: "a busy port", env: []string{"MEDIRECORD_LISTEN=" + strings.TrimPrefix(s.info.API, "http://")}, want: "MEDIRECORD_LISTEN: "},
		{name: "a busy port for operations", env: []string{"MEDIRECORD_OPS_LISTEN=" + strings.TrimPrefix(s.info.API, "http://")}, want: "MEDIRECORD_OPS_LISTEN: "},
		{name: "no token for the service", env: []string{"MEDIRECORD_SERVICE_TOKEN_FILE=none.token"}, want: "MEDIRECORD_SERVICE_TOKEN_FILE: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change != nil {
				defer c.change(t)()
			}
			part := "serve"
			env := s.serving()
			if c.part == "worker" {
				part = "worker"
				env = append(env, "MEDIRECORD_WORKER_DATABASE_URL="+s.as(t, "worker"), "MEDIRECORD_SERVICE_TOKEN_FILE="+filepath.Join(s.data, "services", "worker.token"),
					"MEDIRECORD_SEALER_DATABASE_URL="+s.as(t, "sealer"), "MEDIRECORD_AUDITOR_DATABASE_URL="+s.as(t, "auditor"), "MEDIRECORD_TRAIL_ORIGIN=dev.medirecord.example/audit",
					"MEDIRECORD_TRAIL_KEY_FILE="+filepath.Join(s.data, "trail.key"), "MEDIRECORD_SEALER_STATE="+filepath.Join(t.TempDir(), "sealer.json"))
			}
			got := s.runWithin(t, time.Minute, append(env, c.env...), part) // if it starts it does not end
			if got.code != 1 || !strings.Contains(got.errs, "medirecord: ") || !strings.Contains(got.errs, c.want) {
				t.Errorf("exits %d and says %q, want 1 and %q", got.code, got.errs, c.want)
			}
			for _, secret := range []string{"hunter2", "medirecord_app:", contents(t, filepath.Join(s.data, "secrets", "app")), contents(t, filepath.Join(s.data, "secrets", "migrator"))} {
				if strings.Contains(got.out+got.errs, secret) {
					t.Error("it shows a password")
				}
			}
		})
	}
	t.Run("and starts when all is well again", func(t *testing.T) {
		api, ops, _ := s.serve(t)
		a := patiently(t, func() answer {
			return ask(t.Context(), api+"/patients/"+s.info.Patients[0].ID, s.info.Tokens["clinician"])
		})
		if a.status != 200 {
			t.Errorf("got %d %s", a.status, a.body)
		}
		ready(t, ops)
	})
}

func migrateAgain(t *testing.T, s *devServer) {
	migrator := s.as(t, "migrator")
	env := []string{
		"MEDIRECORD_MIGRATE_DATABASE_URL=" + migrator,
		"MEDIRECORD_MIGRATE_KEYSTORE_URL=" + strings.Replace(migrator, "/medirecord?", "/medirecord_keystore?", 1),
		"MEDIRECORD_CONTEXT_KEY_FILE=" + filepath.Join(s.data, "sidecar", "context.key"),
	}
	got := s.run(t, env, "migrate")
	if got.code != 0 || got.out != "nothing to do: both databases are at this program's schema\n" {
		t.Errorf("exits %d: %s%s", got.code, got.out, got.errs)
	}
	// The API's role cannot migrate.
	env[0] = "MEDIRECORD_MIGRATE_DATABASE_URL=" + s.info.Database.AppURL
	if got := s.run(t, env, "migrate"); got.code != 1 {
		t.Errorf("as the API's role it exits %d: %s", got.code, got.out)
	}
}
