-- Delete a thread, and remember when.
-- ARGV  1 how long to remember, in ms

local t = thread()
local at = clock()
if t then at = math.max(at, t.stamp) end
call('UNLINK', STATE, INDEX, SWEEP)
call('ZADD', GRAVES, digits(at), '')
call('PEXPIRE', GRAVES, ARGV[1])
return reply('ok', {nonce = '', gen = 0, stamp = at + 1})
