-- SPDX-License-Identifier: Apache-2.0
--
-- A sweep that takes something away, or settles it, says so in the trail: how
-- many of what, of one practice, and of no patient.

set role medirecord_owner;
create policy write_of_sweep on audit.event for insert to medirecord_worker
  with check (actor_issuer = 'medirecord' and actor_subject = 'service:worker' and actor_practice is null
         and ctx_nonce = (select ctx.fact('nonce')) and (select ctx.fact('action')) = 'sweep'
         and action = 'sweep' and resource_type = 'practice' and resource_id = (select ctx.fact('practice'))
         and patient_id is null and parent_id is null and not break_glass
         and occurred_at between clock_timestamp() - interval '10 minutes' and clock_timestamp() + interval '1 minute');
reset role;
