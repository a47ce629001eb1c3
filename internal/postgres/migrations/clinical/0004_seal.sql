-- SPDX-License-Identifier: Apache-2.0
--
-- The trail as a provable log (rules.md section 5): the order of its entries,
-- the tiles of its Merkle tree, and its signed checkpoints. None of it holds
-- more of an entry than its id and its hash, which a nonce makes say nothing.

set role medirecord_context;
grant execute on function ctx.trail_scope() to medirecord_owner;
reset role;

set role medirecord_owner;

-- An entry's place in the log is (epoch, tx, event_id). xids do not survive a
-- logical restore, so a new epoch begins then; its number is a default that
-- only the owner can change, and no writer can name one.
alter table audit.event add column epoch integer not null default 1;
create index event_order on audit.event (epoch, tx, event_id);

create table audit.epoch (
  epoch     integer primary key check (epoch > 0),
  origin    text not null unique check (length(origin) between 1 and 200), -- the log's name
  system_id bigint not null, -- of the cluster whose xids order it
  previous  text,            -- the last checkpoint of the epoch before
  began_at  timestamptz(3) not null default clock_timestamp()
);

-- A batch is a run of leaves that were sealed together. ids are 16 bytes each,
-- in the order of the log: what was sealed is known by name when it is gone.
create table audit.batch (
  epoch       integer not null references audit.epoch (epoch),
  batch       bigint not null check (batch >= 0),
  first_index bigint not null check (first_index >= 0),
  n           integer not null check (n > 0),
  ids         bytea not null,
  hi_epoch    integer not null,
  hi_tx       xid8 not null,
  hi_id       uuid not null,
  root        bytea not null check (length(root) = 32),     -- of the tree behind this batch
  map_root    bytea not null check (length(map_root) = 32), -- of the patient map behind it
  sealed_at   timestamptz(3) not null default clock_timestamp(),
  primary key (epoch, batch),
  check (length(ids) = 16 * n)
);
alter table audit.batch alter column ids set storage external; -- read in slices
create unique index batch_index on audit.batch (epoch, first_index);
create index batch_order on audit.batch (hi_epoch, hi_tx, hi_id);

-- C2SP tlog-tiles: up to 256 hashes at height 8 * level.
create table audit.tile (
  epoch integer not null references audit.epoch (epoch),
  level smallint not null check (level between 0 and 7),
  idx   bigint not null check (idx >= 0),
  data  bytea not null check (length(data) between 32 and 8192 and length(data) % 32 = 0),
  primary key (epoch, level, idx)
);
alter table audit.tile alter column data set storage external; -- hashes do not compress

-- Signed heads. note gains the witnesses' cosignatures when they are in.
create table audit.checkpoint (
  epoch       integer not null references audit.epoch (epoch),
  size        bigint not null check (size >= 0),
  note        text not null,
  signed_at   timestamptz(3) not null default clock_timestamp(),
  cosigned_at timestamptz(3), -- when the witnesses' quorum was in
  primary key (epoch, size)
);

-- The patient map: for each patient, by a hash of their id, how many entries
-- the log holds about them, and the head of the chain over those.
create table audit.patient_head (
  epoch  integer not null references audit.epoch (epoch),
  bucket integer not null check (bucket between 0 and 65535),
  key    bytea not null check (length(key) = 32),
  n      bigint not null check (n > 0),
  head   bytea not null check (length(head) = 32),
  primary key (epoch, bucket, key)
);
-- The roots of 256 buckets at a time.
create table audit.map_row (
  epoch integer not null references audit.epoch (epoch),
  first smallint not null check (first between 0 and 255),
  roots bytea not null check (length(roots) = 8192),
  primary key (epoch, first)
);
alter table audit.map_row alter column roots set storage external;

do $$
declare
  t text;
begin
  foreach t in array array['epoch', 'batch', 'tile', 'checkpoint', 'patient_head', 'map_row'] loop
    execute format('alter table audit.%I enable row level security', t);
    execute format('alter table audit.%I force row level security', t);
    execute format('create policy read on audit.%I for select to medirecord_sealer, medirecord_auditor using (true)', t);
    execute format('grant select on audit.%I to medirecord_sealer, medirecord_auditor', t);
    if t <> 'epoch' then
      execute format('create policy add on audit.%I for insert to medirecord_sealer with check (true)', t);
      execute format('grant insert on audit.%I to medirecord_sealer', t);
    end if;
  end loop;
  -- What grows at its right edge, and what is replaced by something newer.
  foreach t in array array['tile', 'checkpoint', 'patient_head', 'map_row'] loop
    execute format('create policy change on audit.%I for update to medirecord_sealer using (true) with check (true)', t);
  end loop;
  -- What says nothing of a patient, every caller's proof is made of.
  foreach t in array array['epoch', 'batch', 'tile', 'checkpoint', 'map_row'] loop
    execute format('create policy prove on audit.%I for select to medirecord_app using (true)', t);
    execute format('grant select on audit.%I to medirecord_app', t);
  end loop;
