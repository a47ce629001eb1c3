-- SPDX-License-Identifier: Apache-2.0
--
-- Proofs of the trail over HTTP: who may have one of which entry, and what a
-- proof is made of that nothing of the entries is left out.

set role medirecord_context;
-- As in 0009, and the same scope for the context of a proof.
create or replace function ctx.trail_scope() returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  practice text := p ->> 'practice';
  patient text := p ->> 'patient';
begin
  if coalesce(p ->> 'action', '') not in ('audit.read', 'audit.prove') or p ? 'svc' then
    return '{}';
  end if;
  if patient is not null and (p ->> 'self' = patient or exists (
       select from medirecord.patient_link l
        where l.issuer = p ->> 'iss' and l.subject = p ->> 'sub' and l.patient_id = patient and l.relation = 'self'
          and clock_timestamp() between l.valid_from and l.valid_to)) then
    return array['patient|' || patient];
  end if;
  if practice is not null and (coalesce((p ->> 'admin')::boolean, false) or p -> 'roles' ? 'officer') then
    return array['practice|' || practice || coalesce('|' || patient, '')];
  end if;
  return '{}';
end
$$;
grant execute on function ctx.trail_scope() to medirecord_locator;
reset role;

set role medirecord_owner;
-- Who made a request may have the proof of its entry.
create policy prove_own on audit.event for select to medirecord_app
  using ((select ctx.fact('action')) = 'audit.prove' and actor_issuer || e'\x1f' || actor_subject = (select ctx.actor()));

-- leaf_hash is the leaf hash of an entry (RFC 6962), over its canonical bytes
-- mr-audit-v1: the tag and each column as text, after its length in 4 bytes; a
-- NULL is the length 0xffffffff.
create function audit.leaf_column(c text) returns bytea
language sql immutable parallel safe
return case when c is null then '\xffffffff'::bytea else int4send(octet_length(convert_to(c, 'UTF8'))) || convert_to(c, 'UTF8') end;
create function audit.leaf_hash(e audit.event) returns bytea
language sql immutable parallel safe
return sha256('\x00'::bytea || audit.leaf_column('mr-audit-v1')
  || audit.leaf_column(e.version::text) || audit.leaf_column(e.epoch::text) || audit.leaf_column(e.tx::text) || audit.leaf_column(e.event_id::text)
  || audit.leaf_column((extract(epoch from e.occurred_at) * 1000000)::bigint::text)
  || audit.leaf_column((extract(epoch from e.recorded_at) * 1000000)::bigint::text)
  || audit.leaf_column(e.parent_id::text) || audit.leaf_column(e.actor_issuer) || audit.leaf_column(e.actor_subject)
  || audit.leaf_column(e.actor_practice) || audit.leaf_column(e.patient_id) || audit.leaf_column(e.patient_practice)
  || audit.leaf_column(e.action) || audit.leaf_column(e.resource_type) || audit.leaf_column(e.resource_id) || audit.leaf_column(e.outcome)
  || audit.leaf_column(e.code) || audit.leaf_column(case when e.break_glass then 't' else 'f' end)
  || audit.leaf_column(e.ctx_nonce) || audit.leaf_column(e.ctx_mac) || audit.leaf_column(e.detail) || audit.leaf_column(encode(e.nonce, 'hex')));
revoke all on function audit.leaf_column(text), audit.leaf_hash(audit.event) from public;

-- For patient_leaves below: a hash of every entry about one patient.
grant usage on schema audit to medirecord_locator;
grant select on audit.event to medirecord_locator;
grant execute on function audit.leaf_column(text), audit.leaf_hash(audit.event) to medirecord_locator;
create policy locate on audit.event for select to medirecord_locator using (true);
grant create on schema audit to medirecord_locator;
reset role;

set role medirecord_locator;
-- proved_patient returns the patient whom the context may have such a proof
-- about: their own, or one of the practice's for its admin and officer. Of
-- anybody else not even the number of entries is told.
create function audit.proved_patient() returns text
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  patient text := ctx.fact('patient');
  practice text := ctx.fact('practice');
  scope text[] := ctx.trail_scope();
begin
  if scope && array['patient|' || patient] or scope && array['practice|' || practice || '|' || patient] and medirecord.practice_of(patient) = practice then
    return patient;
  end if;
  raise exception 'medirecord: this context reads no such trail' using errcode = '42501';
end
$$;
revoke all on function audit.proved_patient() from public;
grant execute on function audit.proved_patient() to medirecord_owner;

-- patient_leaves returns the ids and leaf hashes of the entries about the
-- context's patient between two places of the log, in its order: all of them,
-- also those that the reader may not read, whose hashes tell nothing. Only the
-- patient, and their own practice's admin and officer, get any.
create function audit.patient_leaves(lo_epoch integer, lo_tx xid8, lo_id uuid, hi_epoch integer, hi_tx xid8, hi_id uuid)
returns table (event_id uuid, leaf bytea)
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  patient text := audit.proved_patient();
begin
  return query
    select e.event_id, audit.leaf_hash(e) from audit.event e
     where e.patient_id = patient and (e.epoch, e.tx, e.event_id) > (lo_epoch, lo_tx, lo_id) and (e.epoch, e.tx, e.event_id) <= (hi_epoch, hi_tx, hi_id)
     order by e.epoch, e.tx, e.event_id;
end
$$;
revoke all on function audit.patient_leaves(integer, xid8, uuid, integer, xid8, uuid) from public;
grant execute on function audit.patient_leaves(integer, xid8, uuid, integer, xid8, uuid) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema audit from medirecord_locator;

-- As in 0004 and 0010, and about nobody else.
create or replace function audit.patient_bucket(in_epoch integer) returns table (key bytea, n bigint, head bytea)
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  hashed bytea := sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(audit.proved_patient(), 'UTF8'));
begin
  return query select h.key, h.n, h.head from audit.patient_head h
    where h.epoch = in_epoch and h.bucket = get_byte(hashed, 0) * 256 + get_byte(hashed, 1);
end
$$;
create or replace function audit.pruned_of_patient(in_epoch integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  hashed bytea := sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(audit.proved_patient(), 'UTF8'));
begin
  return query select i from audit.pruned p, unnest(p.indexes) i where p.epoch = in_epoch and p.key = hashed order by i;
end
$$;

-- epoch_name tells the operator who began an epoch what its log is called.
create function audit.epoch_name(which integer) returns text
language sql stable security definer set search_path = pg_catalog
as $$ select e.origin from audit.epoch e where e.epoch = which $$;
revoke all on function audit.epoch_name(integer) from public;
grant execute on function audit.epoch_name(integer) to medirecord_migrator;
reset role;
