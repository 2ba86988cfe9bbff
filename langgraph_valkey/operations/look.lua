-- What the primary tells of itself.
-- Reply: INFO replication, and the operating system it says it runs on; each '' where hidden

local server = redis.pcall('INFO', 'server')
local system = type(server) == 'string' and string.match(server, '\nos:([^\r\n]*)') or ''
return reply('ok', nothing(0), type(INFO) == 'string' and INFO or '', system)
