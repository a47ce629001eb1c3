-- SPDX-License-Identifier: Apache-2.0
--
-- The same answers at less cost: bench -run crud says what a write asks.

set role medirecord_context;

-- verified, as in 0001, for the one context of the session: a change of a chart
-- asks some seventeen times who changes it, and half of a write's time was here.
-- But for the key it needs no statement, which the server would have to start.
create or replace function ctx_private.verified() returns jsonb
language plpgsql stable parallel safe set search_path = pg_catalog
as $$
declare
  said text := current_setting('medirecord.ctx', true);
  whole bytea := convert_to(said, 'UTF8');
  signed integer := octet_length(whole) - 65; -- bytes before the last dot and the MAC
  b64 text := split_part(said, '.', 3);
  k ctx_private.key;
  p jsonb;
begin
  if signed > 0 then
    select * into k from ctx_private.key where kid = split_part(said, '.', 2);
    -- Without such a key both sides are null, and null is not true.
    if k.not_after > clock_timestamp()
       and sha256(convert_to('.' || encode(sha256(k.ok || sha256(k.ik || substr(whole, 1, signed))), 'hex'), 'UTF8')) = sha256(substr(whole, signed + 1)) then
      p := convert_from(decode(translate(b64, '-_', '+/') || repeat('=', (4 - octet_length(b64) % 4) % 4), 'base64'), 'UTF8')::jsonb;
      if p ->> 'use' = 'context' and (p ->> 'exp')::bigint >= date_part('epoch', clock_timestamp()) * 1000 then
        return p;
      end if;
    end if;
  end if;
  raise exception 'medirecord: no valid context' using errcode = '42501';
end
$$;

-- writer, as in 0012. What the context itself rules out asks no table.
create or replace function ctx_private.writer(p jsonb) returns boolean
language plpgsql stable parallel safe set search_path = pg_catalog
as $$
begin
  if (p ? 'svc' or p ? 'grant' or not p ? 'practice' or not p ? 'patient'
      or not p -> 'roles' ?| array['nurse', 'clinician', 'admin'] or p -> 'roles' ?| array['officer', 'break_glass']
      or (p ->> 'self') is not distinct from (p ->> 'patient')) is not false then
    return false;
  end if;
  return not exists (
    select from medirecord.patient_link l
     where l.issuer = p ->> 'iss' and l.subject = p ->> 'sub' and l.patient_id = p ->> 'patient' and l.relation = 'self'
       and clock_timestamp() between l.valid_from and l.valid_to);
end
$$;

-- fact, as in 0001.
create or replace function ctx.fact(name text) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
begin
  return ctx_private.verified() ->> name;
end
$$;

-- wrote reports whether the context is that of a change by this person, under
-- this nonce, in this practice if one is named, to this patient if one is named.
create function ctx.wrote(issuer text, subject text, nonce text, practice text, patient text) returns boolean
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  return issuer = p ->> 'iss' and subject = p ->> 'sub' and nonce = p ->> 'nonce'
     and (practice is null or practice = p ->> 'practice') and (patient is null or p ->> 'patient' in (patient, '*'));
end
$$;
revoke all on function ctx.wrote(text, text, text, text, text) from public;
grant execute on function ctx.wrote(text, text, text, text, text) to medirecord_app;
reset role;

-- The policy of 0003, with one question in place of four.
set role medirecord_owner;
drop policy write_with_change on audit.event;
create policy write_with_change on audit.event for insert to medirecord_app
  with check (ctx.wrote(actor_issuer, actor_subject, ctx_nonce, actor_practice, patient_id)
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');
reset role;
