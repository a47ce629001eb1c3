-- SPDX-License-Identifier: Apache-2.0
--
-- Retention of the trail (rules.md section 5): a month that is older than six
-- years can go. Its tiles stay, and with them every proof; what it held is in an
-- export; and of each patient it is kept which places of the log were about
-- them, so that a list of accesses can still be shown to be whole.

set role medirecord_owner;

-- A hold keeps what the policy would let go: of one patient or of everybody,
-- from one month to another, until somebody ends it.
create table audit.hold (
  name        text primary key check (length(name) between 1 and 100),
  patient_id  text,
  from_month  date,
  until_month date,
  placed_at   timestamptz(3) not null default clock_timestamp(),
  ended_at    timestamptz(3)
);

-- What was dropped, and by which entry of the trail.
create table audit.pruned_month (
  month           date not null,
  epoch           integer not null references audit.epoch (epoch),
  first_index     bigint not null,
  last_index      bigint not null,
  entries         bigint not null check (entries > 0),
  checkpoint_size bigint not null,
  export_sha256   bytea not null check (length(export_sha256) = 32),
  event_id        uuid not null,
  pruned_at       timestamptz(3) not null default clock_timestamp(),
  primary key (month, epoch)
);

-- Which places were about whom: 32 zero bytes stand for nobody.
create table audit.pruned (
  epoch   integer not null,
  key     bytea not null check (length(key) = 32),
  month   date not null,
  indexes bigint[] not null,
  primary key (epoch, key, month),
  foreign key (month, epoch) references audit.pruned_month (month, epoch)
);

do $$
declare
  t text;
begin
  foreach t in array array['hold', 'pruned_month', 'pruned'] loop
    execute format('alter table audit.%I enable row level security', t);
    execute format('alter table audit.%I force row level security', t);
    execute format('create policy own on audit.%I to medirecord_owner using (true) with check (true)', t);
    execute format('create policy read on audit.%I for select to medirecord_auditor, medirecord_retention using (true)', t);
    execute format('grant select on audit.%I to medirecord_auditor, medirecord_retention', t);
  end loop;
  foreach t in array array['batch', 'checkpoint'] loop
    execute format('create policy retain on audit.%I for select to medirecord_retention using (true)', t);
    execute format('grant select on audit.%I to medirecord_retention', t);
  end loop;
end
$$;
grant usage on schema audit to medirecord_retention;

-- For the functions below, which the owner runs under its own forced row security.
-- While one of the functions below runs, and not for who merely becomes the owner.
create policy own on audit.event for select to medirecord_owner using (current_setting('medirecord.pruning', true) = 'on');
create policy own on audit.batch for select to medirecord_owner using (true);

