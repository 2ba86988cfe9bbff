-- Store an entry, unless what it was made from has changed meanwhile.
-- KEYS  1 versions, 2 scope, 3 what the keys of entries begin with
-- ARGV  1 scope, 2 tenant, 3 marks of the scope itself, 4 fence: nonce(16) n(16), or '',
--       5 time to live in ms, 6 for how long versions are kept at least, 7 how many
--       entries the scope may have, 8 id, 9 marks, 10 value, 11 card, 12 vector
-- Reply: status, primary, nonce, counter, entries of the scope; statuses: 'ok', 'stale',
--        'unverified' (the last two without entries)

local at = redis.call('HMGET', KEYS[1], 'v', 'k')
if ME == '' or at[1] ~= ME then return {'unverified', ME, '', ''} end
local life, nonce, made = at[2], sub(ARGV[4], 1, 16), sub(ARGV[4], 17, 32)
if not current(KEYS[1], ARGV[3], nonce, made, life) or not current(KEYS[1], ARGV[9], nonce, made, life) then
  return {'stale', ME, life, ''}
end
local n = string.format('%016.0f', redis.call('HINCRBY', KEYS[1], 'n', 1))
local key, ttl_ms, kept_ms = KEYS[3] .. ARGV[8], ARGV[5], ARGV[6]
redis.call('UNLINK', key)
redis.call('HSET', key, 's', ARGV[1], 't', ARGV[2], 'f', life .. n, 'm', ARGV[9], 'x', ARGV[10], 'c', ARGV[11])
if ARGV[12] ~= '' then redis.call('HSET', key, 'v', ARGV[12]) end
redis.call('PEXPIRE', key, ttl_ms)
redis.call('ZADD', KEYS[2], n, ARGV[8])
for _, each in ipairs({KEYS[1], KEYS[2]}) do
  if redis.call('PTTL', each) < tonumber(kept_ms) / 2 then redis.call('PEXPIRE', each, kept_ms) end
end
-- The oldest make room; those that are gone are swept out a few at a time.
for _ = 1, 2 do
  if redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[7]) then
    redis.call('UNLINK', KEYS[3] .. redis.call('ZPOPMIN', KEYS[2])[1])
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, 1)) do
  if redis.call('EXISTS', KEYS[3] .. id) == 0 then redis.call('ZREM', KEYS[2], id) end
end
return {'ok', ME, life, n, redis.call('ZCARD', KEYS[2])}
