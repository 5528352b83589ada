-- Put before every other script: the clock, the node's keys, and what several operations do.
--
-- KEYS[1] reservations  hash    GPU UUID -> reservation (JSON with "owner", "user", "granted_ms";
--                               "expires_ms", "renewed_ms", "idle_ms" where they apply)
-- KEYS[2] released      hash    GPU UUID -> time of the last release, ms
-- KEYS[3] quarantine    hash    GPU UUID -> {"reason", "since_ms", "by"}
-- KEYS[4] scan          hash    data (JSON), at (ms, when it began), idle (JSON list of UUIDs)
-- KEYS[5] history       stream  event, and what goes with it
-- KEYS[6] queue         hash    owner -> waiter (JSON with "seq", "since_ms", "renewed_ms", "lease_ms")
-- KEYS[7] users         hash    GPU UUID -> user of the last released reservation
-- ARGV[1] history kept, ms
local RESERVATIONS, RELEASED, QUARANTINE, SCAN, HISTORY, QUEUE, USERS = unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = math.max(now - tonumber(ARGV[1]), 0)

local function decoded(text)
  local readable, value = pcall(cjson.decode, text)
  if readable and type(value) == 'table' then return value end
end

local function note(...)
  redis.call('XADD', HISTORY, 'MINID', '~', oldest, '*', ...)
end

-- A record that cannot be read has the owner "unreadable".
local function owner_of(record)
  return record and type(record.owner) == 'string' and record.owner or 'unreadable'
end

local function let_go(gpu, text, at, reason, by)
  local record = decoded(text)
  redis.call('HDEL', RESERVATIONS, gpu)
  redis.call('HSET', RELEASED, gpu, at)
  if record and type(record.user) == 'string' then redis.call('HSET', USERS, gpu, record.user) end
  note('event', 'release', 'gpu', gpu, 'reason', reason, 'by', by, 'claim', text)
end

-- Returns GPU UUID -> {text, record}, after releasing what has expired, at the time of its expiry.
local function reservations()
  local found, all = {}, redis.call('HGETALL', RESERVATIONS)
  for i = 1, #all, 2 do
    local gpu, text = all[i], all[i + 1]
    local record = decoded(text)
    local ends = record and tonumber(record.expires_ms)
    if ends and ends <= now then
      let_go(gpu, text, string.format('%.0f', ends), 'expired', '')
    else
      found[gpu] = { text = text, record = record }
    end
  end
  return found
end

-- Returns those who wait, in order, after dropping those whose lease is over.
local function queue()
  local waiting, all = {}, redis.call('HGETALL', QUEUE)
  for i = 1, #all, 2 do
    local owner, waiter = all[i], decoded(all[i + 1]) or {}
    local ends = (tonumber(waiter.renewed_ms) or 0) + (tonumber(waiter.lease_ms) or 0)
    if ends < now then
      redis.call('HDEL', QUEUE, owner)
      note('event', 'leave', 'owner', owner, 'reason', 'no sign of life')
    else
      waiting[#waiting + 1] = { owner = owner, seq = tonumber(waiter.seq) or 0, waiter = waiter }
    end
  end
  table.sort(waiting, function(a, b) return a.seq < b.seq or a.seq == b.seq and a.owner < b.owner end)
  return waiting
end

-- Returns the owner's position, from 1, the one after the last for who is not in the queue.
local function position(waiting, owner)
  for place, one in ipairs(waiting) do
    if one.owner == owner then return place end
  end
  return #waiting + 1
end

-- Quarantines what health tells, and lifts what health had quarantined and a scan finds healthy.
local function apply_health(seen, unhealthy, unfit)
  for _, gpu in ipairs(seen) do
    local text, reason = redis.call('HGET', QUARANTINE, gpu), unhealthy[gpu]
    local known = text and decoded(text) or {}
    if reason and (not text or known.by == 'health' and known.reason ~= reason) then
      local since = text and tonumber(known.since_ms) or now
      redis.call('HSET', QUARANTINE, gpu, cjson.encode({ reason = reason, since_ms = since, by = 'health' }))
      note('event', 'quarantine', 'gpu', gpu, 'reason', reason, 'by', 'health')
    elseif not reason and known.by == 'health' and unfit[gpu] ~= 'unknown' then
      redis.call('HDEL', QUARANTINE, gpu)
      note('event', 'unquarantine', 'gpu', gpu, 'reason', 'healthy again', 'by', 'health')
    end
  end
end

-- Adds the time between two scans to what both found reserved and unused.
local function count_idle(idle, before, published, began, held)
  local was_idle = {}
  for _, gpu in ipairs(before) do was_idle[gpu] = true end
  for _, gpu in ipairs(idle) do
    local one = was_idle[gpu] and held[gpu]
    local record = one and one.record
    local from = record and math.max(tonumber(record.granted_ms) or began, published) or began
    if began > from then
      record.idle_ms = (tonumber(record.idle_ms) or 0) + began - from
      one.text = cjson.encode(record)
      redis.call('HSET', RESERVATIONS, gpu, one.text)
    end
  end
end

-- Stores a scan with what follows from it, unless a newer one is there. `seen` is the observation:
-- {"age_ms", "scan" (text), "seen", "idle" (lists of UUIDs), "unfit", "unhealthy" (by UUID)}.
-- Returns when the scan began, and 1 where the node ever published one before, else 0.
local function store_scan(seen, held)
  local began = now - seen.age_ms
  local published = tonumber(redis.call('HGET', SCAN, 'at') or 0) or 0
  if began >= published then
    local before = decoded(redis.call('HGET', SCAN, 'idle') or '') or {}
    if published > 0 then count_idle(seen.idle, before, published, began, held) end
    redis.call('HSET', SCAN, 'data', seen.scan, 'at', began, 'idle', cjson.encode(seen.idle))
    apply_health(seen.seen, seen.unhealthy, seen.unfit)
  end
  return began, published > 0 and 1 or 0
end

-- Records the grant of these GPUs, and takes the owner out of the queue.
local function grant(claim, gpus)
  claim.granted_ms = now
  if claim.duration_s then claim.expires_ms = now + math.floor(claim.duration_s * 1000) end
  local record = cjson.encode(claim)
  for _, gpu in ipairs(gpus) do
    redis.call('HSET', RESERVATIONS, gpu, record)
    note('event', 'grant', 'gpu', gpu, 'claim', record)
  end
  redis.call('HDEL', QUEUE, claim.owner)
end
