-- SPDX-License-Identifier: Apache-2.0
--
-- Patients, their records, and who may see them. What is plaintext here, and
-- why, is listed in docs/threat-model.md; everything else is in `sealed`.

set role medirecord_owner;

create table medirecord.patient (
  id          text primary key check (id ~ '^[A-Za-z0-9.-]{1,64}$'),
  practice_id text not null references medirecord.practice (id),
  version     bigint not null check (version > 0),
  dek_version integer not null check (dek_version > 0),
  key_state   text not null default 'active' check (key_state in ('active', 'destroyed')),
  sealed      bytea not null,
  event_id    uuid not null, -- the entry of the last change
  created_at  timestamptz(3) not null default clock_timestamp(),
  updated_at  timestamptz(3) not null default clock_timestamp(),
  deleted_at  timestamptz(3),
  unique (practice_id, id)
);

create table medirecord.record (
  patient_id  text not null,
  id          text not null check (id ~ '^[A-Za-z0-9.-]{1,64}$'),
  practice_id text not null,
  version     bigint not null check (version > 0),
  dek_version integer not null check (dek_version > 0),
  sealed      bytea not null,
  event_id    uuid not null,
  created_at  timestamptz(3) not null default clock_timestamp(),
  updated_at  timestamptz(3) not null default clock_timestamp(),
  primary key (patient_id, id),
  -- Composite, so that a record cannot hang between two practices.
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id)
);

-- Keyed hashes of what may be searched for; per practice, never clinical.
create table medirecord.blind_index (
  practice_id text not null,
  field       text not null check (field in ('mrn', 'ssn', 'phone', 'email', 'member_id', 'family_dob', 'source_id')),
  tag         bytea not null check (length(tag) = 8),
  patient_id  text not null,
  key_version integer not null,
  primary key (practice_id, field, tag, patient_id),
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id)
);
create index blind_index_patient on medirecord.blind_index (patient_id);

-- Which bundles are in: a keyed digest of each, so that a second import of the
-- same file changes nothing.
create table medirecord.intake (
  practice_id text not null,
  digest      bytea not null check (length(digest) = 32),
  patient_id  text not null,
  event_id    uuid not null,
  created_at  timestamptz(3) not null default clock_timestamp(),
  primary key (practice_id, digest),
  foreign key (practice_id, patient_id) references medirecord.patient (practice_id, id)
);

-- Who is this patient, or speaks for them.
create table medirecord.patient_link (
  issuer     text not null,
  subject    text not null,
  patient_id text not null references medirecord.patient (id),
  relation   text not null check (relation in ('self')),
  valid_from timestamptz(3) not null default clock_timestamp(),
  valid_to   timestamptz(3) not null default 'infinity',
  author     text not null, -- issuer and subject, or service, that wrote it
  source     text not null,
  created_at timestamptz(3) not null default clock_timestamp(),
  primary key (issuer, subject, patient_id, relation, valid_from)
);

-- Break-glass grants: decided and signed by the sidecar, honoured only while
-- the committed row is not ended.
create table medirecord.break_glass (
  id          uuid primary key,
  issuer      text not null,
  subject     text not null,
  session     text not null,
  patient_id  text not null references medirecord.patient (id),
  practice_id text not null, -- the patient's
  reason_code text not null,
  reason      bytea not null, -- sealed under the practice's audit key
  signed      text not null,  -- the sidecar's signature over the grant
  event_id    uuid not null,
  opened_at   timestamptz(3) not null,
  expires_at  timestamptz(3) not null check (expires_at > opened_at and expires_at <= opened_at + interval '4 hours'),
  ended_at    timestamptz(3),
  opened_tx   xid8 not null default pg_current_xact_id()
);
create index break_glass_patient on medirecord.break_glass (patient_id, opened_at);

