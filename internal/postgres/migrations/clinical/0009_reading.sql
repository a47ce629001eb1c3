-- SPDX-License-Identifier: Apache-2.0
--
-- Reading the trail (rules.md section 5): who may read which entries, and the
-- indexes that make a patient's last accesses and a user's day a few pages of
-- the newest partitions, however many entries there are.

set role medirecord_context;
-- trail_scope returns what of the trail the context may read:
--   patient|<id>             everything about them, by the context or a link;
--   practice|<practice>|<id> what their practice may know about one patient;
--   practice|<practice>      the whole of it, when the context names no patient.
-- A person whose own record it is reads as that patient, whatever else they
-- are; a practice's trail is for its admin with a second factor and its officer.
create or replace function ctx.trail_scope() returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  practice text := p ->> 'practice';
  patient text := p ->> 'patient';
begin
  if p ->> 'action' is distinct from 'audit.read' or p ? 'svc' then
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
reset role;

set role medirecord_owner;
alter policy read on audit.event
  using ((select ctx.trail_scope()) && array[
    'practice|' || actor_practice, 'practice|' || patient_practice,
    'practice|' || actor_practice || '|' || patient_id, 'practice|' || patient_practice || '|' || patient_id,
    'patient|' || patient_id]);

-- A practice's trail is what its people did, and what others did to its
-- patients. The two are read from indexes of their own and merged: row security
-- uses no index, and an index that began with a person or a patient would let
-- the time that an answer takes tell of those of other practices.
create index event_practice on audit.event (actor_practice, occurred_at desc, event_id desc);
create index event_actor on audit.event (actor_practice, actor_subject, occurred_at desc, event_id desc);
create index event_visit on audit.event (patient_practice, occurred_at desc, event_id desc)
  where actor_practice is distinct from patient_practice;
create index event_visitor on audit.event (patient_practice, actor_subject, occurred_at desc, event_id desc)
  where actor_practice is distinct from patient_practice;
-- Break-glass is what an officer looks for first, and rare.
create index event_glass on audit.event (actor_practice, occurred_at desc, event_id desc) where break_glass;
create index event_glass_visit on audit.event (patient_practice, occurred_at desc, event_id desc)
  where break_glass and actor_practice is distinct from patient_practice;
reset role;
