-- Short names for GPUs, users and jobs in a node's history. See common.lua.
--
-- KEYS[13] history_meta  hash  "gpu:UUID" -> "NUMBER DAY INDEX": its number, the day (UTC) of its last event, and its
--                              index as a scan showed it first; "user:UID NAME" -> "NUMBER DAY "; cluster -> that of the
--                              first job; next -> the last number; after -> the id of the history's last entry before
--                              all this: the names in it are those of a table that was lost; looked -> the day of the last
--                              look for names to forget; and see history_size.lua
--
-- Invariants: a number means one GPU or user as long as the history has it. For one without a number, the history has the
-- UUID, or "UID NAME".
local meta_key = KEYS[13]
local MAX_NAMES, MANY_NAMES = 512, 64
local usual_cluster

local function last_entry()
  local entries = redis.call('XREVRANGE', history_key, '+', '-', 'COUNT', 1)
  return entries[1] and entries[1][1] or '0-0'
end

local function next_number()
  local n = redis.pcall('HINCRBY', meta_key, 'next', 1)
  if type(n) ~= 'number' then
    -- Another program wrote there: the numbers begin anew.
    redis.call('DEL', meta_key)
    n = redis.call('HINCRBY', meta_key, 'next', 1)
  end
  if n == 1 then redis.call('HSET', meta_key, 'after', last_entry()) end
  return n
end

-- Forgets names that are only in entries which the history has lost by their age: once a day, as it reads them all.
local function has_room()
  local count = redis.call('HLEN', meta_key)
  if count < MANY_NAMES then return true end
  if redis.call('HGET', meta_key, 'looked') == tostring(today) then return count < MAX_NAMES end
  redis.call('HSET', meta_key, 'looked', today)
  local first_day = math.floor(oldest / DAY_MS) - 1
  for field, text in pairs(read_hash(meta_key)) do
    local day = field:match('^%l+:') and number(text:match('^%d+ (%d+) ') or 0)
    if day and day < first_day then
      redis.call('HDEL', meta_key, field)
      count = count - 1
    end
  end
  return count < MAX_NAMES
end

-- Returns the number, and the index in the table; nil if there are too many names.
local function number_of(field, index)
  local text = redis.call('HGET', meta_key, field) or ''
  local n, known = text:match('^(%d+) %d+ (.*)$')
  if not n then
    if not has_room() then return nil end
    n, known = next_number(), ''
  end
  if known == '' then known = index end
  local record = n .. ' ' .. today .. ' ' .. known
  if record ~= text then redis.call('HSET', meta_key, field, record) end
  return n, known
end

-- Returns "NUMBER", or "NUMBER@INDEX" where the GPU's index is not the one in the table.
local function short_gpu(gpu, index)
  local n, known = number_of('gpu:' .. gpu, index)
  return n and (index == '' or index == known) and n or (n or gpu) .. '@' .. index
end

local function short_user(claim)
  if not claim.user then return '' end
  local whole = (number(claim.uid) or '') .. ' ' .. claim.user
  return number_of('user:' .. whole, '') or whole
end

-- Returns "ID" or "ID:ATTEMPT" for a job of the usual cluster; what else begins as such a text gets a "=".
local function short_owner(owner)
  local cluster, id, attempt = owner:match('^job:(.*):([1-9]%d*):(%d+)$')
  if cluster and (attempt == '0' or attempt:match('^[1-9]')) then
    usual_cluster = usual_cluster or redis.call('HGET', meta_key, 'cluster')
    if not usual_cluster then
      redis.call('HSET', meta_key, 'cluster', cluster)
      usual_cluster = cluster
    end
    if cluster == usual_cluster then return attempt == '0' and id or id .. ':' .. attempt end
  end
  return owner:match('^[%d=]') and '=' .. owner or owner
end
