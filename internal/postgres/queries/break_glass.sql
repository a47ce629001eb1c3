-- name: OpenGrant :execrows
insert into medirecord.break_glass
  (id, issuer, subject, session, patient_id, practice_id, reason_code, reason, signed, event_id, opened_at, expires_at)
values
  (@id, @issuer, @subject, @session, @patient_id, @practice_id, @reason_code, @reason, @signed, @event_id, @opened_at, @expires_at)
on conflict (id) do nothing;

-- name: TellOfficer :exec
insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
values (@id, 'break_glass', @severity, @practice_id, @patient_id, @event_id, @reason_code);
