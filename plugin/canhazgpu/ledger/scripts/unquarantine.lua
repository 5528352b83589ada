-- Lift a quarantine.
--
-- ARGV[2] GPU UUID    ARGV[3] who does it
--
-- Returns 1, or 0 where there was none.
local lifted = redis.call('HDEL', QUARANTINE, ARGV[2])
if lifted == 1 then note('event', 'unquarantine', 'gpu', ARGV[2], 'by', ARGV[3]) end
return lifted
