-- Lift the quarantine of a GPU, also an administrator's.
--
-- ARGV[2] GPU UUID    ARGV[3] who did it
--
-- Returns 1, or 0 if there was none.
if redis.call('HEXISTS', quarantine_key, ARGV[2]) == 0 then return 0 end
unquarantine(ARGV[2], ARGV[3])
return 1
