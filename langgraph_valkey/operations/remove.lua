-- Remove checkpoints of one namespace with their writes; their chunks go with
-- the next sweep.
-- ARGV  1 how long to remember, in ms, 2 the primary the caller expects,
--       3 namespace, 4... ids

local ns = ARGV[3]
if moved(ARGV[2]) then return reply('moved', nothing(0)) end
local t = thread()
if not t then return absent() end
if not call('ZSCORE', INDEX, '!' .. sub(t.born, 1, 16)) then return reply('unordered', t.text) end
local ordinal, head = head_of(ns)
if not ordinal then return reply('ok', t.text) end

t.stamp = math.max(clock(), t.stamp + 1)
local stamp = format('%.0f', t.stamp)
for i = 4, #ARGV do
  head = take_away(ns, ARGV[i], ordinal, head)
  call('ZADD', GRAVES, stamp, ns .. '\0' .. ARGV[i])
end
call('ZREMRANGEBYSCORE', GRAVES, 1000, format('%.0f', t.stamp - tonumber(ARGV[1]) * 1000))
remember(ARGV[1])
save(t, '1')
return reply('ok', t.text)
