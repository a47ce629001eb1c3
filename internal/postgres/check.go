// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Guarded lists the schemas whose tables must all have row security forced.
var Guarded = []string{"medirecord", "audit", "audit_part", "keys"}

// predefined are PostgreSQL's own roles that read or write past every grant:
// the verifying key and the server's files are among what they reach.
var predefined = []string{
	"pg_read_all_data", "pg_write_all_data", "pg_read_server_files", "pg_write_server_files", "pg_execute_server_program",
}

// CheckRole reports why this pool's role must not serve: it is a superuser,
// bypasses row security, owns a guarded table or the verifying key, may become
// a role that does, or could make itself one; or it could make objects that a
// policy or a definer function might then call.
func CheckRole(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication,
       exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = any($1) and pg_has_role(current_user, c.relowner, 'member')),
       coalesce((select string_agg(r.rolname, ', ' order by r.rolname) from pg_roles r
                  where (r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication or r.rolname = any($2))
                    and r.rolname <> current_user and pg_has_role(current_user, r.oid, 'member')), ''),
       has_database_privilege(current_database(), 'TEMP'), has_database_privilege(current_database(), 'CREATE'),
       coalesce((select string_agg(nspname, ', ' order by nspname) from pg_namespace where has_schema_privilege(oid, 'CREATE')), '')
  from pg_roles where rolname = current_user`
	var name, member, schemas string
	var super, bypass, createRole, replication, owner, temp, create bool
	err := pool.QueryRow(ctx, q, append([]string{"ctx_private"}, Guarded...), predefined).
		Scan(&name, &super, &bypass, &createRole, &replication, &owner, &member, &temp, &create, &schemas)
	if err != nil {
		return Unavailable(err)
	}
	for _, r := range []struct {
		bad bool
		why string
	}{
		{super, "is a superuser"},
		{bypass, "bypasses row-level security"},
		{createRole, "may create roles, and so become any"},
		{replication, "may replicate, and so copy everything"},
		{owner, "owns or may become the owner of the tables"},
		{member != "", "may become " + member},
		{temp, "may create temporary objects"},
		{create, "may create schemas"},
		{schemas != "", "may create objects in schema " + schemas},
	} {
		if r.bad {
			return fmt.Errorf("database role %s %s: MediRecord does not serve with such a role; use the roles that `medirecord migrate` makes", name, r.why)
		}
	}
	return nil
}

// CheckServer reports why this server must not hold the trail: a commit that
// has returned would not be durable, or a prepared transaction could hold back
// the sealing for ever.
func CheckServer(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_commit'), current_setting('max_prepared_transactions')::int, pg_is_in_recovery()`
	var version, prepared int
	var fsync, fpw, sync string
	var standby bool
	if err := pool.QueryRow(ctx, q).Scan(&version, &fsync, &fpw, &sync, &prepared, &standby); err != nil {
		return Unavailable(err)
	}
	switch {
	case version < 150000:
		return fmt.Errorf("PostgreSQL %d is too old: 15 or newer is needed", version/10000)
	case fsync != "on":
		return fmt.Errorf("the server runs with fsync = %s: a committed audit entry could be lost; set it on", fsync)
	case fpw != "on":
		return fmt.Errorf("the server runs with full_page_writes = %s: a committed audit entry could be lost; set it on", fpw)
	case sync != "on" && sync != "remote_apply":
		return fmt.Errorf("synchronous_commit = %s for this role: a committed audit entry could be lost; set it on", sync)
	case prepared != 0:
		return fmt.Errorf("the server runs with max_prepared_transactions = %d: a prepared transaction could hold back the sealing of the trail for ever; set it to 0", prepared)
	case standby:
		return fmt.Errorf("the server is a read-only standby: nothing could be recorded; connect to the primary")
	}
	return nil
}

