-- name: FindPatients :many
select patient_id from medirecord.blind_index
 where practice_id = @practice_id and field = @field and tag = @tag
 order by patient_id;

-- name: AddBlindIndexes :exec
insert into medirecord.blind_index (practice_id, field, tag, patient_id, key_version)
select @practice_id, t.field, t.tag, @patient_id, @key_version
  from (select unnest(@fields::text[]) as field, unnest(@tags::bytea[]) as tag) t;

-- name: DropBlindIndexes :exec
delete from medirecord.blind_index where practice_id = @practice_id and patient_id = @patient_id;
