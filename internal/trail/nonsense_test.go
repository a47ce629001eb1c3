// SPDX-License-Identifier: Apache-2.0

package trail_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/trail"
)

// nonsense is what is written into a column of a type. No check is in its way.
var nonsense = map[string][]string{
	"integer":                     {"null", "-1", "0", "2147483647", "-2147483648"},
	"bigint":                      {"null", "-1", "9223372036854775807", "-9223372036854775808", "1125899906842624"},
	"smallint":                    {"null", "-1", "32767"},
	"xid8":                        {"null", "'0'", "'18446744073709551615'"},
	"uuid":                        {"null", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"},
	"text":                        {"null", "''", "repeat('x', 100000)", `E'\x01\u202e\uFFFF'`},
	"boolean":                     {"null", "not $COLUMN"},
	"bytea":                       {"null", "''", `'\x00'`, "$COLUMN || $COLUMN", "$COLUMN || '\\x00'", "decode(repeat('ab', 8192), 'hex')"},
	"timestamp(3) with time zone": {"null", "'infinity'", "'-infinity'", "'294276-12-31'", "'4713-01-01 BC'"},
}

// harmless columns say nothing of the history: nothing is held against them.
var harmless = []string{
	"epoch.system_id", "epoch.began_at", "batch.sealed_at", "checkpoint.signed_at", "checkpoint.cosigned_at",
	"checkpoint.epoch", // a head that is gone takes nothing but a proof with it, and here the next epoch proves the same
}

// A superuser can lift every check and write what they like. The verification
// tells of it, names the entry, and goes on to the end.
func TestNonsenseInAnyColumnIsTold(t *testing.T) {
	t.Parallel()
	s, policy, _ := twoEpochs(t)
	super := s.db.Super(t)
	ctx := t.Context()
	id := s.idAt(t, super, 7)
	tables := []string{"event", "epoch", "batch", "tile", "checkpoint", "patient_head", "map_slice"}
	medtest.Exec(t, super, `set session_replication_role = replica; create schema saved; `+unlocked+`
create table audit_part.ever partition of audit.event default; grant select on audit_part.ever to medirecord_auditor`)
	type column struct{ table, name, typ string }
	var columns []column
	for _, table := range tables {
		medtest.Exec(t, super, `create table saved.`+table+` as select * from audit.`+table)
		rows, err := super.Query(ctx, `
select a.attname::text, format_type(a.atttypid, a.atttypmod) from pg_attribute a where a.attrelid = ('audit.' || $1)::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`, table)
		if err != nil {
			t.Fatal(err)
		}
		of, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c column, err error) { c.table = table; return c, r.Scan(&c.name, &c.typ) })
		if err != nil {
			t.Fatal(err)
		}
		columns = append(columns, of...)
	}
	// Every check, key and NOT NULL is lifted.
	medtest.Exec(t, super, `
do $$
declare r record;
begin
  for r in select conrelid::regclass::text as t, conname from pg_constraint where contype in ('c', 'f') and connamespace = 'audit'::regnamespace and conparentid = 0 and coninhcount = 0 loop
    execute format('alter table %s drop constraint %I cascade', r.t, r.conname);
  end loop;
  for r in select conrelid::regclass::text as t, conname from pg_constraint where contype in ('p', 'u') and connamespace = 'audit'::regnamespace and conparentid = 0 loop
    execute format('alter table %s drop constraint %I cascade', r.t, r.conname);
  end loop;
  for r in select a.attrelid::regclass::text as t, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = 'audit'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and a.attnotnull loop
    execute format('alter table %s alter column %I drop not null', r.t, r.attname);
  end loop;
end $$;
drop index if exists audit.batch_index`)
	verify := func(t *testing.T) (found []audit.Finding, logs []trail.Log) {
		t.Helper()
		snap, err := trail.OpenSnapshot(ctx, s.db.URL("auditor"), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close(ctx)
		if logs, err = snap.Logs(ctx); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		opt := trail.VerifyOptions{Trust: trail.Trust(policy), Tell: func(f audit.Finding) {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, f)
		}}
		for _, l := range logs {
			if _, err := snap.Verify(ctx, l, opt); err != nil {
				t.Errorf("epoch %d: %v", l.Epoch, err)
			}
		}
		return found, logs
	}
	if found, _ := verify(t); len(found) > 0 {
		t.Fatalf("before anything is done: %v", found)
	}
	which := map[string]string{
		"event": "event_id = '" + id + "'", "epoch": "epoch = 1", "batch": "epoch = 1 and batch = (select min(batch) from audit.batch where epoch = 1)", "tile": "epoch = 1",
		"checkpoint": "epoch = 1", "patient_head": "epoch = 1", "map_slice": "epoch = 1",
	}
	for _, c := range columns {
		values, ok := nonsense[c.typ]
		if !ok {
			t.Errorf("nobody thought of columns of %s, such as %s.%s", c.typ, c.table, c.name)
		}
		for _, v := range values {
			v = strings.ReplaceAll(v, "$COLUMN", c.name)
			was := fmt.Sprintf("%s.%s = %.30s", c.table, c.name, v)
			_, err := super.Exec(ctx, fmt.Sprintf(`update audit.%s set %s = %s where %s and %s is distinct from %s`, c.table, c.name, v, which[c.table], c.name, v))
			if err != nil {
				t.Fatalf("%s: %v", was, err)
			}
			var changed bool
			medtest.Scan(t, super, []any{&changed}, `select exists (select * from audit.`+c.table+` except select * from saved.`+c.table+`)`)
			if !changed {
				continue
			}
			found, _ := verify(t)
			told := slices.ContainsFunc(found, audit.Finding.Tampering)
			if free := slices.Contains(harmless, c.table+"."+c.name); !told && !free {
				t.Errorf("%s is not told: %v", was, found)
			}
			if c.table == "event" && !slices.ContainsFunc(found, func(f audit.Finding) bool { return f.Tampering() && f.Epoch == 1 && (f.Index == 7 || f.ID == id) }) {
				t.Errorf("%s does not name the entry: %v", was, found)
			}
			if c.table == "event" && len(found) > 3 {
				t.Errorf("%s: one entry, and %d findings: %v", was, len(found), found)
			}
			medtest.Exec(t, super, `delete from audit.`+c.table)
			medtest.Exec(t, super, `insert into audit.`+c.table+` select * from saved.`+c.table)
		}
	}
	if found, _ := verify(t); len(found) > 0 {
		t.Errorf("after all was put right again: %v", found)
	}
}
