-- name: Watch :one
select epoch, next_index, since, coalesce(life, '') as life, lost from audit.watch;

-- name: AdvanceWatch :exec
update audit.watch
   set epoch = @epoch, next_index = @next_index, seen_at = clock_timestamp()
 where (epoch, next_index) < (@epoch::integer, @next_index::bigint);

-- name: WatchLost :exec
update audit.watch set life = @life::text, lost = @lost, seen_at = clock_timestamp();

-- Flag writes down what was noticed, each cause once, and tells an officer of
-- each practice and kind once: what comes in a flood is one page. It returns
-- how many flags are new.
-- name: Flag :one
with noticed as (
  select unnest(@ids::uuid[]) as id, unnest(@kinds::text[]) as kind, unnest(@causes::text[]) as cause, unnest(@epochs::integer[]) as epoch,
         unnest(@leaves::bigint[]) as leaf_index, unnest(@events::text[]) as event_id, unnest(@nonces::text[]) as nonce, unnest(@issuers::text[]) as issuer,
         unnest(@subjects::text[]) as subject, unnest(@practices::text[]) as practice_id, unnest(@patients::text[]) as patient_id,
         unnest(@numbers::bigint[]) as number
), added as (
  insert into audit.flag (id, kind, cause, epoch, leaf_index, event_id, nonce, issuer, subject, practice_id, patient_id, number)
  select n.id, n.kind, n.cause, nullif(n.epoch, 0), case when n.epoch > 0 then n.leaf_index end, nullif(n.event_id, '')::uuid, nullif(n.nonce, ''),
         nullif(n.issuer, ''), nullif(n.subject, ''), nullif(n.practice_id, ''), nullif(n.patient_id, ''), nullif(n.number, 0)
    from noticed n
  on conflict (cause) do nothing
  returning id, kind, event_id, practice_id, patient_id
), told as (
  insert into medirecord.outbox (id, topic, severity, practice_id, patient_id, event_id, reason_code)
  select distinct on (a.kind, a.practice_id)
         a.id, 'trail_flag', case a.kind when 'mac' then 'P1' when 'unknown' then 'P3' else 'P2' end,
         coalesce(a.practice_id, 'unknown'), coalesce(a.patient_id, 'unknown'), coalesce(a.event_id, a.id), a.kind
    from added a
   order by a.kind, a.practice_id, a.id
)
select count(*) from added;

-- EventsOf returns the entries with these ids, for the watch: what the trail
-- holds of calls that no sealed entry told of in time.
-- name: EventsOf :many
select event_id, recorded_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, outcome, ctx_nonce, ctx_mac
  from audit.event
 where event_id = any(@ids::uuid[]) and occurred_at between @since and @until;
