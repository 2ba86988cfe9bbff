-- Walk from a checkpoint towards the root, a page at a time.
-- ARGV  1 namespace, 2 id ('' for the head), 3 page size, 4 bytes of a page
-- Reply: the id to go on from ('' at the end); {id, record, entries} of each, the
--        first being the checkpoint itself; {writes of all of them}; the thread's
--        deadline

local found = call('HMGET', STATE, 'm', 'H' .. ARGV[1])
local m, id = whole(found[1]), ARGV[2]
if not m then return absent() end
if found[2] and #found[2] < 6 then return reply('torn', m) end
if id == '' then id = found[2] and sub(found[2], 7) or '' end

local out, writes, fields, walked, bytes = {}, {}, {}, 0, 0
local function fetch()
  local values = hmget(fields)
  for i = 1, #fields do
    writes[#writes + 1] = values[i]
    bytes = bytes + #(values[i] or '')
  end
  fields = {}
end

while id ~= '' do
  if walked == tonumber(ARGV[3]) or bytes >= tonumber(ARGV[4]) then
    fetch()
    return reply('ok', m, id, out, writes, call('PEXPIRETIME', STATE))
  end
  local at = ARGV[1] .. '\0' .. id
  local here = call('HMGET', STATE, 'r' .. at, 'x' .. at)
  local record, entries = here[1], here[2] or ''
  if not record then break end
  writes_of(entries, fields)
  if #fields > 16 then fetch() end -- so that large writes end the page in time
  walked, bytes = walked + 1, bytes + #record
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = id, record, entries
  id = parent_of(record)
end
fetch()
return reply('ok', m, '', out, writes, call('PEXPIRETIME', STATE))
