-- Keep a node's history within its size. See common.lua.
--
-- KEYS[13] history_meta  hash  written -> bytes since the last mark; marks -> ids of entries, "ID ID ...", the earliest
--                              first. A portion of the history is what lies between two marks
--
-- The history has a fixed number of portions of equal size. When one more is full, the oldest is removed; but if another
-- was written many times as fast, then that one: who fills the history in an hour removes this hour, and not the
-- weeks of everybody else. The latest portions stay. What the last release wrote is in the first portion, and
-- does not count.
local PORTIONS, LATEST, FAST = 64, 3, 8
local portion_bytes = math.max(tonumber(ARGV[1]:match('%d+$')) / PORTIONS, 1)

local function ms_of(id) return tonumber(id:match('^%d+')) end

local function remove_between(before, last)
  local doomed = {}
  for i, entry in ipairs(redis.call('XRANGE', history_key, '(' .. before, last)) do
    doomed[#doomed + 1] = entry[1]
    if #doomed == 500 then
      redis.call('XDEL', history_key, unpack(doomed))
      doomed = {}
    end
  end
  if #doomed > 0 then redis.call('XDEL', history_key, unpack(doomed)) end
end

local function remove_portion(marks)
  local first = redis.call('XRANGE', history_key, '-', '+', 'COUNT', 1)[1]
  local began = first and ms_of(first[1]) or 0
  local chosen, shortest = 1, (ms_of(marks[1]) - began) / FAST
  for i = 2, #marks - LATEST do
    local lasted = ms_of(marks[i]) - ms_of(marks[i - 1])
    if lasted < shortest then chosen, shortest = i, lasted end
  end
  if chosen == 1 then
    local ms, place = marks[1]:match('(%d+)%-(%d+)')
    redis.call('XTRIM', history_key, 'MINID', ms .. '-' .. place + 1)
  else
    remove_between(marks[chosen - 1], marks[chosen])
  end
  table.remove(marks, chosen)
end

-- Counts an entry, the last one of the history; this costs the same however long the history is.
local function keep_within_size(id, bytes)
  local written = redis.pcall('HINCRBY', meta_key, 'written', bytes)
  if type(written) == 'number' and written < portion_bytes then return end
  local marks = {}
  for mark in (redis.call('HGET', meta_key, 'marks') or ''):gmatch('%d+%-%d+') do marks[#marks + 1] = mark end
  marks[#marks + 1] = id
  while #marks >= PORTIONS do remove_portion(marks) end
  local rest = type(written) == 'number' and written - portion_bytes or 0
  redis.call('HSET', meta_key, 'written', math.floor(rest), 'marks', table.concat(marks, ' '))
end
