-- Record a heartbeat of an owner.
--
-- ARGV[2] owner    ARGV[3] JSON list of its processes, each with "pid" and "started"; [] to keep them
--
-- Returns the UUIDs that the owner holds on the node.
local processes = cjson.decode(ARGV[3])
load_reservations()
local held = held_by(ARGV[2])
head_is_old = #processes > 0 and #held > 0
for _, gpu in ipairs(held) do
  local record = holder_of(gpu, ARGV[2])
  record.renewed_ms = now
  if #processes > 0 then record.processes = processes end
  if record.granted_ms then write(gpu, reservations[gpu]) end
end
return held