-- What must be told to somebody: written with the change, read by delivery.
-- Ids and codes only.
create table medirecord.outbox (
  id           uuid primary key,
  topic        text not null check (topic in ('break_glass')),
  severity     text not null check (severity in ('P1', 'P2', 'P3', 'P4')),
  practice_id  text not null,
  patient_id   text not null,
  event_id     uuid not null,
  reason_code  text not null,
  created_at   timestamptz(3) not null default clock_timestamp(),
  delivered_at timestamptz(3)
);

do $$
declare
  t text;
begin
  foreach t in array array['patient', 'record', 'blind_index', 'intake', 'patient_link', 'break_glass', 'outbox'] loop
    execute format('alter table medirecord.%I enable row level security', t);
    execute format('alter table medirecord.%I force row level security', t);
  end loop;
end
$$;

-- A row stands behind three doors; a context opens some doors by name. The
-- body is bound now, so that no search path can give it other operators.
create function medirecord.doors(practice_id text, patient_id text, deleted_at timestamptz) returns text[]
language sql immutable parallel safe
return array[
  case when deleted_at is null then 'live' else 'gone' end || '|' || practice_id || '|' || patient_id,
  case when deleted_at is null then 'live' else 'gone' end || '|*|' || patient_id,
  case when deleted_at is null then 'live' else 'gone' end || '|' || practice_id || '|*'];
revoke all on function medirecord.doors(text, text, timestamptz) from public;
grant execute on function medirecord.doors(text, text, timestamptz) to medirecord_app, medirecord_worker;

reset role;

-- What the context's functions must look up to decide.
set role medirecord_owner;
grant select on medirecord.patient_link, medirecord.break_glass to medirecord_context;
create policy decide on medirecord.patient_link for select to medirecord_context using (true);
create policy decide on medirecord.break_glass for select to medirecord_context using (true);
reset role;

set role medirecord_context;

-- opened says for each of the contexts that is valid and about reading one
-- patient: which doors it opens, and whether its person is the patient. A
-- break-glass grant counts while its row is committed and not ended; a patient
-- is one by the context or by a link.
create function ctx.opened(contexts text[]) returns table (n bigint, patient text, doors text[], self boolean)
language plpgsql stable parallel safe security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
  with said as materialized (
    select s.n, c.*, s.payload -> 'roles' ?| array['nurse', 'clinician', 'admin'] as staff
      from ctx_private.signed(contexts) s,
           jsonb_to_record(s.payload) as c(iss text, sub text, sid text, action text, svc text, practice text, patient text, self text,
                                           "grant" uuid, admin boolean)
     where c.action = 'patient.read' and c.svc is null
  ), who as materialized (
    select s.*, coalesce(s.self = s.patient, false) or exists (
             select from medirecord.patient_link l
              where l.issuer = s.iss and l.subject = s.sub and l.patient_id = s.patient and l.relation = 'self'
                and clock_timestamp() between l.valid_from and l.valid_to) as is_self
      from said s
  )
  select w.n, w.patient, array_remove(array[
           case when w.is_self or w."grant" is not null and exists (
               select from medirecord.break_glass g
                where g.id = w."grant" and g.patient_id = w.patient and g.issuer = w.iss and g.subject = w.sub and g.session = w.sid
                  and g.ended_at is null and g.expires_at > clock_timestamp()
                  and g.opened_tx is distinct from pg_current_xact_id_if_assigned())
             then 'live|*|' || w.patient end,
           case when w.staff then 'live|' || w.practice || '|' || w.patient end,
           case when w.staff and w.admin then 'gone|' || w.practice || '|' || w.patient end], null),
         w.is_self
    from who w;
end
$$;
revoke all on function ctx.opened(text[]) from public;
grant execute on function ctx.opened(text[]) to medirecord_reader;

-- scope returns the doors that the session's context opens for what is needed:
-- select, insert or update. It raises 42501 without a valid context, and
-- returns no door when the context's action does not need that.
create function ctx.scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  practice text := p ->> 'practice';
  opens text[] := '{}';
