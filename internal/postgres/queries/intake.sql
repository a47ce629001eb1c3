-- name: IntakeOf :one
select patient_id, event_id from medirecord.intake where practice_id = @practice_id and digest = @digest;

-- name: AddIntake :exec
insert into medirecord.intake (practice_id, digest, patient_id, event_id)
values (@practice_id, @digest, @patient_id, @event_id);
