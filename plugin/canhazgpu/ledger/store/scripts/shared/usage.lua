-- What ended holdings have used, by day, user and type. See common.lua.
--
-- KEYS[10] usage  hash  DAY (UTC, counted from 1970) -> totals of all that was used before the end of that day
--                       total    totals of all that was used
--                       held     the present holdings, see at_end.lua
--                       day      the day of the last change or check: earlier days have their totals
--                       from     id of the last entry of the history before the first release that is counted here
--                       through  id up to which earlier entries are counted as well, see index_history.lua
--                       owners   id up to which runs and reservations by hand are in the indexes, too: another release may have moved
--                                "through" on without them
--                       use:DAY, use:total, use:day  the same of what the driver tells of the use of these GPUs
--
-- Totals are a JSON object: "USER\tTYPE" -> list of ms held, ms of these idle, reservations begun, ended, and
-- both again without those that another node counts. What was used in a time is the difference of two totals. Those of the
-- use have six numbers, too, see ../../../gpu_use.py; an epilog's note gives them, entries.lua. The prefix of the fields, '' or
-- 'use:', says which totals a function takes.
--
-- Invariants: a holding is counted when it ends, in the totals of each day since it began. A reservation is counted when its
-- owner's last GPU is released. A grant that nobody used is not counted. Who has used nothing in the kept time has no totals.
local DAY_MS, usage_key = 86400000, KEYS[10]
local today, oldest_day = math.floor(now / DAY_MS), math.floor(oldest / DAY_MS) - 1

local function day_of(ms)
  return math.max(math.floor(ms / DAY_MS), oldest_day)
end

local function sums_of(value)
  local sums = { 0, 0, 0, 0, 0, 0 }
  for i = 1, 6 do sums[i] = type(value) == 'table' and number(value[i]) or 0 end
  return sums
end

local function same_sums(one, other)
  one, other = sums_of(one), sums_of(other)
  for i = 1, 6 do
    if one[i] ~= other[i] then return false end
  end
  return true
end

-- Removes those who have used nothing since the oldest day that is kept. A later first day is the first of the totals: what
-- was used on it is in no other.
local function remove_past_users(days, prefix)
  if days[1] ~= oldest_day then return end
  local totals, first = decode(redis.call('HGET', usage_key, prefix .. 'total') or '') or {}, days[1]
  local past, before = {}, decode(redis.call('HGET', usage_key, prefix .. first) or '') or {}
  for key, sums in pairs(totals) do
    if same_sums(sums, before[key]) then past[#past + 1] = key end
  end
  if #past == 0 then return end
  for _, field in ipairs({ 'total', unpack(days) }) do
    local kept = decode(redis.call('HGET', usage_key, prefix .. field) or '') or {}
    for _, key in ipairs(past) do kept[key] = nil end
    redis.call('HSET', usage_key, prefix .. field, cjson.encode(kept))
  end
end

local function add_totals(totals, more)
  for key, amounts in pairs(more) do
    local sums = sums_of(totals[key])
    for i = 1, 6 do sums[i] = sums[i] + amounts[i] end
    totals[key] = sums
  end
  return totals
end

-- What is to be added to the fields: once in a script, however many GPUs it releases. at_end.lua stores it.
local unsaved = {}

local function add_to_field(field, more)
  unsaved[field] = add_totals(unsaved[field] or {}, more)
end

local function store_usage()
  for field, more in pairs(unsaved) do
    local known = decode(redis.call('HGET', usage_key, field) or '') or {}
    redis.call('HSET', usage_key, field, cjson.encode(add_totals(known, more)))
  end
  unsaved = {}
end

-- Gives the days since the last change their totals, and removes those that are not kept.
local function open_days(prefix)
  local day = number(redis.call('HGET', usage_key, prefix .. 'day') or nil)
  if day and day >= today then return end
  store_usage()
  redis.call('HSET', usage_key, prefix .. 'day', today)
  local total, kept = redis.call('HGET', usage_key, prefix .. 'total') or '{}', {}
  for past = math.max(day or today, oldest_day), today - 1 do
    redis.call('HSET', usage_key, prefix .. past, total)
  end
  for _, field in ipairs(redis.call('HKEYS', usage_key)) do
    local past = field:sub(1, #prefix) == prefix and tonumber(field:sub(#prefix + 1))
    if past and past < oldest_day then redis.call('HDEL', usage_key, field) end
    if past and past >= oldest_day then kept[#kept + 1] = past end
  end
  table.sort(kept)
  remove_past_users(kept, prefix)
end

local function open_today()
  local day = number(redis.call('HGET', usage_key, 'day') or nil)
  if day and day >= today then return end
  if not day then
    local last = redis.call('XREVRANGE', history_key, '+', '-', 'COUNT', 1)[1]
    redis.call('HSET', usage_key, 'from', last and last[1] or '0-0')
  end
  open_days('')
  if redis.call('HEXISTS', usage_key, 'use:day') == 1 then open_days('use:') end
end

-- Takes a list of what was used on each day from `first` on; an earlier day may have nothing.
local function add_usage(first, days, prefix)
  local sums = {}
  for i, more in ipairs(days) do
    add_totals(sums, more)
    if first + i - 1 < today then add_to_field(prefix .. first + i - 1, sums) end
  end
  for day = first + #days, today - 1 do add_to_field(prefix .. day, sums) end
  add_to_field(prefix .. 'total', sums)
end

local function part_of(record)
  local share = record.share
  local amount, total = type(share) == 'table' and number(share.amount), type(share) == 'table' and number(share.total)
  return amount and total and total > 0 and math.max(math.min(amount / total, 1), 0) or 1
end

local function user_and_type(record)
  local user, kind = record.user, record.type
  return (type(user) == 'string' and user or 'unknown') .. '\t' .. (type(kind) == 'string' and kind or 'unknown')
end

-- Counts the time for which an owner held a GPU, and the reservation if this was its last GPU.
local function count_usage(record, at, is_last)
  local began, ended = number(record.granted_ms) or at, number(at)
  began = math.min(began, ended)
  local key, first, days, part = user_and_type(record), day_of(began), {}, part_of(record)
  local idle = math.min(math.max(number(record.idle_ms) or 0, 0), ended - began)
  for day = first, math.min(day_of(ended), today) do
    local start = day == first and began or day * DAY_MS
    local held = math.min(ended, (day + 1) * DAY_MS) - start
    local idle_part = ended > began and idle * held / (ended - began) or 0
    days[#days + 1] = { [key] = { math.floor(held * part), math.floor(idle_part * part), 0, 0, 0, 0 } }
  end
  if is_last then
    local led = record.follows ~= true and 1 or 0
    local opening, closing = days[1][key], days[#days][key]
    opening[3], opening[5], closing[4], closing[6] = 1, led, 1, led
  end
  add_usage(first, days, '')
end