// CheckForced reports every guarded table or partition, wherever that is, on
// which row security is not enabled and forced; and what stands among them and
// passes it by: a materialised view, a foreign table, a superuser's view.
func CheckForced(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select coalesce(array_agg(n.nspname || '.' || c.relname order by 1), '{}')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where (c.relkind in ('r', 'p', 'm', 'f') and not (c.relrowsecurity and c.relforcerowsecurity)
        or c.relkind = 'v' and exists (select from pg_roles o where o.oid = c.relowner and (o.rolsuper or o.rolbypassrls)))
   and (n.nspname = any($1)
        or exists (select from pg_inherits i join pg_class up on up.oid = i.inhparent join pg_namespace un on un.oid = up.relnamespace
                    where i.inhrelid = c.oid and un.nspname = any($1)))`
	var open []string
	if err := pool.QueryRow(ctx, q, Guarded).Scan(&open); err != nil {
		return Unavailable(err)
	}
	if len(open) > 0 {
		return fmt.Errorf("row-level security is not forced on %s: run `medirecord migrate`, and find out who changed it", strings.Join(open, ", "))
	}
	return nil
}

// CheckPartitions reports when the trail has no partition for each of this and
// the next two months.
func CheckPartitions(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select coalesce(array_agg(to_char(m, 'YYYY-MM') order by m), '{}')
  from generate_series(date_trunc('month', now() at time zone 'UTC'),
                       date_trunc('month', now() at time zone 'UTC') + interval '2 months', interval '1 month') m
 where not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_inherits i on i.inhrelid = c.oid
                    where n.nspname = 'audit_part' and c.relname = 'event_' || to_char(m, 'YYYY_MM')
                      and i.inhparent = to_regclass('audit.event') and not i.inhdetachpending)`
	var missing []string
	if err := pool.QueryRow(ctx, q).Scan(&missing); err != nil {
		return Unavailable(err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the audit trail has no partition for %s: start `medirecord worker`, or run `medirecord migrate`", strings.Join(missing, ", "))
	}
	return nil
}

// CheckEpoch reports when the database was restored into another cluster than
// the one whose transaction ids order the trail: what was written there now
// would stand in the wrong place, and never be sealed.
func CheckEpoch(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `select coalesce((select e.system_id <> s.system_identifier from audit.epoch e, pg_control_system() s order by e.epoch desc limit 1), false)`
	var elsewhere bool
	if err := pool.QueryRow(ctx, q).Scan(&elsewhere); err != nil {
		return Unavailable(err)
	}
	if elsewhere {
		return errors.New("the database was restored into another cluster, where transaction ids begin anew: begin a new epoch of the trail with `medirecord audit epoch`")
	}
	return nil
}

// CheckSchema reports when the database's migrations are not this program's.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool, steps []Step) error {
	var n int
	if err := pool.QueryRow(ctx, `select count(*) from migration.step`).Scan(&n); err != nil {
		if unreachable(err) {
			return Unavailable(err)
		}
		return fmt.Errorf("the database has not been migrated: run `medirecord migrate`")
	}
	if n < len(steps) {
		return fmt.Errorf("the database lacks %d migrations: run `medirecord migrate`", len(steps)-n)
	}
	return nil // yesterday's binary runs on today's schema; docs/operate.md says what it does without
}

// ClockSkew returns by how much the clocks here and in the database differ,
// within half a round trip.
func (db *DB) ClockSkew(ctx context.Context, now func() time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, db.deadline)
	defer cancel()
	before := now()
	var there time.Time
	if err := db.pool.QueryRow(ctx, `select clock_timestamp()`).Scan(&there); err != nil {
		return 0, Unavailable(err)
	}
	after := now()
	switch {
	case there.Before(before):
		return before.Sub(there), nil
	case there.After(after):
		return there.Sub(after), nil
	}
	return 0, nil
}

// CheckTransport reports when the URL would send patient data in the clear:
// anything but a unix socket, verified TLS, or loopback in dev. The error
// names the setting and not the URL, which holds a password.
func CheckTransport(setting, url string, dev bool) error {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s cannot be read as a database URL; it must look like postgres://user:password@host/database", setting)
	}
	type way struct {
		host string
		tls  *tls.Config
	}
	ways := []way{{c.Host, c.TLSConfig}}
	for _, f := range c.Fallbacks {
		ways = append(ways, way{f.Host, f.TLSConfig})
	}
	for _, w := range ways {
		ip := net.ParseIP(w.host)
		loopback := w.host == "localhost" || ip != nil && ip.IsLoopback()
		switch {
		case strings.HasPrefix(w.host, "/"), dev && loopback:
		case w.tls == nil || w.tls.InsecureSkipVerify && w.tls.VerifyPeerCertificate == nil:
			return fmt.Errorf("%s would reach the database without verified TLS: use a unix socket, or add sslmode=verify-full and sslrootcert", setting)
		}
	}
	return nil
}
