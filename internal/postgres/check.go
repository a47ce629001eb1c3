// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Guarded lists the schemas whose tables must all have row security forced.
var Guarded = []string{"medirecord", "audit", "audit_part", "keys"}

// CheckRole reports why this pool's role must not serve: it is a superuser,
// bypasses row security, owns a guarded table or may become one who does.
func CheckRole(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select rolname, rolsuper, rolbypassrls,
       exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = any($1) and pg_has_role(current_user, c.relowner, 'member')),
       has_database_privilege(current_database(), 'TEMP'), has_database_privilege(current_database(), 'CREATE'),
       has_schema_privilege('public', 'CREATE')
  from pg_roles where rolname = current_user`
	var name string
	var super, bypass, owner, temp, create, public bool
	if err := pool.QueryRow(ctx, q, Guarded).Scan(&name, &super, &bypass, &owner, &temp, &create, &public); err != nil {
		return Unavailable(err)
	}
	for _, r := range []struct {
		bad bool
		why string
	}{
		{super, "is a superuser"},
		{bypass, "bypasses row-level security"},
		{owner, "owns or may become the owner of the tables"},
		{temp, "may create temporary objects"},
		{create, "may create schemas"},
		{public, "may create objects in schema public"},
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
       current_setting('synchronous_commit'), pg_is_in_recovery()`
	var version int
	var fsync, fpw, sync string
	var standby bool
	if err := pool.QueryRow(ctx, q).Scan(&version, &fsync, &fpw, &sync, &standby); err != nil {
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
	case standby:
		return fmt.Errorf("the server is a read-only standby: nothing could be recorded; connect to the primary")
	}
	return nil
}

// CheckForced reports every guarded table or partition on which row security
// is not enabled and forced.
func CheckForced(ctx context.Context, pool *pgxpool.Pool) error {
	const q = `
select coalesce(array_agg(n.nspname || '.' || c.relname order by 1), '{}')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any($1) and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)`
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
 where not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                    where n.nspname = 'audit_part' and c.relname = 'event_' || to_char(m, 'YYYY_MM'))`
	var missing []string
	if err := pool.QueryRow(ctx, q).Scan(&missing); err != nil {
		return Unavailable(err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the audit trail has no partition for %s: start `medirecord worker`, or run `medirecord migrate`", strings.Join(missing, ", "))
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
	return nil // yesterday's binary runs on today's schema
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
