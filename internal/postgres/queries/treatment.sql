-- name: Treating :one
select ctx.treating();

-- name: AddTreatment :exec
insert into medirecord.treatment (id, kind, patient_id, practice_id, issuer, subject, source, author, valid_from, valid_to, event_id)
values (@id, @kind, @patient_id, @practice_id, @issuer::text, @subject::text, 'api', @author, @valid_from, @valid_to, @event_id);

-- name: EndTreatment :one
select medirecord.end_treatment(@treatment::uuid, @kind::text, @event::uuid);

-- What people wrote of one patient, newest first.
-- name: TreatmentsOfPatient :many
select id, patient_id, issuer, subject, author, valid_from, valid_to, event_id, created_at, ended_at
  from medirecord.treatment
 where source = 'api' and practice_id = @practice_id and patient_id = @patient_id and kind = @kind
   and (valid_from, id) < (@before_from, @before_id::uuid)
 order by valid_from desc, id desc
 limit @max_rows;

-- One of them.
-- name: TreatmentOfPatient :one
select id, patient_id, issuer, subject, author, valid_from, valid_to, event_id, created_at, ended_at
  from medirecord.treatment
 where source = 'api' and practice_id = @practice_id and patient_id = @patient_id and kind = @kind and id = @id;

-- What they wrote of one member of staff.
-- name: TreatmentsOfStaff :many
select id, patient_id, issuer, subject, author, valid_from, valid_to, event_id, created_at, ended_at
  from medirecord.treatment
 where source = 'api' and practice_id = @practice_id and issuer = @issuer::text and subject = @subject::text and kind = @kind
   and (valid_from, id) < (@before_from, @before_id::uuid)
 order by valid_from desc, id desc
 limit @max_rows;

-- What an import brings; of what it brought before, how long it is valid.
-- name: ImportTreatments :exec
insert into medirecord.treatment as t (id, kind, patient_id, practice_id, practitioner, source, author, valid_from, valid_to, event_id)
select b.id, b.kind, @patient_id, @practice_id, b.practitioner, @source, @author, b.valid_from, b.valid_to, @event_id
  from (select unnest(@ids::uuid[]) as id, unnest(@kinds::text[]) as kind, unnest(@practitioners::text[]) as practitioner,
               unnest(@froms::timestamptz[]) as valid_from, unnest(@tos::timestamptz[]) as valid_to) b
on conflict (id) do update set valid_from = excluded.valid_from, valid_to = excluded.valid_to, event_id = excluded.event_id
 where (t.valid_from, t.valid_to) is distinct from (excluded.valid_from, excluded.valid_to);

-- What the source took back.
-- name: VoidTreatments :exec
update medirecord.treatment set ended_at = clock_timestamp(), ended_by = @author::text, ended_event = @event_id::uuid
 where practice_id = @practice_id and patient_id = @patient_id and id = any (@ids::uuid[]) and ended_at is null;

-- name: TrustSource :exec
insert into medirecord.trusted_source (practice_id, name, author, event_id) values (@practice_id, @name, @author, @event_id);

-- name: DistrustSource :execrows
update medirecord.trusted_source set ended_at = clock_timestamp(), ended_event = @event_id::uuid
 where practice_id = @practice_id and name = @name and ended_at is null;

-- name: EnrollStaff :exec
insert into medirecord.staff (practice_id, source, practitioner, issuer, subject, author, event_id)
values (@practice_id, @source, @practitioner, @issuer, @subject, @author, @event_id);

-- name: RemoveStaff :execrows
update medirecord.staff set ended_at = clock_timestamp(), ended_event = @event_id::uuid
 where practice_id = @practice_id and source = @source and practitioner = @practitioner and ended_at is null;

-- Which sources the practice trusts now.
-- name: TrustedSources :many
select name, created_at from medirecord.trusted_source
 where practice_id = @practice_id and ended_at is null
 order by name;

-- Which practitioners are logins now.
-- name: EnrolledStaff :many
select source, practitioner, issuer, subject, created_at from medirecord.staff
 where practice_id = @practice_id and ended_at is null
 order by source, practitioner;
