-- Store one checkpoint.
-- ARGV  8 parent id, 9 record, 10 '1': what is not sent stands in the parent's
--       record, 11 '1': everything is sent, 12... digest, chunk, digest, ...

local ns, id, record = ARGV[6], ARGV[7], ARGV[9]
local t, refusal = admit(ARGV[11] == '1')
if not t then return refusal end

local fields, sent = {}, {}
local ordinal, head = ordinal_of(t, ns, fields)
for i = 12, #ARGV, 2 do
  sent[ARGV[i]] = true
  fields[#fields + 1] = 'c' .. ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end

local here = call('HMGET', STATE, 'r' .. ordinal .. ARGV[8], 'r' .. ordinal .. id)
local sweeping = call('EXISTS', SWEEP) == 1
if sweeping or not (ARGV[10] == '1' and here[1]) then
  local all, missing, kept = digests_of(record, {}, {}), {}, {}
  for i = 1, #all do
    if not sent[all[i]] and call('HEXISTS', STATE, 'c' .. all[i]) == 0 then
      missing[#missing + 1] = all[i]
    end
    kept[#kept + 1] = all[i]
    kept[#kept + 1] = '1'
  end
  if #missing > 0 then return reply('missing', t, missing) end
  if sweeping then
    for from = 1, #kept, MOST do
      call('HSET', SWEEP, unpack(kept, from, math.min(from + MOST - 1, #kept)))
    end
  end
end

-- The same writer's older call that comes late changes nothing.
local late = here[2] and sub(here[2], 2, 9) == sub(ARGV[1], 1, 8)
  and above(sub(here[2], 10, 17), sub(ARGV[1], 9, 16))
if not late then
  fields[#fields + 1] = 'r' .. ordinal .. id
  fields[#fields + 1] = record
end
if head == '' or above(id, head) then
  fields[#fields + 1] = 'H' .. ns
  fields[#fields + 1] = ordinal .. id
end
save(t, fields)
if not here[2] then call('ZADD', INDEX, 0, '=' .. ordinal .. id) end
expire(ARGV[5])
return reply('ok', t)
