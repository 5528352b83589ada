-- The head of a node, and its counts: what summaries of many nodes are made from, in one short text and a shorter one.
-- See common.lua. This text is the body of `write_head`, which a script calls at its end where the head is old: only
-- then its functions are made.
--
-- KEYS[11] head  string  JSON: "form" 2; "texts": "last", the id of the history's last entry, or "", and "at" and
--                        "partitions_at" of the scan; "brief", "most" and "partitions" of the scan; "records", the different records of
--                        reservations; "held", UUID -> place in "records"; "released", UUID -> ms, of GPUs that
--                        nobody holds; "quarantined", UUID -> record; "waiting", how many are in the queue
-- KEYS[14] counts  string  "" for a node that is not plain, see counts.lua; else JSON: "form" 1; "last" and "at" as in
--                          the head; "source" of the scan; "gpus", how many it has, "free", those that nobody holds,
--                          "free_mb", the most memory in use on one of these; "listed", index, used MB, and ms of the
--                          release or null of each of these, or null where a GPU's index is not known; "products" and "models", the names of the
--                          GPUs' products and of models on them, or null; "users" of the others, in the order of the GPUs; "ends", ms, when the first of their times is over, or null; "expected", how many GPUs the node
--                          had at most; "partitions" and "partitions_at" of the scan, or null; "waiting", how many are in
--                          the queue, "until", ms, when the first of their leases is over, or null; where some wait, "first", user,
--                          count, MIG profile or "", and ms of the beginning, of each of the first of them, or null
--                          where one waits for GPUs by name or its record is not as it should be
--
-- Invariants: both are made of the node's other keys alone, at the end of each script that changes what they say.
-- Records are in a head as they are stored. A node with a record that is no JSON, or with a scan that has no brief
-- form, has none: it is read in full. Heartbeats and idle times may be older than those stored.

-- Returns UUID -> place of the record, the records as JSON, and place -> the only owner, nil where there are several.
local function head_of_reservations()
  local places, records, held, owners, n = {}, {}, {}, {}, 0
  if not all_are_json then return nil end
  for gpu, text in pairs(is_loaded and texts or read_hash(reservations_key)) do
    if not places[text] then
      local record = is_loaded and reservations[gpu] or { decode(text) }
      if #record == 0 then return nil end
      n = n + 1
      places[text], records[n], owners[n - 1] = n - 1, text, #record == 1 and record[1] or nil
    end
    held[gpu] = places[text]
  end
  return held, '[' .. table.concat(records, ',') .. ']', owners
end

local function object(values, encode)
  local parts = {}
  for name, value in pairs(values) do parts[#parts + 1] = quoted(name) .. ':' .. encode(value) end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- Returns the text if it is a JSON list or object, nil for another one; there may be none.
local function json_or_null(text)
  if not text or text == '' then return 'null' end
  return (number_of_gpus(text) or decode(text)) and text
end

-- Returns the head and the counts, nil where there are none.
local function head_and_counts()
  local scan = redis.call('HMGET', scan_key, 'brief', 'brief_at', 'at', 'most', 'partitions', 'partitions_at', 'plain')
  local held, records, owners = head_of_reservations()
  if not held or not scan[1] or scan[1] == '' or scan[2] ~= scan[3] then return nil end
  local released, quarantined = read_hash(released_key), read_hash(quarantine_key)
  for gpu in pairs(held) do released[gpu] = nil end
  for _, text in pairs(quarantined) do
    if not decode(text) then return nil end
  end
  local most = json_or_null(scan[4])
  local partitions = json_or_null(scan[5])
  if not most or not partitions then return nil end
  local last = last_added or last_before
  if not last then
    local entry = redis.call('XREVRANGE', history_key, '+', '-', 'COUNT', 1)[1]
    last = entry and entry[1] or ''
  end
  local waiting = redis.call('HLEN', queue_key)
  local texts = { last = last, at = scan[3], partitions_at = scan[6] or nil }
  local head = '{"form":2,"texts":' .. object(texts, quoted) .. ',"brief":' .. scan[1]
    .. ',"most":' .. most .. ',"partitions":' .. partitions
    .. ',"records":' .. records .. ',"held":' .. object(held, tostring)
    .. ',"released":' .. object(released, quoted)
    .. ',"quarantined":' .. object(quarantined, tostring)
    .. ',"waiting":' .. waiting .. '}'
  local counts = not next(quarantined) and counts_text(scan, held, owners, released, most, waiting) or ''
  if counts == '' then return head, '' end
  return head, '{"form":1,"last":"' .. last .. '",' .. counts .. ',"partitions":' .. partitions
    .. ',"partitions_at":' .. (scan[6] and quoted(scan[6]) or 'null') .. '}'
end

-- Returns the text with the last entry's id in the place of another one, which stands in its first bytes; else nil.
local function with_last_entry(text, before, last, first_bytes)
  local start, stop = text:find('"last":"' .. before .. '"', 1, true)
  if not start or stop > first_bytes then return nil end
  return text:sub(1, start - 1) .. '"last":"' .. last .. '"' .. text:sub(stop + 1)
end

-- Returns both with the id of the history's last entry, where they named the last one before those of this script.
local function head_and_counts_with_last_entry()
  if not last_before or not last_added then return nil end
  local known = redis.call('MGET', KEYS[11], KEYS[14])
  local head, counts = known[1], known[2]
  local texts_in_it = head and counts and head:match('^{"form":2,"texts":({[^{}]*})')
  if not texts_in_it then return nil end
  head = with_last_entry(head, last_before, last_added, #'{"form":2,"texts":' + #texts_in_it)
  counts = counts == '' and ''
    or with_last_entry(counts, last_before, last_added, #'{"form":1,"last":""' + #last_before)
  if counts then return head, counts end
end

local head, counts
if not head_is_old then head, counts = head_and_counts_with_last_entry() end
if not head then head, counts = head_and_counts() end
if head then
  redis.call('MSET', KEYS[11], head, KEYS[14], counts)
else
  redis.call('DEL', KEYS[11], KEYS[14])
end
