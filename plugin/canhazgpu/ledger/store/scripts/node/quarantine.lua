-- Exclude a GPU from grants; its present owner keeps it.
--
-- ARGV[2] GPU UUID    ARGV[3] reason    ARGV[4] who did it
--
-- Returns 1, or 0 if it was quarantined already.
-- Invariant: an administrator's quarantine replaces one by "health", which the next scan could lift.
local known = redis.call('HGET', quarantine_key, ARGV[2])
if known and (ARGV[4] == 'health' or (decode(known) or {}).by ~= 'health') then return 0 end
quarantine(ARGV[2], ARGV[3], ARGV[4])
return 1
