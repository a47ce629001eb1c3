-- name: OpenGrant :execrows
insert into medirecord.break_glass
  (id, issuer, subject, session, patient_id, practice_id, reason_code, reason, signed, event_id, call_id, opened_at, expires_at)
values
  (@id, @issuer, @subject, @session, @patient_id, @practice_id, @reason_code, @reason, @signed, @event_id, @call_id::uuid, @opened_at, @expires_at)
on conflict (id) do nothing;

-- name: GrantInUse :one
-- The grant that the context stands on, as it was written down.
select practice_id, reason, event_id, (ended_at is not null or expires_at <= clock_timestamp())::boolean as over
  from medirecord.break_glass where id = @id;

-- name: TellOfficer :exec
insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
values (@id, 'break_glass', @severity, @practice_id, @patient_id, @event_id, @reason_code);

-- name: Grant :one
select g.id, g.issuer, g.subject, g.patient_id, g.practice_id, g.reason_code, g.reason, g.event_id, g.call_id, g.opened_at, g.expires_at, g.ended_at,
       r.reviewer, r.verdict, r.note, r.event_id as review_event, r.reviewed_at
  from medirecord.break_glass g
  left join medirecord.glass_review r on r.grant_id = g.id
 where g.id = @id;

-- name: GrantsAt :many
-- Those of the practice's patients, the newest first; one person's among them.
select g.id, g.issuer, g.subject, g.patient_id, g.practice_id, g.reason_code, g.reason, g.event_id, g.call_id, g.opened_at, g.expires_at, g.ended_at,
       r.reviewer, r.verdict, r.note, r.event_id as review_event, r.reviewed_at
  from medirecord.break_glass g
  left join medirecord.glass_review r on r.grant_id = g.id
 where g.practice_id = @practice_id and g.id < @before::uuid
   and (@state::text = '' or @state = 'open' and g.ended_at is null and g.expires_at > clock_timestamp()
        or @state = 'due' and r.grant_id is null
        or @state = 'overdue' and r.grant_id is null and g.opened_at < clock_timestamp() - interval '24 hours')
 order by g.id desc
 limit @max_rows;

-- name: GrantsBy :many
-- Those that one person opened, the newest first.
select g.id, g.issuer, g.subject, g.patient_id, g.practice_id, g.reason_code, g.reason, g.event_id, g.call_id, g.opened_at, g.expires_at, g.ended_at,
       r.reviewer, r.verdict, r.note, r.event_id as review_event, r.reviewed_at
  from medirecord.break_glass g
  left join medirecord.glass_review r on r.grant_id = g.id
 where g.issuer = @issuer and g.subject = @subject and g.id < @before::uuid
   and (@state::text = '' or @state = 'open' and g.ended_at is null and g.expires_at > clock_timestamp()
        or @state = 'due' and r.grant_id is null
        or @state = 'overdue' and r.grant_id is null and g.opened_at < clock_timestamp() - interval '24 hours')
 order by g.id desc
 limit @max_rows;

-- name: EndGrant :one
update medirecord.break_glass set ended_at = clock_timestamp(), ended_by = @ended_by
 where id = @id and ended_at is null and expires_at > clock_timestamp()
returning coalesce(ended_at, clock_timestamp())::timestamptz as ended_at;

-- name: ReviewGrant :exec
insert into medirecord.glass_review (grant_id, reviewer, verdict, note, event_id)
values (@grant_id, @reviewer, @verdict, @note, @event_id);

-- name: ExpireGrants :many
update medirecord.break_glass set ended_at = expires_at
 where practice_id = @practice_id and ended_at is null and expires_at <= clock_timestamp()
returning id, patient_id, reason_code, event_id, call_id;

-- name: EscalateReviews :many
update medirecord.break_glass g set escalated_at = clock_timestamp()
 where g.practice_id = @practice_id and g.escalated_at is null and g.ended_at is not null and g.opened_at < clock_timestamp() - interval '24 hours'
   and not exists (select from medirecord.glass_review r where r.grant_id = g.id)
returning id, patient_id, reason_code, event_id, call_id;
