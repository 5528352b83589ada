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
--      or {"short", available, reserved, unreserved, quarantined, stale, unknown}
-- Invariants: a GPU has at most one reservation; an owner that holds GPUs gets no others; a GPU
-- that was released after the scan began is not granted on that scan ("stale").
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claim = cjson.decode(ARGV[1])
local count = tonumber(ARGV[2])
local began = now - tonumber(ARGV[5])
local published = tonumber(redis.call('HGET', KEYS[4], 'at') or 0) or 0
local known = published > 0 and 1 or 0
if began >= published then redis.call('HSET', KEYS[4], 'data', ARGV[6], 'at', began) end
-- Not only the scan's GPUs: one that the owner holds may since have fallen off the bus.
local held, taken, place = {}, {}, {}
local reservations = redis.call('HGETALL', KEYS[1])
for i = 1, #reservations, 2 do
  taken[reservations[i]] = true
  local readable, record = pcall(cjson.decode, reservations[i + 1])
  if readable and type(record) == 'table' and record.owner == claim.owner then
    held[#held + 1] = reservations[i]
  end
end

local free, released, unfit = {}, {}, cjson.decode(ARGV[4])
local tally = { reserved = 0, unreserved = 0, unknown = 0, quarantined = 0, stale = 0 }
for i, gpu in ipairs(cjson.decode(ARGV[3])) do
  place[gpu] = i
  released[gpu] = tonumber(redis.call('HGET', KEYS[2], gpu) or 0) or 0
  local why = taken[gpu] and 'reserved'
    or redis.call('HEXISTS', KEYS[3], gpu) == 1 and 'quarantined'
    or unfit[gpu] or released[gpu] > began and 'stale'
  if why then tally[why] = tally[why] + 1 else free[#free + 1] = gpu end
end
if #held > 0 then return { 'repeated', known, unpack(held) } end
if count < 1 or #free < count then
  return { 'short', #free, tally.reserved, tally.unreserved, tally.quarantined, tally.stale, tally.unknown }
end
table.sort(free, function(a, b)
  if released[a] ~= released[b] then return released[a] < released[b] end
  return place[a] < place[b]
end)
claim.granted_ms = now
local record, oldest = cjson.encode(claim), math.max(now - tonumber(ARGV[7]), 0)
for i = 1, count do
  redis.call('HSET', KEYS[1], free[i], record)
  redis.call('XADD', KEYS[5], 'MINID', '~', oldest, '*', 'event', 'grant', 'gpu', free[i], 'claim', record)
end
return { 'granted', known, unpack(free, 1, count) }
