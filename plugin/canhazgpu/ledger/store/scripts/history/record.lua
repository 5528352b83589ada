-- Apply the entries of a node's journal, each entry once, in their order.
-- Needs entries.
--
-- ARGV[2] token of the journal; "" for entries of no journal, which are always applied
-- ARGV[3] JSON list of entries, see entries.lua
--
-- Returns for each GPU that was taken from another owner: UUID, that reservation, the new owner and user.
local entries = cjson.decode(ARGV[3])
for _, entry in ipairs(entries) do
  -- A note needs nothing of them.
  if not is_loaded and apply[entry.kind] then load_reservations() end
end
if ARGV[2] ~= '' then open_answers(ARGV[2]) end
return apply_entries(ARGV[2], entries)
