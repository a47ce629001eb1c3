-- SPDX-License-Identifier: Apache-2.0
--
-- How far each consumer outside (a SIEM) has the sealed trail: a cursor that
-- only moves on. What stands before it, the consumer has taken.

set role medirecord_owner;
create table audit.sink (
  name       text primary key check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  epoch      integer not null check (epoch > 0),
  next_index bigint not null check (next_index >= 0), -- of the first leaf that it does not have
  updated_at timestamptz(3) not null default clock_timestamp(),
  last_error text check (last_error ~ '^[a-z0-9_]{1,64}$') -- a code; null when the last attempt went well
);
alter table audit.sink enable row level security;
alter table audit.sink force row level security;
create policy keep on audit.sink to medirecord_auditor using (true) with check (true);
create policy own on audit.sink to medirecord_owner using (true) with check (true);
grant select, insert (name, epoch, next_index), update (epoch, next_index, updated_at, last_error) on audit.sink to medirecord_auditor;

-- What was taken stays taken: a cursor that goes back, or is lost, would hide
-- that something was sent twice, and one that nobody watches could go anywhere.
create function audit.only_on() returns trigger
language plpgsql set search_path = pg_catalog
as $$
begin
  if (new.epoch, new.next_index) < (old.epoch, old.next_index) and current_user <> 'medirecord_owner' then
    raise exception 'medirecord: the cursor of a sink only moves on; an operator may rewind it' using errcode = '42501';
  end if;
  return new;
end
$$;
create trigger only_on before update on audit.sink for each row execute function audit.only_on();
alter table audit.sink enable always trigger only_on;

-- rewind_sink puts a cursor where an operator wants it: back, to send again,
-- or past an entry that the consumer will never take.
create function audit.rewind_sink(of_sink text, to_epoch integer, to_index bigint) returns void
language plpgsql security definer set search_path = pg_catalog
as $$
begin
  update audit.sink set epoch = to_epoch, next_index = to_index, updated_at = clock_timestamp(), last_error = null where name = of_sink;
  if not found then
    raise exception 'medirecord: there is no sink of that name' using errcode = '02000';
  end if;
end
$$;
revoke all on function audit.rewind_sink(text, integer, bigint) from public;
grant execute on function audit.rewind_sink(text, integer, bigint) to medirecord_migrator;
reset role;
