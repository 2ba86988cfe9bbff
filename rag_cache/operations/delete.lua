-- Delete an entry.
-- KEYS  1 scope, 2 the entry
-- ARGV  1 its id
-- Reply: 1 if it was there

redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('UNLINK', KEYS[2])
