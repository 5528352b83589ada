-- Release the GPUs of one owner on one node.
--
-- ARGV[2] owner; "unreadable" for records that cannot be read
-- ARGV[3] JSON object: GPU UUID -> true, only these; {} for all
-- ARGV[4] reason    ARGV[5] who did it, "" for the owner    ARGV[6] "1" if the owner never used the GPUs
--
-- Returns the released UUIDs; an empty list if the owner holds nothing on the node.
-- Invariant: no other owner's reservation changes; another attempt of the same job is another owner.
local only, released = cjson.decode(ARGV[3]), {}
local all = next(only) == nil
load_reservations()
for _, gpu in ipairs(held_by(ARGV[2])) do
  if all or only[gpu] then
    release(gpu, ARGV[2], now, ARGV[4], ARGV[5], ARGV[6] == '1')
    released[#released + 1] = gpu
  end
end
return released
