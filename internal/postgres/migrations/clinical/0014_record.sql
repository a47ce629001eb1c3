-- SPDX-License-Identifier: Apache-2.0
--
-- Records one by one, the versions they had, and the manifest of each chart
-- (decisions 0021 and 0022).

set role medirecord_owner;

-- What a record was before it was changed. Nobody writes here: changing a
-- record does, in the trigger below, so that no version is lost whoever changes it.
create table medirecord.record_version (
  patient_id  text not null,
  record_id   text not null,
  version     bigint not null check (version > 0),
  practice_id text not null,
  dek_version integer not null check (dek_version > 0),
  sealed      bytea not null,
  event_id    uuid not null, -- the entry of the change that made this version
  created_at  timestamptz(3) not null, -- when this version was written
  primary key (patient_id, record_id, version),
  foreign key (patient_id, record_id) references medirecord.record (patient_id, id),
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id)
);

-- What there is of a chart, sealed under the patient's key: how many records,
-- in which versions, and the version of the patient's own row. Written anew with
-- each change; its hash is in the entry of that change.
create table medirecord.manifest (
  patient_id  text primary key,
  practice_id text not null,
  version     bigint not null check (version > 0),
  dek_version integer not null check (dek_version > 0),
  sealed      bytea not null,
  hash        bytea not null generated always as (sha256(sealed)) stored,
  event_id    uuid not null,
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id)
);

alter table medirecord.record_version enable row level security;
alter table medirecord.record_version force row level security;
alter table medirecord.manifest enable row level security;
alter table medirecord.manifest force row level security;

-- keep_version puts what a record was beside it, and lets no change pass that
-- is not the next version of the same record.
create function medirecord.keep_version() returns trigger
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  if new.version <> old.version + 1 or (new.patient_id, new.id, new.practice_id, new.created_at) is distinct from (old.patient_id, old.id, old.practice_id, old.created_at) then
    raise exception 'medirecord: not the next version of the record' using errcode = '23514';
  end if;
  insert into medirecord.record_version (patient_id, record_id, version, practice_id, dek_version, sealed, event_id, created_at)
  values (old.patient_id, old.id, old.version, old.practice_id, old.dek_version, old.sealed, old.event_id, old.updated_at);
  return new;
end
$$;
revoke all on function medirecord.keep_version() from public;
create trigger keep_version before update on medirecord.record for each row execute function medirecord.keep_version();
alter table medirecord.record enable always trigger keep_version;
-- For the trigger, which runs as the owner; and inside it only.
create policy keep on medirecord.record_version for insert to medirecord_owner with check (pg_trigger_depth() > 0);

-- A version that was does not change.
create trigger no_change before update or delete on medirecord.record_version for each row execute function audit.deny();
create trigger no_truncate before truncate on medirecord.record_version for each statement execute function audit.deny();
alter table medirecord.record_version enable always trigger no_change;
alter table medirecord.record_version enable always trigger no_truncate;

grant select on medirecord.manifest to medirecord_app;
grant insert (patient_id, practice_id, version, dek_version, sealed, event_id) on medirecord.manifest to medirecord_app;
grant update (version, dek_version, sealed, event_id) on medirecord.manifest to medirecord_app;

-- A manifest is seen by who changes the chart; who reads it goes by read_chart.
-- It belongs to deleted charts as to live ones.
create policy read on medirecord.manifest for select to medirecord_app
  using ((select ctx.writes('{patient.update,patient.delete,patient.restore,record.create,record.update,record.delete,import}'))
         in (practice_id || '|' || patient_id, practice_id || '|*'));
create policy add on medirecord.manifest for insert to medirecord_app
  with check ((select ctx.writes('{patient.create,patient.update,patient.delete,patient.restore,record.create,record.update,record.delete,import}'))
         in (practice_id || '|' || patient_id, practice_id || '|*'));
