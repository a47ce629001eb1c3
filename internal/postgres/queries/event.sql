-- name: PatientEvents :many
-- A strict read leaves its ticket and its entry. The ticket is left out where the
-- entry says that the patient was read; where that is not there, or says
-- otherwise, the ticket is all that tells of a row that may have been seen.
select e.event_id, e.occurred_at, e.actor_subject, e.action, e.resource_type, e.resource_id, e.outcome, e.break_glass, e.detail
  from audit.event e
 where e.patient_id = @patient_id
   and (e.action <> 'read_ticket' or not exists (
         select from audit.event p
          where p.event_id = e.parent_id and p.occurred_at between e.occurred_at - interval '1 minute' and e.occurred_at
            and p.outcome = 'success' and p.ctx_nonce = e.ctx_nonce and p.patient_id = e.patient_id
            and p.actor_issuer = e.actor_issuer and p.actor_subject = e.actor_subject))
 order by e.occurred_at desc, e.event_id desc
 limit @max_rows;

-- name: MakePartitions :one
select audit.make_partitions(@ahead::integer);

-- The readings of the trail. Each looks at no more than @scan entries, newest
-- first, from where the page before left off, and returns those that match, at
-- most @max_rows, and the last that it looked at: so a filter that matches
-- little takes many short pages and not one long wait. They differ in the index
-- that they walk.

-- PracticeTrail is what a practice's people did, and what others did to its
-- patients.
-- name: PracticeTrail :many
with scanned as (
  select * from (
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where actor_practice = @practice::text
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
    union all
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where patient_practice = @practice::text and actor_practice is distinct from patient_practice
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
  ) both_ways order by occurred_at desc, event_id desc limit @scan
), judged as (
  select s.*, ((@action::text = '' or action = @action::text) and (@outcome::text = '' or outcome = @outcome::text)
               and (@patient::text = '' or patient_id = @patient::text) and (@actor::text = '' or actor_subject = @actor::text)
               and (@glass::text = '' or break_glass = (@glass::text = 'true'))) is true as matches
    from scanned s
), placed as (
  select j.*, count(*) over () as looked_at, row_number() over (order by occurred_at desc, event_id desc) as place,
         count(*) filter (where matches) over (order by occurred_at desc, event_id desc) as found
    from judged j
)
select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
       action, resource_type, resource_id, outcome, code, break_glass, detail,
       (matches and found <= @max_rows::integer)::boolean as shown, place, looked_at
  from placed
 where matches and found <= @max_rows::integer or place = looked_at
 order by occurred_at desc, event_id desc;

-- ActorTrail is PracticeTrail of one person.
-- name: ActorTrail :many
with scanned as (
  select * from (
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where actor_practice = @practice::text and actor_subject = @who::text
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
    union all
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where patient_practice = @practice::text and actor_subject = @who::text and actor_practice is distinct from patient_practice
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
  ) both_ways order by occurred_at desc, event_id desc limit @scan
), judged as (
  select s.*, ((@action::text = '' or action = @action::text) and (@outcome::text = '' or outcome = @outcome::text)
               and (@patient::text = '' or patient_id = @patient::text) and (@actor::text = '' or actor_subject = @actor::text)
               and (@glass::text = '' or break_glass = (@glass::text = 'true'))) is true as matches
    from scanned s
), placed as (
  select j.*, count(*) over () as looked_at, row_number() over (order by occurred_at desc, event_id desc) as place,
         count(*) filter (where matches) over (order by occurred_at desc, event_id desc) as found
    from judged j
)
select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
       action, resource_type, resource_id, outcome, code, break_glass, detail,
       (matches and found <= @max_rows::integer)::boolean as shown, place, looked_at
  from placed
 where matches and found <= @max_rows::integer or place = looked_at
 order by occurred_at desc, event_id desc;

-- GlassTrail is PracticeTrail of break-glass only.
-- name: GlassTrail :many
with scanned as (
  select * from (
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where actor_practice = @practice::text and break_glass
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
    union all
    (select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
            action, resource_type, resource_id, outcome, code, break_glass, detail
       from audit.event
      where patient_practice = @practice::text and break_glass and actor_practice is distinct from patient_practice
        and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
        and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
      order by occurred_at desc, event_id desc limit @scan)
  ) both_ways order by occurred_at desc, event_id desc limit @scan
), judged as (
  select s.*, ((@action::text = '' or action = @action::text) and (@outcome::text = '' or outcome = @outcome::text)
               and (@patient::text = '' or patient_id = @patient::text) and (@actor::text = '' or actor_subject = @actor::text)
               and (@glass::text = '' or break_glass = (@glass::text = 'true'))) is true as matches
    from scanned s
), placed as (
  select j.*, count(*) over () as looked_at, row_number() over (order by occurred_at desc, event_id desc) as place,
         count(*) filter (where matches) over (order by occurred_at desc, event_id desc) as found
    from judged j
)
select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
       action, resource_type, resource_id, outcome, code, break_glass, detail,
       (matches and found <= @max_rows::integer)::boolean as shown, place, looked_at
  from placed
 where matches and found <= @max_rows::integer or place = looked_at
 order by occurred_at desc, event_id desc;

-- PatientTrail is what happened to one patient, as far as the context may know it.
-- name: PatientTrail :many
with scanned as (
  select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
         action, resource_type, resource_id, outcome, code, break_glass, detail
    from audit.event
   where patient_id = @whose::text
     and occurred_at >= @since::timestamptz and occurred_at <= @until::timestamptz
     and (occurred_at, event_id) < (@until::timestamptz, @before::uuid)
   order by occurred_at desc, event_id desc limit @scan
), judged as (
  select s.*, ((@action::text = '' or action = @action::text) and (@outcome::text = '' or outcome = @outcome::text)
               and (@patient::text = '' or patient_id = @patient::text) and (@actor::text = '' or actor_subject = @actor::text)
               and (@glass::text = '' or break_glass = (@glass::text = 'true'))) is true as matches
    from scanned s
), placed as (
  select j.*, count(*) over () as looked_at, row_number() over (order by occurred_at desc, event_id desc) as place,
         count(*) filter (where matches) over (order by occurred_at desc, event_id desc) as found
    from judged j
)
select event_id, occurred_at, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
       action, resource_type, resource_id, outcome, code, break_glass, detail,
       (matches and found <= @max_rows::integer)::boolean as shown, place, looked_at
  from placed
 where matches and found <= @max_rows::integer or place = looked_at
 order by occurred_at desc, event_id desc;

-- TrailScope says what of the trail the context may read.
-- name: TrailScope :one
select ctx.trail_scope()::text[];

-- name: PresentTicket :exec
-- For the rest of the transaction.
select set_config('medirecord.ticket', @ticket, true);

-- PlaceOfEntry is an entry's place in the order of the log, for a proof. A
-- UUIDv7 begins with its time, so that only the partitions around are looked at.
-- name: PlaceOfEntry :one
select epoch, tx::text as tx
  from audit.event
 where event_id = @event_id and occurred_at between @since and @until;
