-- Release what one owner holds on one node.
--
-- ARGV[2] owner; "unreadable" for records that cannot be read
-- ARGV[3] JSON object: GPU UUID -> true, only these; {} for all
-- ARGV[4] reason, and ARGV[5] who did it where that was not the owner, for the history
--
-- Returns the released UUIDs; none when the owner holds nothing here.
-- Invariant: another owner's reservation, also another attempt of the same job, is never touched.
local only = cjson.decode(ARGV[3])
local all = next(only) == nil
local released = {}
for gpu, one in pairs(reservations()) do
  if owner_of(one.record) == ARGV[2] and (all or only[gpu]) then
    released[#released + 1] = gpu
    let_go(gpu, one.text, now, ARGV[4], ARGV[5])
  end
end
return released
