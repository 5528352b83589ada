-- Show the queue that a node keeps itself.
--
-- ARGV[2] JSON list of the waiters, the first in the queue first: JSON objects with "owner", "user", "lease_s" and
-- "since_ms"    ARGV[3] why those have left who are not in it any more
--
-- Returns how many are in the list.
-- Invariants: the waiters stand in the order of the list. Who joined by wait_turn.lua keeps its place.
local waiters, listed, known, last, before = cjson.decode(ARGV[2]), {}, {}, 0, 0
load_reservations()
local shown = load_queue()
for _, one in ipairs(shown) do
  known[one.owner], last = one.record, math.max(last, one.order)
end
for _, waiter in ipairs(waiters) do
  local order = known[waiter.owner] and number(known[waiter.owner].order)
  waiter.order = order and order > before and order or last + 1
  before, last = waiter.order, math.max(last, waiter.order)
  waiter.since_ms, waiter.renewed_ms, waiter.mirrored = math.min(waiter.since_ms, now), now, true
  store_waiter(waiter, known[waiter.owner])
  if not order then tell('wait', { claim = who_waits(waiter.owner, waiter.user), at = waiter.since_ms }) end
  listed[waiter.owner] = true
end
for _, one in ipairs(shown) do
  local text = redis.call('HGET', queue_key, one.owner)
  if not listed[one.owner] and decode(text).mirrored then leave(one.owner, text, ARGV[3]) end
end
return #waiters
