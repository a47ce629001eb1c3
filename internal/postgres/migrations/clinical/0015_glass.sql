-- SPDX-License-Identifier: Apache-2.0
--
-- Break-glass with its review (rules.md section 4): who may open a grant, use it,
-- see it, end it and review it.
--
-- A context names the one grant that it is about: the one that it opens or
-- stands on (patient.read, record.read, break_glass.open), or the one that is
-- read, ended or reviewed. Without one, break_glass.read lists.

set role medirecord_owner;

alter table medirecord.break_glass
  add column call_id      uuid,           -- the entry of the call that opened it
  add column ended_by     text,           -- issuer and subject; of who let it expire, nobody
  add column escalated_at timestamptz(3); -- when it was said that its review is overdue
create index break_glass_at on medirecord.break_glass (practice_id, id desc);
create index break_glass_by on medirecord.break_glass (issuer, subject, id desc);

-- All that officers are told of; 0014 had left out what the watch flags.
alter table medirecord.outbox drop constraint outbox_topic_check;
alter table medirecord.outbox add constraint outbox_topic_check check (topic in ('break_glass', 'trail_flag', 'integrity'));

-- What somebody else thought of it: once, and for good.
create table medirecord.glass_review (
  grant_id    uuid primary key references medirecord.break_glass (id),
  reviewer    text not null, -- issuer and subject
  verdict     text not null check (verdict in ('justified', 'not_justified')),
  note        bytea not null, -- sealed under the practice's audit key
  event_id    uuid not null,
  reviewed_at timestamptz(3) not null default clock_timestamp()
);

alter table medirecord.glass_review enable row level security;
alter table medirecord.glass_review force row level security;

-- The doors of a grant: to use it, to its opener, to the patient's practice; one
-- by its name, or with the others. What a person chose comes last, so that no
-- subject reads like another with a grant's name.
create function medirecord.glass_doors(id uuid, issuer text, subject text, session text, practice_id text) returns text[]
language sql immutable parallel safe
return array[
  'use|' || id || '|' || issuer || e'\x1f' || subject || e'\x1f' || session,
  'by|' || id || '|' || issuer || e'\x1f' || subject, 'by|*|' || issuer || e'\x1f' || subject,
  'at|' || id || '|' || practice_id, 'at|*|' || practice_id];
revoke all on function medirecord.glass_doors(uuid, text, text, text, text) from public;
grant execute on function medirecord.glass_doors(uuid, text, text, text, text) to medirecord_app;
reset role;

