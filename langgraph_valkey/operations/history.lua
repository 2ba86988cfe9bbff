-- Walk from a checkpoint towards the root, a page at a time.
-- ARGV  1 namespace, 2 id ('' for the head), 3 page size
-- Reply: the id to go on from ('' at the end), {id, record, writes, ...}; the
-- first item is the checkpoint itself.

local t = thread()
if not t then
  if call('EXISTS', INDEX) == 1 then return reply('torn', NOTHING) end
  return reply('none', NOTHING)
end
local ordinal, head = namespace(ARGV[1])
local id, out, walked = ARGV[2] ~= '' and ARGV[2] or head, {}, 0
local bytes = 0
while ordinal and id ~= '' do
  if walked == tonumber(ARGV[3]) or bytes >= BYTES_MOST then return reply('ok', t, id, out) end
  local record = call('HGET', STATE, 'r' .. ordinal .. id)
  if not record then break end
  walked, bytes = walked + 1, bytes + #record
  out[#out + 1] = id
  out[#out + 1] = record
  local writes = writes_on(ordinal, id)
  for i = 1, #writes do bytes = bytes + #writes[i] end
  out[#out + 1] = writes
  id = parent_of(record)
end
return reply('ok', t, '', out)
