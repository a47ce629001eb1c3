-- SPDX-License-Identifier: Apache-2.0
--
-- Disclosures of patient data to others, for the accounting of 45 CFR 164.528.
-- To whom, when, on what ground and why is sealed, under a key of the
-- practice's and not of the patient's: the accounting is kept when the
-- patient's own key is destroyed.

set role medirecord_owner;

create table medirecord.disclosure (
  id          uuid not null,
  version     integer not null check (version > 0),
  patient_id  text not null check (patient_id ~ '^[A-Za-z0-9.-]{1,64}$'),
  -- No reference to the patient's row, which may go before its accounting does.
  practice_id text not null references medirecord.practice (id),
  sealed      bytea not null,
  author      text not null, -- issuer and subject
  event_id    uuid not null,
  created_at  timestamptz(3) not null default clock_timestamp(),
  primary key (id, version),
  -- A later version is of the disclosure that came before, of the same patient:
  -- nobody makes one theirs by its id, or leaves one out.
  previous    integer generated always as (nullif(version - 1, 0)) stored,
  unique (id, version, practice_id, patient_id),
  foreign key (id, previous, practice_id, patient_id) references medirecord.disclosure (id, version, practice_id, patient_id)
);
create index disclosure_patient on medirecord.disclosure (practice_id, patient_id, created_at);
alter table medirecord.disclosure enable row level security;
alter table medirecord.disclosure force row level security;

reset role;

set role medirecord_context;
-- disclosure_scope returns the one patient of one practice whose disclosures
-- the context opens for what is needed: select or insert. Who records one does
-- not read the others; a suspension, which amends one, has to read it.
create function ctx.disclosure_scope(need text) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  action text := p ->> 'action';
  watches boolean := (p ->> 'admin')::boolean or p -> 'roles' ? 'officer';
begin
  if p ? 'svc' or not p ? 'practice' or not p ? 'patient' then
    return null;
  end if;
  if need = 'select' and (action in ('disclosure.read', 'disclosure.amend') and watches
                          or action = 'disclosure.read' and p ->> 'self' = p ->> 'patient')
     or need = 'insert' and (action = 'disclosure.create' and (watches or p -> 'roles' ? 'clinician')
                             or action = 'disclosure.amend' and watches) then
    return (p ->> 'practice') || '|' || (p ->> 'patient');
  end if;
  return null;
end
$$;
revoke all on function ctx.disclosure_scope(text) from public;
grant execute on function ctx.disclosure_scope(text) to medirecord_app;
reset role;

set role medirecord_owner;
grant select on medirecord.disclosure to medirecord_app;
grant insert (id, version, patient_id, practice_id, sealed, author, event_id) on medirecord.disclosure to medirecord_app;

create policy read on medirecord.disclosure for select to medirecord_app
  using (practice_id || '|' || patient_id = (select ctx.disclosure_scope('select')));
-- A new one is of a patient who is there, of this practice.
create policy record on medirecord.disclosure for insert to medirecord_app
  with check (practice_id || '|' || patient_id = (select ctx.disclosure_scope('insert'))
         and author = (select ctx.actor())
         and case when version = 1 then practice_id = medirecord.practice_of(patient_id)
             else (select ctx.fact('action')) = 'disclosure.amend' end);
reset role;
