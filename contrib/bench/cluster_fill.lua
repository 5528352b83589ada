-- Copy one node's keys under the names of many, each with hints of its own.
--
-- KEYS[1...] the keys of the node that is copied    ARGV[1] the prefix of all keys    ARGV[2] the first node's number
-- ARGV[3] the last one's    ARGV[4] JSON list of how the names of KEYS end
-- ARGV[5] JSON list of {number of a key of the jobs' index, list of {job, day}}    ARGV[6] its keys between two nodes
-- ARGV[7] jobs between two nodes    ARGV[8] JSON list of the keys that have the node's name
local prefix, suffixes = ARGV[1], cjson.decode(ARGV[4])
local buckets, keys_apart, jobs_apart = cjson.decode(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local names = {}
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local name = string.format('n%05d', number)
  names[#names + 1] = name
  for i, suffix in ipairs(suffixes) do
    redis.call('COPY', KEYS[i], prefix .. ':{' .. name .. '}:' .. suffix, 'REPLACE')
  end
  local first_job, first_key = (number - 1) * jobs_apart, (number - 1) * keys_apart
  for _, bucket in ipairs(buckets) do
    local members = {}
    for i, job in ipairs(bucket[2]) do
      members[i] = string.format('%d %s %s', job[1] + first_job, name, job[2])
    end
    redis.call('SADD', string.format('%s:index:jobs:%d', prefix, bucket[1] + first_key), unpack(members))
  end
end
for _, key in ipairs(cjson.decode(ARGV[8])) do redis.call('SADD', key, unpack(names)) end
return #names
