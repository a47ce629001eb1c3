-- SPDX-License-Identifier: Apache-2.0
--
-- The lookup of an unconscious patient across practices (rules.md section 4;
-- decision 0023): who has this family name and birth date, in any practice? At
-- most three are told of, by id, name and birth date.
--
-- Whoever holds the API's passwords and the context of a lookup has one question,
-- which is committed, and paged, before it is answered, and is answered once:
-- nobody goes through names by ROLLBACK. Whom it found opens one by one, each
-- under a context and against a ticket of their own, and of their row opens the
-- name and the birth date.

set role medirecord_owner;
create table medirecord.lookup (
  id       uuid primary key, -- the sidecar's, as the context names it
  actor    text not null,    -- issuer and subject
  session  text not null,
  digest   bytea not null check (length(digest) = 32), -- of what was asked, as keyed tags
  event_id uuid not null,    -- the entry of the call
  asked_at timestamptz(3) not null default clock_timestamp(),
  asked_tx xid8 not null default pg_current_xact_id(),
  found    text[] check (cardinality(found) <= 3), -- whom; null: not answered yet
  found_tx xid8
);
create index lookup_by on medirecord.lookup (actor, asked_at);
alter table medirecord.lookup enable row level security;
alter table medirecord.lookup force row level security;
grant select, insert (id, actor, session, digest, event_id), update (found, found_tx) on medirecord.lookup to medirecord_reader;
create policy gated on medirecord.lookup to medirecord_reader using (true) with check (true);
grant insert (id, topic, severity, practice_id, patient_id, event_id, reason_code) on medirecord.outbox to medirecord_reader;
create policy tell_of_lookup on medirecord.outbox for insert to medirecord_reader with check (topic = 'break_glass');
-- It is forgotten when a day old, not before.
grant select (asked_at), delete on medirecord.lookup to medirecord_worker;
create policy see on medirecord.lookup for select to medirecord_worker using ((select ctx.fact('action')) = 'practice.list');
create policy sweep on medirecord.lookup for delete to medirecord_worker
  using ((select ctx.fact('action')) = 'practice.list' and asked_at < clock_timestamp() - interval '24 hours');
reset role;

set role medirecord_context;
-- looking returns whose lookup the context is, and for whom it looks: nobody yet
-- when it asks, one of those found when it opens them. It raises 42501 for every
-- other context, and for who is no clinician and has no role for emergencies.
create function ctx_private.looking(p jsonb, opens boolean) returns void
language plpgsql stable parallel safe set search_path = pg_catalog
as $$
begin
  if p ->> 'action' = 'break_glass.lookup' and p ? 'grant' and p ? 'sid' and not p ? 'svc' and p ? 'patient' = opens
     and p -> 'roles' ?| array['clinician', 'break_glass'] then
    return;
  end if;
  raise exception 'medirecord: this context looks for nobody across practices' using errcode = '42501';
end
$$;
revoke all on function ctx_private.looking(jsonb, boolean) from public;

-- lookup is the one question of a context, and whose it is.
create function ctx.lookup() returns table (id uuid, actor text, session text, practice text)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 1
as $$
declare
  p jsonb := ctx_private.verified();
begin
  perform ctx_private.looking(p, false);
  return query select (p ->> 'grant')::uuid, (p ->> 'iss') || e'\x1f' || (p ->> 'sub'), p ->> 'sid', p ->> 'practice';
end
$$;
revoke all on function ctx.lookup() from public;
grant execute on function ctx.lookup() to medirecord_reader;

-- candidate is whom a context opens of those that a lookup found, and whose
-- patient its ticket says they are. No row: the session presents no ticket of
-- this context, its person and its patient, which another transaction committed.
create function ctx.candidate() returns table (lookup uuid, actor text, session text, patient text, told text)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 1
as $$
declare
  p jsonb := ctx_private.verified();
