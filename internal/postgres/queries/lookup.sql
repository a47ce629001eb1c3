-- name: AskLookup :exec
select medirecord.ask_lookup(@practices::text[], @tags::bytea[], @event_id::uuid, @reason_code::text);

-- name: AnswerLookup :many
-- Whom it found; a row of many says that they are more than it tells of.
select coalesce(l.patient_id, '')::text as patient_id, l.many::boolean as many
  from medirecord.answer_lookup(@practices::text[], @tags::bytea[], @reason_code::text) l;

-- name: Candidate :one
select c.practice_id::text as practice_id, c.version::bigint as version, c.dek_version::integer as dek_version, c.sealed::bytea as sealed
  from medirecord.read_candidate() c;

-- name: ForgetLookups :exec
delete from medirecord.lookup l where l.asked_at < clock_timestamp() - interval '24 hours';
