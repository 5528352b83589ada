-- Take over a scan, and decide by it which GPUs can be granted. See common.lua.

local RELEASE_KEPT_MS = 7 * 24 * 3600 * 1000

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
  for gpu, holders in pairs(reservations) do
    local changed = false
    for _, one in ipairs(holders) do
      local since = math.max(before_ms, one.granted_ms or now)
      if seen.unused[gpu] and unused_before[gpu] and seen.began > since then
        one.idle_ms = (number(one.idle_ms) or 0) + seen.began - since
        changed = true
      end
    end
    if changed then write(gpu, holders) end
  end
end

local function count_of(gpus)
  local n = 0
  for _ in pairs(gpus) do n = n + 1 end
  return n
end

-- Returns the node's GPUs, UUID -> index, as JSON: those of the last scan with most of them. A scan with fewer replaces
-- them only if it is "complete": an administrator said that the node has no others.
local function most_gpus(seen, before)
  -- Mostly the same as ever.
  if seen.whole == before or seen.complete then return seen.whole end
  local has, had = decode(seen.whole) or {}, decode(before or '') or {}
  return count_of(has) >= count_of(had) and seen.whole or before
end

-- Forgets when GPUs were released that the node has not had for long: MIG instances get a new UUID each time.
local function forget_gone_gpus(seen, most)
  local had
  for gpu, at in pairs(seen.released) do
    if not seen.place[gpu] and (number(at) or 0) < now - RELEASE_KEPT_MS then
      had = had or decode(most) or {}
      if not had[gpu] then
        redis.call('HDEL', released_key, gpu)
        redis.call('HDEL', released_by_key, gpu)
        seen.released[gpu] = nil
      end
    end
  end
end

-- Returns the lines of the text: as many as are asked for, "" for one that is missing.
local function lines_of(text, count)
  local lines, from = {}, 1
  for i = 1, count do
    local stop = text:find('\n', from, true) or #text + 1
    lines[i], from = text:sub(from, stop - 1), stop + 1
  end
  return unpack(lines)
end

-- Stores a scan and applies its consequences, unless a newer scan is stored. Takes the age (ms), the scan
-- (JSON), and six lines, for what is mostly stored or compared as text takes long to read: "supplement", "brief" and
-- "plain" are stored beside the scan; "whole", JSON, UUID -> index, are the GPUs, not their MIG instances; "covered", JSON,
-- UUID -> list of owners, of GPUs in use by these owners alone; and the judgement, a JSON object: "gpus", the UUIDs in
-- order of preference among equals; "unfit", UUID -> "unreserved" or "unknown"; "unhealthy", UUID -> reason;
-- "complete"; "partitions", text that replaces the one stored, if given.
-- A stored time in the future is from a clock that was set back: the scan counts as none, a release as now.
-- Needs the reservations. Returns the judgement with more fields; "known" is 1 if a scan was stored, else 0.
local function observe(age_ms, scan, judged)
  local supplement, brief, plain, whole, covered, judgement = lines_of(judged, 6)
  local seen = cjson.decode(judgement)
  seen.whole, seen.covered = whole, covered
  local before = redis.call('HMGET', scan_key, 'at', 'unused', 'most')
  local before_ms = number(before[1] or 0) or 0
  if before_ms > now then before_ms = 0 end
  seen.began, seen.known = now - tonumber(age_ms), before_ms > 0 and 1 or 0
  seen.place, seen.unused, seen.quarantined = {}, {}, read_hash(quarantine_key)
  for i, gpu in ipairs(seen.gpus) do
    seen.place[gpu] = i
    if not seen.unfit[gpu] then seen.unused[gpu] = true end
  end
  seen.released = read_hash(released_key)
  if seen.began >= before_ms then
    head_is_old = true
    local most = most_gpus(seen, before[3])
    redis.call('HSET', scan_key, 'data', scan, 'at', seen.began, 'unused', cjson.encode(seen.unused),
      'most', most, 'supplement', supplement, 'brief', brief, 'brief_at', seen.began,
      'plain', seen.began .. ' ' .. plain)
    if (decode(identity) or {}).records == 'yes' then redis.call('HSET', scan_key, 'identity', identity) end
    if seen.partitions then
      redis.call('HSET', scan_key, 'partitions', seen.partitions, 'partitions_at', seen.began)
    end
    apply_health(seen, seen.quarantined)
    if next(reservations) then count_idle(seen, before_ms, decode(before[2] or '') or {}) end
    forget_gone_gpus(seen, most)
  end
  for gpu, at in pairs(seen.released) do
    if (number(at) or 0) > now then
      seen.released[gpu] = now
      redis.call('HSET', released_key, gpu, now)
    end
  end
  return seen
end

-- Returns whether the GPU is in use by those alone who share it with the claim now.
local function in_shared_use(gpu, seen, claim)
  local users = seen.unfit[gpu] == 'unreserved' and may_share(gpu, claim) and decode(seen.covered)[gpu]
  for _, owner in ipairs(users or {}) do
    if not holder_of(gpu, owner) then return false end
  end
  return users
end

-- Returns why the GPU cannot be granted for the claim, nil if it can.
local function obstacle(gpu, seen, claim)
  return reservations[gpu] and not may_share(gpu, claim) and 'reserved'
    or (seen.quarantined[gpu] or seen.unhealthy[gpu]) and 'quarantined'
    or not in_shared_use(gpu, seen, claim) and seen.unfit[gpu]
    or not seen.place[gpu] and 'unknown'
    or (number(seen.released[gpu]) or 0) > seen.began and 'stale'
    or nil
end

local function grant(claim, gpus)
  claim.granted_ms = now
  if claim.duration_s then claim.expires_ms = now + math.ceil(claim.duration_s * 1000) end
  for _, gpu in ipairs(gpus) do
    local holders = { unpack(reservations[gpu] or {}) }
    holders[#holders + 1] = claim
    write(gpu, holders)
    tell('grant', { gpu = gpu, claim = claim })
  end
end
