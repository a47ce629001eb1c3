-- SPDX-License-Identifier: Apache-2.0
--
-- The audit trail (rules.md section 5): insert-only, partitioned by month,
-- ordered by commit. The writer can add and nothing else; nobody but the owner
-- and a superuser can change or remove, and both will be detected by sealing.

create schema audit authorization medirecord_owner;
create schema audit_part authorization medirecord_owner; -- partitions: nobody has USAGE

set role medirecord_owner;
grant usage on schema audit to medirecord_trail, medirecord_app, medirecord_worker, medirecord_migrator;

create table audit.event (
  event_id         uuid not null,
  occurred_at      timestamptz(3) not null,
  recorded_at      timestamptz(3) not null default clock_timestamp(),
  tx               xid8 not null default pg_current_xact_id(),
  parent_id        uuid,
  actor_issuer     text not null,
  actor_subject    text not null,
  actor_practice   text,
  patient_id       text,
  patient_practice text,
  action           text not null,
  resource_type    text not null,
  resource_id      text not null,
  outcome          text not null check (outcome in ('success', 'access_granted', 'denied', 'failure')),
  code             text,
  break_glass      boolean not null,
  ctx_nonce        text,
  ctx_mac          text,
  detail           text not null, -- canonical JSON, kept as the bytes that were written
  nonce            bytea not null check (length(nonce) = 16),
  version          smallint not null,
  primary key (event_id, occurred_at)
) partition by range (occurred_at);
create index event_patient on audit.event (patient_id, occurred_at desc, event_id desc);

alter table audit.event enable row level security;
alter table audit.event force row level security;

create function audit.deny() returns trigger
language plpgsql set search_path = pg_catalog
as $$
begin
  raise exception 'medirecord: the audit trail is append-only (% on %)', tg_op, tg_table_name using errcode = '42501';
end
$$;
create trigger no_change before update or delete on audit.event for each row execute function audit.deny();
create trigger no_truncate before truncate on audit.event for each statement execute function audit.deny();
alter table audit.event enable always trigger no_change;
alter table audit.event enable always trigger no_truncate;

-- make_partitions makes the partitions of the last month, this one and the
-- given number ahead, and returns how many it made. Row security, grants and
-- TRUNCATE triggers are not inherited by a partition: each gets its own, before
-- it is attached. Attaching, unlike PARTITION OF, waits for no reader and stops
-- no writer; and the lock that two makers meet at is one that only the owner
-- can take.
create function audit.make_partitions(ahead integer) returns integer
language plpgsql security definer set search_path = pg_catalog
as $$
declare
  month date := date_trunc('month', now() at time zone 'UTC')::date - interval '1 month';
  last date := date_trunc('month', now() at time zone 'UTC')::date + make_interval(months => least(greatest(ahead, 0), 24));
  name text;
  made integer := 0;
begin
  while month <= last loop
    name := 'event_' || to_char(month, 'YYYY_MM');
    if to_regclass('audit_part.' || name) is null then
      lock table audit.event in share update exclusive mode;
    end if;
    if to_regclass('audit_part.' || name) is null then
      execute format('create table audit_part.%I (like audit.event including defaults including constraints)', name);
      execute format('revoke all on audit_part.%I from public', name);
      execute format('alter table audit_part.%I enable row level security', name);
      execute format('alter table audit_part.%I force row level security', name);
      execute format('create trigger no_truncate before truncate on audit_part.%I for each statement execute function audit.deny()', name);
      execute format('alter table audit_part.%I enable always trigger no_truncate', name);
      execute format('alter table audit.event attach partition audit_part.%I for values from (%L) to (%L)',
        name, month::timestamp at time zone 'UTC', (month + interval '1 month')::timestamp at time zone 'UTC');
      execute format('alter table audit_part.%I enable always trigger no_change', name);
      made := made + 1;
    end if;
    month := month + interval '1 month';
  end loop;
  return made;
end
$$;
revoke all on function audit.make_partitions(integer) from public;
grant execute on function audit.make_partitions(integer) to medirecord_worker, medirecord_migrator;

grant insert (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
              action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
  on audit.event to medirecord_trail, medirecord_app;
grant select on audit.event to medirecord_app;

-- The group-committing writer speaks for many callers; time is all that can be
-- checked here.
create policy write on audit.event for insert to medirecord_trail
  with check (occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');
-- In the transaction of a change, only what the context's own caller did, under
-- this very context, to the patient it names: the API cannot frame anybody, and
-- another practice's officer does not find its inventions among their entries.
create policy write_with_change on audit.event for insert to medirecord_app
  with check (actor_issuer || e'\x1f' || actor_subject = (select ctx.actor())
         and ctx_nonce = (select ctx.fact('nonce'))
         and (actor_practice is null or actor_practice = (select ctx.fact('practice')))
         and (patient_id is null or (select ctx.fact('patient')) in (patient_id, '*'))
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');

reset role;

set role medirecord_context;
-- trail_scope returns what of the trail the context may read: a practice's, or
-- one patient's own accesses.
create function ctx.trail_scope() returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ->> 'action' = 'audit.read' and p ? 'practice'
     and ((p ->> 'admin')::boolean or p -> 'roles' ? 'officer') then
    return array['practice|' || (p ->> 'practice')];
  end if;
  return '{}';
end
$$;
revoke all on function ctx.trail_scope() from public;
grant execute on function ctx.trail_scope() to medirecord_app;
reset role;

set role medirecord_owner;
create policy read on audit.event for select to medirecord_app
  using ((select ctx.trail_scope()) && array['practice|' || actor_practice, 'practice|' || patient_practice]);
reset role;
