-- Write what a script has told into the node's history, when the script is done. See common.lua. This text, after
-- short_names.lua and history_size.lua, is the body of `write_history`: their functions are made where there is
-- something to write.
--
-- KEYS[7] history  stream  an entry for each change, with the number of its form as the name of its first field. Form 2
--   has these fields, in this order, so that the stream keeps their names once:
--     2 a letter for the event, see LETTERS    g its GPUs with commas between them    o owner    u user: for their names
--     see short_names.lua    a how long before the entry's id it was, ms    r reason
--     d ms since the grant, "" where there is none; of a note, how long the hook took
--     m JSON object with what is not as usual: by, idle (ms; a list if it differs by GPU), share (list of kind, amount, total), type, job, facts
--   The last release had an entry for each GPU: event, gpu, reason, by, claim (JSON), at (ms), facts (JSON). It reads
--   no others. So a node whose scan that release has published gets such entries.
--
-- Invariant: an entry tells all without those before it, but for the short names.
local LETTERS = {
  grant = 'g', release = 'r', extend = 'x', quarantine = 'q', unquarantine = 'u', wait = 'w', leave = 'l',
  prolog = 'p', epilog = 'e', health = 'h', use = 's',
}
local USUAL_TYPES = { job = 'slurm', run = 'run', manual = 'manual' }
local MAX_REASON = 4000
local stream_ms, stream_place = now, 0

local function share_of(claim)
  local share = claim.share
  return is_share(share) and number(share.amount) and number(share.total) and share
end

local function is_same_share(a, b)
  return a and b and a.kind == b.kind and a.amount == b.amount and a.total == b.total or not a and not b
end

-- Returns whether two events are one change of several GPUs.
local function is_same_change(a, b)
  local one, other = a.claim or {}, b.claim or {}
  return a.gpu and b.gpu and a.event == b.event and a.at == b.at and a.reason == b.reason and a.by == b.by
    and a.granted == b.granted
    and (one == other or one.owner == other.owner and one.user == other.user and one.uid == other.uid
      and is_same_share(share_of(one), share_of(other)))
end

local function changes()
  local found = {}
  for _, one in ipairs(told) do
    local last = found[#found]
    if last and is_same_change(last, one) then
      last.gpus[#last.gpus + 1], last.idle[#last.idle + 1] = one.gpu, one.idle[1]
    else
      found[#found + 1] = one
    end
  end
  return found
end

-- Cuts a text that is far too long where a character ends.
local function shortened(text)
  if #text <= MAX_REASON then return text end
  return text:sub(1, MAX_REASON):gsub('[\192-\255][\128-\191]*$', '') .. ' ...'
end

-- Returns for how long the GPUs were idle: one number if it is the same for all, else a list; nil for no time.
local function idle_of(one)
  local first, is_same = one.idle[1], true
  for _, idle in ipairs(one.idle) do is_same = is_same and idle == first end
  if not is_same then return one.idle end
  return first and first > 0 and first or nil
end

local function unusual(one, claim)
  local more, share, text = {}, share_of(claim), ''
  if one.by and one.by ~= '' then more.by = one.by end
  more.idle = idle_of(one)
  if share then more.share = { share.kind, share.amount, share.total } end
  if claim.type then
    local kind, job = claim.owner:match('^[^:]*'), claim.owner:match('^job:.*:([^:]*):[^:]*$')
    if claim.type ~= USUAL_TYPES[kind] then more.type = claim.type end
    if claim.job_id ~= job then more.job = type(claim.job_id) == 'string' and claim.job_id or false end
  end
  if next(more) then text = cjson.encode(more) end
  if (one.facts or '') == '' then return text end
  return (text == '' and '{' or text:sub(1, -2) .. ',') .. '"facts":' .. one.facts .. '}'
end

local function fields_of(one)
  local claim, gpus = one.claim or {}, {}
  for i, gpu in ipairs(one.gpus) do gpus[i] = short_gpu(gpu, one.places and one.places[i] or '') end
  local at = math.floor(one.at or now)
  local lasted = one.took_ms or one.granted and at - one.granted or ''
  return {
    '2', LETTERS[one.event] or one.event, 'g', table.concat(gpus, ','),
    'o', claim.owner and short_owner(claim.owner) or '', 'u', short_user(claim), 'a', stream_ms - at,
    'd', lasted, 'r', shortened(one.reason or ''), 'm', unusual(one, claim),
  }
end

local function add(id, fields)
  local added = redis.pcall('XADD', history_key, 'MINID', '~', oldest, id, unpack(fields))
  if type(added) == 'string' then last_added = added end
  return added
end

local function own_id()
  return string.format('%.0f-%.0f', stream_ms, stream_place)
end

-- Sets the next id to one after the last, if the store's clock was set back, or this millisecond has entries.
local function follow_last_entry()
  local info = redis.call('XINFO', 'STREAM', history_key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local ms, place = info[i + 1]:match('(%d+)%-(%d+)')
      stream_ms, stream_place = tonumber(ms), place + 1
    end
  end
end

local function write_entry(one)
  -- Times are relative to the entry's id: so it is chosen here.
  local fields = fields_of(one)
  local id = add(own_id(), fields)
  if type(id) ~= 'string' then
    follow_last_entry()
    fields = fields_of(one)
    id = add(own_id(), fields)
  end
  -- Another program wrote an id that no time has.
  if type(id) ~= 'string' then id = redis.call('XADD', history_key, '*', unpack(fields)) end
  last_added = id
  stream_place = stream_place + 1
  local length = 0
  for i = 2, #fields, 2 do length = length + #tostring(fields[i]) end
  -- As measured: what a stream adds to an entry, and to a node of its tree.
  keep_within_size(id, math.floor(25 + 1.25 * length))
end

local function write_former_entries(one)
  local claim, fields = one.claim, { 'event', one.event, 'reason', one.reason or '', 'by', one.by or '' }
  if claim then
    local text = cjson.encode({
      owner = claim.owner, type = claim.type, user = claim.user, uid = number(claim.uid),
      job_id = type(claim.job_id) == 'string' and claim.job_id or nil,
      share = share_of(claim) or nil, granted_ms = one.granted, idle_ms = one.idle[1],
    })
    fields = { 'claim', text, unpack(fields) }
  end
  if one.at then fields = { 'at', one.at, unpack(fields) } end
  if (one.facts or '') ~= '' then fields = { 'facts', one.facts, unpack(fields) } end
  if #one.gpus == 0 or one.places then add('*', fields) end
  for _, gpu in ipairs(one.places and {} or one.gpus) do add('*', { 'gpu', gpu, unpack(fields) }) end
end

-- A script that the node itself runs is of this release; any other asks whose scan is published.
local function is_of_former_release()
  if identity ~= '' then return false end
  local published = redis.call('HMGET', scan_key, 'at', 'brief_at')
  return published[1] and published[1] ~= published[2]
end

local write = is_of_former_release() and write_former_entries or write_entry
for _, one in ipairs(changes()) do write(one) end
