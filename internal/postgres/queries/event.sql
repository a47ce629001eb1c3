-- name: PatientEvents :many
select event_id, occurred_at, actor_subject, action, resource_type, resource_id, outcome, break_glass, detail
  from audit.event
 where patient_id = @patient_id
 order by occurred_at desc, event_id desc
 limit @max_rows;

-- name: MakePartitions :one
select audit.make_partitions(@ahead::integer);
