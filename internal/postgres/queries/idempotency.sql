-- What was made under a key within the day.
-- name: Remembered :one
select body, resource from medirecord.idempotency
 where practice_id = @practice_id and key = @key and created_at >= clock_timestamp() - interval '24 hours';

-- Row security lets go of nothing that is younger than a day.
-- name: Forget :exec
delete from medirecord.idempotency
 where practice_id = @practice_id and key = @key and created_at < clock_timestamp() - interval '24 hours';

-- name: Remember :exec
insert into medirecord.idempotency (practice_id, key, actor, body, resource, event_id)
values (@practice_id, @key, @actor, @body, @resource, @event_id);

-- name: ForgetOld :execrows
delete from medirecord.idempotency where practice_id = @practice_id and created_at < clock_timestamp() - interval '24 hours';
