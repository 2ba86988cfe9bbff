-- Read one checkpoint with its chunks and writes.
-- ARGV  1 ttl in ms to slide(16, 0 for none) length of namespace(6) and of id(6)
--         namespace, id ('' for the head), the id the head is believed to have
-- Reply: id, record, entries of its writes, {chunks, writes}, the thread's deadline

local HEAD = ARGV[1]
local ns_end = 28 + tonumber(sub(HEAD, 17, 22))
local id_end = ns_end + tonumber(sub(HEAD, 23, 28))
local name, id, hint = sub(HEAD, 29, ns_end), sub(HEAD, ns_end + 1, id_end), sub(HEAD, id_end + 1)
local ns = name .. '\0'
if id ~= '' then hint = id end
local here = call('HMGET', STATE, 'm', 'H' .. name, 'r' .. ns .. hint, 'x' .. ns .. hint)
local m, record, entries = whole(here[1]), here[3], here[4] or ''
if not m then return absent() end
if id == '' then
  if here[2] and #here[2] < 6 then return reply('torn', m) end
  id = here[2] and sub(here[2], 7) or ''
  if id == '' then return reply('none', m) end
  if id ~= hint then
    here = call('HMGET', STATE, 'r' .. ns .. id, 'x' .. ns .. id)
    record, entries = here[1], here[2] or ''
  end
  if not record then return reply('torn', m) end
end
if not record then return reply('none', m) end
local ttl_ms = tonumber(sub(HEAD, 1, 16))
if ttl_ms > 0 then expire(ttl_ms) end
return reply('ok', m, id, record, entries,
  hmget(writes_of(entries, digests_of(record, 'c', {}))), call('PEXPIRETIME', STATE))
