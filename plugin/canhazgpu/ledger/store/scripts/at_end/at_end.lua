-- What each script does last, whatever it has changed. See common.lua.

-- Publishes the present holdings in the field `held` of usage: a JSON list, for each owner and time of grant: "USER\tTYPE",
-- ms of the grant, GPUs (parts of shared ones), idle ms of all of them, reservations, those without what another
-- node counts, ms of the end or 0. An owner is counted once.
local function publish_holdings()
  local listed, found, counted = {}, {}, {}
  for _, holders in pairs(reservations) do
    for _, one in ipairs(holders) do
      local name = one.owner .. ' ' .. (number(one.granted_ms) or 0)
      local sums = found[name]
      if not sums then
        local first = counted[one.owner] and 0 or 1
        sums = {
          user_and_type(one), number(one.granted_ms) or 0, 0, 0, first, one.follows ~= true and first or 0,
          number(one.expires_ms) or 0,
        }
        found[name], counted[one.owner], listed[#listed + 1] = sums, true, sums
      end
      local part = part_of(one)
      sums[3], sums[4] = sums[3] + part, sums[4] + math.floor((number(one.idle_ms) or 0) * part)
    end
  end
  redis.call('HSET', usage_key, 'held', #listed > 0 and cjson.encode(listed) or '[]')
end

-- Returns the id of the history's last entry by the head, in which it stands first; nil if it has a later one. To read
-- an entry takes three times as long.
local function last_entry_by_head()
  local start = redis.pcall('GETRANGE', KEYS[11], 0, 200)
  local last = type(start) == 'string' and start:match('^{"form":2,"texts":{[^{}]*"last":"(%d+%-%d+)"')
  return last and not redis.pcall('XREAD', 'COUNT', 1, 'STREAMS', history_key, last) and last
end

local function at_end()
  -- A head names the history's last entry. The name of the one before is needed where only that is to be replaced.
  if head_lacks_entries and not head_is_old or head_is_old and #told == 0 then last_before = last_entry_by_head() end
  if #told > 0 then write_history() end
  store_usage()
  if changed then publish_holdings() end
  if head_is_old or head_lacks_entries then write_head() end
end

-- Runs a script's own text and returns its answer. What it did before it failed is told, too.
local function answer_of_script(operation)
  local done, answer = pcall(operation)
  at_end()
  if not done then error(answer, 0) end
  return answer
end
