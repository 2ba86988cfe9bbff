-- Read chunks by their digests.
-- ARGV  digests

local t = thread()
if not t then return reply('torn', NOTHING) end
return reply('ok', t, hmget(ARGV, 'c'))
