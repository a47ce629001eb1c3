-- SPDX-License-Identifier: Apache-2.0
--
-- The roots of the patient map's buckets, sixteen at a time in the place of 256:
-- of the patients of half a second hardly two share a row, and all of it is
-- written anew when one of them is in it. With 500 patients at once that was two
-- megabytes each half second, two fifths of all that the server logged.

set role medirecord_owner;
create table audit.map_slice (
  epoch integer not null references audit.epoch (epoch),
  slice smallint not null check (slice between 0 and 4095),
  roots bytea not null check (length(roots) = 512),
  primary key (epoch, slice)
) with (fillfactor = 50); -- so that what is written anew stays on its page
alter table audit.map_slice enable row level security;
alter table audit.map_slice force row level security;

create policy moved on audit.map_row for select to medirecord_owner using (true);
create policy moved on audit.map_slice for insert to medirecord_owner with check (true);
insert into audit.map_slice (epoch, slice, roots)
select m.epoch, m.first * 16 + k, substr(m.roots, k * 512 + 1, 512) from audit.map_row m cross join generate_series(0, 15) k;
drop policy moved on audit.map_slice;
drop table audit.map_row;

create policy read on audit.map_slice for select to medirecord_sealer, medirecord_auditor using (true);
create policy add on audit.map_slice for insert to medirecord_sealer with check (true);
create policy change on audit.map_slice for update to medirecord_sealer using (true) with check (true);
create policy prove on audit.map_slice for select to medirecord_app using (true);
grant select on audit.map_slice to medirecord_sealer, medirecord_auditor, medirecord_app;
grant insert on audit.map_slice to medirecord_sealer;
grant update (roots) on audit.map_slice to medirecord_sealer;
reset role;
