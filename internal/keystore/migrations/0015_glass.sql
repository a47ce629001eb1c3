-- SPDX-License-Identifier: Apache-2.0
--
-- Keys for break-glass: the reason of a grant that is opened is sealed under the
-- audit key of the patient's practice.

set role medirecord_owner;
grant usage on schema keys to medirecord_context;
grant select (practice_id, patient_id) on keys.patient_key to medirecord_context;
create policy whose on keys.patient_key for select to medirecord_context using (true);
reset role;

set role medirecord_context;
-- glass_practice returns the practice of the patient on whom the context opens a
-- grant; null for every other context.
create function ctx.glass_practice() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ->> 'action' is distinct from 'break_glass.open' or not p ? 'grant' or p ? 'svc' then
    return null;
  end if;
  return (select k.practice_id from keys.patient_key k where k.patient_id = p ->> 'patient' limit 1);
end
$$;
revoke all on function ctx.glass_practice() from public;
grant execute on function ctx.glass_practice() to medirecord_keys;
reset role;

set role medirecord_owner;
create policy reason on keys.practice_key for select to medirecord_keys
  using (purpose = 'audit' and practice_id = (select ctx.glass_practice()));
reset role;
