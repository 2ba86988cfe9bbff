-- Drop the chunks that no record refers to, step by step. While a sweep is
-- open, each put checks all it refers to and notes it in `sweep`, so that
-- nothing new can come to lean on a chunk that is about to go.
-- ARGV  1 step: 'open', 'scan', 'drop', 'close'; 2 how long the sweep may take,
--       in ms; 'scan': 3 cursor; 'drop': 3... digests

local t = thread()
if not t then return absent() end

local step = ARGV[1]
if step == 'open' then
  call('HINCRBY', SWEEP, '#', 1)
  save(t, '1')
elseif call('EXISTS', SWEEP) == 0 then
  return reply('closed', t.text)
end
call('PEXPIRE', SWEEP, ARGV[2])

if step == 'scan' then
  local page = call('HSCAN', STATE, ARGV[3], 'COUNT', MOST, 'NOVALUES')
  local used, chunks = {}, {}
  for i = 1, #page[2] do
    local field = page[2][i]
    local kind = sub(field, 1, 1)
    if kind == 'r' then digests_of(call('HGET', STATE, field), '', used)
    elseif kind == 'c' then chunks[#chunks + 1] = sub(field, 2) end
  end
  return reply('ok', t.text, page[1], table.concat(used), table.concat(chunks))
end
if step == 'drop' then
  for i = 3, #ARGV do
    if call('HEXISTS', SWEEP, ARGV[i]) == 0 then call('HDEL', STATE, 'c' .. ARGV[i]) end
  end
end
if step == 'close' and call('HINCRBY', SWEEP, '#', -1) <= 0 then call('DEL', SWEEP) end
return reply('ok', t.text)
