-- Read chunks.
-- ARGV  digests

local m = whole(call('HGET', STATE, 'm'))
if not m then return absent() end
local fields = {}
for i = 1, #ARGV do fields[i] = 'c' .. ARGV[i] end
return reply('ok', m, hmget(fields))
