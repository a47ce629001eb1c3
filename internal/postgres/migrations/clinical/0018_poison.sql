-- SPDX-License-Identifier: Apache-2.0
--
-- What was added to the trail stays: one entry, by whoever has the writer's
-- password, must not keep anybody from reading the rest, for ever.

set role medirecord_owner;
-- This program's entries are far smaller. A larger one would have every reader
-- and the sealer take it into memory. What is there already is not looked at.
alter table audit.event add constraint event_size check (
  octet_length(detail) <= 65536
  and octet_length(concat(actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action, resource_type, resource_id, code, ctx_nonce, ctx_mac)) <= 8192
) not valid;
grant create on schema medirecord to medirecord_locator;
reset role;

set role medirecord_locator;
-- manifests, as in 0014; but it looks for the hash in the entry's text, which is
-- JSON only if a program of ours wrote it. What holds none is told as '', which
-- is no manifest's: the chart is in doubt.
create or replace function medirecord.manifests(after text, most integer)
returns table (patient_id text, told text, told_in uuid, found text, found_in uuid)
language plpgsql stable security definer set search_path = pg_catalog
as $$
declare
  practice text := ctx.fact('practice');
begin
  if ctx.fact('action') is distinct from 'sweep' or ctx.fact('svc') is distinct from 'worker' then
    raise exception 'medirecord: this context sweeps nothing' using errcode = '42501';
  end if;
  return query
    select e.patient_id, coalesce(substring(e.detail from '"manifest":"([0-9a-f]{64})"'), ''), e.event_id, encode(m.hash, 'hex'), m.event_id
      from (select distinct on (x.patient_id) x.patient_id, x.detail, x.event_id
              from audit.event x
             where x.patient_practice = practice and x.patient_id > after and position('"manifest":"' in x.detail) > 0
             order by x.patient_id, x.recorded_at desc
             limit most) e
      left join medirecord.manifest m on m.patient_id = e.patient_id and m.practice_id = practice;
end
$$;
reset role;

set role medirecord_owner;
revoke create on schema medirecord from medirecord_locator;
reset role;
