-- Read items that the server's search has named.
-- ARGV  names
-- Reply: the server's clock in ms; 1 if the search does not see all vectors of this bucket; for
--        each its item, or nil

local i, found = bucket(), {}
for at = 1, #ARGV do
  local name = ARGV[at]
  local here = find(name)
  found[at] = here and as_told(name, here, call('HGET', STATE, 'b' .. split(name)))
end
local is_part = call('HEXISTS', STATE, 'p')
return reply(i and 'ok' or 'none', i or nothing(NOW), NOW_MS, is_part, found)
