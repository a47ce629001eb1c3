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

-- PatientToChange returns the row that is to be changed, as long as nobody else
-- changes it.
-- name: PatientToChange :one
select practice_id, version, dek_version, key_state, sealed, created_at, updated_at, deleted_at
  from medirecord.patient where id = @id for update;

-- name: UpdatePatient :one
update medirecord.patient
   set version = version + 1, sealed = @sealed, event_id = @event_id, updated_at = clock_timestamp()
 where id = @id and version = @version
returning updated_at;

-- name: DeletePatient :execrows
update medirecord.patient
   set version = version + 1, sealed = @sealed, event_id = @event_id, updated_at = clock_timestamp(), deleted_at = clock_timestamp()
 where id = @id and version = @version and deleted_at is null;

-- name: DeletedPatient :one
select practice_id, version, dek_version, key_state, sealed, created_at, updated_at, deleted_at,
       coalesce(deleted_at > clock_timestamp() - interval '30 days', false)::boolean as restorable
  from medirecord.patient where id = @id;

-- name: RestorePatient :one
update medirecord.patient
   set version = version + 1, sealed = @sealed, event_id = @event_id, updated_at = clock_timestamp(), deleted_at = null
 where id = @id and version = @version and deleted_at is not null
returning updated_at;
