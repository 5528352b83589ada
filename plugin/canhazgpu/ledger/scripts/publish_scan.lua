-- Store a node's scan, with what it says of health and of idle reservations.
--
-- ARGV[2] age of the scan, ms    ARGV[3] scan (JSON)    ARGV[4] what policy makes of it (JSON)
--
-- Returns 1 where a scan was stored before, else 0.
-- Invariant: a scan that began before the stored one changes nothing.
load_reservations()
return observe(ARGV[2], ARGV[3], ARGV[4]).known
