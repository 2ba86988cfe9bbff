-- Write changed versions of marks down.
-- KEYS  1 versions
-- ARGV  1 for how long they are kept at least, in ms, 2 token of who writes all of them
--       anew, or '', 3.. of each: mark(16) change(16) version(16)
-- Reply: status, primary, nonce, counter; statuses: 'ok', 'unverified' (they are written
--        all the same, but nobody serves by them)
--
-- Changes carry numbers, and an older one never replaces a newer one.

local n = string.format('%016.0f', redis.call('HINCRBY', KEYS[1], 'n', 1))
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'b' .. ARGV[2], '1') end
for i = 3, #ARGV do
  local field = 'm' .. sub(ARGV[i], 1, 16)
  local known = redis.call('HGET', KEYS[1], field)
  if not known or sub(known, 17, 32) <= sub(ARGV[i], 17, 32) then
    redis.call('HSET', KEYS[1], field, n .. sub(ARGV[i], 17, 48))
  end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) / 2 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
local at = redis.call('HMGET', KEYS[1], 'v', 'k')
if ME == '' or at[1] ~= ME then return {'unverified', ME, '', n} end
return {'ok', ME, at[2], n}
