-- Read one checkpoint with its chunks and writes.
-- ARGV  1 namespace, 2 id ('' for the head), 3 the id the head is believed to have,
--       4 ttl in ms to slide (0 for none)
-- Reply: id, record, entries of its writes, {chunks, writes}

local ns, id = ARGV[1] .. '\0', ARGV[2]
local hint = id ~= '' and id or ARGV[3]
local here = call('HMGET', STATE, 'm', 'H' .. ARGV[1], 'r' .. ns .. hint, 'x' .. ns .. hint)
local m, record, entries = whole(here[1]), here[3], here[4] or ''
if not m then return absent() end
if id == '' then
  id = here[2] and sub(here[2], 7) or ''
  if id == '' then return reply('none', m) end
  if id ~= hint then
    here = call('HMGET', STATE, 'r' .. ns .. id, 'x' .. ns .. id)
    record, entries = here[1], here[2] or ''
  end
  if not record then return reply('torn', m) end
end
if not record then return reply('none', m) end
if ARGV[4] ~= '0' then expire(tonumber(ARGV[4])) end
return reply('ok', m, id, record, entries,
  hmget(writes_of(entries, digests_of(record, 'c', {}))))
