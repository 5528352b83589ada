-- Apply the entries of a node's journal, each entry once, in their order.
-- Needs entries.
--
-- ARGV[2] token of the journal; "" for entries of no journal, which are always applied
-- ARGV[3] JSON list of entries, see entries.lua
--
-- Returns for each GPU that was taken from another owner: UUID, that reservation, the new owner and user.
load_reservations()
if ARGV[2] ~= '' then open_answers(ARGV[2]) end
return apply_entries(ARGV[2], cjson.decode(ARGV[3]))
