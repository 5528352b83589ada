-- Count what the releases used that were told before this release of canhazgpu counted, and note how far the node's
-- history is in the indexes. See usage.lua.
--
-- ARGV[2] id of the last entry that was in the indexes before, "" for none    ARGV[3] id of the last one now
-- ARGV[4] the first day, ARGV[5] JSON list: what was used on each day from it on, of entries up to `from`
-- ARGV[6] seconds for which the indexes count as complete; 0: they are not
-- ARGV[7], ARGV[8] as the 4th and 5th, of what the driver told of the use
-- ARGV[9] id of the last entry whose runs and reservations by hand are in the indexes, too; the same as the 3rd: all are
--
-- Returns 1, or 0 if another process was faster: nothing was changed.
-- Invariant: each entry is counted once.
load_reservations()
if (redis.call('HGET', usage_key, 'through') or '') ~= ARGV[2] then return 0 end

local function take_over(first, days, prefix)
  -- What was used before the oldest day that is kept is put into it.
  local kept = {}
  for i, more in ipairs(days) do
    local place = math.max(first + i - 1, oldest_day) - math.max(first, oldest_day) + 1
    kept[place] = add_totals(kept[place] or {}, more)
  end
  if #days == 0 then return end
  open_days(prefix)
  add_usage(math.max(first, oldest_day), kept, prefix)
end

take_over(tonumber(ARGV[4]), cjson.decode(ARGV[5]), '')
take_over(tonumber(ARGV[7]), cjson.decode(ARGV[8]), 'use:')
redis.call('HSET', usage_key, 'through', ARGV[3], 'owners', ARGV[9])
if tonumber(ARGV[6]) > 0 then redis.call('SET', KEYS[12], ARGV[9] == ARGV[3] and '2' or '1', 'EX', ARGV[6]) end
return 1
