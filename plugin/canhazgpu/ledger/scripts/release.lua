-- Release what one owner holds on one node.
--
-- KEYS[1] reservations  hash   GPU UUID -> reservation (JSON with "owner")
-- KEYS[2] released      hash   GPU UUID -> time of the last release, ms
-- KEYS[3] history       stream
-- ARGV[1] owner    ARGV[2] JSON object: GPU UUID -> true, only these; {} for all
-- ARGV[3] reason, for the history    ARGV[4] history kept, ms
--
-- Returns the released UUIDs; none when the owner holds nothing here.
-- Invariant: another owner's reservation, also another attempt of the same job, is never touched.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local only = cjson.decode(ARGV[2])
local all = next(only) == nil
local released, oldest = {}, math.max(now - tonumber(ARGV[4]), 0)
local reservations = redis.call('HGETALL', KEYS[1])
for i = 1, #reservations, 2 do
  local gpu, text = reservations[i], reservations[i + 1]
  local readable, record = pcall(cjson.decode, text)
  if readable and type(record) == 'table' and record.owner == ARGV[1] and (all or only[gpu]) then
    released[#released + 1] = gpu
    redis.call('HDEL', KEYS[1], gpu)
    redis.call('HSET', KEYS[2], gpu, now)
    redis.call('XADD', KEYS[3], 'MINID', '~', oldest, '*', 'event', 'release', 'gpu', gpu, 'reason', ARGV[3], 'claim', text)
  end
end
return released
