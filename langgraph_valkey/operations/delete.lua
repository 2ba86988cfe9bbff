-- Delete a thread, and remember when. One that was begun after the caller last
-- heard of it is spared: this call may be late.
-- ARGV  1 how long to remember, in ms, 2 the primary the caller expects, 3 newest
--       stamp the caller knows

if moved(ARGV[2]) then return reply('moved', nothing(0)) end
local readable, t = pcall(thread)
if not readable then t = nil end -- what is damaged can be deleted as well
if t and tonumber(sub(t.born, 17, 32)) > tonumber(ARGV[3]) then return reply('stale', t.text) end
local at = math.max(clock(), t and t.stamp or 0, tonumber(ARGV[3]))
-- A new primary's clock may be behind that of an earlier deletion.
at = math.max(at, tonumber(call('ZSCORE', GRAVES, '') or 0))
call('UNLINK', STATE, INDEX)
call('ZADD', GRAVES, format('%.0f', at), '')
remember(ARGV[1])
return reply('ok', nothing(at + 1))