set role medirecord_context;
-- glass_scope returns the doors of grants that the context opens for what is
-- needed: use (write it down, and go on under it), see, end or review.
create function ctx.glass_scope(need text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog
as $$
declare
  p jsonb := ctx_private.verified();
  action text := p ->> 'action';
  which text := p ->> 'grant';
  by_whom text := (p ->> 'iss') || e'\x1f' || (p ->> 'sub');
  opens text[] := '{}';
begin
  if p ? 'svc' then
    return opens;
  end if;
  if need = 'use' then
    if action in ('patient.read', 'record.read', 'break_glass.open') and which is not null and p ? 'sid' then
      opens := array['use|' || which || '|' || by_whom || e'\x1f' || (p ->> 'sid')];
    end if;
    return opens;
  end if;
  if not (action = 'break_glass.read' and need = 'see' or which is not null
          and (action = 'break_glass.end' and need in ('see', 'end') or action = 'break_glass.review' and need in ('see', 'review'))) then
    return opens;
  end if;
  if action <> 'break_glass.review' and p -> 'roles' ?| array['nurse', 'clinician', 'break_glass'] then
    opens := opens || ('by|' || coalesce(which, '*') || '|' || by_whom);
  end if;
  if p ? 'practice' and (coalesce((p ->> 'admin')::boolean, false) or p -> 'roles' ? 'officer') then
    opens := opens || ('at|' || coalesce(which, '*') || '|' || (p ->> 'practice'));
  end if;
  return opens;
end
$$;
revoke all on function ctx.glass_scope(text) from public;
grant execute on function ctx.glass_scope(text) to medirecord_app;
grant execute on function ctx.fact(text), ctx.actor() to medirecord_reader;
reset role;

set role medirecord_owner;

grant insert (call_id) on medirecord.break_glass to medirecord_app;
grant select (issuer, subject, patient_id, practice_id, reason_code, reason, event_id, call_id, opened_at, expires_at, ended_at) on medirecord.break_glass to medirecord_app;
grant update (ended_at, ended_by) on medirecord.break_glass to medirecord_app;

-- As in 0002; and a context that ends, reads or reviews a grant writes none.
drop policy open on medirecord.break_glass;
create policy open on medirecord.break_glass for insert to medirecord_app
  with check ((select ctx.glass_scope('use')) && medirecord.glass_doors(id, issuer, subject, session, practice_id)
         and practice_id = medirecord.practice_of(patient_id) and patient_id = (select ctx.fact('patient'))
         and extract(epoch from expires_at) * 1000 <= (select ctx.fact('grant_exp'))::bigint
         and opened_at <= clock_timestamp() + interval '1 minute');
drop policy see on medirecord.break_glass;
create policy see on medirecord.break_glass for select to medirecord_app
  using ((select ctx.glass_scope('use') || ctx.glass_scope('see')) && medirecord.glass_doors(id, issuer, subject, session, practice_id));
-- An end is of now, and once.
create policy finish on medirecord.break_glass for update to medirecord_app
  using (ended_at is null and (select ctx.glass_scope('end')) && medirecord.glass_doors(id, issuer, subject, session, practice_id))
  with check (ended_at between clock_timestamp() - interval '1 minute' and clock_timestamp() + interval '1 minute' and ended_by = (select ctx.actor()));

grant select, insert (grant_id, reviewer, verdict, note, event_id) on medirecord.glass_review to medirecord_app;
create policy see on medirecord.glass_review for select to medirecord_app
  using (exists (select from medirecord.break_glass g where g.id = grant_id));
-- Of the practice's patient, by its admin or officer, and never by who opened it.
create policy review on medirecord.glass_review for insert to medirecord_app
  with check (reviewer = (select ctx.actor()) and exists (
    select from medirecord.break_glass g
     where g.id = grant_id and g.issuer || e'\x1f' || g.subject <> reviewer
       and (select ctx.glass_scope('review')) && array['at|' || g.id || '|' || g.practice_id]));

-- What the worker does for one practice: it says of a grant that its time is
-- over, and of a review that it is overdue.
grant select (id, practice_id, patient_id, reason_code, event_id, call_id, opened_at, expires_at, ended_at, escalated_at),
      update (ended_at, escalated_at) on medirecord.break_glass to medirecord_worker;
grant select (grant_id) on medirecord.glass_review to medirecord_worker;
create policy sweep on medirecord.break_glass for select to medirecord_worker
  using ((select ctx.fact('action')) = 'sweep' and practice_id = (select ctx.fact('practice')));
create policy expire on medirecord.break_glass for update to medirecord_worker
  using ((select ctx.fact('action')) = 'sweep' and practice_id = (select ctx.fact('practice')) and expires_at <= clock_timestamp())
  with check (ended_at <= clock_timestamp());
create policy sweep on medirecord.glass_review for select to medirecord_worker
  using ((select ctx.fact('action')) = 'sweep' and exists (select from medirecord.break_glass g where g.id = grant_id));
create policy overdue on medirecord.outbox for insert to medirecord_worker
  with check (topic = 'break_glass' and (select ctx.fact('action')) = 'sweep' and practice_id = (select ctx.fact('practice')));

-- The entries of both: of a context that names the grant and no patient, a part
-- of its call is about the grant's own patient; the worker's are about the
-- grants of its practice.
create policy write_of_grant on audit.event for insert to medirecord_app
  with check (actor_issuer || e'\x1f' || actor_subject = (select ctx.actor())
         and ctx_nonce = (select ctx.fact('nonce'))
         and (actor_practice is null or actor_practice = (select ctx.fact('practice')))
         and (select ctx.fact('action')) in ('break_glass.end', 'break_glass.review')
         and parent_id is not null and resource_type = 'break_glass' and resource_id = (select ctx.fact('grant'))
         and exists (select from medirecord.break_glass g where g.id::text = resource_id and g.patient_id = event.patient_id and g.practice_id = event.patient_practice)
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');
grant insert (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
              action, resource_type, resource_id, outcome, code, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
  on audit.event to medirecord_worker;
create policy write_of_grant_swept on audit.event for insert to medirecord_worker
  with check (actor_issuer = 'medirecord' and actor_subject = 'service:worker' and actor_practice is null
         and ctx_nonce = (select ctx.fact('nonce')) and (select ctx.fact('action')) = 'sweep'
         and action in ('break_glass_end', 'break_glass_overdue') and resource_type = 'break_glass'
         and exists (select from medirecord.break_glass g where g.id::text = resource_id and g.patient_id = event.patient_id and g.practice_id = event.patient_practice)
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');
reset role;
