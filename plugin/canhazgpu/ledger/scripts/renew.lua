-- Record a sign of life of an owner, and which processes keep it from now on.
--
-- ARGV[2] owner    ARGV[3] JSON list of processes, "" to leave those there are
--
-- Returns the UUIDs it holds; none says that it has lost them.
local held = {}
for gpu, one in pairs(reservations()) do
  if owner_of(one.record) == ARGV[2] and one.record then
    held[#held + 1] = gpu
    one.record.renewed_ms = now
    if ARGV[3] ~= '' then one.record.processes = cjson.decode(ARGV[3]) end
    redis.call('HSET', RESERVATIONS, gpu, cjson.encode(one.record))
  end
end
return held
