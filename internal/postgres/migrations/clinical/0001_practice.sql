-- SPDX-License-Identifier: Apache-2.0

create schema medirecord authorization medirecord_owner;

set role medirecord_context;
grant usage on schema ctx to medirecord_owner, medirecord_locator, medirecord_reader, medirecord_app, medirecord_worker;
grant execute on function ctx.fact(text), ctx.actor() to medirecord_owner, medirecord_locator, medirecord_app, medirecord_worker;
reset role;

set role medirecord_owner;
grant usage on schema medirecord to medirecord_context, medirecord_locator, medirecord_reader, medirecord_app, medirecord_worker;

create table medirecord.practice (
  id         text primary key check (id ~ '^[A-Za-z0-9.-]{1,64}$'),
  name       text not null check (length(name) between 1 and 200),
  event_id   uuid not null,
  created_at timestamptz(3) not null default clock_timestamp()
);
alter table medirecord.practice enable row level security;
alter table medirecord.practice force row level security;
grant select, insert (id, name, event_id) on medirecord.practice to medirecord_app;
grant select on medirecord.practice to medirecord_worker;

-- A practice is added by the operator, and seen by who belongs to it.
create policy add on medirecord.practice for insert to medirecord_app
  with check ((select ctx.fact('action')) = 'practice.add' and id = (select ctx.fact('practice')));
create policy see on medirecord.practice for select to medirecord_app, medirecord_worker
  using (id = (select ctx.fact('practice')) or (select ctx.fact('action')) = 'practice.list');

reset role;
