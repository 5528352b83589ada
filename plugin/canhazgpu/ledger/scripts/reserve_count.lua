-- Grant a number of GPUs of one node to an owner, all or none.
--
-- ARGV[2] claim (JSON object with "owner", "user")    ARGV[3] count
-- ARGV[4] observation, see store_scan; its "seen" is in order of preference among equals
-- ARGV[5] "1" where the owner waits its turn    ARGV[6] "1" where its user's last GPUs come first
--
-- Returns {"granted" | "repeated", 1 if the node ever published a scan before else 0, UUID...}
--      or {"queued", position}
--      or {"short", available, reserved, unreserved, quarantined, stale, unknown}
-- Invariants: a GPU has at most one reservation; an owner that holds GPUs gets no others; a GPU
-- that was released after the scan began is not granted on that scan ("stale"); who waits its turn
-- is granted nothing while another one is before it in the queue.
local claim, count, seen = cjson.decode(ARGV[2]), tonumber(ARGV[3]), cjson.decode(ARGV[4])
local held = reservations()
local began, known = store_scan(seen, held)
-- Not only the scan's GPUs: one that the owner holds may since have fallen off the bus.
local mine = {}
for gpu, one in pairs(held) do
  if owner_of(one.record) == claim.owner then mine[#mine + 1] = gpu end
end
if #mine > 0 then return { 'repeated', known, unpack(mine) } end
if ARGV[5] == '1' then
  local place = position(queue(), claim.owner)
  if place > 1 then return { 'queued', place } end
end

local fit, released, place, last = {}, {}, {}, {}
local tally = { reserved = 0, unreserved = 0, unknown = 0, quarantined = 0, stale = 0 }
for i, gpu in ipairs(seen.seen) do
  place[gpu] = i
  released[gpu] = tonumber(redis.call('HGET', RELEASED, gpu) or 0) or 0
  last[gpu] = ARGV[6] == '1' and redis.call('HGET', USERS, gpu) == claim.user
  local why = held[gpu] and 'reserved'
    or redis.call('HEXISTS', QUARANTINE, gpu) == 1 and 'quarantined'
    or seen.unfit[gpu] or released[gpu] > began and 'stale'
  if why then tally[why] = tally[why] + 1 else fit[#fit + 1] = gpu end
end
if count < 1 or #fit < count then
  return { 'short', #fit, tally.reserved, tally.unreserved, tally.quarantined, tally.stale, tally.unknown }
end
table.sort(fit, function(a, b)
  if last[a] ~= last[b] then return last[a] end
  if released[a] ~= released[b] then return (released[a] < released[b]) ~= last[a] end
  return place[a] < place[b]
end)
local chosen = { unpack(fit, 1, count) }
grant(claim, chosen)
return { 'granted', known, unpack(chosen) }
