-- Read values kept under plain keys.
-- KEYS  1 lives of namespaces, 2 what the keys of values begin with
-- ARGV  1 namespace, 2.. digests of keys
-- Reply: the value of each; false if there is none
--
-- A namespace has a life, drawn at random; clearing it begins another one. Values are kept
-- under the lives of all namespaces ('') and of theirs.

local lives = redis.call('HMGET', KEYS[1], 'a', 'n' .. ARGV[1])
if not lives[1] or not lives[2] then return {} end
local out = {}
for i = 2, #ARGV do out[i - 1] = redis.call('GET', KEYS[2] .. lives[1] .. lives[2] .. ARGV[i]) end
return out