begin
  if p ? 'svc' then
    -- Unattended work: one action on one practice.
    if p ->> 'svc' = 'import' and p ->> 'action' = 'import' and need in ('select', 'insert', 'update') then
      return array['live|' || practice || '|*'];
    end if;
    if p ->> 'svc' = 'worker' and p ->> 'action' = 'sweep' and need = 'select' then
      return array['live|' || practice || '|*', 'gone|' || practice || '|*'];
    end if;
    return opens;
  end if;
  if need = 'select' then
    select o.doors into opens from ctx.opened(array[current_setting('medirecord.ctx', true)]) o;
  end if;
  return coalesce(opens, '{}');
end
$$;
revoke all on function ctx.scope(text) from public;
grant execute on function ctx.scope(text) to medirecord_app, medirecord_worker;

-- whole returns the practice that the context opens as a whole for what is
-- needed; null when it opens none.
create function ctx.whole(need text) returns text
language sql stable parallel safe security definer set search_path = pg_catalog
as $$ select split_part(door, '|', 2) from unnest(ctx.scope(need)) door where door like 'live|%|*' $$;
revoke all on function ctx.whole(text) from public;
grant execute on function ctx.whole(text) to medirecord_app;

reset role;

set role medirecord_owner;

grant select on medirecord.patient, medirecord.record, medirecord.intake to medirecord_app;
grant insert (id, practice_id, version, dek_version, sealed, event_id) on medirecord.patient to medirecord_app;
grant update (version, dek_version, sealed, event_id, updated_at) on medirecord.patient to medirecord_app;
grant insert (patient_id, id, practice_id, version, dek_version, sealed, event_id) on medirecord.record to medirecord_app;
grant update (version, dek_version, sealed, event_id, updated_at) on medirecord.record to medirecord_app;
grant select, delete, insert (practice_id, field, tag, patient_id, key_version) on medirecord.blind_index to medirecord_app;
grant insert (practice_id, digest, patient_id, event_id) on medirecord.intake to medirecord_app;
grant insert (id, issuer, subject, session, patient_id, practice_id, reason_code, reason, signed, event_id, opened_at, expires_at) on medirecord.break_glass to medirecord_app;
grant select (id) on medirecord.break_glass to medirecord_app;
grant insert (id, topic, severity, practice_id, patient_id, event_id, reason_code) on medirecord.outbox to medirecord_app;

create policy read on medirecord.patient for select to medirecord_app
  using ((select ctx.scope('select')) && medirecord.doors(practice_id, id, deleted_at));
-- The sweeper asks whether a patient exists, deleted or not, and sees ids only.
grant select (id, practice_id, deleted_at) on medirecord.patient to medirecord_worker;
create policy sweep on medirecord.patient for select to medirecord_worker
  using ((select ctx.scope('select')) && medirecord.doors(practice_id, id, deleted_at));
create policy add on medirecord.patient for insert to medirecord_app
  with check ((select ctx.scope('insert')) && medirecord.doors(practice_id, id, deleted_at));
create policy change on medirecord.patient for update to medirecord_app
  using ((select ctx.scope('update')) && medirecord.doors(practice_id, id, deleted_at))
  with check ((select ctx.scope('update')) && medirecord.doors(practice_id, id, deleted_at));

-- A record is seen with its patient or not at all: the inner select is under
-- the patient's own row security, so a deleted patient's records are gone too.
create policy read on medirecord.record for select to medirecord_app
  using ((select ctx.scope('select')) && medirecord.doors(practice_id, patient_id, null)
         and exists (select from medirecord.patient p where p.id = patient_id));
create policy add on medirecord.record for insert to medirecord_app
  with check ((select ctx.scope('insert')) && medirecord.doors(practice_id, patient_id, null));
create policy change on medirecord.record for update to medirecord_app
  using ((select ctx.scope('update')) && medirecord.doors(practice_id, patient_id, null))
  with check ((select ctx.scope('update')) && medirecord.doors(practice_id, patient_id, null));

