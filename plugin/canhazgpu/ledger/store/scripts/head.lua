-- The head of a node: what summaries of many nodes are made from, in one short text. See common.lua. This text is the
-- body of `write_head`, which a script calls at its end where the head is old: only then its functions are made.
--
-- KEYS[11] head  string  JSON: "form" 2; "texts": "last", the id of the history's last entry, or "", and "at" and
--                        "partitions_at" of the scan; "brief", "most" and "partitions" of the scan; "records", the different records of
--                        reservations; "held", UUID -> place in "records"; "released", UUID -> ms, of GPUs that
--                        nobody holds; "quarantined", UUID -> record; "waiting", how many are in the queue
--
-- Invariants: a head is made of the node's other keys alone, at the end of each script that changes what it says.
-- Records are in it as they are stored. A node with a record that is no JSON, or with a scan that has no brief
-- form, has no head: it is read in full. Heartbeats and idle times may be older than those stored.
local function head_of_reservations()
  local places, records, held, n = {}, {}, {}, 0
  if not all_are_json then return nil end
  for gpu, text in pairs(is_loaded and texts or read_hash(reservations_key)) do
    if not places[text] then
      if not is_loaded and not decode(text) then return nil end
      n = n + 1
      places[text], records[n] = n - 1, text
    end
    held[gpu] = places[text]
  end
  return held, '[' .. table.concat(records, ',') .. ']'
end

local function object(values, encode)
  local parts = {}
  for name, value in pairs(values) do parts[#parts + 1] = cjson.encode(name) .. ':' .. encode(value) end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- Returns the text if it is a JSON list or object, nil for another one; there may be none.
local function json_or_null(text)
  if not text or text == '' then return 'null' end
  return decode(text) and text
end

local function head_text()
  local scan = redis.call('HMGET', scan_key, 'brief', 'brief_at', 'at', 'most', 'partitions', 'partitions_at')
  local held, records = head_of_reservations()
  if not held or not scan[1] or scan[1] == '' or scan[2] ~= scan[3] then return nil end
  local released, quarantined = read_hash(released_key), read_hash(quarantine_key)
  for gpu in pairs(held) do released[gpu] = nil end
  for _, text in pairs(quarantined) do
    if not decode(text) then return nil end
  end
  local last = redis.call('XREVRANGE', history_key, '+', '-', 'COUNT', 1)[1]
  local most, partitions = json_or_null(scan[4]), json_or_null(scan[5])
  if not most or not partitions then return nil end
  local texts = { last = last and last[1] or '', at = scan[3], partitions_at = scan[6] or nil }
  return '{"form":2,"texts":' .. object(texts, cjson.encode) .. ',"brief":' .. scan[1]
    .. ',"most":' .. most .. ',"partitions":' .. partitions
    .. ',"records":' .. records .. ',"held":' .. object(held, tostring)
    .. ',"released":' .. object(released, cjson.encode)
    .. ',"quarantined":' .. object(quarantined, tostring)
    .. ',"waiting":' .. redis.call('HLEN', queue_key) .. '}'
end

-- Returns the head with the id of the history's last entry, where it named the last one before those of this script.
local function head_with_last_entry()
  local entries = redis.call('XREVRANGE', history_key, '+', '-', 'COUNT', #told + 1)
  local before, text = entries[#told + 1], redis.pcall('GET', KEYS[11])
  local texts_in_it = before and type(text) == 'string' and text:match('^{"form":2,"texts":({[^{}]*})')
  if not texts_in_it then return nil end
  local start, stop = text:find('"last":"' .. before[1] .. '"', 1, true)
  if not start or stop > #'{"form":2,"texts":' + #texts_in_it then return nil end
  return text:sub(1, start - 1) .. '"last":"' .. entries[1][1] .. '"' .. text:sub(stop + 1)
end

local text = not head_is_old and head_with_last_entry() or head_text()
if text then redis.call('SET', KEYS[11], text) else redis.call('DEL', KEYS[11]) end
