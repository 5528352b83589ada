-- The owners of the node's GPUs: one alone, or several that share a GPU. See common.lua.
--
-- Invariant: several owners have a GPU together only by shares of one kind.

-- The node's reservations: GPU UUID -> the claims of its owners, the earliest first; and GPU UUID -> the text
-- of its record. `load_reservations` fills both, and comes before every change.
local reservations, texts = {}, {}
-- Whether they were loaded, and whether each text is JSON.
local is_loaded, all_are_json = false, true
-- Whether this script has written or removed one.
local changed = false

local function readable(record)
  return type(record) == 'table' and type(record.owner) == 'string' and type(record.type) == 'string'
    and type(record.user) == 'string' and type(record.granted_ms) == 'number' and number(record.granted_ms)
end

local function holders_in(text)
  local record = decode(text)
  all_are_json = all_are_json and record ~= nil
  local holders = record and record.owner == 'shared' and record.holders or { record }
  local usable = type(holders) == 'table' and #holders > 0
  for _, one in ipairs(usable and holders or {}) do usable = usable and readable(one) end
  if usable and #holders > 1 then usable = pcall(cjson.encode, holders) end
  return usable and holders or { { owner = 'unreadable' } }
end

local function holder_of(gpu, owner)
  for _, one in ipairs(reservations[gpu] or {}) do
    if one.owner == owner then return one end
  end
end

-- Returns the text of one of the GPU's claims, as the history records it.
local function text_of(gpu, record)
  return #reservations[gpu] > 1 and cjson.encode(record) or texts[gpu]
end

local function shared_record(holders)
  local first, users, listed = holders[1], {}, {}
  for _, one in ipairs(holders) do
    if not listed[one.user] then users[#users + 1], listed[one.user] = one.user, true end
  end
  return {
    owner = 'shared', type = first.type, user = table.concat(users, ','), granted_ms = first.granted_ms,
    holders = holders,
  }
end

-- Returns whether the claims were written: another program's may hold a value that cannot be encoded.
local function write(gpu, holders)
  local encoded, text = pcall(cjson.encode, #holders > 1 and shared_record(holders) or holders[1])
  if encoded then
    redis.call('HSET', reservations_key, gpu, text)
    reservations[gpu], texts[gpu], changed = holders, text, true
  end
  return encoded
end

-- GPUs whose records have a newer heartbeat than those stored.
local beating = {}

-- Notes that an owner is alive: nothing else of the record changes, and nothing that others are told.
-- `store_heartbeats` stores it.
local function write_heartbeat(gpu, one)
  local text, name = texts[gpu], '"renewed_ms":'
  one.renewed_ms = now
  local start, stop = text:find(name, 1, true)
  local _, last = text:find('^%d+', (stop or 0) + 1)
  -- Only once, of an only owner, and a field's name: within a text its quotes have backslashes.
  local is_only = #reservations[gpu] == 1 and start and last and not text:find(name, last, true)
  if not is_only then return write(gpu, reservations[gpu]) end
  texts[gpu] = text:sub(1, stop) .. string.format('%.0f', now) .. text:sub(last + 1)
  beating[#beating + 1] = gpu
end

-- One command takes less time than one for each.
local function store_heartbeats()
  local fields = {}
  for i, gpu in ipairs(beating) do fields[2 * i - 1], fields[2 * i] = gpu, texts[gpu] end
  if #fields > 0 then redis.call('HSET', reservations_key, unpack(fields)) end
end

local function holds_another(owner, gpu)
  for other in pairs(reservations) do
    if other ~= gpu and holder_of(other, owner) then return true end
  end
  return false
end

-- The GPU is free when the last owner is gone. Its release time is set then, unless that owner never used it.
local function release(gpu, owner, at, reason, by, unused)
  local record, left = holder_of(gpu, owner), {}
  for _, one in ipairs(reservations[gpu]) do
    if one ~= record then left[#left + 1] = one end
  end
  if not unused then count_usage(record, at, not holds_another(owner, gpu)) end
  tell('release', { gpu = gpu, reason = reason, by = by, claim = record, at = at })
  if #left > 0 then return write(gpu, left) end
  redis.call('HDEL', reservations_key, gpu)
  changed = true
  if not unused then
    redis.call('HSET', released_key, gpu, at)
    redis.call('HSET', released_by_key, gpu, record.user or '')
  end
  reservations[gpu], texts[gpu] = nil, nil
end

local function copies_of(holders)
  local copies = {}
  for i, one in ipairs(holders) do
    copies[i] = {}
    for name, value in pairs(one) do copies[i][name] = value end
  end
  return copies
end

local function load_reservations()
  open_today()
  is_loaded = true
  local read = {}
  for gpu, text in pairs(read_hash(reservations_key)) do
    -- The GPUs of one owner mostly have the same record. To read it takes several times as long as to copy it. All have
    -- copies: what is written of them has the fields in one order, and stays the same record.
    read[text] = read[text] or holders_in(text)
    local holders = copies_of(read[text])
    reservations[gpu], texts[gpu] = holders, text
    for _, one in ipairs(holders) do
      local over = number(one.expires_ms)
      if over and over <= now then release(gpu, one.owner, over, 'expired', '') end
    end
  end
end

local function held_by(owner)
  local held = {}
  for gpu in pairs(reservations) do
    if holder_of(gpu, owner) then held[#held + 1] = gpu end
  end
  table.sort(held)
  return held
end

local function is_share(value)
  return type(value) == 'table' and type(value.kind) == 'string' and type(value.amount) == 'number'
    and type(value.total) == 'number'
end

-- Returns whether the claim and all other owners of the GPU hold shares of one kind.
local function may_share(gpu, claim)
  if not is_share(claim.share) then return false end
  for _, one in ipairs(reservations[gpu] or {}) do
    local shares = is_share(one.share) and one.share.kind == claim.share.kind
    if one.owner ~= claim.owner and not shares then return false end
  end
  return true
end
