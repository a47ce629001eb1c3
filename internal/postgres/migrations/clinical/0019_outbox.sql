-- SPDX-License-Identifier: Apache-2.0
--
-- Whoever is told of a chart in doubt is told once, until they know: so a word that
-- is weaker than the alarm must not be there before it. And what the watch flags
-- is the worker's to say.

set role medirecord_owner;
create policy honest on medirecord.outbox as restrictive for insert to medirecord_app
  with check (topic <> 'trail_flag' and (topic <> 'integrity' or severity = 'P1' and reason_code = 'manifest'));
reset role;
