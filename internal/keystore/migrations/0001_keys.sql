-- SPDX-License-Identifier: Apache-2.0
--
-- The key store: a database of its own with a short backup life, so that a
-- destroyed key is gone. It holds wrapped keys and no clinical data.

create schema keys authorization medirecord_owner;

set role medirecord_context;
grant usage on schema ctx to medirecord_owner, medirecord_keys;
grant execute on function ctx.fact(text), ctx.actor() to medirecord_owner, medirecord_keys;

-- key_scope returns the doors that the context opens in the key store for what
-- is needed: select, insert, update or delete. Grants and links have their
-- rows in the clinical database, which decides whether a row can be read at
-- all; here the context's one patient is the limit.
create function ctx.key_scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  practice text := p ->> 'practice';
  patient text := p ->> 'patient';
  opens text[] := '{}';
begin
  if p ? 'svc' then
    if (p ->> 'svc', p ->> 'action') = ('import', 'import') and need in ('select', 'insert', 'update')
       or (p ->> 'svc', p ->> 'action') = ('worker', 'sweep') and need in ('select', 'update', 'delete')
       or (p ->> 'svc', p ->> 'action') = ('operator', 'practice.add') and need in ('select', 'insert') then
      opens := array[practice || '|*'];
    end if;
    return opens;
  end if;
  if need = 'select' and p ->> 'action' = 'patient.read' then
    if practice is not null and p -> 'roles' ?| array['nurse', 'clinician', 'admin'] then
      opens := opens || (practice || '|' || patient);
    end if;
    if p ? 'grant' or p ->> 'self' = patient then
      opens := opens || ('*|' || patient);
    end if;
  end if;
  if need = 'select' and p ->> 'action' = 'audit.read' and practice is not null then
    opens := opens || (practice || '|audit'); -- reasons are sealed under the practice's audit key
  end if;
  return opens;
end
$$;
revoke all on function ctx.key_scope(text) from public;
grant execute on function ctx.key_scope(text) to medirecord_keys;
reset role;

set role medirecord_owner;
grant usage on schema keys to medirecord_keys;

-- Epochs of the outer wrap: each is a key of the keeper, destroyed when the
-- next has taken over.
create table keys.epoch (
  n          integer primary key check (n > 0),
  state      text not null check (state in ('active', 'retired', 'destroyed')),
  created_at timestamptz(3) not null default clock_timestamp()
);
create unique index one_active_epoch on keys.epoch (state) where state = 'active';

create table keys.practice_key (
  practice_id text not null check (practice_id ~ '^[A-Za-z0-9.-]{1,64}$'),
  purpose     text not null check (purpose in ('kek', 'index', 'audit')),
  version     integer not null check (version > 0),
  state       text not null default 'active' check (state in ('active', 'decrypt_only', 'retired', 'destroyed')),
  wrapped     bytea not null,
  created_at  timestamptz(3) not null default clock_timestamp(),
  primary key (practice_id, purpose, version)
);
create unique index one_active_practice_key on keys.practice_key (practice_id, purpose) where state = 'active';

create table keys.patient_key (
  practice_id text not null check (practice_id ~ '^[A-Za-z0-9.-]{1,64}$'),
  patient_id  text not null check (patient_id ~ '^[A-Za-z0-9.-]{1,64}$'),
  version     integer not null check (version > 0),
  state       text not null default 'pending' check (state in ('pending', 'active', 'decrypt_only', 'retired')),
  kek_version integer not null check (kek_version > 0),
  epoch       integer not null references keys.epoch (n),
  wrapped     bytea not null,
  commitment  bytea not null check (length(commitment) = 32),
  created_at  timestamptz(3) not null default clock_timestamp(),
  primary key (patient_id, version)
);
create unique index one_active_patient_key on keys.patient_key (patient_id) where state = 'active';
create index patient_key_pending on keys.patient_key (practice_id, created_at) where state = 'pending';

do $$
declare
  t text;
begin
  foreach t in array array['epoch', 'practice_key', 'patient_key'] loop
    execute format('alter table keys.%I enable row level security', t);
    execute format('alter table keys.%I force row level security', t);
  end loop;
end
$$;

grant select, insert (n, state) on keys.epoch to medirecord_keys;
grant select, insert (practice_id, purpose, version, wrapped) on keys.practice_key to medirecord_keys;
grant select, delete, insert (practice_id, patient_id, version, kek_version, epoch, wrapped, commitment), update (state) on keys.patient_key to medirecord_keys;

-- Epoch numbers tell nothing; the first one is made with the first practice.
create policy see on keys.epoch for select to medirecord_keys using (true);
create policy first on keys.epoch for insert to medirecord_keys
  with check (n = 1 and (select ctx.fact('action')) = 'practice.add');

create policy read on keys.patient_key for select to medirecord_keys
  using ((select ctx.key_scope('select')) && array[practice_id || '|' || patient_id, '*|' || patient_id, practice_id || '|*']);
create policy add on keys.patient_key for insert to medirecord_keys
  with check (state = 'pending' and (select ctx.key_scope('insert')) && array[practice_id || '|*']);
create policy settle on keys.patient_key for update to medirecord_keys
  using (state = 'pending' and (select ctx.key_scope('update')) && array[practice_id || '|*'])
  with check (state = 'active');
create policy sweep on keys.patient_key for delete to medirecord_keys
  using (state = 'pending' and (select ctx.key_scope('delete')) && array[practice_id || '|*']);

-- A practice's keys are seen with the practice, or with a patient of it that
-- the context names; all are wrapped by the root key.
create policy read on keys.practice_key for select to medirecord_keys
  using (practice_id = (select ctx.fact('practice')) and not ((select ctx.fact('action')) = 'patient.read')
         or exists (select from keys.patient_key k where k.practice_id = practice_key.practice_id));
create policy add on keys.practice_key for insert to medirecord_keys
  with check ((select ctx.key_scope('insert')) && array[practice_id || '|*'] and (select ctx.fact('action')) = 'practice.add');

reset role;
