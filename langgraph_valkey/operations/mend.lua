-- Make a lost index anew.
-- ARGV  none

local t = thread()
if not t then return reply('none', NOTHING) end
if not whole(t) then mend(t) end
return reply('ok', t)
