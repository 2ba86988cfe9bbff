-- How many buckets the store has: kept once, since another number would look for everything
-- in another place.
-- ARGV  1 the number, if it is to be kept where there is none yet

if ARGV[1] then redis.call('HSETNX', KEYS[1], 'buckets', ARGV[1]) end
return redis.call('HGET', KEYS[1], 'buckets')
