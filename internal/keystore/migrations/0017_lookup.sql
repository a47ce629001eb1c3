-- SPDX-License-Identifier: Apache-2.0
--
-- Keys for the lookup across practices (decision 0023): who asks makes each
-- practice's tag of one name and birth date; who opens one of those found, whose
-- row the clinical database cuts down to name and birth date, needs their key.

set role medirecord_context;
-- lookup_scope returns what a lookup opens: '*' (every practice's index key, and
-- no patient's) for the question, and the patient whom the context names for one
-- of those found; null for every other context.
create function ctx.lookup_scope() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ->> 'action' = 'break_glass.lookup' and p ? 'grant' and p ? 'sid' and not p ? 'svc' and p -> 'roles' ?| array['clinician', 'break_glass']
     and not coalesce(p ->> 'self' = p ->> 'patient', false) then
    return coalesce(p ->> 'patient', '*');
  end if;
  return null;
end
$$;
revoke all on function ctx.lookup_scope() from public;
grant execute on function ctx.lookup_scope() to medirecord_keys;
reset role;

set role medirecord_owner;
create policy lookup on keys.practice_key for select to medirecord_keys
  using (purpose = 'index' and state = 'active' and (select ctx.lookup_scope()) = '*');
create policy candidate on keys.patient_key for select to medirecord_keys
  using (patient_id = (select ctx.lookup_scope()));
reset role;
