-- SPDX-License-Identifier: Apache-2.0
--
-- What pgbench reads and writes: rows as large as ours, a trail with the
-- columns, checks and indexes of audit.event, and nothing else of ours: no row
-- security, no context, no cryptography.

create table patient (
  id          text primary key,
  practice_id text not null,
  version     bigint not null,
  sealed      bytea not null,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now()
);
insert into patient (id, practice_id, version, sealed)
select 'p-' || to_char(n, 'FM9999000'), 'practice-north', 1,
       (select string_agg(sha256((n::text || g::text)::bytea), ''::bytea) from generate_series(1, :bytes / 32) g)
  from generate_series(1, :patients) n;

create table event (
  event_id         uuid not null,
  occurred_at      timestamptz(3) not null,
  recorded_at      timestamptz(3) not null default clock_timestamp(),
  tx               xid8 not null default pg_current_xact_id(),
  parent_id        uuid,
  actor_issuer     text not null,
  actor_subject    text not null,
  actor_practice   text,
  patient_id       text,
  patient_practice text,
  action           text not null,
  resource_type    text not null,
  resource_id      text not null,
  outcome          text not null check (outcome in ('success', 'access_granted', 'denied', 'failure')),
  code             text,
  break_glass      boolean not null,
  ctx_nonce        text,
  ctx_mac          text,
  detail           text not null,
  nonce            bytea not null check (length(nonce) = 16),
  version          smallint not null,
  epoch            integer not null default 1,
  primary key (event_id, occurred_at)
) partition by range (occurred_at);
create table event_now partition of event default;
create index event_patient on event (patient_id, occurred_at desc, event_id desc);
create index event_order on event (epoch, tx, event_id);
create index event_practice on event (actor_practice, occurred_at desc, event_id desc);
create index event_actor on event (actor_practice, actor_subject, occurred_at desc, event_id desc);
create index event_visit on event (patient_practice, occurred_at desc, event_id desc) where actor_practice is distinct from patient_practice;
create index event_visitor on event (patient_practice, actor_subject, occurred_at desc, event_id desc) where actor_practice is distinct from patient_practice;
create index event_glass on event (actor_practice, occurred_at desc, event_id desc) where break_glass;
create index event_glass_visit on event (patient_practice, occurred_at desc, event_id desc) where break_glass and actor_practice is distinct from patient_practice;

-- The same trail, kept as barely as can be: a primary key and nothing to find
-- an entry by.
create table bare (like event including defaults including constraints);
alter table bare add primary key (event_id);

vacuum analyze patient;
