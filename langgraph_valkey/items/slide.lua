-- Put off the end of items that expire: they live from now on as long as they were put for.
-- ARGV  1 '1' to be told the items, 2... names
-- Reply: the server's clock in ms; for each its item, or its deadline (16), or nil

local i, found = bucket(), {}
for at = 2, #ARGV do
  local name = ARGV[at]
  local here = find(name)
  if here and ttl_of(here) > 0 then put_off(name, NOW_MS + ttl_of(here)) end
  if here then
    found[at - 1] = ARGV[1] == '1' and as_told(name, here) or deadline_of(name, here)
  else
    found[at - 1] = false
  end
end
return reply(i and 'ok' or 'none', i or nothing(NOW), NOW_MS, found)