begin
  perform ctx_private.looking(p, true);
  return query
    select (p ->> 'grant')::uuid, (p ->> 'iss') || e'\x1f' || (p ->> 'sub'), p ->> 'sid', p ->> 'patient', h.patient_practice
      from ctx_private.held(array[current_setting('medirecord.ticket', true)]) h
     where h.nonce = p ->> 'nonce' and h.iss = p ->> 'iss' and h.sub = p ->> 'sub' and h.practice is not distinct from p ->> 'practice'
       and h.patient = p ->> 'patient' and h.glass and (p ->> 'self') is distinct from h.patient;
end
$$;
revoke all on function ctx.candidate() from public;
grant execute on function ctx.candidate() to medirecord_reader;
revoke execute on function ctx.fact(text) from medirecord_reader; -- which 0015 granted, and nothing asks for
reset role;

set role medirecord_owner;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- lookup_digest is of one tag for each practice; null where a practice comes
-- twice, or without a tag: one question is about one name.
create function medirecord.lookup_digest(practices text[], tags bytea[]) returns bytea
language sql immutable parallel safe set search_path = pg_catalog
as $$
select case when count(*) = count(distinct q.practice) and count(*) = count(*) filter (where length(q.tag) = 8)
            then sha256(string_agg(convert_to(q.practice, 'UTF8') || '\x00'::bytea || q.tag, ''::bytea order by q.practice)) end
  from unnest(practices, tags) as q(practice, tag)
$$;
revoke all on function medirecord.lookup_digest(text[], bytea[]) from public;

-- lookups_of counts the lookups of a person within the last hour that are committed.
create function medirecord.lookups_of(who text) returns bigint
language sql stable parallel safe set search_path = pg_catalog
as $$ select count(*) from medirecord.lookup l where l.actor = who and l.asked_at > clock_timestamp() - interval '1 hour' $$;
revoke all on function medirecord.lookups_of(text) from public;

-- ask_lookup puts the question of the context, and pages the officer of the
-- asker's practice. A person has twenty within an hour; beyond half of them the
-- page is a P1. It raises 53400 when there are no more.
create function medirecord.ask_lookup(practices text[], tags bytea[], event uuid, reason_code text) returns void
language plpgsql volatile security definer set search_path = pg_catalog
as $$
declare
  asks record := ctx.lookup();
  before bigint;
begin
  before := medirecord.lookups_of(asks.actor);
  if before >= 20 then
    raise exception 'medirecord: no more lookups within this hour' using errcode = '53400';
  end if;
  insert into medirecord.lookup (id, actor, session, digest, event_id)
    values (asks.id, asks.actor, asks.session, medirecord.lookup_digest(practices, tags), event);
  insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
    values (gen_random_uuid(), 'break_glass', case when before >= 10 then 'P1' else 'P2' end, coalesce(asks.practice, 'unknown'), '*', event, ask_lookup.reason_code);
end
$$;
revoke all on function medirecord.ask_lookup(text[], bytea[], uuid, text) from public;
grant execute on function medirecord.ask_lookup(text[], bytea[], uuid, text) to medirecord_app;

-- answer_lookup answers it, when it is committed, and once: who has, in one of
-- the practices, that practice's tag. Up to three patients, each of whose
-- practices is paged; of more only that they are more.
create function medirecord.answer_lookup(practices text[], tags bytea[], reason_code text) returns table (patient_id text, many boolean)
language plpgsql volatile security definer set search_path = pg_catalog rows 3
as $$
#variable_conflict use_column
declare
  asks record := ctx.lookup();
  call uuid;
  whom text[];
  theirs text[];
