-- Let what an owner holds for a time last longer, counted from its present end.
--
-- ARGV[2] owner    ARGV[3] ms to add    ARGV[4] JSON object: GPU UUID -> true, only these; {} for all
--
-- Returns UUID, reservation, UUID, ...; none where the owner holds nothing that expires.
local only = cjson.decode(ARGV[4])
local all = next(only) == nil
local extended = {}
for gpu, one in pairs(reservations()) do
  local ends = one.record and tonumber(one.record.expires_ms)
  if ends and owner_of(one.record) == ARGV[2] and (all or only[gpu]) then
    one.record.expires_ms = ends + tonumber(ARGV[3])
    local text = cjson.encode(one.record)
    redis.call('HSET', RESERVATIONS, gpu, text)
    note('event', 'extend', 'gpu', gpu, 'claim', text)
    extended[#extended + 1] = gpu
    extended[#extended + 1] = text
  end
end
return extended
