-- name: ActiveEpoch :one
select n from keys.epoch where state = 'active';

-- name: FirstEpoch :execrows
insert into keys.epoch (n, state) values (1, 'active') on conflict do nothing;

-- name: AddPracticeKey :exec
insert into keys.practice_key (practice_id, purpose, version, wrapped) values (@practice_id, @purpose, @version, @wrapped);

-- name: ActivePracticeKey :one
select version, wrapped from keys.practice_key where practice_id = @practice_id and purpose = @purpose and state = 'active';

-- name: IndexKeys :many
select practice_id, version, wrapped from keys.practice_key where purpose = 'index' and state = 'active' order by practice_id;

-- name: PracticeKey :one
select wrapped from keys.practice_key
 where practice_id = @practice_id and purpose = @purpose and version = @version and state in ('active', 'decrypt_only');

-- name: AddPatientKey :exec
insert into keys.patient_key (practice_id, patient_id, version, kek_version, epoch, wrapped, commitment)
values (@practice_id, @patient_id, @version, @kek_version, @epoch, @wrapped, @commitment);

-- name: PatientKey :one
select practice_id, kek_version, epoch, wrapped, commitment from keys.patient_key where patient_id = @patient_id and version = @version;

-- name: SettlePatientKey :execrows
update keys.patient_key set state = 'active' where patient_id = @patient_id and version = @version and state = 'pending';

-- name: PendingPatientKeys :many
select patient_id, version from keys.patient_key
 where practice_id = @practice_id and state = 'pending' and created_at < clock_timestamp() - make_interval(secs => @age_seconds::double precision)
 order by created_at limit 500;

-- name: SweepPatientKey :execrows
delete from keys.patient_key where patient_id = @patient_id and version = @version and state = 'pending';
