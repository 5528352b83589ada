-- Remove owners from a node's queue.
--
-- ARGV[2] JSON list of owners    ARGV[3] reason
--
-- Returns how many of them were in the queue.
local left = 0
load_reservations()
load_queue()
for _, owner in ipairs(cjson.decode(ARGV[2])) do
  local waiter = redis.call('HGET', queue_key, owner)
  if waiter then
    leave(owner, waiter, ARGV[3])
    left = left + 1
  end
end
return left
