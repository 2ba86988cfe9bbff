-- What the server may evict.
-- KEYS  1 any key of the shard that is asked
-- Reply: its maxmemory-policy; '' where hidden

local memory = redis.pcall('INFO', 'memory')
local known = type(memory) == 'string' and string.match(memory, 'maxmemory_policy:([^\r\n]*)')
return known or ''
