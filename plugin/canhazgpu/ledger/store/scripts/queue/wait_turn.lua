-- Join the end of a node's queue, or record a heartbeat in it.
--
-- ARGV[2] waiter (JSON object with "owner", "user" and "lease_s")
--
-- Returns the position; the first is 1.
-- Invariant: a waiter keeps its place in the queue as long as its lease is valid.
local waiter = cjson.decode(ARGV[2])
load_reservations()
local waiting = load_queue()
local position = position_of(waiter.owner, waiting)
local known, last = waiting[position], waiting[#waiting]
waiter.since_ms = known and number(known.record.since_ms) or now
waiter.order = known and known.order or (last and last.order or 0) + 1
waiter.renewed_ms = now
store_waiter(waiter, known and known.record)
if not known then tell('wait', { claim = who_waits(waiter.owner, waiter.user) }) end
return position
