-- Remove everything recorded about a node, its history and its release times too.
-- Needs entries.
--
-- Returns {"reserved", UUID} while a GPU of it is reserved, else {"forgotten", number of things removed}.
-- Invariant: a script of the node that comes late makes no grant, and a journal that comes late is recorded once, as
-- long as a history would have been kept.
load_reservations()
local gpu = next(reservations)
if gpu then return { 'reserved', gpu } end
changed = false
local waiting = redis.call('HLEN', queue_key)
redis.call('DEL', unpack(KEYS, 10, 14))
local keys = {
  reservations_key, released_key, released_by_key, quarantine_key, scan_key, queue_key, history_key,
}
-- There is no history any more that could tell of it, and no totals.
told, unsaved = {}, {}
for _, key in ipairs({ recorded_key, answers_key }) do redis.call('PEXPIRE', key, now - oldest) end
return { 'forgotten', waiting + redis.call('DEL', unpack(keys)) }
