-- Read one checkpoint with its chunks and writes.
-- ARGV  1 namespace, 2 id ('' for the head), 3 ttl in ms to slide ('' for none)

local t = thread()
if not t then
  if call('EXISTS', INDEX) == 1 then return reply('torn', NOTHING) end
  return reply('none', {nonce = '', gen = 0, stamp = clock()})
end

local ordinal, head = namespace(ARGV[1])
local id = ARGV[2] ~= '' and ARGV[2] or head
if not ordinal or id == '' then return reply('none', t) end
local record = call('HGET', STATE, 'r' .. ordinal .. id)
if not record then
  return reply(ARGV[2] == '' and 'torn' or 'none', t)
end
expire(ARGV[3])
return reply('ok', t, id, record, hmget(digests_of(record, {}, {}), 'c'), writes_on(ordinal, id))
