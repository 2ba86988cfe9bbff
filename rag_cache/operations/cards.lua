-- Tell what is needed to judge some entries.
-- KEYS  1 what the keys of entries begin with
-- ARGV  ids of entries
-- Reply: the scope and the card of each; '' if it is gone

local out = {}
for i = 1, #ARGV do
  local it = redis.call('HMGET', KEYS[1] .. ARGV[i], 's', 'c')
  out[2 * i - 1], out[2 * i] = it[1] or '', it[2] or ''
end
return out
