-- Take, hold on, or give back a lease.
-- KEYS  1 the lock: 'token', 'holder', 'until' (the server's clock in ms; 0: given back).
--         It never expires, so that no token is ever given twice.
-- ARGV  1 step: 'acquire', 'renew', 'release'; 2 holder; 3 for how long, in ms; 4 token
-- Reply: the token if the holder has the lease now, or has given it back; else 0

local step, holder, ttl_ms, token = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000)
local lock = redis.call('HMGET', KEYS[1], 'token', 'holder', 'until')
local mine, till_ms = lock[2] == holder, tonumber(lock[3] or 0)
local held = till_ms > now_ms

local function keep(until_ms)
  redis.call('HSET', KEYS[1], 'holder', holder, 'until', string.format('%.0f', until_ms))
end

if step == 'acquire' then
  -- Mine, and given back: this call was sent before that and comes late.
  if held and not mine or mine and till_ms == 0 then return 0 end
  token = held and tonumber(lock[1]) or redis.call('HINCRBY', KEYS[1], 'token', 1)
  keep(now_ms + ttl_ms)
  return token
end
if not mine or tonumber(lock[1]) ~= token then return 0 end
if step == 'release' then
  keep(0)
  return token
end
if not held then return 0 end
keep(now_ms + ttl_ms)
return token
