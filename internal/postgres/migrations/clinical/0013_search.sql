-- SPDX-License-Identifier: Apache-2.0
--
-- Looking for patients (decision 0020): under patient.search, which names no
-- patient, two functions give ids and nothing else, of live patients of the
-- context's practice, at most as many as the context says. Who is shown anything
-- of a patient found reads them under a context of their own.

set role medirecord_context;
-- searching returns the practice that the context looks for patients in, and how
-- many rows it may be given. It raises 42501 for every other context.
create function ctx.searching() returns table (practice text, max_rows integer)
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ->> 'action' = 'patient.search' and not (p ? 'svc' or p ? 'grant' or p ? 'patient') and p ? 'practice'
     and p -> 'roles' ?| array['nurse', 'clinician', 'admin'] and not p -> 'roles' ?| array['officer', 'break_glass']
     and coalesce((p ->> 'max_rows')::integer, 0) > 0 then
    return query select p ->> 'practice', (p ->> 'max_rows')::integer;
    return;
  end if;
  raise exception 'medirecord: this context looks for nobody' using errcode = '42501';
end
$$;
revoke all on function ctx.searching() from public;
grant execute on function ctx.searching() to medirecord_reader;
reset role;

set role medirecord_owner;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- list_patients returns the next ids after one, in order.
create function medirecord.list_patients(after text, most integer) returns setof text
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  s record := ctx.searching();
begin
  return query
    select p.id from medirecord.patient p
     where p.practice_id = s.practice and p.id > after and p.deleted_at is null
     order by p.id
     limit greatest(least(most, s.max_rows), 0);
end
$$;
revoke all on function medirecord.list_patients(text, integer) from public;
grant execute on function medirecord.list_patients(text, integer) to medirecord_app;

-- find_patients returns who has the tag. What somebody is called at the source
-- of an import is not looked for by people.
create function medirecord.find_patients(field text, tag bytea, most integer) returns setof text
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  s record := ctx.searching();
begin
  return query
    select b.patient_id
      from medirecord.blind_index b
      join medirecord.patient p on p.practice_id = b.practice_id and p.id = b.patient_id and p.deleted_at is null
     where b.practice_id = s.practice and b.field = find_patients.field and b.tag = find_patients.tag and b.field <> 'source_id'
     order by b.patient_id
     limit greatest(least(most, s.max_rows), 0);
end
$$;
revoke all on function medirecord.find_patients(text, bytea, integer) from public;
grant execute on function medirecord.find_patients(text, bytea, integer) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;
reset role;
