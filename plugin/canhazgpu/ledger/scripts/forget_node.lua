-- Remove all that is known of a node but its history, release times included.
--
-- Returns {"reserved", UUID} while a GPU of it is reserved, else {"forgotten", number of keys removed}.
load_reservations()
local gpu = next(reservations)
if gpu then return { 'reserved', gpu } end
for owner, waiter in pairs(read_hash(queue_key)) do leave(owner, waiter, 'node forgotten') end
return {
  'forgotten',
  redis.call('DEL', reservations_key, released_key, released_by_key, quarantine_key, scan_key, queue_key),
}
