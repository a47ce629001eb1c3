-- SPDX-License-Identifier: Apache-2.0
--
-- Who has to do with whom (decision 0024): encounters, appointments,
-- assignments, orders and care teams, one row for each member of staff and
-- patient. The policy asks whether the caller treats the patient, and breach
-- detection will ask whether they did: so a row is never removed, only ended.

set role medirecord_owner;

create table medirecord.treatment (
  id           uuid primary key,
  kind         text not null check (kind in ('encounter', 'appointment', 'assignment', 'order', 'care_team')),
  patient_id   text not null,
  practice_id  text not null,
  -- Who of the staff: a login, or, as a source of imports names them, a
  -- practitioner whom medirecord.staff makes a login.
  issuer       text check (length(issuer) between 1 and 255),
  subject      text check (length(subject) between 1 and 255),
  practitioner text check (length(practitioner) between 1 and 255),
  source       text not null check (source ~ '^[a-z0-9][a-z0-9._-]{0,63}$'), -- 'api', or that of an import
  author       text not null, -- issuer and subject, or service, that wrote it
  valid_from   timestamptz(3) not null check (isfinite(valid_from)),
  valid_to     timestamptz(3) not null check (valid_to >= valid_from),
  event_id     uuid not null, -- the entry of the last change
  created_at   timestamptz(3) not null default clock_timestamp(),
  ended_at     timestamptz(3),
  ended_by     text,
  ended_event  uuid,
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id),
  check ((issuer is null) = (subject is null) and (issuer is null) = (practitioner is not null)),
  check ((source = 'api') = (practitioner is null)),
  -- What a person writes has an end in sight: a relation for ever explains every
  -- later access.
  check (source <> 'api' or kind = 'appointment' and valid_to <= valid_from + interval '1 day'
                         or kind = 'assignment' and valid_to <= valid_from + interval '366 days'),
  check ((ended_at is null) = (ended_by is null) and (ended_at is null) = (ended_event is null))
);
create index treatment_staff on medirecord.treatment (patient_id, issuer, subject) where issuer is not null;
create index treatment_practitioner on medirecord.treatment (patient_id, source, practitioner) where practitioner is not null;
create index treatment_own on medirecord.treatment (practice_id, issuer, subject, valid_from, id) where issuer is not null;
create index treatment_listed on medirecord.treatment (patient_id, valid_from, id) where source = 'api';