-- By the practice alone, which leads these tables' keys: a row that is not
-- shown is not even fetched, or EXPLAIN ANALYZE would count it and so tell who
-- has a certain number.
create policy find on medirecord.blind_index for select to medirecord_app
  using (practice_id = (select ctx.whole('update')));
create policy add on medirecord.blind_index for insert to medirecord_app
  with check (practice_id = (select ctx.whole('insert')));
create policy drop on medirecord.blind_index for delete to medirecord_app
  using (practice_id = (select ctx.whole('update')));

create policy read on medirecord.intake for select to medirecord_app
  using (practice_id = (select ctx.whole('insert')));
create policy add on medirecord.intake for insert to medirecord_app
  with check (practice_id = (select ctx.whole('insert')));

grant select on medirecord.patient to medirecord_reader;
create policy gated on medirecord.patient for select to medirecord_reader using (true);
grant execute on function medirecord.doors(text, text, timestamptz) to medirecord_reader;
grant create on schema medirecord to medirecord_reader;
reset role;

set role medirecord_reader;
-- read_patients reads, for each context, the one patient that it is about, if
-- it opens a door of theirs: what row security would show for it, by the same
-- doors. So one statement serves many callers, each under their own context. A
-- context that is not valid is not in the answer; one that opens nothing is
-- there without a row.
create function medirecord.read_patients(contexts text[])
returns table (n bigint, patient text, practice_id text, version bigint, dek_version integer, key_state text, sealed bytea,
               created_at timestamptz, updated_at timestamptz, deleted boolean, self boolean)
language plpgsql stable security definer set search_path = pg_catalog rows 16
as $$
begin
  return query
    select o.n, o.patient, p.practice_id, p.version, p.dek_version, p.key_state, p.sealed, p.created_at::timestamptz,
           p.updated_at::timestamptz, p.deleted_at is not null, o.self
      from ctx.opened(contexts) o
      left join medirecord.patient p on p.id = o.patient and o.doors && medirecord.doors(p.practice_id, p.id, p.deleted_at);
end
$$;
revoke all on function medirecord.read_patients(text[]) from public;
grant execute on function medirecord.read_patients(text[]) to medirecord_app;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_reader;

-- For practice_of below: an id and its practice, of live patients.
grant select (id, practice_id, deleted_at) on medirecord.patient to medirecord_locator;
create policy locate on medirecord.patient for select to medirecord_locator using (deleted_at is null);
grant create on schema medirecord to medirecord_locator;
reset role;

set role medirecord_locator;
-- practice_of is the only fact about another practice's row that the API can
-- learn, and only for a live caller: which practice an id belongs to.
create function medirecord.practice_of(patient text) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
begin
  perform ctx.fact('nonce');
  return (select p.practice_id from medirecord.patient p where p.id = patient);
end
$$;
revoke all on function medirecord.practice_of(text) from public;
grant execute on function medirecord.practice_of(text) to medirecord_app, medirecord_worker;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_locator;

-- The API writes down the grant that the sidecar put into the context, no
-- other, and to the patient's own practice, whose officers will review it;
-- whether it is honoured is decided by ctx.opened, from the next transaction
-- on.
create policy open on medirecord.break_glass for insert to medirecord_app
  with check (id::text = (select ctx.fact('grant')) and practice_id = medirecord.practice_of(patient_id) and patient_id = (select ctx.fact('patient'))
         and issuer || e'\x1f' || subject = (select ctx.actor()) and session = (select ctx.fact('sid'))
         and extract(epoch from expires_at) * 1000 <= (select ctx.fact('grant_exp'))::bigint
         and opened_at <= clock_timestamp() + interval '1 minute');
create policy see on medirecord.break_glass for select to medirecord_app
  using (id::text = (select ctx.fact('grant')));
create policy tell on medirecord.outbox for insert to medirecord_app
  with check (patient_id = (select ctx.fact('patient')) and practice_id = coalesce(medirecord.practice_of(patient_id), 'unknown'));
reset role;
