-- Grant a number of GPUs of one node to an owner, all or none.
-- Needs grants.
--
-- ARGV[2] age of the scan, ms    ARGV[3] scan (JSON)    ARGV[4] its judgement (JSON)
-- ARGV[5] claim (JSON object with "owner")    ARGV[6] options, JSON object: "queues", "affinity", and
-- optionally "candidates", a JSON object: GPU UUID -> true, the GPUs to choose among
-- ARGV[7] count
--
-- Returns {1 if a scan was stored before, else 0, then
--          "granted" | "repeated", UUID...
--       or "queued", position
--       or "short", available, reserved, unreserved, quarantined, stale, unknown}
-- Invariants: a GPU has one owner, or several with shares of one kind. An owner that holds GPUs gets no others. A GPU that
-- was released after the scan began is not granted on that scan ("stale"). An owner that queues gets
-- nothing while somebody is before it.
-- Order: least recently released first. With affinity the GPUs that the user released last come before
-- them, most recently released first.
local claim, terms, count = cjson.decode(ARGV[5]), cjson.decode(ARGV[6]), tonumber(ARGV[7])
load_reservations()
local seen = observe(ARGV[2], ARGV[3], ARGV[4])
-- All GPUs of the owner, not only those of the scan: the scan may lack one that failed.
local held = held_by(claim.owner)
if #held > 0 then
  served(claim.owner)
  return { seen.known, 'repeated', unpack(held) }
end
if terms.queues then
  local position = position_of(claim.owner, load_queue())
  if position > 1 then return { seen.known, 'queued', position } end
end

local free, released, mine = {}, {}, {}
local tally = { reserved = 0, unreserved = 0, unknown = 0, quarantined = 0, stale = 0 }
local users = terms.affinity and read_hash(released_by_key) or {}
for _, gpu in ipairs(seen.gpus) do
  if not terms.candidates or terms.candidates[gpu] then
    local why = obstacle(gpu, seen, claim)
    if why then tally[why] = tally[why] + 1 else free[#free + 1] = gpu end
  end
  released[gpu], mine[gpu] = number(seen.released[gpu]) or 0, users[gpu] == claim.user
end
if count < 1 or #free < count then
  return {
    seen.known, 'short', #free,
    tally.reserved, tally.unreserved, tally.quarantined, tally.stale, tally.unknown,
  }
end
table.sort(free, function(a, b)
  if mine[a] ~= mine[b] then return mine[a] end
  if released[a] == released[b] then return seen.place[a] < seen.place[b] end
  if mine[a] then return released[a] > released[b] end
  return released[a] < released[b]
end)
local chosen = { unpack(free, 1, count) }
grant(claim, chosen)
served(claim.owner)
return { seen.known, 'granted', unpack(chosen) }
