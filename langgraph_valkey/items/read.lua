-- Read items.
-- ARGV  names
-- Reply: the server's clock in ms; for each its item, or nil

local i, found = bucket(), {}
for at = 1, #ARGV do
  local here = find(ARGV[at])
  found[at] = here and as_told(ARGV[at], here)
end
return reply(i and 'ok' or 'none', i or nothing(NOW), NOW_MS, found)
