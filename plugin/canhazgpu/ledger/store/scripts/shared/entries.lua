-- Apply the entries of a node's journal, each entry once, in their order; and keep the answers to grants that
-- the node opened. See common.lua.
--
-- KEYS[8] recorded  string  "TOKEN NUMBER": the node's journal, and its last entry that was applied
-- KEYS[9] answers   hash    number of a grant -> "granted" or "over"; "journal" -> the token; "floor" -> the
--                           number up to which the node has settled every grant
--
-- An entry has number, kind, at_ms, owner, gpus (list), claim (object), reason, by. A note has facts (JSON text or ""),
-- places (list: the index of each of its GPUs, "" where it is not known) and took_ms (number or ""); and where the driver
-- tells what its owner made of the GPUs, `used`: ms for which they were held, list of six amounts (../../../gpu_use.py). A grant has
-- `mode`: "stands" takes a GPU from any other owner; "yields" does not; "passes" does not either, as a later entry
-- releases it. So has an extension, whose claim has the end. A release has `passed`: GPU UUID -> claim, from the grant
-- that it releases, and `unused`. A release may name the number of the `grant` that it ends: then a later grant of the
-- same owner stays.
--
-- Invariants: after a grant that "stands" its owner holds exactly its GPUs. Other grants take no GPU from
-- another owner. Shares of one kind take no GPU from each other. No recorded time is later than now. A grant that
-- was released or refused by its number is never made by a script that comes later.
local recorded_key, answers_key = KEYS[8], KEYS[9]
local overruled, apply = {}, {}

-- Forgets the answers of another journal: its numbers mean nothing here.
local function open_answers(token)
  -- The node was forgotten, and is here again.
  redis.call('PERSIST', answers_key)
  if redis.call('HGET', answers_key, 'journal') ~= token then
    redis.call('DEL', answers_key)
    redis.call('HSET', answers_key, 'journal', token)
  end
end

local function settled_through()
  return number(redis.call('HGET', answers_key, 'floor')) or 0
end

local function answer_of(grant_number)
  if grant_number <= settled_through() then return 'over' end
  return redis.call('HGET', answers_key, grant_number)
end

local function end_grant(grant_number)
  if grant_number > settled_through() then redis.call('HSET', answers_key, grant_number, 'over') end
end

-- The node asks no more about these numbers, and scripts with them are late.
local function settle(through)
  if through <= settled_through() then return end
  redis.call('HSET', answers_key, 'floor', through)
  for _, field in ipairs(redis.call('HKEYS', answers_key)) do
    local known = tonumber(field)
    if known and known <= through then redis.call('HDEL', answers_key, field) end
  end
end

local function names(gpus)
  local named = {}
  for _, gpu in ipairs(gpus) do named[gpu] = true end
  return named
end

