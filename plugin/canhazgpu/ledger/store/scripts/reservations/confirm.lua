-- Confirm a grant that the node's book has opened, after all entries of the journal that the store lacks.
-- Needs entries and grants.
--
-- ARGV[2] token of the journal    ARGV[3] JSON list of entries, see entries.lua
-- ARGV[4] number up to which the node has settled every grant
-- ARGV[5] age of the scan, ms    ARGV[6] scan (JSON)    ARGV[7] its judgement (JSON)
-- ARGV[8] claim (JSON object with "owner" and "grant_number")    ARGV[9] JSON list of the GPU UUIDs
--
-- Returns {1 if a scan was stored before, else 0, what `record.lua` returns, then
--          "granted"
--       or "blocked", UUID, "reserved" | "quarantined" | "unreserved" | "unknown" | "stale",
--          reservation or ""
--       or "over", the number up to which every grant is settled}
-- Invariants: those of reserve_given.lua. A number has one answer, however often and late its script comes; after a
-- refusal, or after a release that names it, it is never granted.
local claim, wanted = cjson.decode(ARGV[8]), cjson.decode(ARGV[9])
load_reservations()
open_answers(ARGV[2])
apply_entries(ARGV[2], cjson.decode(ARGV[3]))
settle(tonumber(ARGV[4]))
local seen = observe(ARGV[5], ARGV[6], ARGV[7])

local function refuse(...)
  end_grant(claim.grant_number)
  return { seen.known, overruled, ... }
end

local before = answer_of(claim.grant_number)
if before == 'over' then return refuse('over', settled_through()) end
if before == 'granted' then return { seen.known, overruled, 'granted' } end
local missing = {}
for _, gpu in ipairs(wanted) do
  local own = holder_of(gpu, claim.owner)
  if own then
    own.grant_number = claim.grant_number
  else
    local why = obstacle(gpu, seen, claim)
    if why then return refuse('blocked', gpu, why, reservations[gpu] and texts[gpu] or '') end
    missing[#missing + 1] = gpu
  end
end
for _, gpu in ipairs(wanted) do
  if reservations[gpu] then write(gpu, reservations[gpu]) end
end
grant(claim, missing)
served(claim.owner)
redis.call('HSET', answers_key, claim.grant_number, 'granted')
return { seen.known, overruled, 'granted' }
