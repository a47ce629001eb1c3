-- SPDX-License-Identifier: Apache-2.0
--
-- A key for each copy of fill.sql, which opens nothing.
set synchronous_commit = off;
insert into keys.patient_key (practice_id, patient_id, version, state, kek_version, epoch, wrapped, commitment)
select k.practice_id, 'copy-' || lpad(g::text, 9, '0'), 1, 'active', k.kek_version, k.epoch, k.wrapped, k.commitment
  from generate_series(:from, :to) g cross join (select * from keys.patient_key where version = 1 and patient_id not like 'copy-%' limit 1) k;
