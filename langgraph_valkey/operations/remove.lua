-- Remove checkpoints of one namespace with their writes; their chunks go with
-- the next sweep.
-- ARGV  1 how long to remember, in ms, 2 namespace, 3... ids

local ns, t = ARGV[2], thread()
if not t then return reply('none', NOTHING) end
local ordinal, head = namespace(ns)
if not ordinal then return reply('ok', t) end

t.stamp = math.max(clock(), t.stamp + 1)
for i = 3, #ARGV do
  local id = ARGV[i]
  local gone = {'r' .. ordinal .. id, 'x' .. ordinal .. id}
  local list = call('HGET', STATE, gone[2]) or ''
  for at = 1, #list, 16 do gone[#gone + 1] = 'w' .. sub(list, at, at + 15) end
  for from = 1, #gone, MOST do
    call('HDEL', STATE, unpack(gone, from, math.min(from + MOST - 1, #gone)))
  end
  call('ZREM', INDEX, '=' .. ordinal .. id)
  call('ZADD', GRAVES, digits(t.stamp), ns .. '\0' .. id)
  if id == head then
    local top = call('ZREVRANGEBYLEX', INDEX, '(=' .. ordinal .. '\255', '[=' .. ordinal, 'LIMIT', 0, 1)
    head = top[1] and sub(top[1], 8) or ''
    call('HSET', STATE, 'H' .. ns, ordinal .. head)
  end
end
call('ZREMRANGEBYSCORE', GRAVES, '-inf', digits(t.stamp - tonumber(ARGV[1]) * 1000))
call('PEXPIRE', GRAVES, ARGV[1])
save(t, {})
return reply('ok', t)
