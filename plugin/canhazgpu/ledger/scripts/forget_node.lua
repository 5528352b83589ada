-- Remove all that is known of a node but its history.
--
-- Returns {"reserved", UUID} where a GPU of it is, {"forgotten", 1 if anything was known else 0}.
local gpu = next(reservations())
if gpu then return { 'reserved', gpu } end
return { 'forgotten', redis.call('DEL', RELEASED, QUARANTINE, SCAN, QUEUE, USERS) > 0 and 1 or 0 }