-- Which sources of imports a practice trusts to say who treats whom.
create table medirecord.trusted_source (
  practice_id text not null references medirecord.practice (id),
  name        text not null check (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$' and name <> 'api'),
  author      text not null,
  event_id    uuid not null, -- its entry says on whose behalf
  created_at  timestamptz(3) not null default clock_timestamp(),
  ended_at    timestamptz(3),
  ended_event uuid,
  primary key (practice_id, name, created_at)
);
create unique index trusted_source_now on medirecord.trusted_source (practice_id, name) where ended_at is null;

-- Which practitioner of a source is which login.
create table medirecord.staff (
  practice_id  text not null references medirecord.practice (id),
  source       text not null check (source ~ '^[a-z0-9][a-z0-9._-]{0,63}$' and source <> 'api'),
  practitioner text not null check (length(practitioner) between 1 and 255),
  issuer       text not null check (length(issuer) between 1 and 255),
  subject      text not null check (length(subject) between 1 and 255),
  author       text not null,
  event_id     uuid not null,
  created_at   timestamptz(3) not null default clock_timestamp(),
  ended_at     timestamptz(3),
  ended_event  uuid,
  primary key (practice_id, source, practitioner, created_at)
);
create unique index staff_now on medirecord.staff (practice_id, source, practitioner) where ended_at is null;
create index staff_login on medirecord.staff (practice_id, issuer, subject) where ended_at is null;

do $$
declare
  t text;
begin
  foreach t in array array['treatment', 'trusted_source', 'staff'] loop
    execute format('alter table medirecord.%I enable row level security', t);
    execute format('alter table medirecord.%I force row level security', t);
    execute format('grant select on medirecord.%I to medirecord_context', t);
    execute format('create policy decide on medirecord.%I for select to medirecord_context using (true)', t);
  end loop;
end
$$;
reset role;

set role medirecord_context;

-- treats_at reports whether a relation is a reason to look into the chart at
-- the moment: a visit is prepared, and followed up.
create function ctx.treats_at(kind text, valid_from timestamptz, valid_to timestamptz, moment timestamptz) returns boolean
language sql stable parallel safe
return moment between
  valid_from - case kind when 'appointment' then interval '14 days' when 'assignment' then interval '2 hours'
                         when 'encounter' then interval '30 days' else interval '0' end
  and valid_to + case kind when 'appointment' then interval '30 days' when 'assignment' then interval '72 hours'
                           when 'encounter' then interval '30 days' when 'order' then interval '4 days' else interval '0' end;
revoke all on function ctx.treats_at(text, timestamptz, timestamptz, timestamptz) from public;

-- treating reports whether the person of the session's context treats its
-- patient now, in their own practice. What somebody wrote about themselves
-- makes them nobody's nurse; what was imported counts while its source is
-- trusted and the practitioner is known to be them.
create function ctx.treating() returns boolean
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ? 'svc' or not p -> 'roles' ?| array['nurse', 'clinician', 'admin'] then
    return false;
  end if;
  return exists (
      select from medirecord.treatment t
       where t.patient_id = p ->> 'patient' and t.practice_id = p ->> 'practice' and t.issuer = p ->> 'iss' and t.subject = p ->> 'sub'
         and t.author <> t.issuer || e'\x1f' || t.subject
         and t.ended_at is null and ctx.treats_at(t.kind, t.valid_from, t.valid_to, clock_timestamp()))
    or exists (
      select from medirecord.staff m
        join medirecord.trusted_source s on s.practice_id = m.practice_id and s.name = m.source and s.ended_at is null
        join medirecord.treatment t on t.source = m.source and t.practitioner = m.practitioner
       where m.practice_id = p ->> 'practice' and m.issuer = p ->> 'iss' and m.subject = p ->> 'sub' and m.ended_at is null
         and t.patient_id = p ->> 'patient' and t.practice_id = m.practice_id
         and t.ended_at is null and ctx.treats_at(t.kind, t.valid_from, t.valid_to, clock_timestamp()));
end
$$;
revoke all on function ctx.treating() from public;
grant execute on function ctx.treating() to medirecord_app;

-- treatments_of returns whose relations the context may list: those of one
-- patient, as practice|patient, or one's own, as practice@actor. Null for
-- everybody else.
create function ctx.treatments_of() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  if p ->> 'action' <> 'treatment.read' or p ? 'svc' or p ? 'grant' or not p ? 'practice'
     or not p -> 'roles' ?| array['nurse', 'clinician', 'admin'] or p -> 'roles' ? 'officer' then
    return null;
  end if;
  if not p ? 'patient' then
    return (p ->> 'practice') || '@' || (p ->> 'iss') || e'\x1f' || (p ->> 'sub');
  end if;
  return case when ctx_private.writer(p) then (p ->> 'practice') || '|' || (p ->> 'patient') end;
end
$$;
revoke all on function ctx.treatments_of() from public;
grant execute on function ctx.treatments_of() to medirecord_app;

-- enrolling returns the practice whose trust in sources and practitioners the
-- operator changes or looks at.
create function ctx.enrolling() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
begin
  return case when p ->> 'svc' = 'operator' and p ->> 'action' = 'practice.enroll' then p ->> 'practice' end;
end
$$;
revoke all on function ctx.enrolling() from public;
grant execute on function ctx.enrolling() to medirecord_app;
grant execute on function ctx.writes(text[]), ctx.actor() to medirecord_reader;
reset role;

set role medirecord_owner;
grant select on medirecord.treatment to medirecord_app;
grant insert (id, kind, patient_id, practice_id, issuer, subject, practitioner, source, author, valid_from, valid_to, event_id) on medirecord.treatment to medirecord_app;
grant update (valid_from, valid_to, event_id, ended_at, ended_by, ended_event) on medirecord.treatment to medirecord_app;

-- Imported ones are evidence and not for reading: which practitioner somebody
-- saw can tell of what a restricted record hides.
create policy read on medirecord.treatment for select to medirecord_app
  using (source = 'api' and (select ctx.treatments_of()) in (practice_id || '|' || patient_id, practice_id || '@' || issuer || e'\x1f' || subject)
         or source <> 'api' and practice_id || '|*' = (select ctx.writes(array['import'])));
create policy add on medirecord.treatment for insert to medirecord_app
  with check (author = (select ctx.actor()) and ended_at is null and case when source = 'api'
         then practice_id || '|' || patient_id = (select ctx.writes(array['treatment.create'])) and practice_id = medirecord.practice_of(patient_id)
         else practice_id || '|*' = (select ctx.writes(array['import'])) end);
-- An import learns more of what it brought before. A person ends a relation by
-- the function below, and changes none.
create policy follow on medirecord.treatment for update to medirecord_app
  using (source <> 'api' and practice_id || '|*' = (select ctx.writes(array['import'])))
  with check (source <> 'api' and practice_id || '|*' = (select ctx.writes(array['import'])));

grant select, update on medirecord.treatment to medirecord_reader;
create policy ending on medirecord.treatment to medirecord_reader using (true) with check (true);

grant select, insert (practice_id, name, author, event_id), update (ended_at, ended_event) on medirecord.trusted_source to medirecord_app;
grant select, insert (practice_id, source, practitioner, issuer, subject, author, event_id), update (ended_at, ended_event) on medirecord.staff to medirecord_app;
do $$
declare
  t text;
begin
  foreach t in array array['trusted_source', 'staff'] loop
    execute format('create policy see on medirecord.%I for select to medirecord_app using (practice_id = (select ctx.enrolling()))', t);
    execute format('create policy add on medirecord.%I for insert to medirecord_app with check (practice_id = (select ctx.enrolling()) and author = (select ctx.actor()))', t);
    execute format('create policy finish on medirecord.%I for update to medirecord_app using (practice_id = (select ctx.enrolling()) and ended_at is null)'
      ' with check (practice_id = (select ctx.enrolling()) and ended_at between clock_timestamp() - interval ''1 minute'' and clock_timestamp() + interval ''1 minute'')', t);
  end loop;
end
$$;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- end_treatment ends a relation of the context's patient that a person wrote,
-- now, and reports whether there was one to end.
create function medirecord.end_treatment(treatment uuid, kind text, event uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog
as $$
declare
  whose text := ctx.writes(array['treatment.end']);
begin
  if whose is null then
    raise exception 'medirecord: this context ends no relation' using errcode = '42501';
  end if;
  update medirecord.treatment t set ended_at = clock_timestamp(), ended_by = ctx.actor(), ended_event = event
   where t.id = treatment and t.kind = end_treatment.kind and t.source = 'api' and t.ended_at is null
     and t.practice_id || '|' || t.patient_id = whose;
  return found;
end
$$;
revoke all on function medirecord.end_treatment(uuid, text, uuid) from public;
grant execute on function medirecord.end_treatment(uuid, text, uuid) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;
reset role;