end
$$;
create trigger no_change before update or delete on audit.batch for each row execute function audit.deny();
create trigger no_truncate before truncate on audit.batch for each statement execute function audit.deny();
alter table audit.batch enable always trigger no_change;
alter table audit.batch enable always trigger no_truncate;
grant update (data) on audit.tile to medirecord_sealer;
grant update (note, cosigned_at) on audit.checkpoint to medirecord_sealer;
grant update (n, head) on audit.patient_head to medirecord_sealer;
grant update (roots) on audit.map_row to medirecord_sealer;
-- Superseded heads: the sinks keep every one.
create policy drop on audit.checkpoint for delete to medirecord_sealer
  using (size < (select max(c.size) from audit.checkpoint c where c.epoch = checkpoint.epoch and c.cosigned_at is not null));
grant delete on audit.checkpoint to medirecord_sealer;

-- The sealer and the auditor see the whole trail, whose reasons are sealed. The
-- sealer writes of its own doings, under no context, like the trail's writer.
grant usage on schema audit to medirecord_sealer, medirecord_auditor;
grant select on audit.event to medirecord_sealer, medirecord_auditor;
create policy seal on audit.event for select to medirecord_sealer, medirecord_auditor using (true);
grant insert (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
              action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
  on audit.event to medirecord_sealer;
create policy write_own on audit.event for insert to medirecord_sealer
  with check (actor_issuer = 'medirecord' and actor_subject = 'service:sealer' and patient_id is null
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');

-- For the functions below, which the owner runs under its own forced row security.
create policy own on audit.epoch to medirecord_owner using (true) with check (true);
create policy own on audit.checkpoint for select to medirecord_owner using (true);
create policy own on audit.patient_head for select to medirecord_owner using (true);

-- first_epoch gives the log its name, once.
create function audit.first_epoch(name text) returns void
language sql security definer set search_path = pg_catalog
as $$
  insert into audit.epoch (epoch, origin, system_id) select 1, name || '/1', system_identifier from pg_control_system()
  on conflict do nothing
$$;
revoke all on function audit.first_epoch(text) from public;
grant execute on function audit.first_epoch(text) to medirecord_sealer;

-- begin_epoch begins a new log after a logical restore or a rollback to an old
-- backup, and returns its number. No writer is under way when it does: an
-- entry belongs to one epoch or the other.
create function audit.begin_epoch() returns integer
language plpgsql security definer set search_path = pg_catalog
as $$
declare
  now_epoch integer;
  stem text;
begin
  lock table audit.event in share row exclusive mode;
  select e.epoch, regexp_replace(e.origin, '/[0-9]+$', '') into now_epoch, stem from audit.epoch e order by e.epoch desc limit 1;
  if now_epoch is null then
    raise exception 'medirecord: the log has no epoch yet: start the worker, which begins the first' using errcode = '55000';
  end if;
  insert into audit.epoch (epoch, origin, system_id, previous)
    select now_epoch + 1, stem || '/' || now_epoch + 1, s.system_identifier,
           (select c.note from audit.checkpoint c where c.epoch = now_epoch order by c.cosigned_at is null, c.size desc limit 1)
      from pg_control_system() s;
  execute format('alter table audit.event alter column epoch set default %s', now_epoch + 1);
  return now_epoch + 1;
end
$$;
revoke all on function audit.begin_epoch() from public;
grant execute on function audit.begin_epoch() to medirecord_migrator;

-- patient_bucket returns what a proof about one patient needs of the map: the
-- heads of their bucket, by hashed ids. Only in a context that reads a trail,
-- and only about the patient it names.
create function audit.patient_bucket(in_epoch integer) returns table (key bytea, n bigint, head bytea)
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  hashed bytea := sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(ctx.fact('patient'), 'UTF8'));
begin
  if ctx.trail_scope() = '{}' then
    raise exception 'medirecord: this context reads no trail' using errcode = '42501';
  end if;
  return query select h.key, h.n, h.head from audit.patient_head h
    where h.epoch = in_epoch and h.bucket = get_byte(hashed, 0) * 256 + get_byte(hashed, 1);
end
$$;
revoke all on function audit.patient_bucket(integer) from public;
grant execute on function audit.patient_bucket(integer) to medirecord_app;
reset role;
