-- Claim a computation, or give it back: one holder at a time computes an answer.
-- KEYS  1 the claim
-- ARGV  1 holder, 2 for how long, in ms; 0 to give it back
-- Reply: 1 if the holder has it now, or had it and gave it back

local holder = redis.call('GET', KEYS[1])
if ARGV[2] == '0' then
  if holder ~= ARGV[1] then return 0 end
  return redis.call('DEL', KEYS[1])
end
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
