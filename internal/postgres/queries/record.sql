-- name: AddRecords :execrows
insert into medirecord.record (patient_id, id, practice_id, version, dek_version, sealed, event_id)
select @patient_id, r.id, @practice_id, 1, @dek_version, r.sealed, @event_id
  from (select unnest(@ids::text[]) as id, unnest(@sealed::bytea[]) as sealed) r;

-- name: RecordsForUpdate :many
select id, version, dek_version, sealed from medirecord.record where patient_id = @patient_id for update;

-- name: ChangeRecords :execrows
update medirecord.record
   set version = r.version, dek_version = @dek_version, sealed = r.sealed, event_id = @event_id, updated_at = clock_timestamp()
  from (select unnest(@ids::text[]) as id, unnest(@versions::bigint[]) as version, unnest(@sealed::bytea[]) as sealed) r
 where record.patient_id = @patient_id and record.id = r.id and record.version = r.version - 1;
