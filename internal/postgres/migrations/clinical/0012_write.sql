-- SPDX-License-Identifier: Apache-2.0
--
-- Changes under a person's own context (rules.md section 6; decision 0019):
-- patient.create, patient.update, patient.delete, patient.restore, and the
-- actions on records. Each is about one patient of the person's own practice,
-- and opens what that action needs and nothing else.

set role medirecord_context;

-- opened, as in 0006, reads for record.read too: a record is seen with its
-- patient or not at all.
create or replace function ctx.opened(contexts text[], tickets text[]) returns table (n bigint, patient text, doors text[], self boolean)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
  with said as materialized (
    select s.n, c.*, s.payload -> 'roles' ?| array['nurse', 'clinician', 'admin'] as staff
      from ctx_private.signed(contexts) s,
           jsonb_to_record(s.payload) as c(iss text, sub text, sid text, action text, svc text, practice text, patient text, self text,
                                           "grant" uuid, admin boolean, strict boolean, nonce text)
     where c.action in ('patient.read', 'record.read') and c.svc is null
  ), who as materialized (
    select s.*, s.strict is true and h.n is null as shut, case when s.strict then h.patient_practice end as told,
           coalesce(s.self = s.patient, false) or exists (
             select from medirecord.patient_link l
              where l.issuer = s.iss and l.subject = s.sub and l.patient_id = s.patient and l.relation = 'self'
                and clock_timestamp() between l.valid_from and l.valid_to) as is_self
      from said s
      left join ctx_private.held(tickets) h
             on h.n = s.n and h.nonce = s.nonce and h.iss = s.iss and h.sub = s.sub and h.practice is not distinct from s.practice
            and h.patient = s.patient and h.glass = (s."grant" is not null)
  )
  select w.n, w.patient, case when w.shut then '{}' else array_remove(array[
           case when w.is_self then 'live|' || coalesce(w.told, '*') || '|' || w.patient
                when w."grant" is not null and exists (
               select from medirecord.break_glass g
                where g.id = w."grant" and g.patient_id = w.patient and g.issuer = w.iss and g.subject = w.sub and g.session = w.sid
                  and g.ended_at is null and g.expires_at > clock_timestamp()
                  and g.opened_tx is distinct from pg_current_xact_id_if_assigned())
             then 'live|' || case when w.strict then w.told else '*' end || '|' || w.patient end,
           case when w.staff and coalesce(w.told = w.practice, true) then 'live|' || w.practice || '|' || w.patient end,
           case when w.staff and coalesce(w.told = w.practice, true) and w.admin then 'gone|' || w.practice || '|' || w.patient end], null) end,
         w.is_self
    from who w;
end
$$;

-- writer reports whether the context is one of a person who may change
-- something of a patient: staff of a practice, without a broken glass, which
-- only reads, and not of their own record, where they are a patient like any
-- other. An officer is none, whatever else their token says.
create function ctx_private.writer(p jsonb) returns boolean
language sql stable parallel safe set search_path = pg_catalog
as $$
select not (p ? 'svc' or p ? 'grant') and p ? 'practice' and p ? 'patient'
   and p -> 'roles' ?| array['nurse', 'clinician', 'admin'] and not p -> 'roles' ?| array['officer', 'break_glass']
   and (p ->> 'self') is distinct from (p ->> 'patient')
   and not exists (
     select from medirecord.patient_link l
      where l.issuer = p ->> 'iss' and l.subject = p ->> 'sub' and l.patient_id = p ->> 'patient' and l.relation = 'self'
        and clock_timestamp() between l.valid_from and l.valid_to)
$$;
revoke all on function ctx_private.writer(jsonb) from public;

