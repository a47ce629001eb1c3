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

-- LockChart is the first statement of whatever changes a chart: changes of one
-- chart go one after the other.
-- name: LockChart :one
select practice_id, version, dek_version, key_state, sealed from medirecord.patient where id = @id for update;

-- ChartState is what there is of a chart: read after LockChart.
-- name: ChartState :one
select coalesce(array_agg(r.id), '{}')::text[] as ids, coalesce(array_agg(r.version), '{}')::bigint[] as versions
  from medirecord.record r
 where r.patient_id = @patient_id;

-- name: Manifest :one
select version, dek_version, sealed from medirecord.manifest where patient_id = @patient_id;

-- name: AddManifest :exec
insert into medirecord.manifest (patient_id, practice_id, version, dek_version, sealed, event_id)
values (@patient_id, @practice_id, 1, @dek_version, @sealed, @event_id);

-- name: ChangeManifest :execrows
update medirecord.manifest set version = version + 1, dek_version = @dek_version, sealed = @sealed, event_id = @event_id
 where patient_id = @patient_id and version = @version;

-- name: RecordRow :one
select version, dek_version, sealed, created_at, updated_at from medirecord.record where patient_id = @patient_id and id = @id;

-- name: SealedRecords :many
select id, version, dek_version, sealed from medirecord.record where patient_id = @patient_id;

-- name: TellIntegrity :exec
insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
values (@id, 'integrity', 'P1', @practice_id, @patient_id, @event_id, 'manifest')
on conflict do nothing;

-- name: Manifests :many
select patient_id::text, told::text, told_in::text, coalesce(found, '')::text as found, coalesce(found_in::text, '')::text as found_in
  from medirecord.manifests(@after::text, @most::integer);

-- name: ManifestTold :one
select medirecord.manifest_told(@practice_id::text, @patient_id::text)::boolean;

-- name: AddRecord :one
insert into medirecord.record (patient_id, id, practice_id, version, dek_version, sealed, event_id)
values (@patient_id, @id, @practice_id, 1, @dek_version, @sealed, @event_id)
returning created_at;

-- name: ChangeRecord :one
update medirecord.record
   set version = version + 1, dek_version = @dek_version, sealed = @sealed, event_id = @event_id, updated_at = clock_timestamp()
 where patient_id = @patient_id and id = @id and version = @version
returning updated_at;
