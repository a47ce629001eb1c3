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

-- verified returns the payload of the session's context. It raises 42501 when
-- there is none, it was not signed by the sidecar, or it has expired: an error
-- and not an empty answer, so that a missing context is never mistaken for a
-- missing patient.
create function ctx_private.verified() returns jsonb
language plpgsql stable parallel safe
as $$
declare
  c text := pg_catalog.current_setting('medirecord.ctx', true);
  b text := pg_catalog.split_part(c, '.', 3);
  good boolean;
  p jsonb;
begin
  -- Both sides are hashed once more: the comparison's timing tells nothing.
  select pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.encode(
           pg_catalog.sha256(k.ok operator(pg_catalog.||) pg_catalog.sha256(k.ik operator(pg_catalog.||)
             pg_catalog.convert_to(pg_catalog.left(c, -65), 'UTF8'))), 'hex'), 'UTF8'))
         operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.right(c, 64), 'UTF8'))
    into good
    from ctx_private.key k
   where k.kid operator(pg_catalog.=) pg_catalog.split_part(c, '.', 2)
     and k.not_after operator(pg_catalog.>) pg_catalog.clock_timestamp();
  if good then
    p := pg_catalog.convert_from(pg_catalog.decode(
           pg_catalog.rpad(pg_catalog.translate(b, '-_', '+/'),
             ((pg_catalog.length(b) operator(pg_catalog.+) 3) operator(pg_catalog./) 4) operator(pg_catalog.*) 4, '='),
           'base64'), 'UTF8')::pg_catalog.jsonb;
    if (p operator(pg_catalog.->>) 'use') operator(pg_catalog.=) 'context'
       and ((p operator(pg_catalog.->>) 'exp')::pg_catalog.int8)
           operator(pg_catalog.>=) (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000) then
      return p;
    end if;
  end if;
  raise exception 'medirecord: no valid context' using errcode = '42501';
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
