-- name: PracticeOf :one
select coalesce(medirecord.practice_of(@patient::text), '')::text;

-- name: AddPatient :exec
insert into medirecord.patient (id, practice_id, version, dek_version, sealed, event_id)
values (@id, @practice_id, @version, @dek_version, @sealed, @event_id);

-- name: PatientForUpdate :one
select practice_id, version, dek_version, key_state, sealed from medirecord.patient where id = @id for update;

-- name: ChangePatient :execrows
update medirecord.patient
   set version = version + 1, dek_version = @dek_version, sealed = @sealed, event_id = @event_id, updated_at = clock_timestamp()
 where id = @id and version = @version;

-- name: PatientExists :one
select exists (select from medirecord.patient where id = @id);
