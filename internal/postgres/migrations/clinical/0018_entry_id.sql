-- SPDX-License-Identifier: Apache-2.0
--
-- One id, one entry. The primary key of a partitioned table holds what it is
-- partitioned by, so two entries of one id could stand at two times. Now the
-- time of an entry's id is the time at which it occurred, to the millisecond:
-- two of one id have one time, and the key refuses the second.

set role medirecord_owner;

-- A UUIDv7 begins with its milliseconds since 1970. For all who write; and only
-- the sealer says where a closed log ended.
create policy id_of_its_time on audit.event as restrictive for insert
  to medirecord_trail, medirecord_app, medirecord_worker, medirecord_sealer, medirecord_retention
  with check (('x' || substr(event_id::text, 1, 8) || substr(event_id::text, 10, 4))::bit(48)::bigint = (extract(epoch from occurred_at) * 1000)::bigint
         and (action <> 'epoch.begin' or current_user = 'medirecord_sealer'));

-- altered: the entry is not the one that was sealed.
alter table audit.flag drop constraint flag_kind_check;
alter table audit.flag add constraint flag_kind_check check (kind in ('mac', 'unentered', 'unknown', 'lost', 'excess', 'altered'));

reset role;
