-- Take the earliest order of a node, for the one process of the node that carries orders out.
--
-- KEYS[15] orders         list    "ID JSON", the earliest first; whoever may order may append any text
-- KEYS[16] order_answers  hash    ID -> "MS taken", "MS interrupted", or "MS JSON", the answer; MS is when it was taken
-- KEYS[17] order_reader   string  JSON: who took orders last, and "at_ms", "interval_ms" since the time before,
--                                the ID that was "taken", and how far old answers were looked for, "cursor"
-- ARGV[2] who asks: "agent" or "check"    ARGV[3] how long answers are kept, ms
-- ARGV[4] longest order, bytes    ARGV[5] how many unusable orders are skipped at most
--
-- Returns {now, ID, JSON} for an order that was not taken before, {now, "", how many were unusable} for none.
-- Invariants: an ID is taken once, as long as its answer is kept. One that was taken and has no answer is
-- "interrupted": its process has ended, for there is one at a time.
local orders_key, answers_key, reader_key = KEYS[15], KEYS[16], KEYS[17]

local before = redis.pcall('GET', reader_key)
local last = type(before) == 'string' and decode(before) or {}

local unanswered = type(last.taken) == 'string' and redis.pcall('HGET', answers_key, last.taken)
local taken_at = type(unanswered) == 'string' and unanswered:match('^(%d+) taken$')
if taken_at then redis.call('HSET', answers_key, last.taken, taken_at .. ' interrupted') end

-- A look goes over some answers, and the next over the next ones: its cost does not grow with their number.
local cursor = type(last.cursor) == 'string' and last.cursor:match('^%d+$') or '0'
local page = redis.pcall('HSCAN', answers_key, cursor, 'COUNT', 20)
for i = 1, #(page[2] or {}), 2 do
  local at = page[2][i + 1]:match('^(%d+) ')
  if not at or tonumber(at) + tonumber(ARGV[3]) < now then redis.call('HDEL', answers_key, page[2][i]) end
end

local function note_look(id)
  local at = number(last.at_ms)
  redis.call('SET', reader_key, cjson.encode({
    kind = ARGV[2], at_ms = now, interval_ms = at and math.max(now - at, 0) or nil, taken = id, cursor = page[1],
  }))
end

local skipped = 0
while skipped < tonumber(ARGV[5]) do
  local text = redis.call('LPOP', orders_key)
  if not text then break end
  local id, order = text:match('^(%x+) (.*)$')
  local usable = id and #id == 32 and #text <= tonumber(ARGV[4])
  if usable and redis.call('HSETNX', answers_key, id, now .. ' taken') == 1 then
    note_look(id)
    return { now, id, order }
  end
  skipped = skipped + 1
end
note_look(nil)
return { now, '', skipped }
