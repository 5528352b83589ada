-- Functions that all scripts share. This text, usage.lua, reservations.lua, history.lua with its parts, head.lua and
-- at_end.lua are put before each script when it is loaded; grants.lua and entries.lua where the script's head says that
-- it needs them (../script_texts.py). The script's own text is a function, and what it returns is the answer.
--
-- KEYS[1] reservations  hash    GPU UUID -> claim (JSON with "owner", "type", "user") with "granted_ms",
--                               and optionally "share", "expires_ms", "renewed_ms", "idle_ms". A GPU that
--                               several jobs share has the owner "shared", all users, and the claims in
--                               the list "holders", the earliest first
-- KEYS[2] released      hash    GPU UUID -> time of the last release, ms; some days of a GPU that is gone
-- KEYS[3] released_by   hash    GPU UUID -> user of the last reservation
-- KEYS[4] quarantine    hash    GPU UUID -> JSON with "reason", "since_ms", "by"
-- KEYS[5] scan          hash    data (JSON), at (ms, when the scan began on the store's clock),
--                               unused (JSON object: GPU UUID -> true, the unused GPUs), most (JSON
--                               object: UUID -> index, the GPUs of the last scan with most of them)
--                               brief (JSON, the scan in brief), brief_at (the "at" of the scan it is of; another
--                               one where the release before published the scan), plain (see counts.lua),
--                               identity (JSON: "cluster", "machine", "host" of the node that wrote it)
-- KEYS[6] queue         hash    owner -> waiter (JSON) with "order", "since_ms", "renewed_ms", "lease_s"
-- KEYS[7] history       stream  see history.lua
-- KEYS[8] recorded      string  see entries.lua
-- KEYS[9] answers       hash    see entries.lua
-- KEYS[10] usage        hash    what ended holdings have used, see usage.lua
-- KEYS[11] head         string  see head.lua
-- KEYS[12] indexed      string  is there while the node's entries in the indexes are complete; it expires. "2": those of runs
--                               and reservations by hand as well
-- KEYS[13] history_meta hash    see short_names.lua and history_size.lua
-- KEYS[14] counts       string  see head.lua
-- ARGV[1] how long the history is kept, ms, and its size, bytes: "MS BYTES"; each script documents its arguments
--         from ARGV[2] on
-- The last of ARGV: the identity of the node that runs the script about itself, else ""
--
-- Invariants: every change that a waiter may wait for is an event of the history. An expired reservation
-- is released as of the time when it expired, even if a script notices it later. A record that cannot be
-- read is a reservation of the owner "unreadable". No content of a key makes a script fail. A node of
-- another cluster on another machine changes nothing: it gets the error FOREIGN, with the recorded identity.
local reservations_key, released_key, released_by_key, quarantine_key, scan_key, queue_key, history_key =
  unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = math.max(now - tonumber(ARGV[1]:match('^%d+')), 0)
-- Whether the head says what is not so any more; and whether it lacks only that there are more entries.
local head_is_old, head_lacks_entries = false, false

local function number(value)
  value = tonumber(value)
  return value and math.abs(value) < math.huge and value or nil
end

local function decode(text)
  local readable, value = pcall(cjson.decode, text)
  return readable and type(value) == 'table' and value or nil
end

local identity = ARGV[#ARGV]
do
  local mine, text = decode(identity), redis.pcall('HGET', scan_key, 'identity')
  local known = mine and type(text) == 'string' and decode(text) or {}
  local readable = type(known.cluster) == 'string' and type(known.machine) == 'string'
  if readable and known.cluster ~= mine.cluster and known.machine ~= mine.machine then
    return redis.error_reply('FOREIGN ' .. text)
  end
end

local function read_hash(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- What this script has to add to the history; and the id of the last entry that it has added.
local told, last_added = {}, nil
-- The id of the last entry before those, where it is known: see at_end.lua.
local last_before

-- Adds an event; history.lua writes it when the script is done. `details`, all optional: "gpu", UUID; "claim"; "reason";
-- "by"; "at", ms, if not now; and of a note "gpus", "places", "took_ms" and "facts", see entries.lua. A note changes
-- nothing of the node.
local function tell(event, details, is_note)
  if is_note then head_lacks_entries = true else head_is_old = true end
  local claim = details.claim or {}
  details.event, details.gpus = event, details.gpus or { details.gpu }
  -- A claim may change later in the script.
  details.granted, details.idle = number(claim.granted_ms), { math.floor(number(claim.idle_ms) or 0) }
  told[#told + 1] = details
end

-- Returns the waiter's claim.
local function who_waits(owner, user)
  return { owner = owner, type = owner:match('^[^:]*'), user = type(user) == 'string' and user or 'unknown' }
end

local function leave(owner, text, reason)
  redis.call('HDEL', queue_key, owner)
  tell('leave', { reason = reason, claim = who_waits(owner, (decode(text) or {}).user) })
end

-- Returns the waiters with a valid lease, in order; removes the others from the queue.
local function load_queue()
  local waiting = {}
  for owner, text in pairs(read_hash(queue_key)) do
    local waiter = decode(text)
    local seen = waiter and number(waiter.renewed_ms)
    local lease = waiter and number(waiter.lease_s)
    if seen and lease and number(waiter.order) and seen + lease * 1000 >= now then
      waiting[#waiting + 1] = { owner = owner, order = number(waiter.order), record = waiter }
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

-- What was stored may be anything, also what cannot be encoded again.
local function is_same_list(a, b)
  if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
  for i = 1, math.max(#a, #b) do
    if a[i] ~= b[i] then return false end
  end
  return true
end

local WAITER_FIELDS = { 'order', 'since_ms', 'lease_s', 'user', 'count', 'profile' }

-- Stores the waiter; `known` is its record before, nil for one that joins. The counts are old where they tell something
-- else of it.
local function store_waiter(waiter, known)
  redis.call('HSET', queue_key, waiter.owner, cjson.encode(waiter))
  for _, field in ipairs(known and WAITER_FIELDS or {}) do
    if waiter[field] ~= known[field] then head_is_old = true end
  end
  if known and not is_same_list(waiter.gpus, known.gpus) then head_is_old = true end
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
  tell('quarantine', { gpu = gpu, reason = reason, by = by })
  return record
end

local function unquarantine(gpu, by)
  redis.call('HDEL', quarantine_key, gpu)
  tell('unquarantine', { gpu = gpu, by = by })
end

-- Removes the owner from the queue: it has its GPUs.
local function served(owner)
  local waiter = redis.call('HGET', queue_key, owner)
  if waiter then leave(owner, waiter, 'served') end
end
