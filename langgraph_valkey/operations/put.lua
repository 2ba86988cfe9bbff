-- Store one checkpoint.
-- Payload: the record. ARGV  2... digest(16) chunk
-- If the parent is the one the writer knows, what is not sent stands in it.
-- Complete: everything the record refers to is sent. Leans: it can't be loaded
-- without its ancestors.
-- Reply: the deadline, and the head before, unless that was the parent.

-- What the record refers to, is not sent and is not there.
local function missing(record, sweeping)
  local sent, names, lacking, kept = {}, digests_of(record, '', {}), {}, {}
  for i = 2, #ARGV do sent[sub(ARGV[i], 1, 16)] = true end
  for i = 1, #names do
    if not sent[names[i]] and call('HEXISTS', STATE, 'c' .. names[i]) == 0 then
      lacking[#lacking + 1] = names[i]
    end
    kept[#kept + 1] = '-1'
    kept[#kept + 1] = '\3' .. names[i]
  end
  if #lacking == 0 and sweeping then
    for from = 1, #kept, MOST do
      call('ZADD', GRAVES, unpack(kept, from, math.min(from + MOST - 1, #kept)))
    end
  end
  return lacking
end

local record, this = PAYLOAD, 'r' .. AT
local m, fields, ordinal, head, parent, here = admit('r' .. NS .. '\0' .. parent_of(record), this)
if not m then return fields end

if LEANS and not parent and parent_of(record) ~= '' then return reply('orphan', m) end
local sweeping = sub(m, 71) == '1' and call('ZSCORE', GRAVES, '\1')
if sweeping or not parent or sub(parent, 2, 17) ~= TRUSTED then
  local lacking = missing(record, sweeping)
  if #lacking > 0 then return reply('missing', m, lacking) end
end

local n = #fields
for i = 2, #ARGV do
  fields[n + 1] = 'c' .. sub(ARGV[i], 1, 16)
  fields[n + 2] = sub(ARGV[i], 17)
  n = n + 2
end
-- The same writer's older call that comes late changes nothing.
local late = here and sub(here, 2, 9) == sub(ENTRY, 1, 8) and above(sub(here, 10, 17), sub(ENTRY, 9))
if not late then
  fields[n + 1] = this
  fields[n + 2] = record
  n = n + 2
end
if head == '' or above(ID, head) then
  fields[n + 1] = 'H' .. NS
  fields[n + 2] = ordinal .. ID
end
if not here then call('ZADD', INDEX, 0, '=' .. ordinal .. ID) end
return store(m, fields, head ~= parent_of(record) and head or '')
