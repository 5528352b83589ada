-- Remove everything recorded about a node except its history; release times are removed, too.
--
-- Returns {"reserved", UUID} while a GPU of it is reserved, else {"forgotten", number of things removed}.
load_reservations()
local gpu = next(reservations)
if gpu then return { 'reserved', gpu } end
local waiting = 0
changed = false
for owner, waiter in pairs(read_hash(queue_key)) do
  leave(owner, waiter, 'node forgotten')
  waiting = waiting + 1
end
redis.call('DEL', unpack(KEYS, 10, 12))
local keys = { reservations_key, released_key, released_by_key, quarantine_key, scan_key }
return { 'forgotten', waiting + redis.call('DEL', unpack(keys)) }
