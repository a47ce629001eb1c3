-- SPDX-License-Identifier: Apache-2.0
-- The ids and the token are put in front of this by the benchmark.
local started = 0
function setup(thread)
  thread:set("at", started * 97)
  started = started + 1
end

-- Every request is made once: formatting it costs wrk more than sending it.
function init()
  requests = {}
  for n, id in ipairs(ids) do
    requests[n] = wrk.format("GET", "/patients/" .. id, { ["Authorization"] = "Bearer " .. token, ["Host"] = wrk.headers["Host"] })
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    "\nRESULT %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max))
end
