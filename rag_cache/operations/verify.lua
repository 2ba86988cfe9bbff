-- Say that all versions were written down on this primary: from now on it may serve.
-- KEYS  1 versions
-- ARGV  1 the primary on which they were written, 2 the writer's token, 3 a new nonce
-- Reply: status, primary, nonce, counter; statuses: 'ok', 'unverified' (another primary, or
--        they were evicted meanwhile)
--
-- The counter goes on from the clock: no number is given twice in a scope that outlived
-- its versions.

if ME == '' or ME ~= ARGV[1] or redis.call('HDEL', KEYS[1], 'b' .. ARGV[2]) == 0 then
  return {'unverified', ME, '', ''}
end
local at = redis.call('HMGET', KEYS[1], 'v', 'k', 'n')
if at[1] == ME and at[2] then return {'ok', ME, at[2], at[3]} end
local t = redis.call('TIME')
local n = math.max(tonumber(at[3] or 0) + 1, t[1] * 1000000 + t[2])
n = string.format('%016.0f', n)
redis.call('HSET', KEYS[1], 'v', ME, 'k', ARGV[3], 'n', n)
return {'ok', ME, ARGV[3], n}