-- scope returns the doors that the session's context opens for what is needed.
-- It raises 42501 without a valid context, and returns no door when the
-- context's action does not need that. What can be needed:
--
--   select          to read a patient, and what belongs to them
--   insert          to make a patient
--   update, updated to change a patient: what was there, and what may come of it
--   insert record   to make a record
--   update record   to change one
--
-- The ticket of a strict context is in the setting medirecord.ticket; who
-- changes a row has read it, and needs one too.
create or replace function ctx.scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  action text := p ->> 'action';
  practice text := p ->> 'practice';
  ticket text := nullif(current_setting('medirecord.ticket', true), '');
  live text := 'live|' || practice || '|' || (p ->> 'patient');
  gone text := 'gone|' || practice || '|' || (p ->> 'patient');
  admin boolean := coalesce((p ->> 'admin')::boolean, false);
  opens text[] := '{}';
begin
  if p ? 'svc' then
    -- Unattended work: one action on one practice.
    if p ->> 'svc' = 'import' and action = 'import' and need in ('select', 'insert', 'update', 'updated', 'insert record', 'update record') then
      return array['live|' || practice || '|*'];
    end if;
    if p ->> 'svc' = 'worker' and action = 'sweep' and need = 'select' then
      return array['live|' || practice || '|*', 'gone|' || practice || '|*'];
    end if;
    return opens;
  end if;
  if action in ('patient.read', 'record.read') then
    if need = 'select' then
      select o.doors into opens
        from ctx.opened(array[current_setting('medirecord.ctx', true)], case when ticket is not null then array[ticket] end) o;
    end if;
    return coalesce(opens, '{}');
  end if;
  if not ctx_private.writer(p) then
    return opens;
  end if;
  case
    when action = 'patient.create' and p -> 'roles' ?| array['clinician', 'admin'] and need = 'insert' then
      opens := array[live];
    when action = 'patient.update' and need in ('select', 'update', 'updated') then
      opens := array[live];
    when action = 'patient.delete' and admin and need in ('select', 'update', 'updated') then
      -- What is written must be readable before and after.
      opens := case need when 'select' then array[live, gone] when 'update' then array[live] else array[gone] end;
    when action = 'patient.restore' and admin and need in ('select', 'update', 'updated') then
      opens := case need when 'select' then array[live, gone] when 'update' then array[gone] else array[live] end;
    when action = 'record.create' and need in ('select', 'update', 'updated', 'insert record')
      or action in ('record.update', 'record.delete') and need in ('select', 'update', 'updated', 'update record') then
      opens := array[live];
    else
      return opens;
  end case;
  if need in ('select', 'update') and coalesce((p ->> 'strict')::boolean, false) and not ctx_private.ticketed(p) then
    return '{}';
  end if;
  return opens;
end
$$;

-- writes returns the one patient of one practice, as practice|patient, that the
-- context changes by one of the actions; practice|* for an import, if import is
-- among them; null for whoever changes nothing by them. It is for what is
-- written with a change of the patient: manifests, versions.
create function ctx.writes(actions text[]) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if not (p ->> 'action' = any (actions)) then
    return null;
  end if;
  if p ->> 'svc' = 'import' and p ->> 'action' = 'import' then
    return (p ->> 'practice') || '|*';
  end if;
  if not ctx_private.writer(p) or p ->> 'action' in ('patient.delete', 'patient.restore') and not coalesce((p ->> 'admin')::boolean, false) then
    return null;
  end if;
  return (p ->> 'practice') || '|' || (p ->> 'patient');
end
$$;
revoke all on function ctx.writes(text[]) from public;
grant execute on function ctx.writes(text[]) to medirecord_app, medirecord_reader;
reset role;

set role medirecord_owner;

-- A deletion is of now; what was deleted can be restored for thirty days.
grant update (deleted_at) on medirecord.patient to medirecord_app;
drop policy change on medirecord.patient;
create policy change on medirecord.patient for update to medirecord_app
  using ((select ctx.scope('update')) && medirecord.doors(practice_id, id, deleted_at)
         and coalesce(deleted_at > clock_timestamp() - interval '30 days', true))
  with check ((select ctx.scope('updated')) && medirecord.doors(practice_id, id, deleted_at)
         and coalesce(deleted_at between clock_timestamp() - interval '1 minute' and clock_timestamp() + interval '1 minute', true));

