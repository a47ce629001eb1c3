-- SPDX-License-Identifier: Apache-2.0
--
-- What the watch over the trail noticed (rules.md section 6): entries that are
-- not of the context they name, contexts that no entry carries. Insert-only;
-- the API, whose doings they are about, can write none of it.

set role medirecord_owner;

create table audit.flag (
  id          uuid primary key,
  -- mac: the entry is not of the context it names, or names none where it must.
  -- unentered: no entry carries the context. unknown: the entry cannot be
  -- checked. lost: so many contexts were dropped before they were checked.
  -- excess: more patients within an hour than anybody's work needs.
  kind        text not null check (kind in ('mac', 'unentered', 'unknown', 'lost', 'excess')),
  cause       text not null unique, -- what is flagged once, however often it is noticed
  epoch       integer, -- place of the entry in the log
  leaf_index  bigint,
  event_id    uuid,    -- the entry, or the one that the context's call was to leave
  nonce       text,    -- of the context
  issuer      text,
  subject     text,
  practice_id text,
  patient_id  text,
  number      bigint,  -- of contexts lost, or of patients
  noticed_at  timestamptz(3) not null default clock_timestamp()
);
create index flag_practice on audit.flag (practice_id, noticed_at);

-- How far the watch has come. Entries recorded before since carry the MAC of
-- older releases, which no column can be held against.
create table audit.watch (
  one        boolean primary key default true check (one),
  epoch      integer not null,
  next_index bigint not null,
  since      timestamptz(3) not null default clock_timestamp(),
  life       text,   -- of the sidecar's counting
  lost       bigint not null default 0, -- in that life, as far as flagged
  seen_at    timestamptz(3) not null default clock_timestamp()
);
insert into audit.watch (epoch, next_index) values (1, 0);

alter table audit.flag enable row level security;
alter table audit.flag force row level security;
alter table audit.watch enable row level security;
alter table audit.watch force row level security;

create trigger no_change before update or delete on audit.flag for each row execute function audit.deny();
create trigger no_truncate before truncate on audit.flag for each statement execute function audit.deny();
alter table audit.flag enable always trigger no_change;
alter table audit.flag enable always trigger no_truncate;

grant insert (id, kind, cause, epoch, leaf_index, event_id, nonce, issuer, subject, practice_id, patient_id, number) on audit.flag to medirecord_worker;
grant select on audit.flag to medirecord_worker, medirecord_auditor, medirecord_app;
create policy add on audit.flag for insert to medirecord_worker with check (true);
create policy see on audit.flag for select to medirecord_worker, medirecord_auditor using (true);
-- As the entries that they are about: by admin and officer of the practice.
create policy read on audit.flag for select to medirecord_app
  using ((select ctx.trail_scope()) && array['practice|' || practice_id]);

grant select, update (epoch, next_index, life, lost, seen_at) on audit.watch to medirecord_worker;
grant select on audit.watch to medirecord_auditor;
create policy see on audit.watch for select to medirecord_worker, medirecord_auditor using (true);
create policy advance on audit.watch for update to medirecord_worker using (true) with check (true);

-- An officer is told of a flag as of a break-glass access.
alter table medirecord.outbox drop constraint outbox_topic_check;
alter table medirecord.outbox add constraint outbox_topic_check check (topic in ('break_glass', 'trail_flag'));
grant insert (id, topic, severity, practice_id, patient_id, event_id, reason_code) on medirecord.outbox to medirecord_worker;
create policy flag on medirecord.outbox for insert to medirecord_worker with check (topic = 'trail_flag');

reset role;
