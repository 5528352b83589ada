-- Take owners out of a node's queue.
--
-- ARGV[2] reason, for the history    ARGV[3] JSON list of owners
--
-- Returns how many were in it.
local left = 0
for _, owner in ipairs(cjson.decode(ARGV[3])) do
  if redis.call('HDEL', QUEUE, owner) == 1 then
    left = left + 1
    note('event', 'leave', 'owner', owner, 'reason', ARGV[2])
  end
end
return left
