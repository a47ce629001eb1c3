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

-- IndexPatient writes the tags of the patient whom the context makes or changes;
-- an empty one takes the field's away.
-- name: IndexPatient :exec
select medirecord.index_patient(@fields::text[], array(select nullif(t, ''::bytea) from unnest(@tags::bytea[]) t), @key_version::integer);

-- name: ListPatients :many
select id::text from medirecord.list_patients(@after::text, @most::integer) as id;

-- name: SearchPatients :many
select id::text from medirecord.find_patients(@field::text, @tag::bytea, @most::integer) as id;
