-- Take over what a node did or found on its own, each entry once, in their order.
--
-- KEYS[1] reservations  hash    KEYS[2] released  hash    KEYS[3] quarantine  hash
-- KEYS[4] history       stream  KEYS[5] recorded  string  "TOKEN NUMBER", the last entry taken over
-- ARGV[1] token of the node's journal, "" for entries of none, which count whatever their number
-- ARGV[2] JSON list of entries: number, kind, at_ms, owner, gpus (list), claim (JSON text), reason,
--         by, facts (JSON text); of a grant `mode`: "stands" against any other owner, "passes", since a
--         later entry releases it, or "yields"; of a release `passed`, GPU UUID -> claim, what a
--         passing grant named    ARGV[3] history kept, ms
--
-- Returns for each GPU that another owner had: UUID, that reservation, the claim that has it now.
-- Invariants: the owner that a standing grant names holds exactly its GPUs then, whoever had them;
-- the others take nothing from another owner; no time is later than now.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = math.max(now - tonumber(ARGV[3]), 0)
local token, last = (redis.call('GET', KEYS[5]) or ''):match('^(%S+) (%d+)$')
last = token == ARGV[1] and tonumber(last) or 0
local overruled, apply = {}, {}

local function tell(kind, entry, gpu, claim, reason)
  redis.call('XADD', KEYS[4], 'MINID', '~', oldest, '*', 'event', kind, 'at', entry.at_ms, 'gpu', gpu,
    'reason', reason or entry.reason, 'by', entry.by, 'claim', claim, 'facts', entry.facts)
end
local function owner_of(text)
  local readable, record = pcall(cjson.decode, text or '')
  return readable and type(record) == 'table' and record.owner or nil
end
local function take(entry, gpu, claim, reason)
  redis.call('HDEL', KEYS[1], gpu)
  redis.call('HSET', KEYS[2], gpu, math.max(tonumber(redis.call('HGET', KEYS[2], gpu) or 0) or 0, entry.at_ms))
  tell('release', entry, gpu, claim, reason)
end
local function take_all(entry, chosen, reason)
  local held = redis.call('HGETALL', KEYS[1])
  for i = 1, #held, 2 do
    if owner_of(held[i + 1]) == entry.owner and chosen(held[i]) then take(entry, held[i], held[i + 1], reason) end
  end
end
local function names(entry)
  local named = {}
  for _, gpu in ipairs(entry.gpus) do named[gpu] = true end
  return named
end

function apply.grant(entry)
  local named = names(entry)
  take_all(entry, function(gpu) return not named[gpu] end, 'the node gave it other GPUs')
  for _, gpu in ipairs(entry.gpus) do
    local current = redis.call('HGET', KEYS[1], gpu)
    local taken = current and owner_of(current) ~= entry.owner
    if taken and entry.mode == 'stands' then
      overruled[#overruled + 1] = { gpu, current, entry.claim }
      take(entry, gpu, current, 'a job that runs on the node has it')
    end
    if not current or taken and entry.mode == 'stands' then redis.call('HSET', KEYS[1], gpu, entry.claim) end
    if not current or taken and entry.mode ~= 'yields' then tell('grant', entry, gpu, entry.claim) end
  end
end
function apply.release(entry)
  local named, all = names(entry), #entry.gpus == 0
  for gpu, claim in pairs(entry.passed) do
    if owner_of(redis.call('HGET', KEYS[1], gpu)) ~= entry.owner then tell('release', entry, gpu, claim) end
  end
  take_all(entry, function(gpu) return all or named[gpu] end)
end
function apply.quarantine(entry)
  local text = cjson.encode({ reason = entry.reason, since_ms = entry.at_ms, by = entry.by })
  if redis.call('HSETNX', KEYS[3], entry.gpus[1], text) == 1 then tell(entry.kind, entry, entry.gpus[1], '') end
end
function apply.unquarantine(entry)
  if redis.call('HDEL', KEYS[3], entry.gpus[1]) == 1 then tell(entry.kind, entry, entry.gpus[1], '') end
end

for _, entry in ipairs(cjson.decode(ARGV[2])) do
  if ARGV[1] == '' or entry.number > last then
    entry.at_ms = math.min(entry.at_ms, now)
    local change = apply[entry.kind] or function() tell(entry.kind, entry, '', entry.claim) end
    change(entry)
    last = math.max(last, entry.number)
  end
end
if ARGV[1] ~= '' then redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. last) end
return overruled
