-- Store a node's scan, with what it says of health and of idle reservations, and give signs of life.
--
-- ARGV[2] age of the scan, ms    ARGV[3] scan (JSON)    ARGV[4] what policy makes of it (JSON)
-- ARGV[5] JSON object: owner -> true, who lives
--
-- Returns 1 where a scan was stored before, else 0.
-- Invariant: a scan that began before the stored one changes nothing; a sign of life counts all the same.
local alive = cjson.decode(ARGV[5])
load_reservations()
local seen = observe(ARGV[2], ARGV[3], ARGV[4])
for gpu, record in pairs(reservations) do
  if alive[record.owner] then
    record.renewed_ms = now
    if record.granted_ms then write(gpu, record) end
  end
end
return seen.known