create policy change on medirecord.manifest for update to medirecord_app
  using ((select ctx.writes('{patient.update,patient.delete,patient.restore,record.create,record.update,record.delete,import}'))
         in (practice_id || '|' || patient_id, practice_id || '|*'))
  with check ((select ctx.writes('{patient.update,patient.delete,patient.restore,record.create,record.update,record.delete,import}'))
         in (practice_id || '|' || patient_id, practice_id || '|*'));

-- What must be told to somebody may be that a chart does not match its manifest.
-- Once for each chart, until it has been told.
alter table medirecord.outbox drop constraint outbox_topic_check;
alter table medirecord.outbox add constraint outbox_topic_check check (topic in ('break_glass', 'trail_flag', 'integrity'));
create unique index outbox_integrity on medirecord.outbox (patient_id) where topic = 'integrity' and delivered_at is null;
grant insert (id, topic, severity, practice_id, patient_id, event_id, reason_code) on medirecord.outbox to medirecord_worker;
create policy tell_integrity on medirecord.outbox for insert to medirecord_worker
  with check (topic = 'integrity' and practice_id = (select ctx.fact('practice')) and (select ctx.fact('action')) = 'sweep');

-- An import's context names no one patient.
create policy tell_imported on medirecord.outbox for insert to medirecord_app
  with check (topic = 'integrity' and (select ctx.writes('{import}')) = practice_id || '|*');

grant select on medirecord.record, medirecord.record_version, medirecord.manifest to medirecord_reader;
create policy gated on medirecord.record for select to medirecord_reader using (true);
create policy gated on medirecord.record_version for select to medirecord_reader using (true);
create policy gated on medirecord.manifest for select to medirecord_reader using (true);
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- read_patients, as in 0006, with the manifest of the chart.
create function medirecord.read_patients(contexts text[], tickets text[], manifests boolean)
returns table (n bigint, patient text, practice_id text, version bigint, dek_version integer, key_state text, sealed bytea,
               created_at timestamptz, updated_at timestamptz, deleted boolean, self boolean,
               manifest_version bigint, manifest_dek integer, manifest bytea)
language plpgsql stable security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
    select o.n, o.patient, p.practice_id, p.version, p.dek_version, p.key_state, p.sealed, p.created_at::timestamptz,
           p.updated_at::timestamptz, p.deleted_at is not null, o.self, m.version, m.dek_version, m.sealed
      from ctx.opened(contexts, tickets) o
      left join medirecord.patient p on p.id = o.patient and o.doors && medirecord.doors(p.practice_id, p.id, p.deleted_at)
      left join medirecord.manifest m on manifests and m.patient_id = p.id;
end
$$;
revoke all on function medirecord.read_patients(text[], text[], boolean) from public;
grant execute on function medirecord.read_patients(text[], text[], boolean) to medirecord_app;

-- read_chart reads the one patient that a context is about, if it opens a door
-- of theirs: their records, all of them by id and version, sealed as they are
-- when no record is named, else that one; and the manifest that they must match.
-- One snapshot, so that what does not match is not what was just being written.
-- A context that is not valid gives no row; one that opens nothing a row without
-- a practice.
create function medirecord.read_chart(context text, ticket text, which text)
returns table (patient text, practice_id text, version bigint, dek_version integer, key_state text, deleted boolean, self boolean,
               manifest_version bigint, manifest_dek integer, manifest bytea,
               ids text[], versions bigint[], deks integer[], sealed bytea[], created timestamptz[], updated timestamptz[])
