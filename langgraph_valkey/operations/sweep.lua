-- Drop the chunks that no record refers to, step by step. What the records refer
-- to is read by the order of the index, which is the same on every node; a scan
-- is not, and may miss some after a failover, so it only finds candidates. While a sweep is
-- open, each put checks all it refers to and notes it in `graves`, so that
-- nothing new can come to lean on a chunk that is about to go.
-- ARGV  1 step: 'open', 'scan', 'drop', 'close'; 2 how long the sweep may take,
--       in ms; 'scan': 3 cursor; 'drop': 3... digests

local t = thread()
if not t then return absent() end

local step, now = ARGV[1], clock()
local function finish()
  call('ZREMRANGEBYSCORE', GRAVES, -1, -1)
  call('ZREM', GRAVES, '\1', '\2')
end

local open = call('ZMSCORE', GRAVES, '\1', '\2')
if open[2] and tonumber(open[2]) < now then -- left open by a sweeper that died
  finish()
  open = {}
end
if step == 'open' then
  call('ZINCRBY', GRAVES, 1, '\1')
  save(t, '1')
elseif not open[1] then
  return reply('closed', t.text)
end
call('ZADD', GRAVES, format('%.0f', now + ARGV[2] * 1000), '\2')
remember(ARGV[2])

if step == 'scan' then
  local page = call('HSCAN', STATE, ARGV[3], 'MATCH', 'c*', 'COUNT', MOST, 'NOVALUES')
  local chunks = {}
  for i = 1, #page[2] do chunks[i] = sub(page[2][i], 2) end
  return reply('ok', t.text, page[1], table.concat(chunks))
end
if step == 'drop' then
  for i = 3, #ARGV do
    if not call('ZSCORE', GRAVES, '\3' .. ARGV[i]) then call('HDEL', STATE, 'c' .. ARGV[i]) end
  end
end
if step == 'close' and tonumber(call('ZINCRBY', GRAVES, -1, '\1')) <= 0 then finish() end
return reply('ok', t.text)
