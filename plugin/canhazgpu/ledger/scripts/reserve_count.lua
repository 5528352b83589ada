-- Grant a number of GPUs of one node to an owner, all or none, least recently released first.
--
-- KEYS[1] reservations  hash   GPU UUID -> reservation (JSON with "owner" and "granted_ms")
-- KEYS[2] released      hash   GPU UUID -> time of the last release, ms
-- KEYS[3] quarantine    hash   GPU UUID -> reason (JSON)
-- KEYS[4] scan          hash   data, at (ms)
-- KEYS[5] history       stream
-- ARGV[1] claim (JSON object with "owner")     ARGV[2] count
-- ARGV[3] JSON list of the node's GPU UUIDs, in order of preference among equals
-- ARGV[4] JSON object: GPU UUID -> "unreserved" or "unknown", the GPUs not seen free
-- ARGV[5] age of the scan, ms    ARGV[6] scan (JSON)    ARGV[7] history kept, ms
--
-- Returns {"granted" | "repeated", 1 if the node ever published a scan before else 0, UUID...}
--      or {"short", available, reserved, unreserved, quarantined, stale}
-- Invariants: a GPU has at most one reservation; an owner that holds GPUs gets no others; a GPU
-- that was released after the scan began is not granted on that scan ("stale").
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claim = cjson.decode(ARGV[1])
local count = tonumber(ARGV[2])
local began = now - tonumber(ARGV[5])
local published = tonumber(redis.call('HGET', KEYS[4], 'at') or 0)
local known = published > 0 and 1 or 0
if began >= published then
  redis.call('HSET', KEYS[4], 'data', ARGV[6], 'at', began)
end

local held, free = {}, {}
local tally = { reserved = 0, unreserved = 0, unknown = 0, quarantined = 0, stale = 0 }
local unfit = cjson.decode(ARGV[4])
for place, gpu in ipairs(cjson.decode(ARGV[3])) do
  local reservation = redis.call('HGET', KEYS[1], gpu)
  local released = tonumber(redis.call('HGET', KEYS[2], gpu) or 0)
  if reservation then
    local readable, record = pcall(cjson.decode, reservation)
    if readable and type(record) == 'table' and record.owner == claim.owner then
      held[#held + 1] = gpu
    end
    tally.reserved = tally.reserved + 1
  elseif redis.call('HEXISTS', KEYS[3], gpu) == 1 then
    tally.quarantined = tally.quarantined + 1
  elseif unfit[gpu] then
    tally[unfit[gpu]] = tally[unfit[gpu]] + 1
  elseif released > began then
    tally.stale = tally.stale + 1
  else
    free[#free + 1] = { gpu = gpu, released = released, place = place }
  end
end
if #held > 0 then return { 'repeated', known, unpack(held) } end
if count < 1 or #free < count then
  return { 'short', #free, tally.reserved, tally.unreserved, tally.quarantined, tally.stale }
end
table.sort(free, function(a, b)
  if a.released ~= b.released then return a.released < b.released end
  return a.place < b.place
end)

claim.granted_ms = now
local granted, record = {}, cjson.encode(claim)
for i = 1, count do
  granted[i] = free[i].gpu
  redis.call('HSET', KEYS[1], granted[i], record)
  redis.call('XADD', KEYS[5], 'MINID', '~', now - tonumber(ARGV[7]), '*', 'event', 'grant', 'gpu', granted[i], 'claim', record)
end
return { 'granted', known, unpack(granted) }
