-- Grant exactly the named GPUs of one node to an owner, all or none.
--
-- KEYS[1] reservations  hash   GPU UUID -> reservation (JSON with "owner" and "granted_ms")
-- KEYS[2] released      hash   GPU UUID -> time of the last release, ms
-- KEYS[3] quarantine    hash   GPU UUID -> reason (JSON)
-- KEYS[4] scan          hash   data, at (ms)
-- KEYS[5] history       stream
-- ARGV[1] claim (JSON object with "owner")     ARGV[2] JSON list of the wanted GPU UUIDs
-- ARGV[3] JSON object: GPU UUID -> "unreserved" or "unknown", the GPUs not seen free
-- ARGV[4] age of the scan, ms    ARGV[5] scan (JSON)    ARGV[6] history kept, ms
--
-- Returns {"granted" | "repeated", 1 if the node ever published a scan before else 0, UUID...},
--         in the order asked for
--      or {"blocked", UUID, "reserved" | "quarantined" | "unreserved" | "unknown" | "stale",
--          reservation or ""}
-- Invariants: a GPU has at most one reservation; a GPU the owner holds already counts as granted,
-- whatever runs on it; a GPU released after the scan began is not granted on that scan ("stale").
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claim = cjson.decode(ARGV[1])
local wanted = cjson.decode(ARGV[2])
local unfit = cjson.decode(ARGV[3])
local began = now - tonumber(ARGV[4])
local published = tonumber(redis.call('HGET', KEYS[4], 'at') or 0) or 0
local known = published > 0 and 1 or 0
if began >= published then
  redis.call('HSET', KEYS[4], 'data', ARGV[5], 'at', began)
end

local missing = {}
for _, gpu in ipairs(wanted) do
  local reservation = redis.call('HGET', KEYS[1], gpu)
  if reservation then
    local readable, record = pcall(cjson.decode, reservation)
    if not (readable and type(record) == 'table' and record.owner == claim.owner) then
      return { 'blocked', gpu, 'reserved', reservation }
    end
  elseif redis.call('HEXISTS', KEYS[3], gpu) == 1 then
    return { 'blocked', gpu, 'quarantined', '' }
  elseif unfit[gpu] then
    return { 'blocked', gpu, unfit[gpu], '' }
  elseif (tonumber(redis.call('HGET', KEYS[2], gpu) or 0) or 0) > began then
    return { 'blocked', gpu, 'stale', '' }
  else
    missing[#missing + 1] = gpu
  end
end
if #missing == 0 then return { 'repeated', known, unpack(wanted) } end

claim.granted_ms = now
local record, oldest = cjson.encode(claim), math.max(now - tonumber(ARGV[6]), 0)
for _, gpu in ipairs(missing) do
  redis.call('HSET', KEYS[1], gpu, record)
  redis.call('XADD', KEYS[5], 'MINID', '~', oldest, '*', 'event', 'grant', 'gpu', gpu, 'claim', record)
end
return { 'granted', known, unpack(wanted) }
