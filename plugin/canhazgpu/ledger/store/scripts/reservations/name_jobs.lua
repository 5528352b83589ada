-- Add names and ends to the reservations of jobs that lack them.
--
-- ARGV[2] JSON object: owner -> {"job_name", and optionally "ends_at"}, an end in seconds since the epoch
--
-- Returns how many reservations were changed.
-- Invariant: a name or an end that is known stays.
local named, count = cjson.decode(ARGV[2]), 0
load_reservations()
for gpu, holders in pairs(reservations) do
  local lacking = false
  for _, one in ipairs(holders) do
    local known = named[one.owner]
    if known and one.granted_ms and not one.job_name then
      one.job_name, one.ends_at, lacking = known.job_name, one.ends_at or known.ends_at, true
    end
  end
  if lacking and write(gpu, holders) then count = count + 1 end
end
if count > 0 then head_is_old = true end
return count
