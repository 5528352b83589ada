-- Store a node's scan, unless a newer one is there.
--
-- KEYS[1] scan  hash  data (JSON), at (ms, when the scan began on the store's clock)
-- ARGV[1] scan (JSON)    ARGV[2] age of the scan, ms
--
-- Returns 1 where it was stored, 0 where the stored one began later.
local time = redis.call('TIME')
local began = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[2])
if began < (tonumber(redis.call('HGET', KEYS[1], 'at') or 0) or 0) then return 0 end
redis.call('HSET', KEYS[1], 'data', ARGV[1], 'at', began)
return 1
