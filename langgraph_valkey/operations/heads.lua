-- The heads of the namespaces that outlive a run: of the graph itself, and of subgraphs
-- that keep their state. Others are named for a task, whose id stands behind a colon.
-- ARGV  1 ordinal to go on from
-- Reply: the next ordinal ('' at the end); namespace and head of each, in turn

local m = whole(call('HGET', STATE, 'm'))
if not m then return absent() end
local from, to = tonumber(ARGV[1], 16), tonumber(sub(m, 65, 70), 16)
local last = math.min(to, from + MOST - 1)
local fields, names, out = {}, {}, {}
for n = from, last do fields[#fields + 1] = format('O%06x', n) end
for _, ns in ipairs(hmget(fields)) do
  if ns and not string.find(ns, ':', 1, true) then names[#names + 1] = ns end
end
for i = 1, #names do
  local head = sub(call('HGET', STATE, 'H' .. names[i]) or '', 7)
  if head ~= '' then
    out[#out + 1] = names[i]
    out[#out + 1] = head
  end
end
return reply('ok', m, last < to and format('%06x', last + 1) or '', out)
