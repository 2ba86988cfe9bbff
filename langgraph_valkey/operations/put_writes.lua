-- Store the writes of one task on a checkpoint, which may come later itself.
-- ARGV  8 writes

local t, refusal = admit(true)
if not t then return refusal end

local fields = {}
local ordinal = ordinal_of(t, ARGV[6], fields)
if call('HEXISTS', STATE, 'w' .. ARGV[1]) == 0 then
  local list = 'x' .. ordinal .. ARGV[7]
  fields[#fields + 1] = list
  fields[#fields + 1] = (call('HGET', STATE, list) or '') .. ARGV[1]
  fields[#fields + 1] = 'w' .. ARGV[1]
  fields[#fields + 1] = digits(t.stamp) .. ARGV[8]
end
save(t, fields)
expire(ARGV[5])
return reply('ok', t)