-- Retention writes of its own doings, under no context, like the sealer.
grant insert (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
              action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
  on audit.event to medirecord_retention;
create policy write_retention on audit.event for insert to medirecord_retention
  with check (actor_issuer = 'medirecord' and actor_subject = 'service:retention' and patient_id is null
         and action in ('retention.prune', 'retention.hold', 'retention.hold_end')
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');

-- place_hold and end_hold change what is held. That they were called is an
-- entry, which must be in the same transaction.
create function audit.place_hold(in_name text, in_patient text, in_from date, in_until date, in_entry uuid) returns void
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  perform set_config('medirecord.pruning', 'on', true);
  if not exists (select from audit.event e where e.event_id = in_entry and e.action = 'retention.hold' and e.resource_id = in_name and e.tx = pg_current_xact_id()) then
    raise exception 'medirecord: a hold needs its entry in the same transaction' using errcode = '42501';
  end if;
  insert into audit.hold (name, patient_id, from_month, until_month) values (in_name, in_patient, in_from, in_until);
end
$$;
create function audit.end_hold(in_name text, in_entry uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  perform set_config('medirecord.pruning', 'on', true);
  if not exists (select from audit.event e where e.event_id = in_entry and e.action = 'retention.hold_end' and e.resource_id = in_name and e.tx = pg_current_xact_id()) then
    raise exception 'medirecord: ending a hold needs its entry in the same transaction' using errcode = '42501';
  end if;
  update audit.hold set ended_at = clock_timestamp() where name = in_name and ended_at is null;
  return found;
end
$$;

-- is_sealed reports whether an entry is in the log, under a checkpoint that is
-- signed and cosigned by as many as the sealer was told to ask.
create function audit.is_sealed(in_entry uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  perform set_config('medirecord.pruning', 'on', true);
  return exists (
    select from audit.event e
      cross join lateral (select * from audit.batch b where (b.hi_epoch, b.hi_tx, b.hi_id) >= (e.epoch, e.tx, e.event_id)
                           order by b.hi_epoch, b.hi_tx, b.hi_id limit 1) b
     where e.event_id = in_entry
       and exists (select from generate_series(0, b.n - 1) g where substr(b.ids, 16 * g + 1, 16) = uuid_send(in_entry))
       and exists (select from audit.checkpoint c where c.epoch = b.epoch and c.size >= b.first_index + b.n and c.cosigned_at is not null));
end
$$;

-- prune drops a month. Whatever its caller says, the month is older than six
-- years, nobody holds it, every entry of it is sealed under a cosigned
-- checkpoint, and an entry that says what is dropped is sealed too. One element
-- of each array stands for one epoch.
create function audit.prune(in_month date, older_than interval, epochs integer[], firsts bigint[], lasts bigint[], entries uuid[], exports bytea[])
returns bigint
language plpgsql security definer set search_path = pg_catalog
as $$
declare
  name text := 'event_' || to_char(in_month, 'YYYY_MM');
  lo timestamptz := in_month::timestamp at time zone 'UTC';
  hi timestamptz := (in_month + interval '1 month')::timestamp at time zone 'UTC';
  held text;
  there bigint;
  known bigint := 0;
  n bigint;
  covered bigint;
  e audit.event;
begin
  perform set_config('medirecord.pruning', 'on', true);
  if in_month <> date_trunc('month', in_month::timestamp)::date then
    raise exception 'medirecord: a month is its first day' using errcode = '22023';
  end if;
  if hi > now() - greatest(older_than, interval '6 years') then
    raise exception 'medirecord: % is not older than the policy, which is six years at least', to_char(in_month, 'YYYY-MM') using errcode = '42501';
  end if;
  if not exists (select from pg_inherits i where i.inhparent = 'audit.event'::regclass and i.inhrelid = to_regclass('audit_part.' || name)) then
    raise exception 'medirecord: there is no partition of %', to_char(in_month, 'YYYY-MM') using errcode = '42704';
  end if;
  execute format('lock table audit_part.%I in share row exclusive mode', name);
  select h.name into held from audit.hold h
   where h.ended_at is null and coalesce(h.from_month, in_month) <= in_month and coalesce(h.until_month, in_month) >= in_month
     and (h.patient_id is null or exists (select from audit.event x where x.occurred_at >= lo and x.occurred_at < hi and x.patient_id = h.patient_id))
   limit 1;
  if held is not null then
    raise exception 'medirecord: % is held: %', to_char(in_month, 'YYYY-MM'), held using errcode = '42501';
  end if;
  select count(*) into there from audit.event x where x.occurred_at >= lo and x.occurred_at < hi;
  for i in 1 .. coalesce(array_length(epochs, 1), 0) loop
    select x.* into e from audit.event x where x.event_id = entries[i];
    if e.action is distinct from 'retention.prune' or e.actor_issuer <> 'medirecord' or e.actor_subject <> 'service:retention' or e.outcome <> 'success'
       or e.resource_id <> to_char(in_month, 'YYYY-MM') || '/' || epochs[i]
       or (e.detail::jsonb -> 'counts' ->> 'first')::bigint is distinct from firsts[i] or (e.detail::jsonb -> 'counts' ->> 'last')::bigint is distinct from lasts[i]
       or e.detail::jsonb ->> 'digest' is distinct from encode(exports[i], 'hex') then
      raise exception 'medirecord: the entry that says what is dropped of % is not there, or says something else', to_char(in_month, 'YYYY-MM') using errcode = '42501';
    end if;
    if not audit.is_sealed(entries[i]) then
      raise exception 'medirecord: the entry that says what is dropped of % is not sealed and cosigned yet', to_char(in_month, 'YYYY-MM') using errcode = '42501';
    end if;
    select max(c.size) into covered from audit.checkpoint c where c.epoch = epochs[i] and c.cosigned_at is not null;
    if covered is null or covered <= lasts[i] then
      raise exception 'medirecord: % is not wholly sealed and cosigned', to_char(in_month, 'YYYY-MM') using errcode = '42501';
    end if;
    insert into audit.pruned_month (month, epoch, first_index, last_index, entries, checkpoint_size, export_sha256, event_id)
      values (in_month, epochs[i], firsts[i], lasts[i], coalesce(nullif((e.detail::jsonb -> 'counts' ->> 'entries')::bigint, 0), 1),
              (e.detail::jsonb -> 'counts' ->> 'checkpoint_size')::bigint, exports[i], entries[i]);
    insert into audit.pruned (epoch, key, month, indexes)
      select epochs[i], case when x.patient_id is null then decode(repeat('00', 32), 'hex')
                             else sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(x.patient_id, 'UTF8')) end,
             in_month, array_agg(b.first_index + g order by b.first_index + g)
        from audit.batch b cross join lateral generate_series(0, b.n - 1) g
        join audit.event x on x.event_id = encode(substr(b.ids, 16 * g + 1, 16), 'hex')::uuid and x.occurred_at >= lo and x.occurred_at < hi
       where b.epoch = epochs[i] and b.first_index <= lasts[i] and b.first_index + b.n > firsts[i]
       group by 2;
    select sum(cardinality(p.indexes)) into n from audit.pruned p where p.epoch = epochs[i] and p.month = in_month;
    if n is distinct from (e.detail::jsonb -> 'counts' ->> 'entries')::bigint then
      raise exception 'medirecord: % has another number of sealed entries than the entry says', to_char(in_month, 'YYYY-MM') using errcode = '42501';
    end if;
    known := known + n;
  end loop;
  if known <> there then
    raise exception 'medirecord: % has % entries, and % of them are sealed', to_char(in_month, 'YYYY-MM'), there, known using errcode = '42501';
  end if;
  execute format('drop table audit_part.%I', name);
  return known;
end
$$;

-- pruned_of_patient returns which places were about the patient whom a context
-- that reads a trail names: their hashes are in the tiles.
create function audit.pruned_of_patient(in_epoch integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  if ctx.trail_scope() = '{}' then
    raise exception 'medirecord: this context reads no trail' using errcode = '42501';
  end if;
  return query select i from audit.pruned p, unnest(p.indexes) i
    where p.epoch = in_epoch and p.key = sha256(convert_to('mr-patient-v1', 'UTF8') || '\x00'::bytea || convert_to(ctx.fact('patient'), 'UTF8')) order by i;
end
$$;

revoke all on function audit.place_hold(text, text, date, date, uuid), audit.end_hold(text, uuid), audit.is_sealed(uuid), audit.pruned_of_patient(integer),
  audit.prune(date, interval, integer[], bigint[], bigint[], uuid[], bytea[]) from public;
grant execute on function audit.place_hold(text, text, date, date, uuid), audit.end_hold(text, uuid), audit.is_sealed(uuid),
  audit.prune(date, interval, integer[], bigint[], bigint[], uuid[], bytea[]) to medirecord_retention;
grant execute on function audit.pruned_of_patient(integer) to medirecord_app;
reset role;
