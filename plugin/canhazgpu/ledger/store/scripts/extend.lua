-- Move the end of an owner's timed reservations.
--
-- ARGV[2] owner    ARGV[3] JSON object: GPU UUID -> true, only these; {} for all
-- ARGV[4] by how much, ms
--
-- Returns a list of UUID, reservation (JSON), UUID, reservation...; without those that have no end.
local only, extended = cjson.decode(ARGV[3]), {}
local all = next(only) == nil
load_reservations()
for _, gpu in ipairs(held_by(ARGV[2])) do
  local record = holder_of(gpu, ARGV[2])
  local over = number(record.expires_ms)
  if over and (all or only[gpu]) then
    record.expires_ms = over + tonumber(ARGV[4])
    if write(gpu, reservations[gpu]) then
      tell('extend', 'gpu', gpu, 'claim', text_of(gpu, record))
      extended[#extended + 1] = gpu
      extended[#extended + 1] = text_of(gpu, record)
    end
  end
end
return extended
