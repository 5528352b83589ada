-- Functions that all scripts share; this text is put before each script when it is loaded.
--
-- KEYS[1] reservations  hash    GPU UUID -> claim (JSON with "owner", "type", "user") with "granted_ms",
--                               and optionally "expires_ms", "renewed_ms", "idle_ms"
-- KEYS[2] released      hash    GPU UUID -> time of the last release, ms
-- KEYS[3] released_by   hash    GPU UUID -> user of the last reservation
-- KEYS[4] quarantine    hash    GPU UUID -> JSON with "reason", "since_ms", "by"
-- KEYS[5] scan          hash    data (JSON), at (ms, when the scan began on the store's clock),
--                               unused (JSON object: GPU UUID -> true, the unused GPUs)
-- KEYS[6] queue         hash    owner -> waiter (JSON) with "order", "since_ms", "renewed_ms", "lease_s"
-- KEYS[7] history       stream  event, gpu, reason, by, claim, at (ms, if not the entry's own time),
--                               facts (JSON)
-- KEYS[8] recorded      string  only record.lua uses it
-- ARGV[1] how long the history is kept, ms; each script documents its arguments from ARGV[2] on
--
-- Invariants: every change that a waiter may wait for is an event of the history. An expired reservation
-- is released as of the time when it expired, even if a script notices it later. A record that cannot be
-- read is a reservation of the owner "unreadable". No content of a key makes a script fail.
local reservations_key, released_key, released_by_key, quarantine_key, scan_key, queue_key, history_key =
  unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = math.max(now - tonumber(ARGV[1]), 0)

local function number(value)
  value = tonumber(value)
  return value and math.abs(value) < math.huge and value or nil
end

local function decode(text)
  local readable, value = pcall(cjson.decode, text)
  return readable and type(value) == 'table' and value or nil
end

local function read_hash(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local function tell(event, ...)
  redis.call('XADD', history_key, 'MINID', '~', oldest, '*', 'event', event, ...)
end

-- The node's reservations: GPU UUID -> record, and GPU UUID -> its text. `load_reservations` fills both.
local reservations, texts = {}, {}

local function readable(record)
  return record and type(record.owner) == 'string' and type(record.type) == 'string'
    and type(record.user) == 'string' and type(record.granted_ms) == 'number' and number(record.granted_ms)
end

local function release(gpu, at, reason, by)
  local user = reservations[gpu].user
  redis.call('HDEL', reservations_key, gpu)
  redis.call('HSET', released_key, gpu, at)
  redis.call('HSET', released_by_key, gpu, user or '')
  tell('release', 'gpu', gpu, 'reason', reason, 'by', by, 'claim', texts[gpu], 'at', at)
  reservations[gpu] = nil
end

local function load_reservations()
  for gpu, text in pairs(read_hash(reservations_key)) do
    local record = decode(text)
    reservations[gpu] = readable(record) and record or { owner = 'unreadable' }
    texts[gpu] = text
    local over = number(reservations[gpu].expires_ms)
    if over and over <= now then release(gpu, over, 'expired', '') end
  end
end

local function held_by(owner)
  local held = {}
  for gpu, record in pairs(reservations) do
    if record.owner == owner then held[#held + 1] = gpu end
  end
  table.sort(held)
  return held
end

-- Returns whether the record was written: another program's may hold a value that cannot be encoded.
local function write(gpu, record)
  local encoded, text = pcall(cjson.encode, record)
  if encoded then
    redis.call('HSET', reservations_key, gpu, text)
    reservations[gpu], texts[gpu] = record, text
  end
  return encoded
end

-- Returns the waiter as the history records it.
local function who_waits(owner, user)
  local known = type(user) == 'string' and user or 'unknown'
  return cjson.encode({ owner = owner, type = owner:match('^[^:]*'), user = known })
end

local function leave(owner, text, reason)
  redis.call('HDEL', queue_key, owner)
  tell('leave', 'reason', reason, 'claim', who_waits(owner, (decode(text) or {}).user))
end

-- Returns the waiters with a valid lease, in order; removes the others from the queue.
local function load_queue()
  local waiting = {}
  for owner, text in pairs(read_hash(queue_key)) do
    local waiter = decode(text)
    local seen = waiter and number(waiter.renewed_ms)
    local lease = waiter and number(waiter.lease_s)
    if seen and lease and number(waiter.order) and seen + lease * 1000 >= now then
      waiting[#waiting + 1] = { owner = owner, order = number(waiter.order), since_ms = waiter.since_ms }
    else
      leave(owner, text, 'no sign of life')
    end
  end
  table.sort(waiting, function(a, b)
    if a.order ~= b.order then return a.order < b.order end
    return a.owner < b.owner
  end)
  return waiting
end

-- Returns the position of the owner, or the position that it would get.
local function position_of(owner, waiting)
  for i, one in ipairs(waiting) do
    if one.owner == owner then return i end
  end
  return #waiting + 1
end

local function quarantine(gpu, reason, by)
  local record = cjson.encode({ reason = reason, since_ms = now, by = by })
  redis.call('HSET', quarantine_key, gpu, record)
  tell('quarantine', 'gpu', gpu, 'reason', reason, 'by', by)
  return record
end

local function unquarantine(gpu, by)
  redis.call('HDEL', quarantine_key, gpu)
  tell('unquarantine', 'gpu', gpu, 'by', by)
end

-- Sets and lifts quarantines by the health in a scan; never changes an administrator's quarantine.
local function apply_health(seen, quarantined)
  for gpu, text in pairs(quarantined) do
    local well = seen.place[gpu] and seen.unfit[gpu] ~= 'unknown' and not seen.unhealthy[gpu]
    if well and (decode(text) or {}).by == 'health' then
      unquarantine(gpu, 'health')
      quarantined[gpu] = nil
    end
  end
  for gpu, reason in pairs(seen.unhealthy) do
    local record = quarantined[gpu] and (decode(quarantined[gpu]) or {})
    if not record or record.by == 'health' and record.reason ~= reason then
      quarantined[gpu] = quarantine(gpu, reason, 'health')
    end
  end
end

-- Adds the time between two scans to `idle_ms` of reserved GPUs that were unused in both.
local function count_idle(seen, before_ms, unused_before)
  for gpu, record in pairs(reservations) do
    local since = math.max(before_ms, record.granted_ms or now)
    if seen.unused[gpu] and unused_before[gpu] and seen.began > since then
      record.idle_ms = (number(record.idle_ms) or 0) + seen.began - since
      write(gpu, record)
    end
  end
end

-- Stores a scan and applies its consequences, unless a newer scan is stored. Takes the age (ms), the scan
-- (JSON), and the judgement, a JSON object: "gpus", the UUIDs in order of preference among equals;
-- "unfit", UUID -> "unreserved" or "unknown"; "unhealthy", UUID -> reason.
-- A stored time in the future is from a clock that was set back: the scan counts as none, a release as now.
-- Needs the reservations. Returns the judgement with more fields; "known" is 1 if a scan was stored, else 0.
local function observe(age_ms, scan, judged)
  local seen = cjson.decode(judged)
  local before = redis.call('HMGET', scan_key, 'at', 'unused')
  local before_ms = number(before[1] or 0) or 0
  if before_ms > now then before_ms = 0 end
  seen.began, seen.known = now - tonumber(age_ms), before_ms > 0 and 1 or 0
  seen.place, seen.unused, seen.quarantined = {}, {}, read_hash(quarantine_key)
  for i, gpu in ipairs(seen.gpus) do
    seen.place[gpu] = i
    if not seen.unfit[gpu] then seen.unused[gpu] = true end
  end
  if seen.began >= before_ms then
    redis.call('HSET', scan_key, 'data', scan, 'at', seen.began, 'unused', cjson.encode(seen.unused))
    apply_health(seen, seen.quarantined)
    count_idle(seen, before_ms, decode(before[2] or '') or {})
  end
  seen.released = read_hash(released_key)
  for gpu, at in pairs(seen.released) do
    if (number(at) or 0) > now then
      seen.released[gpu] = now
      redis.call('HSET', released_key, gpu, now)
    end
  end
  return seen
end

-- Returns why the GPU cannot be granted, nil if it can.
local function obstacle(gpu, seen)
  return reservations[gpu] and 'reserved'
    or (seen.quarantined[gpu] or seen.unhealthy[gpu]) and 'quarantined'
    or seen.unfit[gpu]
    or not seen.place[gpu] and 'unknown'
    or (number(seen.released[gpu]) or 0) > seen.began and 'stale'
    or nil
end

local function grant(claim, gpus)
  claim.granted_ms = now
  if claim.duration_s then claim.expires_ms = now + math.ceil(claim.duration_s * 1000) end
  local record = cjson.encode(claim)
  for _, gpu in ipairs(gpus) do
    redis.call('HSET', reservations_key, gpu, record)
    tell('grant', 'gpu', gpu, 'claim', record)
  end
end

-- Removes the owner from the queue: it has its GPUs.
local function served(owner)
  local waiter = redis.call('HGET', queue_key, owner)
  if waiter then leave(owner, waiter, 'served') end
end
