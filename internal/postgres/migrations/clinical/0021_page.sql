-- SPDX-License-Identifier: Apache-2.0
--
-- A grant is there with its start entry and its page, or not at all (rules.md
-- section 4): whoever holds the API's passwords and the genuine context of an
-- opening does not open without an officer being told. (A lookup's page has been
-- its function's to write since 0017.)
--
-- The page is written here and not by the API, so that it says what is so. That
-- happens when the transaction commits, or sooner by SET CONSTRAINTS; what a
-- savepoint takes back happens again. The API's role can neither change nor
-- remove a page or an entry.

set role medirecord_owner;
-- Of a grant's page: how lately whoever opened it had proved a second factor.
alter table medirecord.outbox add column factor text check (factor in ('none', 'done', 'fresh'));
grant insert (factor) on medirecord.outbox to medirecord_reader;

grant select (parent_id) on audit.event to medirecord_context;
create policy start on audit.event for select to medirecord_context using (action = 'break_glass');
reset role;

set role medirecord_context;
-- opening says of the grant that the context opens how loud its page is, and how
-- lately a second factor had been proved; the sidecar counts and knows both. It
-- raises 42501 unless the start is entered: under this very context, which names
-- the grant, as a part of the call that the page names. The time is in variables,
-- so that partitions are pruned.
create function ctx.opening(id uuid, event uuid, call uuid, patient text, practice text) returns table (severity text, factor text)
language plpgsql stable security definer set search_path = pg_catalog rows 1
as $$
declare
  p jsonb := ctx_private.verified();
  since timestamptz := clock_timestamp() - interval '15 minutes';
  until timestamptz := clock_timestamp() + interval '2 minutes';
begin
  if p ->> 'grant' = id::text and exists (
    select from audit.event e
     where e.event_id = event and e.occurred_at between since and until and e.ctx_nonce = p ->> 'nonce'
       and e.parent_id = call and e.action = 'break_glass' and e.outcome = 'access_granted' and e.break_glass
       and e.patient_id = patient and e.patient_practice = practice and e.resource_type = 'patient' and e.resource_id = patient) then
    return query select case when p ->> 'many' = 'true' then 'P1' else 'P2' end, p ->> 'factor';
    return;
  end if;
  raise exception 'medirecord: a grant is opened with its start entry, under its context' using errcode = '42501';
end
$$;
revoke all on function ctx.opening(uuid, uuid, uuid, text, text) from public;
grant execute on function ctx.opening(uuid, uuid, uuid, text, text) to medirecord_reader;
reset role;

set role medirecord_owner;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
create function medirecord.page() returns trigger
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code, factor)
    select gen_random_uuid(), 'break_glass', o.severity, new.practice_id, new.patient_id, new.call_id, new.reason_code, o.factor
      from ctx.opening(new.id, new.event_id, new.call_id, new.patient_id, new.practice_id) o;
  return null;
end
$$;
revoke all on function medirecord.page() from public;
grant execute on function medirecord.page() to medirecord_owner;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;
create constraint trigger page after insert on medirecord.break_glass
  deferrable initially deferred for each row execute function medirecord.page();

-- What has ended has ended, whoever says otherwise; and that a review is overdue
-- is said once.
create function medirecord.once() returns trigger
language plpgsql set search_path = pg_catalog
as $$
begin
  raise exception 'medirecord: a grant ends once, and is overdue once' using errcode = '42501';
end
$$;
revoke all on function medirecord.once() from public;
create trigger once before update on medirecord.break_glass for each row
  when (old.ended_at is not null and (new.ended_at, new.ended_by) is distinct from (old.ended_at, old.ended_by)
        or old.escalated_at is not null and new.escalated_at is distinct from old.escalated_at)
  execute function medirecord.once();

-- As in 0015; and what the worker says of a grant is so: that its time was over
-- when it was, unless a person had ended it, and that a review is overdue when it
-- is: a now that is kept to the millisecond may be a little ahead.
drop policy expire on medirecord.break_glass;
create policy expire on medirecord.break_glass for update to medirecord_worker
  using ((select ctx.fact('action')) = 'sweep' and practice_id = (select ctx.fact('practice')) and expires_at <= clock_timestamp())
  with check ((ended_by is not null or ended_at between expires_at and clock_timestamp())
         and coalesce(escalated_at between opened_at + interval '24 hours' and clock_timestamp() + interval '1 second', true));
reset role;