local function overrule(gpu, entry)
  local kept_by = entry.owner:match('^job:') and 'a job that runs on the node has it'
    or 'the node has granted it to a person'
  for _, one in ipairs(reservations[gpu]) do
    overruled[#overruled + 1] = { gpu, text_of(gpu, one), entry.owner, entry.claim.user }
    release(gpu, one.owner, now, kept_by, '')
  end
end

local function give(gpu, entry)
  local holders = { unpack(reservations[gpu] or {}) }
  holders[#holders + 1] = entry.claim
  write(gpu, holders)
  tell('grant', { gpu = gpu, reason = entry.reason, claim = entry.claim, at = entry.at_ms })
end

function apply.grant(entry)
  local named = names(entry.gpus)
  for _, gpu in ipairs(held_by(entry.owner)) do
    if not named[gpu] then release(gpu, entry.owner, entry.at_ms, 'the node gave it other GPUs', '', true) end
  end
  for _, gpu in ipairs(entry.gpus) do
    local held = holder_of(gpu, entry.owner)
    local other = reservations[gpu] and not held and not may_share(gpu, entry.claim)
    if other and entry.mode == 'stands' then overrule(gpu, entry) end
    if not reservations[gpu] or not held and not other then
      give(gpu, entry)
    elseif other and entry.mode == 'passes' then
      tell('grant', { gpu = gpu, reason = entry.reason, claim = entry.claim, at = entry.at_ms })
    end
  end
end

-- A GPU that the store released at its former end is given back.
function apply.extend(entry)
  for _, gpu in ipairs(entry.gpus) do
    local held = holder_of(gpu, entry.owner)
    local over = held and number(held.expires_ms)
    if over and over < entry.claim.expires_ms then
      held.expires_ms = entry.claim.expires_ms
      write(gpu, reservations[gpu])
      tell('extend', { gpu = gpu, claim = held, at = entry.at_ms })
    elseif not held then
      if reservations[gpu] and entry.mode == 'stands' then overrule(gpu, entry) end
      if not reservations[gpu] and entry.mode ~= 'passes' then give(gpu, entry) end
    end
  end
end

function apply.release(entry)
  local named, all = names(entry.gpus), #entry.gpus == 0
  local counted = #held_by(entry.owner) > 0
  for gpu, claim in pairs(entry.passed) do
    if not holder_of(gpu, entry.owner) then
      if not entry.unused then count_usage(claim, entry.at_ms, not counted) end
      counted = true
      tell('release', { gpu = gpu, reason = entry.reason, by = entry.by, claim = claim, at = entry.at_ms })
    end
  end
  for _, gpu in ipairs(held_by(entry.owner)) do
    local of = number(holder_of(gpu, entry.owner).grant_number)
    local meant = not entry.grant or not of or of == entry.grant
    if meant and (all or named[gpu]) then
      release(gpu, entry.owner, entry.at_ms, entry.reason, entry.by, entry.unused)
    end
  end
  if entry.grant and all then end_grant(entry.grant) end
end

function apply.quarantine(entry)
  if redis.call('HEXISTS', quarantine_key, entry.gpus[1]) == 0 then
    quarantine(entry.gpus[1], entry.reason, entry.by)
  end
end

function apply.unquarantine(entry)
  if redis.call('HEXISTS', quarantine_key, entry.gpus[1]) == 1 then unquarantine(entry.gpus[1], entry.by) end
end

-- Counts what the owner made of its GPUs, on each day of the time for which it held them.
local function count_use(claim, at, used)
  local held, began = used[1], at - used[1]
  local key, first, days = user_and_type(claim), day_of(began), {}
  for day = first, math.min(day_of(at), today) do
    local start, sums = day == first and began or day * DAY_MS, {}
    local part = held > 0 and (math.min(at, (day + 1) * DAY_MS) - start) / held or 1
    for i, amount in ipairs(used[2]) do sums[i] = math.floor(amount * part) end
    days[#days + 1] = { [key] = sums }
  end
  days[#days][key][4] = 1
  -- Before this note is in the history: what was told up to now is counted by the health check.
  open_today()
  open_days('use:')
  add_usage(first, days, 'use:')
end

local function note(entry)
  if entry.used then count_use(entry.claim, entry.at_ms, entry.used) end
  tell(entry.kind, {
    reason = entry.reason, claim = entry.claim, at = entry.at_ms,
    gpus = entry.gpus, places = entry.places, took_ms = entry.took_ms, facts = entry.facts,
  }, true)
end

-- Needs the reservations, but for notes. Returns for each GPU that was taken from another owner: UUID, that reservation, the new
-- owner and user. Entries without a journal ("") are always applied.
local function apply_entries(journal, entries)
  local token, last = (redis.call('GET', recorded_key) or ''):match('^(%S+) (%d+)$')
  last = token == journal and tonumber(last) or 0
  for _, entry in ipairs(entries) do
    if journal == '' or entry.number > last then
      entry.at_ms = math.min(entry.at_ms, now)
      local change = apply[entry.kind] or note
      change(entry)
      last = math.max(last, entry.number)
    end
  end
  if journal ~= '' then redis.call('SET', recorded_key, journal .. ' ' .. last) end
  return overruled
end
