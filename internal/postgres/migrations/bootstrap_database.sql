-- SPDX-License-Identifier: Apache-2.0
--
-- What PostgreSQL gives to everybody in each database, and a role that serves
-- must not have. Run by the role that made the database; where that is not the
-- superuser, PostgreSQL warns and changes nothing, and postgres.Lead still tells
-- of a lock in the wrong hands.
--
-- Advisory locks say who seals, watches and streams the trail: whoever can
-- take them can have nobody do so. Large objects have neither row security nor
-- an owner that the trail knows, and would hold whatever is put there.
do $$
declare
  f regprocedure;
begin
  for f in select p.oid from pg_proc p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.proname in ('lo_creat', 'lo_create', 'lo_from_bytea')
  loop
    execute format('revoke execute on function %s from public', f);
  end loop;
  for f in select p.oid from pg_proc p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.proname ~ '^pg_(try_)?advisory_(xact_)?lock'
  loop
    execute format('revoke execute on function %s from public', f);
    execute format('grant execute on function %s to medirecord_migrator, medirecord_worker, medirecord_sealer, medirecord_auditor', f);
  end loop;
end
$$;
