-- Grant exactly the named GPUs of one node to an owner, all or none.
--
-- ARGV[2] claim (JSON object with "owner")     ARGV[3] JSON list of the wanted GPU UUIDs
-- ARGV[4] observation, see store_scan    ARGV[5] "1" where the owner waits its turn
--
-- Returns {"granted" | "repeated", 1 if the node ever published a scan before else 0, UUID...},
--         in the order asked for
--      or {"queued", position}
--      or {"blocked", UUID, "reserved" | "quarantined" | "unreserved" | "unknown" | "stale",
--          reservation or ""}
-- Invariants: a GPU has at most one reservation; a GPU the owner holds already counts as granted,
-- whatever runs on it; a GPU released after the scan began is not granted on that scan ("stale");
-- who waits its turn is granted nothing while another one is before it in the queue.
local claim, wanted, seen = cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local held = reservations()
local began, known = store_scan(seen, held)

local missing, blocked = {}, nil
for _, gpu in ipairs(wanted) do
  local one, why = held[gpu], nil
  local is_mine = one and owner_of(one.record) == claim.owner
  if one then
    why = not is_mine and 'reserved'
  elseif redis.call('HEXISTS', QUARANTINE, gpu) == 1 then
    why = 'quarantined'
  else
    why = seen.unfit[gpu]
      or (tonumber(redis.call('HGET', RELEASED, gpu) or 0) or 0) > began and 'stale'
  end
  blocked = blocked or why and { 'blocked', gpu, why, one and one.text or '' }
  if not is_mine then missing[#missing + 1] = gpu end
end
if #missing == 0 then return { 'repeated', known, unpack(wanted) } end
if ARGV[5] == '1' then
  local place = position(queue(), claim.owner)
  if place > 1 then return { 'queued', place } end
end
if blocked then return blocked end
grant(claim, missing)
return { 'granted', known, unpack(wanted) }
