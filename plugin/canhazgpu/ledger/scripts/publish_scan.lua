-- Store a node's scan, unless a newer one is there, with what it says of health and idle GPUs.
--
-- ARGV[2] observation, see store_scan
--
-- Returns 1 where the node ever published a scan before, else 0.
local _, known = store_scan(cjson.decode(ARGV[2]), reservations())
return known