language plpgsql stable security definer set search_path = pg_catalog rows 1
as $$
begin
  return query
    select o.patient, p.practice_id, p.version, p.dek_version, p.key_state, p.deleted_at is not null, o.self, m.version, m.dek_version, m.sealed,
           r.ids, r.versions, r.deks, r.sealed, r.created, r.updated
      from ctx.opened(array[context], case when ticket <> '' then array[ticket] end) o
      left join medirecord.patient p on p.id = o.patient and o.doors && medirecord.doors(p.practice_id, p.id, p.deleted_at)
      left join medirecord.manifest m on m.patient_id = p.id
      left join lateral (
        select array_agg(x.id) as ids, array_agg(x.version) as versions, array_agg(x.dek_version) as deks,
               array_agg(case when which = '' or x.id = which then x.sealed end) as sealed,
               array_agg(x.created_at::timestamptz) as created, array_agg(x.updated_at::timestamptz) as updated
          from medirecord.record x where x.patient_id = p.id) r on true;
end
$$;
revoke all on function medirecord.read_chart(text, text, text) from public;
grant execute on function medirecord.read_chart(text, text, text) to medirecord_app;

-- read_versions reads what one record of the context's patient was before.
create function medirecord.read_versions(context text, ticket text, which text)
returns table (version bigint, dek_version integer, sealed bytea, created_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  return query
    select v.version, v.dek_version, v.sealed, v.created_at::timestamptz
      from ctx.opened(array[context], case when ticket <> '' then array[ticket] end) o
      join medirecord.patient p on p.id = o.patient and o.doors && medirecord.doors(p.practice_id, p.id, p.deleted_at)
      join medirecord.record_version v on v.patient_id = p.id and v.record_id = which
     order by v.version desc;
end
$$;
revoke all on function medirecord.read_versions(text, text, text) from public;
grant execute on function medirecord.read_versions(text, text, text) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;

-- For manifests below: the entries that tell of one. A user's text cannot look
-- like it: its quotation marks are escaped.
create index event_manifest on audit.event (patient_practice, patient_id, recorded_at desc) where position('"manifest":"' in detail) > 0;
grant select (patient_id, practice_id, hash, event_id) on medirecord.manifest to medirecord_locator;
create policy locate on medirecord.manifest for select to medirecord_locator using (true);
grant create on schema medirecord to medirecord_locator;
reset role;

set role medirecord_locator;
-- manifests says of the next charts of the practice, by patient id, which
-- manifest the trail told of last, and which one there is: hashes and entries,
-- for the sweeper, which opens no chart. The trail says which charts there must
-- be, so that one that is gone altogether is missed too.
create function medirecord.manifests(after text, most integer)
returns table (patient_id text, told text, told_in uuid, found text, found_in uuid)
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  practice text := ctx.fact('practice');
begin
  if ctx.fact('action') is distinct from 'sweep' or ctx.fact('svc') is distinct from 'worker' then
    raise exception 'medirecord: this context sweeps nothing' using errcode = '42501';
  end if;
  return query
    select e.patient_id, e.detail::jsonb ->> 'manifest', e.event_id, encode(m.hash, 'hex'), m.event_id
      from (select distinct on (x.patient_id) x.patient_id, x.detail, x.event_id
              from audit.event x
             where x.patient_practice = practice and x.patient_id > after and position('"manifest":"' in x.detail) > 0
             order by x.patient_id, x.recorded_at desc
             limit most) e
      left join medirecord.manifest m on m.patient_id = e.patient_id and m.practice_id = practice;
end
$$;
-- manifest_told says whether the trail ever told of a manifest of the patient: a
-- chart without one is from before there were any, or has lost it.
create function medirecord.manifest_told(practice text, patient text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  if ctx.fact('patient') not in (patient, '*') then
    raise exception 'medirecord: this context is about another patient' using errcode = '42501';
  end if;
  return exists (select from audit.event e where e.patient_practice = practice and e.patient_id = patient and position('"manifest":"' in e.detail) > 0);
end
$$;
revoke all on function medirecord.manifest_told(text, text) from public;
grant execute on function medirecord.manifest_told(text, text) to medirecord_app;
revoke all on function medirecord.manifests(text, integer) from public;
grant execute on function medirecord.manifests(text, integer) to medirecord_worker;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_locator;
reset role;
