-- Keep values under plain keys.
-- KEYS  1 lives of namespaces, 2 what the keys of values begin with
-- ARGV  1 namespace, 2 a nonce for a life that has to begin, 3 for how long lives are kept
--       at least, in ms, 4.. digest of a key, time to live in ms, value
-- Reply: how many

local function life(field)
  redis.call('HSETNX', KEYS[1], field, ARGV[2])
  return redis.call('HGET', KEYS[1], field)
end
local stem = KEYS[2] .. life('a') .. life('n' .. ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
for i = 4, #ARGV, 3 do redis.call('SET', stem .. ARGV[i], ARGV[i + 2], 'PX', ARGV[i + 1]) end
return (#ARGV - 3) / 3
