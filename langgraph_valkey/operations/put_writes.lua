-- Store the writes of one task on a checkpoint, which may come later itself.
-- Payload: the writes.

local list, this = 'x' .. AT, 'w' .. ENTRY
local m, fields, _, _, entries, here = admit(list, this)
if not m then return fields end
if not here then
  local n = #fields
  fields[n + 1] = list
  fields[n + 2] = (entries or '') .. ENTRY
  fields[n + 3] = this
  fields[n + 4] = sub(m, 33, 48) .. PAYLOAD
end
return store(m, fields)
