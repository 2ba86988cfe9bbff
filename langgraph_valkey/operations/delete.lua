-- Delete a thread, and remember when.
-- ARGV  1 how long to remember, in ms

local t = thread()
local at = math.max(clock(), t and t.stamp or 0)
call('UNLINK', STATE, INDEX)
call('ZADD', GRAVES, format('%.0f', at), '')
call('PEXPIRE', GRAVES, ARGV[1])
return reply('ok', nothing(at + 1))
