-- SPDX-License-Identifier: Apache-2.0
--
-- Strict reads (rules.md sections 3 and 6; decision 0011): under a context that
-- says so, a row of a patient is given only against a ticket: an entry of the
-- trail about this very context that another transaction has committed. So
-- whoever has the API's passwords, and a live context, cannot read without
-- leaving an entry, not even by BEGIN; INSERT; SELECT; ROLLBACK.
--
-- The sidecar says it, in the signed context: who holds the passwords cannot
-- take it out.

set role medirecord_owner;
grant usage on schema audit to medirecord_context;
grant select (event_id, occurred_at, recorded_at, tx, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action,
              resource_type, resource_id, outcome, break_glass, ctx_nonce)
  on audit.event to medirecord_context;
create policy ticket on audit.event for select to medirecord_context using (action = 'read_ticket');
reset role;

set role medirecord_context;

-- held returns those of the tickets that are one, with their places in the
-- array: entries that say whose access to whose record was granted, which
-- another transaction has committed within the last 30 seconds. The time is
-- in variables, so that partitions are pruned when the statement starts. An
-- entry of this very transaction, or of a savepoint in it, is none yet: it can
-- still be taken back after the row was seen.
create function ctx_private.held(tickets text[])
returns table (n bigint, nonce text, iss text, sub text, practice text, patient text, patient_practice text, glass boolean)
language plpgsql stable parallel safe set search_path = pg_catalog rows 16
as $$
declare
  since timestamptz := clock_timestamp() - interval '30 seconds';
  until timestamptz := clock_timestamp() + interval '30 seconds';
begin
  if tickets is null then
    return;
  end if;
  return query
  with asked as materialized (
    select t.n, t.id::uuid as id from unnest(tickets) with ordinality as t(id, n) where t.id <> ''
  )
  select a.n, e.ctx_nonce, e.actor_issuer, e.actor_subject, e.actor_practice, e.patient_id, e.patient_practice, e.break_glass
    from asked a
    join audit.event e on e.event_id = a.id
   where e.occurred_at between since and until and e.recorded_at >= since
     and e.tx is distinct from pg_current_xact_id_if_assigned()
     and e.action = 'read_ticket' and e.outcome = 'access_granted' and e.resource_type = 'patient' and e.resource_id = e.patient_id;
end
$$;
revoke all on function ctx_private.held(text[]) from public;

