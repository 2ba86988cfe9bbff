-- Which primary this is: its replication id, which each failover changes, or, marked
-- as such, its node id where that is hidden.

local INFO = redis.pcall('INFO', 'replication')
local ME = ''
if type(INFO) == 'string' then
  local at = string.find(INFO, 'master_replid:', 1, true)
  ME = at and string.sub(INFO, at + 14, at + 53) or ''
end
if ME == '' then
  local id = redis.pcall('CLUSTER', 'MYID')
  ME = type(id) == 'string' and 'n' .. string.sub(id, 1, 39) or ''
end
