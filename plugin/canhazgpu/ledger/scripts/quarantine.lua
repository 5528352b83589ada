-- Hold a GPU back from grants; whoever has it keeps it.
--
-- ARGV[2] GPU UUID    ARGV[3] reason    ARGV[4] who does it
--
-- Returns 1, or 0 where it was held back already by somebody, whose word stays.
-- Invariant: an administrator's quarantine takes the place of one that health has set, and stays
-- when the GPU is healthy again.
local text = redis.call('HGET', QUARANTINE, ARGV[2])
local known = text and decoded(text) or {}
if text and (known.by ~= 'health' or ARGV[4] == 'health') then return 0 end
local record = { reason = ARGV[3], since_ms = now, by = ARGV[4] }
redis.call('HSET', QUARANTINE, ARGV[2], cjson.encode(record))
note('event', 'quarantine', 'gpu', ARGV[2], 'reason', ARGV[3], 'by', ARGV[4])
return 1
