-- Grant exactly the named GPUs of one node to an owner, all or none.
-- Needs grants.
--
-- ARGV[2] age of the scan, ms    ARGV[3] scan (JSON)    ARGV[4] its judgement (JSON)
-- ARGV[5] claim (JSON object with "owner")    ARGV[6] options, JSON object: "queues", "affinity"
-- ARGV[7] JSON list of the wanted GPU UUIDs
--
-- Returns {1 if a scan was stored before, else 0, then
--          "granted" | "repeated", UUID..., in the requested order
--       or "queued", position
--       or "blocked", UUID, "reserved" | "quarantined" | "unreserved" | "unknown" | "stale",
--          reservation or ""}
-- Invariants: a GPU has one owner, or several with shares of one kind. A GPU that the owner holds already counts as granted,
-- even if it is in use. A GPU that was released after the scan began is not granted on that scan
-- ("stale"). An owner that queues gets nothing while somebody is before it.
local claim, terms, wanted = cjson.decode(ARGV[5]), cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
load_reservations()
local seen = observe(ARGV[2], ARGV[3], ARGV[4])
local missing = {}
for _, gpu in ipairs(wanted) do
  if not holder_of(gpu, claim.owner) then missing[#missing + 1] = gpu end
end
if #missing == 0 then
  served(claim.owner)
  return { seen.known, 'repeated', unpack(wanted) }
end
if terms.queues then
  local position = position_of(claim.owner, load_queue())
  if position > 1 then return { seen.known, 'queued', position } end
end
for _, gpu in ipairs(missing) do
  local why = obstacle(gpu, seen, claim)
  if why then return { seen.known, 'blocked', gpu, why, reservations[gpu] and texts[gpu] or '' } end
end
grant(claim, missing)
served(claim.owner)
return { seen.known, 'granted', unpack(wanted) }
