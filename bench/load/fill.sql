-- SPDX-License-Identifier: Apache-2.0
--
-- Copies of the charts that the benchmark made over HTTP, as numbers :from to
-- :to: what no key of theirs opens, and as large as the real ones.
set synchronous_commit = off;

create temp table first_patient as
select row_number() over (order by id) - 1 as n, p.* from (
  select * from medirecord.patient p where exists (select from medirecord.record r where r.patient_id = p.id) and id not like 'copy-%'
   order by created_at desc limit 20) p;
create temp table first_record as
select f.n, row_number() over (partition by r.patient_id order by r.id) as k, r.* from first_patient f join medirecord.record r on r.patient_id = f.id;
create temp table copy as
select g, 'copy-' || lpad(g::text, 9, '0') as id, f.n from generate_series(:from, :to) g join first_patient f on f.n = g % (select count(*) from first_patient);

insert into medirecord.patient (id, practice_id, version, dek_version, sealed, event_id)
select c.id, f.practice_id, f.version, f.dek_version, f.sealed, f.event_id from copy c join first_patient f using (n) order by c.g;
insert into medirecord.record (patient_id, id, practice_id, version, dek_version, sealed, event_id)
select c.id, c.id || '-' || r.k, r.practice_id, r.version, r.dek_version, r.sealed, r.event_id from copy c join first_record r using (n) order by c.g;
insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id)
select c.id, m.practice_id, m.version, m.dek_version, m.sealed, m.event_id
  from copy c join first_patient f using (n) join medirecord.manifest m on m.patient_id = f.id order by c.g;
insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version)
select i.practice_id, i.field, substr(sha256((c.id || i.field)::bytea), 1, 8), c.id, i.key_version
  from copy c join first_patient f using (n) join medirecord.blind_index i on i.patient_id = f.id;
