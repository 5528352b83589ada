-- Forget what was counted, so that the node's whole history is counted by index_history.lua, as an earlier release's is.
-- See usage.lua.
--
-- Returns 1. Invariant: what is released from now on is counted when it is released, what was before by the history.
redis.call('DEL', KEYS[10], KEYS[12])
load_reservations()
-- The present holdings are published again.
changed = true
return 1
