-- The counts of a node whose GPUs are plain: see head.lua. This text stands before it.
--
-- A node is plain where each GPU can be read, is no instance, and is either free and without processes, or held by one
-- owner and used by it alone. Then what a reader says of it depends on the reader's threshold and clock in no other way
-- than by "free_mb", "ends" and "until": a test compares.
--
-- The field "plain" of the scan is "AT JSON", or "AT " where the scan is not plain. AT is the scan's "at": another one
-- is of a release that published no such field. "gpus" is a list, in the order of their indices, of UUID, used MB, a list of
-- processes, {job or null, uid or null} each, once for each two, and the index, which the release before did not publish; a job
-- that is not identified is false. Numbers are texts: most are not used, and to read one takes long. "names", which it did not
-- publish either, are two fields of the counts as they stand there: "products" and "models". Where they would be long it is missing.
local MAX_NAME = 200
-- A table shows so many waiters of a node, see table_cells.py.
local LISTED_WAITERS = 5
-- Greater numbers are not read, see free_gpus.py.
local MAX_COUNT, MAX_MS = 1e6, 1e14

-- Returns the text as JSON. To encode one takes ten times as long as to see that nothing in it is special.
local function quoted(text)
  return text:find('^[%w%-_.:]*$') and '"' .. text .. '"' or cjson.encode(text)
end

local function is_whole(value)
  return type(value) == 'number' and value % 1 == 0
end

local function is_absent(value)
  return value == nil or value == cjson.null
end

local function is_plain_owner(one)
  return type(one.owner) == 'string' and one.owner ~= 'shared' and type(one.type) == 'string' and type(one.user) == 'string'
    and #one.user <= MAX_NAME and one.holders == nil and is_whole(one.granted_ms)
    and (is_absent(one.expires_ms) or is_whole(one.expires_ms))
end

local function is_own(owner, process)
  local job, uid = process[1], process[2]
  if job == cjson.null or type(owner.job_id) ~= 'string' then return is_whole(owner.uid) and uid == string.format('%.0f', owner.uid) end
  return job == owner.type .. ':' .. owner.job_id
end

local function is_used_by(owner, processes)
  for _, one in ipairs(processes) do
    if not is_own(owner, one) then return false end
  end
  return true
end

local function is_count(value, most)
  return is_whole(value) and value >= 0 and value <= most
end

-- Returns whether a table shows of the waiter what is stored, and names no GPU.
local function is_listed_waiter(one)
  return (is_absent(one.gpus) or not next(one.gpus)) and type(one.user) == 'string' and #one.user <= MAX_NAME
    and is_count(one.count, MAX_COUNT) and is_count(one.since_ms, MAX_MS)
    and (is_absent(one.profile) or type(one.profile) == 'string' and #one.profile <= MAX_NAME)
end

local function comes_before(a, b)
  if a.order ~= b.order then return a.order < b.order end
  return a.owner < b.owner
end

-- Keeps the first waiters of those and this one, in order.
local function keep_first(first, one)
  local place = #first + 1
  while place > 1 and comes_before(one, first[place - 1]) do place = place - 1 end
  if place <= LISTED_WAITERS then table.insert(first, place, one) end
  first[LISTED_WAITERS + 1] = nil
end

-- Returns whether no reader leaves one of those out who wait; if so, when the first lease is over, and the first
-- waiters as a JSON list, "null" where a table shows of one of them what is not stored.
local function waiters()
  local first, over = {}, nil
  for owner, text in pairs(read_hash(queue_key)) do
    local one = decode(text) or {}
    local is_plain = is_whole(one.renewed_ms) and is_whole(one.order) and type(one.lease_s) == 'number'
      and (is_absent(one.gpus) or type(one.gpus) == 'table')
    if not is_plain or math.abs(one.lease_s) == math.huge then return false end
    for _, gpu in pairs(is_absent(one.gpus) and {} or one.gpus) do
      if type(gpu) ~= 'string' then return false end
    end
    local ends = one.renewed_ms + one.lease_s * 1000
    over = math.min(over or ends, ends)
    one.owner = owner
    keep_first(first, one)
  end
  local listed = {}
  for place, one in ipairs(first) do
    if not is_listed_waiter(one) then return true, over, 'null' end
    local profile = is_absent(one.profile) and '' or one.profile
    listed[place] = string.format('%s,%d,%s,%.0f', quoted(one.user), one.count, quoted(profile), one.since_ms)
  end
  return true, over, '[' .. table.concat(listed, ',') .. ']'
end

local function integer_or_null(value)
  return value and string.format('%.0f', math.floor(value)) or 'null'
end

-- Returns how many GPUs a JSON object has, UUID -> index, as scripts store it; nil for a text that is no object. To
-- read it takes ten times as long, and so do patterns.
local function number_of_gpus(text)
  if text:byte(1) ~= 123 or text:byte(-1) ~= 125 then return nil end
  local n, from, _ = 0, 1, nil
  repeat
    _, from = text:find('":', from, true)
    if from then n = n + 1 end
  until not from
  return n
end

-- Adds a free GPU to the list, which it returns; nil where not all of it is known.
local function listed_gpu(listed, row, released_ms)
  if not row[4] or not (released_ms == 'null' or released_ms:find('^%d+$')) then return nil end
  listed[#listed + 1] = row[4] .. ',' .. row[2] .. ',' .. released_ms
  return listed
end

-- Returns the fields of the counts, as head.lua has them; nil for a node that is not plain.
local function counts_text(scan, held, owners, released, most, waiting)
  local at, text = (scan[7] or ''):match('^(%d+) (.+)$')
  local plain = at and at == scan[3] and decode(text)
  if not plain then return nil end
  local users, named, free, listed, free_mb, reserved, ends = {}, {}, 0, {}, 0, 0, nil
  for _, row in ipairs(plain.gpus) do
    local place, processes = held[row[1]], row[3]
    local owner = owners[place]
    if not place then
      if #processes > 0 then return nil end
      free, free_mb = free + 1, math.max(free_mb, tonumber(row[2]))
      listed = listed and listed_gpu(listed, row, released[row[1]] or 'null')
    else
      if not owner or not is_plain_owner(owner) or not is_used_by(owner, processes) then return nil end
      if not named[owner.user] then users[#users + 1], named[owner.user] = quoted(owner.user), true end
      if not is_absent(owner.expires_ms) then ends = math.min(ends or owner.expires_ms, owner.expires_ms) end
      reserved = reserved + 1
    end
  end
  for _ in pairs(held) do reserved = reserved - 1 end
  local had, are_plain, over, first = most == 'null' and 0 or number_of_gpus(most), true, nil, nil
  if waiting > 0 then are_plain, over, first = waiters() end
  if reserved ~= 0 or not had or had > #plain.gpus or not are_plain then return nil end
  return string.format(
    '"at":"%s","source":%s,"gpus":%d,"free":%d,"free_mb":%d,"listed":%s,%s,"users":%s,"ends":%s,"expected":%d,"waiting":%d,"until":%s%s',
    at, quoted(plain.source), #plain.gpus, free, free_mb, listed and '[' .. table.concat(listed, ',') .. ']' or 'null',
    type(plain.names) == 'string' and plain.names or '"products":null,"models":null', '[' .. table.concat(users, ',') .. ']',
    integer_or_null(ends), had > 0 and had or #plain.gpus, waiting, integer_or_null(over), first and ',"first":' .. first or ''
  )
end
