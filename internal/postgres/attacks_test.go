// SPDX-License-Identifier: Apache-2.0

package postgres_test

import "testing"

// The callers whose contexts the attacker holds.
var (
	north1 = ptr(clinician("north", "north-1")) // the usual one
	south1 = ptr(clinician("north", "south-1")) // asks for another practice's patient
	gone   = ptr(clinician("north", "north-gone"))
	bulk   = ptr(importer("north"))
	sweep  = ptr(service("worker", "sweep", "north"))
	adding = ptr(service("operator", "practice.add", "north"))
)

const anyUUID = `'00000000-0000-7000-8000-00000000000f'`

func readingElsewhere(t *testing.T, w *world) {
	all(t, w, []attack{
		// The control: what a context is there for works.
		{name: "its own patient is shown", with: north1, sql: `select id from medirecord.patient`, want: only("north-1")},
		{name: "and their records", with: north1, sql: `select id from medirecord.record`, want: only("record-of-north-1")},
		{name: "and their practice", with: north1, sql: `select id from medirecord.practice`, want: only("north")},
		{name: "a fact of the context itself", with: north1, sql: `select ctx.fact('practice')`, want: only("north")},

		{name: "another patient of the same practice", with: north1, sql: `select id from medirecord.patient where id = 'north-2'`, want: nothing},
		{name: "through the reading function, another patient", with: north1, sql: `select practice_id from medirecord.read_patients(array[current_setting('medirecord.ctx')]) where patient <> 'north-1'`, want: nothing},
		{name: "records of another patient", with: north1, sql: `select id from medirecord.record where patient_id <> 'north-1'`, want: nothing},
		{name: "a patient of another practice", with: south1, sql: `select id from medirecord.patient`, want: nothing},
		{name: "records of a patient of another practice", with: south1, sql: `select id from medirecord.record`, want: nothing},
		{name: "a patient's own context for somebody else", with: ptr(patient("north-1", "north-2")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a patient without a patient id", with: ptr(known("nobody", "north-1")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "an officer has no clinical data", with: ptr(officer("north", "north-1")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "an auditor has no clinical data", with: ptr(auditor("north")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "the role break_glass without a grant", with: ptr(person("break_glass", "", "south-1")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a clinician without a practice", with: ptr(clinician("", "south-1")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "an unknown role", with: ptr(person("janitor", "north", "north-1")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "an action that is not for reading patients", with: func() *caller { c := clinician("north", "north-1"); c.Action = "patient.search"; return &c }(), sql: `select id from medirecord.patient union all select patient_id from medirecord.blind_index`, want: nothing},
		{name: "a service's name in a person's role", with: ptr(person("service:import", "north", "north-1")), sql: `select id from medirecord.patient union all select patient_id from medirecord.intake`, want: nothing},
		{name: "blind indexes with one patient's context", with: north1, sql: `select patient_id from medirecord.blind_index`, want: nothing},
		{name: "intakes with one patient's context", with: north1, sql: `select patient_id from medirecord.intake`, want: nothing},
		{name: "who is linked to whom", with: north1, sql: `select subject from medirecord.patient_link`, want: refused()},
		{name: "somebody's grant", with: north1, sql: `select id from medirecord.break_glass`, want: nothing},
		{name: "the reason of a grant", with: north1, sql: `select reason from medirecord.break_glass`, want: nothing},
		{name: "what officers are told", with: north1, sql: `select * from medirecord.outbox`, want: refused()},
		{name: "another practice's name", with: north1, sql: `select name from medirecord.practice where id = 'south'`, want: nothing},
		{name: "the trail without the right to it", with: north1, sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as a clinician who says audit", with: func() *caller { c := clinician("north", "north-1"); c.Action = "audit.read"; return &c }(), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as a patient, of another", with: reading(patient("north-1", "north-2")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as a patient, of all", with: reading(patient("north-1", "")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as a patient of another practice, of theirs", with: reading(patient("north-1", "south-1")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as nobody's link", with: reading(known("unlinked", "south-1")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as an officer of another practice, of one patient", with: reading(officer("south", "north-1")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as a service that says audit", with: ptr(service("worker", "audit.read", "north")), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail as an admin without a second factor", with: func() *caller { c := admin("north", "north-1", false); c.Action = "audit.read"; return &c }(), sql: `select detail from audit.event`, want: nothing},
		{name: "the trail of another practice", with: ptr(auditor("north")), sql: `select detail from audit.event where patient_practice = 'south'`, want: nothing},
		{name: "the trail without a practice", with: ptr(auditor("")), sql: `select detail from audit.event`, want: nothing},
		{name: "a partition of the trail itself", with: ptr(auditor("north")), sql: `do $$ declare p text; r record; begin
			select max(relid::regclass::text) into p from pg_partition_tree('audit.event') where isleaf;
			for r in execute 'select * from ' || p loop raise notice '%', r; end loop; end $$`, want: refused()},

		// Deleted patients are gone for everybody but an admin with a second factor.
		{name: "a deleted patient, as a clinician", with: gone, sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as a nurse", with: ptr(nurse("north", "north-gone")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as themselves", with: ptr(patient("north-gone", "north-gone")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as one linked to them", with: ptr(known("linked", "south-gone")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as an admin without a second factor", with: ptr(admin("north", "north-gone", false)), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as an admin of another practice", with: ptr(admin("north", "south-gone", true)), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a deleted patient, as an import", with: bulk, sql: `select id from medirecord.patient where id like '%gone'`, want: nothing},
		{name: "a deleted patient's practice", with: gone, sql: `select medirecord.practice_of('north-gone')`, want: only("")},
		{name: "but an admin with a second factor sees them", with: ptr(admin("north", "north-gone", true)), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: only("north-gone", "record-of-north-gone")},

		// Links.
		{name: "one linked to a patient of another practice sees them", with: ptr(known("linked", "south-1")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: only("south-1", "record-of-south-1")},
		{name: "a link that has ended", with: ptr(known("formerly", "south-1")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "a link that has not begun", with: ptr(known("soon", "south-1")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "a link to another patient", with: ptr(known("linked", "south-2")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "the same subject at another issuer", with: func() *caller { c := known("linked", "south-1"); c.Issuer = "https://evil.invalid"; return &c }(), sql: `select id from medirecord.patient`, want: nothing},
		{name: "issuer and subject cut elsewhere", with: func() *caller { c := known("inked", "south-1"); c.Issuer = issuer + "l"; return &c }(), sql: `select id from medirecord.patient`, want: nothing},

		// Services.
		{name: "an import of another practice", with: bulk, sql: `select id from medirecord.patient where practice_id <> 'north' union all select id from medirecord.record where practice_id <> 'north'
			union all select patient_id from medirecord.blind_index where practice_id <> 'north' union all select patient_id from medirecord.intake where practice_id <> 'north'`, want: nothing},
		{name: "an import has its own practice", with: bulk, sql: `select id from medirecord.patient order by id`, want: only("north-1", "north-2")},
		{name: "an import has no trail", with: bulk, sql: `select detail from audit.event`, want: nothing},
		{name: "an operator has no patients", with: adding, sql: `select id from medirecord.patient union all select id from medirecord.record union all select patient_id from medirecord.blind_index union all select patient_id from medirecord.intake`, want: nothing},
		{name: "a lister of practices has no patients", with: ptr(service("worker", "practice.list", "")), sql: `select id from medirecord.patient union all select id from medirecord.record`, want: nothing},
		{name: "a sweeper's context in the API's hands", with: sweep, sql: `select sealed from medirecord.record where patient_id like 'south%'`, want: nothing},
		{name: "a worker's import", with: ptr(service("worker", "import", "north")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "an import's sweep", with: ptr(service("import", "sweep", "north")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "an operator's import", with: ptr(service("operator", "import", "north")), sql: `select id from medirecord.patient`, want: nothing},
		{name: "the worker sees ids of its practice", as: "worker", with: sweep, sql: `select id from medirecord.patient order by id`, want: only("north-1", "north-2", "north-gone")},
		{name: "the worker reads what is sealed", as: "worker", with: sweep, sql: `select sealed from medirecord.patient`, want: refused()},
		{name: "the worker reads whole rows", as: "worker", with: sweep, sql: `select p from medirecord.patient p`, want: refused()},
		{name: "the worker reads through the reading function", as: "worker", with: sweep, sql: `select * from medirecord.read_patients(array[current_setting('medirecord.ctx')])`, want: refused()},
		{name: "the worker reads records", as: "worker", with: sweep, sql: `select * from medirecord.record`, want: refused()},
		{name: "the worker reads the trail", as: "worker", with: sweep, sql: `select * from audit.event`, want: refused()},
		{name: "the worker with a clinician's context", as: "worker", with: north1, sql: `select sealed from medirecord.patient`, want: refused()},
		{name: "the worker lists practices with a sweeper's context", as: "worker", with: sweep, sql: `select id from medirecord.practice`, want: only("north")},

		// What is asked by way of something else.
		{name: "copied out", with: south1, sql: `copy medirecord.patient to stdout`, want: nothing},
		{name: "copied out by a query", with: bulk, sql: `copy (select * from medirecord.patient where practice_id = 'south') to stdout`, want: nothing},
		{name: "copied out into a file", with: north1, sql: `copy medirecord.patient to '/tmp/patients'`, want: refused()},
		{name: "copied out into a program", with: north1, sql: `copy medirecord.patient to program 'cat'`, want: refused()},
		{name: "as a table", with: north1, sql: `select (t).id from (table medirecord.patient) t where (t).id <> 'north-1'`, want: nothing},
		{name: "by row identity", with: north1, sql: `select p.ctid from medirecord.patient p where p.ctid = any(array['(0,2)', '(0,4)', '(0,5)', '(0,6)']::tid[])`, want: nothing},
		{name: "by a sample", with: north1, sql: `select id from medirecord.patient tablesample bernoulli (100) where id <> 'north-1'`, want: nothing},
		{name: "for update", with: north1, sql: `select id from medirecord.patient for update`, want: nothing},
		{name: "for share", with: north1, sql: `select id from medirecord.patient for share`, want: nothing},
		{name: "by an outer join", with: north1, sql: `select p.id from (values ('south-1'), ('north-2')) v (id) left join medirecord.patient p using (id) where p.id is not null`, want: nothing},
		{name: "by a recursive query", with: north1, sql: `with recursive r as (select id from medirecord.patient union select p.id from medirecord.patient p, r) select id from r`, want: only("north-1")},
		{name: "by a cursor kept beyond the context", with: north1, sql: `begin; declare c cursor with hold for select id from medirecord.patient; commit; set medirecord.ctx = 'x'; fetch all from c`, want: only("north-1")},
		{name: "by a statement prepared under another context", with: north1, sql: `prepare q as select id from medirecord.patient; execute q; execute q; execute q; execute q; execute q; execute q; set medirecord.ctx = 'x'; execute q`, want: refused()},
		{name: "by a function on every row before the policy", with: north1, sql: `do $$ declare r record; begin for r in select convert_from(sealed, 'UTF8') as x from medirecord.patient loop raise notice '%', r.x; end loop; end $$`, want: nothing},
		{name: "by a division that fails on another's row", with: north1, sql: `select 'fine' from medirecord.patient having count(*) filter (where 1 / case when id = 'south-1' then 0 else 1 end = 1) = 1`, want: only("fine")},
		{name: "by a cast that fails on another's row", with: south1, sql: `select id from medirecord.patient where convert_from(sealed, 'UTF8')::integer > 0`, want: nothing},
		{name: "by an error that quotes the row", with: south1, sql: `select convert_from(sealed, 'UTF8')::date from medirecord.record`, want: nothing},
		{name: "by statistics", with: north1, sql: `select most_common_vals::text || histogram_bounds::text from pg_stats where schemaname in ('medirecord', 'audit', 'audit_part', 'ctx_private')`, want: nothing},
		{name: "by raw statistics", with: north1, sql: `select * from pg_statistic`, want: refused()},
		{name: "by a file of the server", with: north1, sql: `select pg_read_binary_file(pg_relation_filepath('medirecord.patient'))`, want: refused()},
		{name: "by a list of files", with: north1, sql: `select pg_ls_dir('base')`, want: refused()},
		{name: "by a large object", with: north1, sql: `select lo_import('/etc/passwd')`, want: refused()},
		{name: "kept in a large object", with: north1, sql: `select lo_from_bytea(0, sealed) from medirecord.patient`, want: refused()},
		{name: "kept in a new large object", with: north1, sql: `select lo_create(0), lo_creat(-1)`, want: refused()},
		{name: "the watch is kept from watching", sql: `select pg_advisory_lock(7237489)`, want: refused()},
		{name: "the sealer is kept from sealing", as: "trail", sql: `select pg_try_advisory_lock(7237487)`, want: refused()},
		{name: "a stream is kept from streaming", sql: `select pg_advisory_lock_shared(723749, hashtext('siem'))`, want: refused()},
		{name: "a migration is kept from running", sql: `select pg_advisory_xact_lock(7237486)`, want: refused()},
		{name: "with row security off", with: north1, sql: `set row_security = off; select id from medirecord.patient`, want: refused()},
		{name: "of the trail with row security off", with: ptr(auditor("north")), sql: `set row_security = off; select event_id from audit.event`, want: refused()},
		{name: "in parallel", with: north1, sql: `set force_parallel_mode = on; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; select id from medirecord.patient`, want: only("north-1")},
		{name: "in parallel, through the reading function", with: north1, sql: `set force_parallel_mode = on; select practice_id from medirecord.read_patients(array[current_setting('medirecord.ctx')])`, want: only("north")},
		{name: "in parallel, an import", with: bulk, sql: `set force_parallel_mode = on; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; select id from medirecord.patient order by id`, want: only("north-1", "north-2")},
		{name: "with every kind of plan", with: north1, sql: `set enable_seqscan = off; set enable_indexscan = off; set plan_cache_mode = force_generic_plan; set constraint_exclusion = on; select id from medirecord.patient where id >= ''`, want: only("north-1")},
		{name: "with other spellings of text and bytes", with: north1, sql: `set client_encoding = 'LATIN1'; set bytea_output = 'escape'; set standard_conforming_strings = off; set transform_null_equals = on; select id from medirecord.patient`, want: only("north-1")},
		{name: "an expired context with other spellings of time", with: &caller{Context: north1.Context, ttl: -1}, sql: `set timezone = 'Pacific/Kiritimati'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601'; set extra_float_digits = -15; select id from medirecord.patient`, want: refused()},
		{name: "a word left behind that the person is the patient", with: north1, sql: `set medirecord.self = 'north-1'; select self from medirecord.read_patients(array[current_setting('medirecord.ctx')])`, want: only("f")},
		{name: "a search path of one's own", with: south1, sql: `set search_path = public, pg_catalog; select id from medirecord.patient`, want: nothing},
		{name: "a search path with the temporary schema first", with: south1, sql: `set search_path = pg_temp, public, medirecord, ctx, pg_catalog; select id from patient`, want: nothing},
		{name: "no search path at all", with: south1, sql: `set search_path = ''; select id from medirecord.patient`, want: nothing},
	})
}

func readingTheKey(t *testing.T, w *world) {
	var attacks []attack
	for _, role := range []string{"app", "worker", "trail", "keys", "retention", "migrator"} {
		attacks = append(attacks,
			attack{name: role + " reads the key", as: role, sql: `select * from ctx_private.key`, want: refused()},
			attack{name: role + " copies the key", as: role, sql: `copy ctx_private.key to stdout`, want: refused()},
			attack{name: role + " calls the verifier", as: role, sql: `select ctx_private.verified()`, want: refused()},
			attack{name: role + " finds the key in statistics", as: role, sql: `select 1 from pg_stats where schemaname = 'ctx_private'`, want: nothing},
		)
	}
	attacks = append(attacks,
		attack{name: "a fact that is no claim", with: north1, sql: `select ctx.fact('ik') is null and ctx.fact('key') is null`, want: only("t")},
		attack{name: "the key in a function's source", with: north1, sql: `select 1 from pg_proc, (select encode(sha256(''), 'hex')) s
			where prosrc ~ '36373435323330' or prosrc ~ '01020304050607'`, want: nothing}, // the test key, XORed and not
		attack{name: "the key in a setting", with: north1, sql: `select name from pg_settings where setting ~ '01020304050607'`, want: nothing},
		attack{name: "a key of one's own", with: north1, sql: `insert into ctx_private.key (kid, ik, ok) values ('evil', repeat('x', 64)::bytea, repeat('y', 64)::bytea)`, want: refused()},
		attack{name: "a key that never ends", with: north1, sql: `update ctx_private.key set not_after = 'infinity'`, want: refused()},
		attack{name: "no key", with: north1, sql: `delete from ctx_private.key`, want: refused()},
	)
	all(t, w, attacks)
}

func becomingSomebodyElse(t *testing.T, w *world) {
	var attacks []attack
	for _, role := range []string{"app", "worker", "trail", "keys", "retention"} {
		for _, other := range []string{"owner", "context", "locator", "migrator", "app", "trail", "worker", "keys", "sealer", "auditor"} {
			if other != role {
				attacks = append(attacks, attack{name: role + " becomes " + other, as: role, sql: `set role medirecord_` + other, want: refused()})
			}
		}
		attacks = append(attacks,
			attack{name: role + " becomes the superuser", as: role, sql: `set role postgres`, want: refused()},
			attack{name: role + " logs in again as another", as: role, sql: `set session authorization medirecord_owner`, want: refused()},
			attack{name: role + " is made a superuser", as: role, sql: `alter role medirecord_` + role + ` superuser`, want: refused()},
			attack{name: role + " is let past row security", as: role, sql: `alter role medirecord_` + role + ` bypassrls`, want: refused()},
			attack{name: role + " may make roles", as: role, sql: `alter role medirecord_` + role + ` createrole`, want: refused()},
			attack{name: role + " may replicate", as: role, sql: `alter role medirecord_` + role + ` replication`, want: refused()},
			attack{name: role + " inherits", as: role, sql: `alter role medirecord_` + role + ` inherit`, want: refused()},
			attack{name: role + " joins the owner", as: role, sql: `grant medirecord_owner to medirecord_` + role, want: refused()},
			attack{name: role + " joins those who read everything", as: role, sql: `grant pg_read_all_data to medirecord_` + role, want: refused()},
			attack{name: role + " gives the superuser a password", as: role, sql: `alter role postgres password 'x'`, want: refused()},
			attack{name: role + " makes a role", as: role, sql: `create role medirecord_evil superuser`, want: refused()},
			attack{name: role + " takes the tables over", as: role, sql: `reassign owned by medirecord_owner to medirecord_` + role, want: refused()},
			attack{name: role + " ends the trail's sessions", as: role, sql: `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid <> pg_backend_pid() limit 1`, want: refused()},
		)
	}
	attacks = append(attacks,
		// The migrator may become the owner, but has to say so, and the owner is
		// held by row security too.
		attack{name: "the migrator before it says who it is", as: "migrator", with: bulk, sql: `select * from medirecord.patient`, want: refused()},
		attack{name: "the migrator becomes the superuser", as: "migrator", sql: `set role postgres`, want: refused()},
		attack{name: "the migrator becomes the API", as: "migrator", sql: `set role medirecord_app`, want: refused()},
		attack{name: "the owner reads patients", as: "migrator", with: bulk, sql: `set role medirecord_owner; select id from medirecord.patient`, want: nothing},
		attack{name: "the owner reads records", as: "migrator", with: bulk, sql: `set role medirecord_owner; select id from medirecord.record`, want: nothing},
		attack{name: "the owner reads the trail", as: "migrator", with: ptr(auditor("north")), sql: `set role medirecord_owner; select detail from audit.event`, want: nothing},
		attack{name: "the owner reads a partition of the trail", as: "migrator", sql: `set role medirecord_owner; do $$ declare p text; r record; begin
			for p in select relid::regclass::text from pg_partition_tree('audit.event') where isleaf loop
			for r in execute 'select * from ' || p loop raise notice '%', r; end loop; end loop; end $$`, want: nothing},
		attack{name: "the owner without row security", as: "migrator", sql: `set role medirecord_owner; set row_security = off; select id from medirecord.patient`, want: refused()},
		attack{name: "the owner adds a patient", as: "migrator", with: bulk, sql: `set role medirecord_owner; insert into medirecord.patient (id, practice_id, version, dek_version, sealed, event_id) values ('x', 'north', 1, 1, '', ` + anyUUID + `)`, want: refused()},
		attack{name: "the owner changes a patient", as: "migrator", with: bulk, sql: `set role medirecord_owner; update medirecord.patient set deleted_at = null`, want: nothing},
		attack{name: "the owner changes the trail", as: "migrator", sql: `set role medirecord_owner; update audit.event set outcome = 'denied'`, want: nothing},
		attack{name: "the owner deletes from the trail", as: "migrator", sql: `set role medirecord_owner; delete from audit.event`, want: nothing},
		attack{name: "the owner empties the trail", as: "migrator", sql: `set role medirecord_owner; truncate audit.event`, want: refused()},
		attack{name: "the owner empties a partition of the trail", as: "migrator", sql: `set role medirecord_owner; do $$ begin
			execute 'truncate ' || (select max(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf); end $$`, want: refused()},
		attack{name: "the owner makes an event trigger", as: "migrator", sql: `set role medirecord_owner; create event trigger e on sql_drop execute function audit.deny()`, want: refused("42501", "42P17")},
		attack{name: "the owner writes an entry of its own", as: "migrator", sql: `set role medirecord_owner; ` + entry(``), want: refused()},
		attack{name: "the verifier's role reads patients", as: "migrator", sql: `set role medirecord_context; select * from medirecord.patient`, want: refused()},
		attack{name: "the locator reads what is sealed", as: "migrator", sql: `set role medirecord_locator; select sealed from medirecord.patient`, want: refused()},
		attack{name: "the locator finds deleted patients", as: "migrator", sql: `set role medirecord_locator; select id from medirecord.patient where id like '%gone'`, want: nothing},
		attack{name: "the locator makes something of its own", as: "migrator", sql: `set role medirecord_locator; create function medirecord.mine() returns int language sql as 'select 1'`, want: refused()},
		attack{name: "whoever reads all data is under row security", as: "app", with: north1, sql: `set role pg_read_all_data`, want: refused()},
	)
	all(t, w, attacks)
}

// idOfNow begins the expression of an id of this very time, as an entry's must
// be; oneIDOfNow is all of it, and the same each time.
const (
	idOfNow    = `(lpad(to_hex(floor(extract(epoch from now()) * 1000)::bigint), 12, '0')`
	oneIDOfNow = idOfNow + ` || '70008000000000000001')::uuid`
)

// entry is SQL that adds an entry to the trail as the-clinician of north would
// for north-1, with some columns set otherwise: `column = expression, ...`.
func entry(changes string) string {
	columns := []string{
		"event_id", "occurred_at", "actor_issuer", "actor_subject", "actor_practice", "patient_id", "patient_practice", "action",
		"resource_type", "resource_id", "outcome", "break_glass", "ctx_nonce", "detail", "nonce", "version",
	}
	values := map[string]string{
		"event_id": idOfNow + ` || substr(md5(random()::text), 13))::uuid`, "occurred_at": "date_trunc('milliseconds', now())", "actor_issuer": "'" + issuer + "'", "actor_subject": "'the-clinician'",
		"actor_practice": "'north'", "patient_id": "'north-1'", "patient_practice": "'north'", "action": "'read'", "resource_type": "'patient'",
		"resource_id": "'north-1'", "outcome": "'success'", "break_glass": "false", "ctx_nonce": "null", "detail": "'{}'", "nonce": "decode(repeat('ab', 16), 'hex')", "version": "1",
	}
	return insertWith("audit.event", columns, values, changes)
}

func changingWhatGuards(t *testing.T, w *world) {
	statements := []struct{ name, sql string }{
		{"row security is switched off", `alter table medirecord.patient disable row level security`},
		{"row security is no longer forced", `alter table medirecord.patient no force row level security`},
		{"row security of the trail is switched off", `alter table audit.event disable row level security`},
		{"a policy lets everything through", `alter policy read on medirecord.patient using (true)`},
		{"a policy is added", `create policy evil on medirecord.patient for select using (true)`},
		{"a policy is dropped", `drop policy read on medirecord.record`},
		{"a table is dropped", `drop table medirecord.patient cascade`},
		{"a table is taken", `alter table medirecord.patient owner to current_user`},
		{"a column is added", `alter table medirecord.patient add column evil text default current_user`},
		{"a column's default tells", `alter table medirecord.patient alter column sealed set default 'x'`},
		{"a schema is dropped", `drop schema audit cascade`},
		{"the verifier is replaced", `create or replace function ctx.fact(name text) returns text language sql as $$ select 'south' $$`},
		{"the inner verifier is replaced", `create or replace function ctx_private.verified() returns jsonb language sql as $$ select '{}'::jsonb $$`},
		{"the scope is replaced", `create or replace function ctx.scope(need text) returns text[] language sql as $$ select array['live|south|*'] $$`},
		{"the doors are replaced", `create or replace function medirecord.doors(a text, b text, c timestamptz) returns text[] language sql as $$ select array['live|north|north-1'] $$`},
		{"practice_of is replaced", `create or replace function medirecord.practice_of(patient text) returns text language sql as $$ select 'north' $$`},
		{"the reading function is given rights", `alter function medirecord.read_patients(text[]) security invoker`},
		{"the verifier's settings are changed", `alter function ctx.fact(text) set search_path = public`},
		{"the trail's guard is replaced", `create or replace function audit.deny() returns trigger language plpgsql as $$ begin return old; end $$`},
		{"the trail's guard is dropped", `drop function audit.deny() cascade`},
		{"the trail's trigger is disabled", `alter table audit.event disable trigger no_change`},
		{"every trigger is disabled", `alter table audit.event disable trigger all`},
		{"a trigger is dropped", `drop trigger no_change on audit.event`},
		{"a trigger is added", `create trigger evil before insert on medirecord.patient for each row execute function audit.deny()`},
		{"a partition is detached", `do $$ begin execute 'alter table audit.event detach partition ' || (select max(relid::regclass::text) from pg_partition_tree('audit.event') where isleaf); end $$`},
		{"a rule rewrites reads", `create rule evil as on update to medirecord.patient do instead nothing`},
		{"an index tells every row to a function", `create index evil on medirecord.patient (length(sealed))`},
		{"a table is locked", `begin; lock table medirecord.patient in access exclusive mode`},
		{"the trail is locked", `begin; lock table audit.event in share row exclusive mode`},
		{"grants are locked", `begin; lock table medirecord.break_glass in exclusive mode`},
		{"a right is taken", `grant usage on schema ctx_private to current_user`},
		{"a right on a table is taken", `grant all on ctx_private.key to current_user`},
		{"a function in public", `create function public.leak(text) returns boolean language plpgsql cost 0.0001 as $$ begin raise notice '%', $1; return true; end $$`},
		{"a function among ours", `create function medirecord.leak(text) returns boolean language sql as 'select true'`},
		{"a function in the catalog", `create function pg_catalog.leak(text) returns boolean language sql as 'select true'`},
		{"a temporary function", `create function pg_temp.leak(text) returns boolean language sql as 'select true'`},
		{"a temporary table", `create temp table t (x int)`},
		{"a temporary table in place of ours", `create temp table patient as select 1`},
		{"a schema", `create schema evil`},
		{"a schema of one's own name", `create schema authorization current_user`},
		{"an operator", `create operator public.&& (leftarg = text[], rightarg = text[], function = arrayoverlap)`},
		{"a cast", `create cast (text as integer) with inout as implicit`},
		{"a type", `create type public.text as enum ('x')`},
		{"a domain", `create domain public.d as text`},
		{"a view", `create view public.v as select * from medirecord.patient`},
		{"a view among ours", `create view medirecord.v as select * from medirecord.patient`},
		{"a materialised view", `create materialized view public.v as select * from medirecord.patient`},
		{"a copy of a table", `create table public.copied as select * from medirecord.patient`},
		{"a copy by select into", `select * into public.copied from medirecord.patient`},
		{"a copy of a table's form", `create table public.copied (like medirecord.patient including all)`},
		{"a child of a table", `create table public.child () inherits (medirecord.patient)`},
		{"a partition of the trail", `create table public.part partition of audit.event default`},
		{"statistics that keep values", `create statistics public.s on id, practice_id from medirecord.patient`},
		{"an extension", `create extension pgcrypto`},
		{"a language", `create language plpython3u`},
		{"a foreign server", `create foreign data wrapper evil`},
		{"a publication", `create publication evil for table medirecord.patient`},
		{"a subscription", `create subscription evil connection 'host=evil.invalid' publication p`},
		{"a replication slot", `select pg_create_logical_replication_slot('evil', 'pgoutput')`},
		{"an event trigger", `create event trigger e on sql_drop execute function audit.deny()`},
		{"a setting of the server", `alter system set fsync = off`},
		{"a setting of the database", `do $$ begin execute format('alter database %I set row_security = off', current_database()); end $$`},
		{"a setting of another role", `alter role medirecord_keys set synchronous_commit = off`},
		{"triggers are passed by as a replica", `set session_replication_role = replica`},
		{"statements go to the log", `set log_statement = 'all'`},
		{"errors go to the log", `set log_min_error_statement = 'debug5'`},
		{"backtraces", `set backtrace_functions = 'ctx.fact'`},
		{"a library is loaded", `load '/tmp/evil.so'`},
		{"a library is loaded for later", `set session_preload_libraries = 'evil'`},
		{"code in the server's language", `do language plpython3u 'pass'`},
		{"a program of the server", `copy (select 1) to program 'id'`},
		{"a configuration reload", `select pg_reload_conf()`},
		{"a switch of the log", `select pg_switch_wal()`},
		{"the settings file", `select * from pg_file_settings`},
		{"who may log in", `select * from pg_hba_file_rules`},
		{"passwords", `select rolpassword from pg_authid`},
		{"a migration is forged", `insert into migration.step (n, name, sha256) values (99, 'evil', 'x')`},
		{"migrations are forgotten", `delete from migration.step`},
	}
	var attacks []attack
	for _, role := range []string{"app", "trail", "worker"} {
		for _, s := range statements {
			// 0A000 and the like: the server does not even know how.
			attacks = append(attacks, attack{
				name: role + ": " + s.name, as: role, with: bulk, sql: s.sql,
				want: refused("42501", "42704", "0A000", "42P16", "58P01", "55000", "42809"),
			})
		}
	}
	attacks = append(attacks,
		attack{name: "a right is given away", with: north1, sql: `grant select on medirecord.patient to public`, want: harmless},
		attack{name: "a right is taken from others", with: north1, sql: `revoke insert on audit.event from medirecord_trail`, want: harmless},
		attack{name: "tables are analysed", with: north1, sql: `analyze medirecord.patient`, want: harmless},
		attack{name: "tables are rewritten", with: north1, sql: `vacuum full medirecord.patient`, want: harmless},
		attack{name: "tables are clustered", with: north1, sql: `cluster medirecord.patient using patient_pkey`, want: refused()},
		attack{name: "indexes are rebuilt", with: north1, sql: `reindex table medirecord.patient`, want: refused()},
		attack{name: "a table is described", with: north1, sql: `comment on table medirecord.patient is 'x'`, want: refused()},
		attack{name: "partitions are made by the API", with: bulk, sql: `select audit.make_partitions(24)`, want: refused()},
		attack{name: "partitions are made by the trail", as: "trail", sql: `select audit.make_partitions(24)`, want: refused()},
		attack{name: "the guard is called by hand", with: bulk, sql: `select audit.deny()`, want: refused("0A000", "42501")},
	)
	all(t, w, attacks)
}
