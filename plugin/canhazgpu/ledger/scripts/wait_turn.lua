-- Join a node's queue at its end, or give a sign of life in it.
--
-- ARGV[2] waiter (JSON object with "owner", "lease_ms")
--
-- Returns the waiter's position, from 1.
-- Invariant: whoever is in the queue keeps its place.
local waiter = cjson.decode(ARGV[2])
local waiting = queue()
local place = position(waiting, waiter.owner)
local known = waiting[place]
if known then
  waiter.seq, waiter.since_ms = known.seq, known.waiter.since_ms
else
  waiter.seq, waiter.since_ms = (#waiting > 0 and waiting[#waiting].seq or 0) + 1, now
  note('event', 'wait', 'owner', waiter.owner)
end
waiter.renewed_ms = now
redis.call('HSET', QUEUE, waiter.owner, cjson.encode(waiter))
return place
