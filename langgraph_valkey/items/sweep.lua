-- Take out some of what has expired.
-- ARGV  1 how many at most
-- Reply: how many are left

local i = bucket()
if not i then return reply('none', nothing(NOW), 0) end
STAMP = digits(math.max(NOW, tonumber(sub(i, 33, 48)) + 1))
collect(tonumber(ARGV[1]))
i = sub(i, 1, 32) .. STAMP .. sub(i, 49)
call('HSET', STATE, 'i', i)
return reply('ok', i, call('ZCOUNT', ENDS, '-inf', '(' .. digits(NOW_MS)))
