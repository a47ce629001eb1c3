-- name: AddDisclosure :exec
insert into medirecord.disclosure (id, version, patient_id, practice_id, sealed, author, event_id)
values (@id, @version, @patient_id, @practice_id, @sealed, @author, @event_id);

-- Of each disclosure its last version. What was recorded before the period
-- began was not disclosed in it.
-- name: Disclosures :many
select distinct on (id) id, version, sealed, event_id, created_at
  from medirecord.disclosure
 where practice_id = @practice_id and patient_id = @patient_id and created_at >= @recorded_since
 order by id, version desc
 limit @max_rows;

-- name: Disclosure :one
select version, sealed, event_id, created_at
  from medirecord.disclosure
 where id = @id and practice_id = @practice_id and patient_id = @patient_id
 order by version desc
 limit 1;
