-- SPDX-License-Identifier: Apache-2.0
--
-- The roles, once per cluster. Run by a role that may create roles; running it
-- again changes nothing. Passwords are set by `medirecord migrate`, from the
-- URLs of the configuration.
--
--   owner     owns the tables; nobody logs in as it; reached by migrator
--   context   owns the verifying key and the functions that check a context
--   locator   owns practice_of, the one fact about another practice's row
--   reader    owns read_patients, which reads each row under a context of its own
--   migrator  logs in to migrate, becomes the four above by SET ROLE
--   app       the API: reads and writes under row security
--   trail     writes the trail, reads nothing
--   keys      the API's way into the key store
--   worker    unattended work: partitions, sweeping
--   retention drops what is older than the policy
--   sealer    reads the whole trail, writes its tree and its heads
--   auditor   reads the whole trail: exports, verifies, streams
do $$
declare
  r text;
begin
  foreach r in array array['owner', 'context', 'locator', 'reader'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = 'medirecord_' || r) then
      execute format('create role %I nologin noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls', 'medirecord_' || r);
    end if;
  end loop;
  foreach r in array array['migrator', 'app', 'trail', 'keys', 'worker', 'retention', 'sealer', 'auditor'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = 'medirecord_' || r) then
      execute format('create role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls', 'medirecord_' || r);
    end if;
  end loop;
  -- Pinned, so that a pool which forgets them is still safe. A role may change
  -- its own; what the trail seals is ordered by commit, not by these.
  foreach r in array array['app', 'trail', 'keys', 'worker', 'retention', 'sealer', 'auditor'] loop
    execute format('alter role %I set synchronous_commit = on', 'medirecord_' || r);
    execute format('alter role %I set idle_in_transaction_session_timeout = ''5s''', 'medirecord_' || r);
    execute format('alter role %I set statement_timeout = ''10s''', 'medirecord_' || r);
    execute format('alter role %I set lock_timeout = ''2s''', 'medirecord_' || r);
    execute format('alter role %I set search_path = pg_catalog', 'medirecord_' || r);
    execute format('alter role %I set jit = off', 'medirecord_' || r);
  end loop;
end
$$;

grant medirecord_owner, medirecord_context, medirecord_locator, medirecord_reader to medirecord_migrator;
