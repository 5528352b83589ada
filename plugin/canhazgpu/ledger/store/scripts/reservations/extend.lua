-- Move the end of an owner's timed reservations.
--
-- ARGV[2] owner    ARGV[3] JSON object: GPU UUID -> true, only these; {} for all
-- ARGV[4] by how much, ms    ARGV[5] the latest end, ms from now; 0 for any
--
-- Returns a list of UUID, reservation (JSON), UUID, reservation...; without those that have no end.
-- Returns {"too long"}, and moves none, where one would end later than that.
local only, extended = cjson.decode(ARGV[3]), {}
local all, longest = next(only) == nil, tonumber(ARGV[5])
load_reservations()
local timed = {}
for _, gpu in ipairs(held_by(ARGV[2])) do
  local over = number(holder_of(gpu, ARGV[2]).expires_ms)
  if over and (all or only[gpu]) then
    timed[gpu] = over + tonumber(ARGV[4])
    if longest > 0 and timed[gpu] > now + longest then return { 'too long' } end
  end
end
for _, gpu in ipairs(held_by(ARGV[2])) do
  if timed[gpu] then
    local record = holder_of(gpu, ARGV[2])
    record.expires_ms = timed[gpu]
    if write(gpu, reservations[gpu]) then
      tell('extend', { gpu = gpu, claim = record })
      extended[#extended + 1] = gpu
      extended[#extended + 1] = text_of(gpu, record)
    end
  end
end
return extended
