-- Store a node's scan, update quarantines and idle times from it, and record heartbeats.
-- Needs grants.
--
-- ARGV[2] age of the scan, ms    ARGV[3] scan (JSON)    ARGV[4] its judgement (JSON)
-- ARGV[5] JSON object: owner -> true, the owners that are alive
--
-- Returns 1 if a scan was stored before, else 0.
-- Invariant: a scan that began before the stored one changes nothing; heartbeats are recorded anyway.
local alive = cjson.decode(ARGV[5])
load_reservations()
local seen = observe(ARGV[2], ARGV[3], ARGV[4])
for gpu, holders in pairs(reservations) do
  for _, one in ipairs(holders) do
    if alive[one.owner] and one.granted_ms then
      write_heartbeat(gpu, one)
      head_is_old = true
    end
  end
end
store_heartbeats()
return seen.known
