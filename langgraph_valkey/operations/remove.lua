-- Remove checkpoints of one namespace with their writes; their chunks go with
-- the next sweep.
-- ARGV  1 how long to remember, in ms, 2 namespace, 3... ids

local ns, t = ARGV[2], thread()
if not t then return absent() end
if not call('ZSCORE', INDEX, '!' .. sub(t.born, 1, 16)) then return reply('unordered', t.text) end
local ordinal, head = head_of(ns)
if not ordinal then return reply('ok', t.text) end

t.stamp = math.max(clock(), t.stamp + 1)
local stamp = format('%.0f', t.stamp)
for i = 3, #ARGV do
  local id, at = ARGV[i], ns .. '\0' .. ARGV[i]
  local gone = writes_of(call('HGET', STATE, 'x' .. at) or '', {'r' .. at, 'x' .. at})
  for from = 1, #gone, MOST do
    call('HDEL', STATE, unpack(gone, from, math.min(from + MOST - 1, #gone)))
  end
  call('ZREM', INDEX, '=' .. ordinal .. id)
  call('ZADD', GRAVES, stamp, at)
  if id == head then
    local top = call('ZREVRANGEBYLEX', INDEX, '(=' .. ordinal .. '\255', '[=' .. ordinal, 'LIMIT', 0, 1)
    head = top[1] and sub(top[1], 8) or ''
    call('HSET', STATE, 'H' .. ns, ordinal .. head)
  end
end
call('ZREMRANGEBYSCORE', GRAVES, 1000, format('%.0f', t.stamp - tonumber(ARGV[1]) * 1000))
call('PEXPIRE', GRAVES, ARGV[1])
save(t, '1')
return reply('ok', t.text)
