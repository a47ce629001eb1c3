-- SPDX-License-Identifier: Apache-2.0
--
-- Keys for changes under a person's own context: who makes a patient makes
-- their key, and settles it; who changes one, or their records, reads it.

set role medirecord_context;
create or replace function ctx.key_scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  action text := p ->> 'action';
  practice text := p ->> 'practice';
  patient text := p ->> 'patient';
  staff boolean := p -> 'roles' ?| array['nurse', 'clinician', 'admin'];
  opens text[] := '{}';
begin
  if p ? 'svc' then
    if (p ->> 'svc', action) = ('import', 'import') and need in ('select', 'insert', 'update')
       or (p ->> 'svc', action) = ('worker', 'sweep') and need in ('select', 'update', 'delete')
       or (p ->> 'svc', action) = ('operator', 'practice.add') and need in ('select', 'insert') then
      opens := array[practice || '|*'];
    end if;
    return opens;
  end if;
  if need = 'select' and action in ('patient.read', 'record.read') then
    if practice is not null and staff then
      opens := opens || (practice || '|' || patient);
    end if;
    if p ? 'grant' or p ->> 'self' = patient then
      opens := opens || ('*|' || patient);
    end if;
  end if;
  -- A change: by staff, in their own practice, without a broken glass, and not
  -- of their own record.
  if practice is not null and patient is not null and staff and not p -> 'roles' ?| array['officer', 'break_glass']
     and not p ? 'grant' and (p ->> 'self') is distinct from patient
     and (need = 'select' and action in ('patient.create', 'patient.update', 'patient.delete', 'patient.restore',
                                         'record.create', 'record.update', 'record.delete')
          or need in ('insert', 'update') and action = 'patient.create') then
    opens := opens || (practice || '|' || patient);
  end if;
  if need = 'select' and action = 'audit.read' and practice is not null then
    opens := opens || (practice || '|audit'); -- reasons are sealed under the practice's audit key
  end if;
  return opens;
end
$$;
reset role;

set role medirecord_owner;
drop policy add on keys.patient_key;
create policy add on keys.patient_key for insert to medirecord_keys
  with check (state = 'pending' and (select ctx.key_scope('insert')) && array[practice_id || '|' || patient_id, practice_id || '|*']);
drop policy settle on keys.patient_key;
create policy settle on keys.patient_key for update to medirecord_keys
  using (state = 'pending' and (select ctx.key_scope('update')) && array[practice_id || '|' || patient_id, practice_id || '|*'])
  with check (state = 'active');
drop policy read on keys.practice_key;
create policy read on keys.practice_key for select to medirecord_keys
  using (practice_id = (select ctx.fact('practice')) and not ((select ctx.fact('action')) in ('patient.read', 'record.read'))
         or exists (select from keys.patient_key k where k.practice_id = practice_key.practice_id));
reset role;