begin
  select coalesce(array_agg(f.patient_id), '{}'), array_agg(f.practice_id) into whom, theirs from (
    select b.patient_id, b.practice_id
      from unnest(practices, tags) as q(practice, tag)
      join medirecord.blind_index b on b.practice_id = q.practice and b.field = 'family_dob' and b.tag = q.tag
      join medirecord.patient p on p.id = b.patient_id and p.practice_id = b.practice_id and p.deleted_at is null and p.key_state = 'active'
     limit 4) f;
  update medirecord.lookup l
     set found = case when cardinality(whom) > 3 then '{}' else whom end, found_tx = pg_current_xact_id()
   where l.id = asks.id and l.actor = asks.actor and l.session = asks.session and l.found is null
     and l.asked_tx is distinct from pg_current_xact_id() and l.digest = medirecord.lookup_digest(practices, tags)
  returning l.event_id into call;
  if not found then
    raise exception 'medirecord: this context did not ask this' using errcode = '42501';
  end if;
  -- Those that were asked at once did not see each other: now they are committed.
  if medirecord.lookups_of(asks.actor) > 20 then
    raise exception 'medirecord: no more lookups within this hour' using errcode = '53400';
  end if;
  if cardinality(whom) > 3 then
    return query select null::text, true;
    return;
  end if;
  insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
    select gen_random_uuid(), 'break_glass', 'P2', c.practice, c.patient, call, answer_lookup.reason_code from unnest(whom, theirs) as c(patient, practice);
  return query select c.patient, false from unnest(whom) as c(patient) order by 1;
end
$$;
revoke all on function medirecord.answer_lookup(text[], bytea[], text) from public;
grant execute on function medirecord.answer_lookup(text[], bytea[], text) to medirecord_app;

-- cut_row returns a sealed row (internal/envelope/row.go) whose fields are all
-- there by name, version and tag, so that its MAC still holds, and of which only
-- those to keep have a ciphertext: the others have twelve zero bytes before
-- their tag, whatever their length was.
create function medirecord.cut_row(sealed bytea, keep text[]) returns bytea
language plpgsql immutable parallel safe set search_path = pg_catalog
as $$
declare
  at integer := 15; -- bytes before the next field
  head integer;
  size integer;
  out bytea := substr(sealed, 1, 15);
begin
  for i in 1 .. get_byte(sealed, 13) * 256 + get_byte(sealed, 14) loop
    head := 1 + get_byte(sealed, at) + 8; -- name with its length, version
    size := ('x' || encode(substr(sealed, at + head + 1, 4), 'hex'))::bit(32)::integer;
    if convert_from(substr(sealed, at + 2, head - 9), 'UTF8') = any (keep) then
      out := out || substr(sealed, at + 1, head + 4 + size);
    else
      out := out || substr(sealed, at + 1, head) || '\x0000001c000000000000000000000000'::bytea || substr(sealed, at + head + 4 + size - 15, 16);
    end if;
    at := at + head + 4 + size;
  end loop;
  if get_byte(sealed, 0) <> 1 or length(sealed) <> at + 32 then
    raise exception 'medirecord: a row of another format' using errcode = '0A000';
  end if;
  return out || substr(sealed, at + 1);
end
$$;
revoke all on function medirecord.cut_row(bytea, text[]) from public;

-- read_candidate reads the context's patient, whom the context's lookup found a
-- moment ago, in a transaction that was committed: name and birth date.
create function medirecord.read_candidate() returns table (practice_id text, version bigint, dek_version integer, sealed bytea)
language plpgsql stable security definer set search_path = pg_catalog rows 1
as $$
#variable_conflict use_column
begin
  return query
    select p.practice_id, p.version, p.dek_version, medirecord.cut_row(p.sealed, array['name', 'dob'])
      from ctx.candidate() c
      join medirecord.lookup l on l.id = c.lookup and l.actor = c.actor and l.session = c.session and c.patient = any (l.found)
       and l.asked_at > clock_timestamp() - interval '1 minute' and l.found_tx is distinct from pg_current_xact_id_if_assigned()
      join medirecord.patient p on p.id = c.patient and p.practice_id = c.told and p.deleted_at is null and p.key_state = 'active';
end
$$;
revoke all on function medirecord.read_candidate() from public;
grant execute on function medirecord.read_candidate() to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;
reset role;