-- Who makes a patient does not thereby make records, nor the other way round.
drop policy add on medirecord.record;
create policy add on medirecord.record for insert to medirecord_app
  with check ((select ctx.scope('insert record')) && medirecord.doors(practice_id, patient_id, null));
drop policy change on medirecord.record;
create policy change on medirecord.record for update to medirecord_app
  using ((select ctx.scope('update record')) && medirecord.doors(practice_id, patient_id, null))
  with check ((select ctx.scope('update record')) && medirecord.doors(practice_id, patient_id, null));

grant select, insert, delete on medirecord.blind_index to medirecord_reader;
create policy kept on medirecord.blind_index to medirecord_reader using (true) with check (true);
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- index_patient writes the tags of the patient whom the context makes or
-- changes: those of the fields before go, and of each field the new tag comes,
-- when it is not null. So nobody who changes one patient reads any tag, their
-- own or another's: who has a certain number is not told by a change.
create function medirecord.index_patient(fields text[], tags bytea[], key_version integer) returns void
language plpgsql security definer set search_path = pg_catalog
as $$
declare
  whose text := ctx.writes(array['patient.create', 'patient.update']);
  practice text := split_part(whose, '|', 1);
  patient text := split_part(whose, '|', 2);
begin
  if whose is null then
    raise exception 'medirecord: this context writes no index' using errcode = '42501';
  end if;
  delete from medirecord.blind_index b where b.practice_id = practice and b.patient_id = patient and b.field = any (fields);
  insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version)
  select practice, t.field, t.tag, patient, index_patient.key_version
    from unnest(fields, tags) as t(field, tag)
   where t.tag is not null and t.field <> 'source_id'; -- which only an import knows
end
$$;
revoke all on function medirecord.index_patient(text[], bytea[], integer) from public;
grant execute on function medirecord.index_patient(text[], bytea[], integer) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;

-- What was made under an Idempotency-Key, for a day: a keyed digest of who sent
-- it to which route with which key, one of what was sent, and the id of what
-- was made. No answer is kept: the second one is made anew, through the door.
create table medirecord.idempotency (
  practice_id text not null references medirecord.practice (id),
  key         bytea not null check (length(key) = 32),
  actor       text not null, -- issuer and subject
  body        bytea not null check (length(body) = 32),
  resource    text not null check (length(resource) between 1 and 200),
  event_id    uuid not null,
  created_at  timestamptz(3) not null default clock_timestamp(),
  primary key (practice_id, key)
);
create index idempotency_age on medirecord.idempotency (practice_id, created_at);
alter table medirecord.idempotency enable row level security;
alter table medirecord.idempotency force row level security;
grant select, delete, insert (practice_id, key, actor, body, resource, event_id) on medirecord.idempotency to medirecord_app;
grant select (practice_id, created_at), delete on medirecord.idempotency to medirecord_worker;

-- One's own, in one's own practice; forgotten when a day old, not before.
create policy read on medirecord.idempotency for select to medirecord_app
  using (practice_id = (select ctx.fact('practice')) and actor = (select ctx.actor()));
create policy add on medirecord.idempotency for insert to medirecord_app
  with check (practice_id = (select ctx.fact('practice')) and actor = (select ctx.actor()) and (select ctx.fact('svc')) is null);
create policy expire on medirecord.idempotency for delete to medirecord_app
  using (practice_id = (select ctx.fact('practice')) and actor = (select ctx.actor()) and created_at < clock_timestamp() - interval '24 hours');
create policy see on medirecord.idempotency for select to medirecord_worker
  using (practice_id = (select ctx.fact('practice')) and (select ctx.fact('action')) = 'sweep');
create policy sweep on medirecord.idempotency for delete to medirecord_worker
  using (practice_id = (select ctx.fact('practice')) and (select ctx.fact('action')) = 'sweep' and created_at < clock_timestamp() - interval '24 hours');
reset role;
