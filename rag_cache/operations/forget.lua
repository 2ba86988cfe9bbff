-- Forget all values of a namespace, or of all of them.
-- KEYS  1 lives of namespaces
-- ARGV  1 namespace, or '' for all
-- Reply: 1

if ARGV[1] == '' then return redis.call('UNLINK', KEYS[1]) end
return redis.call('HDEL', KEYS[1], 'n' .. ARGV[1])
