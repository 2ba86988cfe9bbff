-- Make a lost index anew from the records, which name everything it holds.
-- Eviction takes whole keys: the index is there if it bears the thread's nonce.
-- ARGV  none

local t = thread()
if not t then return absent() end
local nonce = '!' .. sub(t.born, 1, 16)
if call('ZSCORE', INDEX, nonce) then return reply('ok', t.text) end

call('DEL', INDEX)
call('ZADD', INDEX, 0, nonce)
local cursor = '0'
repeat
  local page = call('HSCAN', STATE, cursor, 'MATCH', 'r*', 'COUNT', MOST, 'NOVALUES')
  cursor = page[1]
  for i = 1, #page[2] do
    local at = string.find(page[2][i], '\0', 1, true)
    local ordinal = head_of(sub(page[2][i], 2, at - 1))
    call('ZADD', INDEX, 0, '=' .. ordinal .. sub(page[2][i], at + 1))
  end
until cursor == '0'
local at = call('PEXPIRETIME', STATE)
if at > 0 then call('PEXPIREAT', INDEX, format('%.0f', at)) end
return reply('ok', t.text)
