-- SPDX-License-Identifier: Apache-2.0
--
-- As in 0006, but each ticket is looked up by its id: the plan that a session keeps
-- read all entries of the last half minute for each statement, once they were
-- many, and a strict read took half a second.

set role medirecord_context;
create or replace function ctx_private.held(tickets text[])
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
  select t.n, e.ctx_nonce, e.actor_issuer, e.actor_subject, e.actor_practice, e.patient_id, e.patient_practice, e.break_glass
    from unnest(tickets) with ordinality as t(id, n)
    cross join lateral (
      select x.ctx_nonce, x.actor_issuer, x.actor_subject, x.actor_practice, x.patient_id, x.patient_practice, x.break_glass
        from audit.event x
       where x.event_id = t.id::uuid and x.occurred_at between since and until and x.recorded_at >= since
         and x.tx is distinct from pg_current_xact_id_if_assigned()
         and x.action = 'read_ticket' and x.outcome = 'access_granted' and x.resource_type = 'patient' and x.resource_id = x.patient_id
      offset 0) e -- a fence: not to be joined in any other way
   where t.id <> '';
end
$$;
reset role;
