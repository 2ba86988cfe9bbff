-- Walk from a checkpoint towards the root, a page at a time.
-- ARGV  1 namespace, 2 id ('' for the head), 3 page size, 4 bytes of a page
-- Reply: the id to go on from ('' at the end); id, record, entries, {writes} of
-- each; the first is the checkpoint itself.

local found = call('HMGET', STATE, 'm', 'H' .. ARGV[1])
local m, id = whole(found[1]), ARGV[2]
if not m then return absent() end
if id == '' then id = found[2] and sub(found[2], 7) or '' end

local out, walked, bytes = {}, 0, 0
while id ~= '' do
  if walked == tonumber(ARGV[3]) or bytes >= tonumber(ARGV[4]) then
    return reply('ok', m, id, out)
  end
  local at = ARGV[1] .. '\0' .. id
  local here = call('HMGET', STATE, 'r' .. at, 'x' .. at)
  local record, entries = here[1], here[2] or ''
  if not record then break end
  local writes = hmget(writes_of(entries, {}))
  for i = 1, #writes do bytes = bytes + #(writes[i] or '') end
  walked, bytes = walked + 1, bytes + #record
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, record, entries, writes
  id = parent_of(record)
end
return reply('ok', m, '', out)