-- opened says for each of the contexts that is valid and about reading one
-- patient: which doors it opens, and whether its person is the patient. A
-- break-glass grant counts while its row is committed and not ended; a patient
-- is one by the context or by a link.
--
-- A strict context opens nothing without the ticket in the same place of the
-- other array. That must name it by its nonce, its person, their practice and
-- its patient, and say whether the glass was broken. What it says of the
-- patient's practice must be true, and under a grant it must say it: an entry
-- that no officer of that practice would find is worth no row.
create function ctx.opened(contexts text[], tickets text[]) returns table (n bigint, patient text, doors text[], self boolean)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
  with said as materialized (
    select s.n, c.*, s.payload -> 'roles' ?| array['nurse', 'clinician', 'admin'] as staff
      from ctx_private.signed(contexts) s,
           jsonb_to_record(s.payload) as c(iss text, sub text, sid text, action text, svc text, practice text, patient text, self text,
                                           "grant" uuid, admin boolean, strict boolean, nonce text)
     where c.action = 'patient.read' and c.svc is null
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
revoke all on function ctx.opened(text[], text[]) from public;
grant execute on function ctx.opened(text[], text[]) to medirecord_reader;

-- Who asks without tickets, as yesterday's program does, has none.
create or replace function ctx.opened(contexts text[]) returns table (n bigint, patient text, doors text[], self boolean)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 16
as $$
begin
  return query select o.n, o.patient, o.doors, o.self from ctx.opened(contexts, null) o;
end
$$;

-- scope returns the doors that the session's context opens for what is needed:
-- select, insert or update. It raises 42501 without a valid context, and
-- returns no door when the context's action does not need that. The ticket of a
-- strict context is in the setting medirecord.ticket.
create or replace function ctx.scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  practice text := p ->> 'practice';
  ticket text := nullif(current_setting('medirecord.ticket', true), '');
  opens text[] := '{}';
begin
  if p ? 'svc' then
    -- Unattended work: one action on one practice.
    if p ->> 'svc' = 'import' and p ->> 'action' = 'import' and need in ('select', 'insert', 'update') then
      return array['live|' || practice || '|*'];
    end if;
    if p ->> 'svc' = 'worker' and p ->> 'action' = 'sweep' and need = 'select' then
      return array['live|' || practice || '|*', 'gone|' || practice || '|*'];
    end if;
    return opens;
  end if;
  if need = 'select' then
    select o.doors into opens
      from ctx.opened(array[current_setting('medirecord.ctx', true)], case when ticket is not null then array[ticket] end) o;
  end if;
  return coalesce(opens, '{}');
end
$$;

-- ticketed reports whether the session presents a ticket about its context,
-- which the caller has verified.
create function ctx_private.ticketed(p jsonb) returns boolean
language sql stable parallel safe set search_path = pg_catalog
as $$
select exists (
  select from ctx_private.held(array[current_setting('medirecord.ticket', true)]) h
   where h.nonce = p ->> 'nonce' and h.iss = p ->> 'iss' and h.sub = p ->> 'sub' and h.practice is not distinct from p ->> 'practice'
     and h.patient = p ->> 'patient' and h.glass = (p ? 'grant') and coalesce(h.patient_practice = p ->> 'practice', true))
$$;
revoke all on function ctx_private.ticketed(jsonb) from public;

-- disclosure_scope returns the one patient of one practice whose disclosures
-- the context opens for what is needed: select or insert. Who records one does
-- not read the others; a suspension, which amends one, has to read it. A strict
-- context reads none without its ticket.
create or replace function ctx.disclosure_scope(need text) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  action text := p ->> 'action';
  watches boolean := (p ->> 'admin')::boolean or p -> 'roles' ? 'officer';
begin
  if p ? 'svc' or not p ? 'practice' or not p ? 'patient' then
    return null;
  end if;
  if need = 'select' and (p ->> 'strict')::boolean and not ctx_private.ticketed(p) then
    return null;
  end if;
  if need = 'select' and (action in ('disclosure.read', 'disclosure.amend') and watches
                          or action = 'disclosure.read' and p ->> 'self' = p ->> 'patient')
     or need = 'insert' and (action = 'disclosure.create' and (watches or p -> 'roles' ? 'clinician')
                             or action = 'disclosure.amend' and watches) then
    return (p ->> 'practice') || '|' || (p ->> 'patient');
  end if;
  return null;
end
$$;
reset role;

set role medirecord_owner;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- read_patients reads, for each context, the one patient that it is about, if
-- it opens a door of theirs: what row security would show for it, by the same
-- doors. So one statement serves many callers, each under their own context,
-- and, where that is strict, against their own ticket. A context that is not
-- valid is not in the answer; one that opens nothing is there without a row.
create function medirecord.read_patients(contexts text[], tickets text[])
returns table (n bigint, patient text, practice_id text, version bigint, dek_version integer, key_state text, sealed bytea,
               created_at timestamptz, updated_at timestamptz, deleted boolean, self boolean)
language plpgsql stable security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
    select o.n, o.patient, p.practice_id, p.version, p.dek_version, p.key_state, p.sealed, p.created_at::timestamptz,
           p.updated_at::timestamptz, p.deleted_at is not null, o.self
      from ctx.opened(contexts, tickets) o
      left join medirecord.patient p on p.id = o.patient and o.doors && medirecord.doors(p.practice_id, p.id, p.deleted_at);
end
$$;
revoke all on function medirecord.read_patients(text[], text[]) from public;
grant execute on function medirecord.read_patients(text[], text[]) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;
reset role;
