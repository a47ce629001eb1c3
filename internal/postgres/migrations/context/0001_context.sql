-- SPDX-License-Identifier: Apache-2.0
--
-- The signed database context (rules.md section 6). The sidecar signs, this
-- verifies; the API can do neither. The same file is the first migration of
-- the clinical database and of the key store.
--
-- A context is v1.<kid>.<base64url payload>.<hex HMAC-SHA-256 of all before
-- the last dot>. It sits in the setting medirecord.ctx, which anybody may set:
-- only the signature counts.

create schema ctx authorization medirecord_context;
create schema ctx_private authorization medirecord_context;

set role medirecord_context;

-- ik and ok are the key XORed with HMAC's inner and outer pad, so that
-- HMAC-SHA-256 is sha256(ok || sha256(ik || message)) in core functions. The
-- key is in a table because pg_proc.prosrc is readable by everybody.
create table ctx_private.key (
  kid       text primary key check (kid ~ '^[a-z0-9]{1,16}$'),
  ik        bytea not null check (length(ik) = 64),
  ok        bytea not null check (length(ok) = 64),
  not_after timestamptz not null default 'infinity'
);
revoke all on ctx_private.key from public;

-- signed returns the payloads of those contexts that the sidecar signed and
-- that have not expired, with their places in the array. The others are not in
-- the answer.
--
-- Both sides of the comparison are hashed once more, so that its timing tells
-- nothing. The last dot is compared too: nothing can stand between payload and
-- MAC. The work is on bytes, which is faster than on text.
create function ctx_private.signed(contexts text[]) returns table (n bigint, payload jsonb)
language plpgsql stable parallel safe set search_path = pg_catalog rows 16
as $$
begin
  return query
  with parts as materialized (
    select c.n, convert_to(c.c, 'UTF8') as whole, split_part(c.c, '.', 2) as kid, split_part(c.c, '.', 3) as b64
      from unnest(contexts) with ordinality as c(c, n)
     where octet_length(c.c) > 65
  ), good as materialized (
    select s.n, s.b64 || repeat('=', (4 - octet_length(s.b64) % 4) % 4) as b64
      from parts s
      join ctx_private.key k on k.kid = s.kid and k.not_after > clock_timestamp()
     where sha256(convert_to('.' || encode(sha256(k.ok || sha256(k.ik || substr(s.whole, 1, octet_length(s.whole) - 65))), 'hex'), 'UTF8'))
         = sha256(substr(s.whole, octet_length(s.whole) - 64))
  ), said as materialized (
    select g.n, convert_from(decode(replace(replace(g.b64, '-', '+'), '_', '/'), 'base64'), 'UTF8')::jsonb as payload from good g
  )
  select s.n, s.payload from said s
   where s.payload ->> 'use' = 'context' and (s.payload ->> 'exp')::bigint >= date_part('epoch', clock_timestamp()) * 1000;
end
$$;
revoke all on function ctx_private.signed(text[]) from public;

-- verified returns the payload of the session's context. It raises 42501 when
-- there is none, it was not signed by the sidecar, or it has expired: an error
-- and not an empty answer, so that a missing context is never mistaken for a
-- missing patient.
create function ctx_private.verified() returns jsonb
language plpgsql stable parallel safe set search_path = pg_catalog
as $$
declare
  p jsonb;
begin
  select s.payload into p from ctx_private.signed(array[current_setting('medirecord.ctx', true)]) s;
  if p is null then
    raise exception 'medirecord: no valid context' using errcode = '42501';
  end if;
  return p;
end
$$;
revoke all on function ctx_private.verified() from public;

-- fact returns one value of the verified context; null when it has none.
create function ctx.fact(name text) returns text
language sql stable parallel safe security definer set search_path = pg_catalog
as $$ select ctx_private.verified() ->> name $$;
revoke all on function ctx.fact(text) from public;

-- actor returns issuer and subject of the verified context as one text.
create function ctx.actor() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  return (p ->> 'iss') || e'\x1f' || (p ->> 'sub');
end
$$;
revoke all on function ctx.actor() from public;

reset role;
