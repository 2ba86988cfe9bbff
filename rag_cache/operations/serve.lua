-- Serve the first of some entries that may be served, and tell what is new in the scope.
-- KEYS  1 versions, 2 scope, 3 what the keys of entries begin with
-- ARGV  1 scope, 2 tenant, 3 marks of the scope itself, 4 nonce and 5 counter up to which
--       the caller knows the scope, 6 how many new entries to tell, 7.. ids of entries
-- Reply: status, primary, nonce, counter; and if the status is 'ok': the number of the one
--        served (0: none), its value and card, its marks, a verdict on each one that was
--        looked at, and of each new entry: counter, id, card, vector
-- What is no entry counts as gone: one such key must not break its scope.
-- Verdicts: 'k' served, 'g' gone, 's' stale, 'o' of another scope

local at = redis.call('HMGET', KEYS[1], 'v', 'k', 'n')
if ME == '' or at[1] ~= ME then return {'unverified', ME, '', ''} end
local life, verdicts = at[2], {}
local served, value, card, marks = 0, '', '', ''
for i = 7, #ARGV do
  local entry = redis.pcall('HMGET', KEYS[3] .. ARGV[i], 's', 't', 'f', 'm', 'x', 'c')
  local verdict = 'k'
  if not (entry[1] and entry[2] and entry[3] and entry[4] and entry[5] and entry[6]) then
    verdict = 'g'
  elseif entry[1] ~= ARGV[1] or entry[2] ~= ARGV[2] then
    verdict = 'o'
  else
    local nonce, n = sub(entry[3], 1, 16), sub(entry[3], 17, 32)
    if not current(KEYS[1], ARGV[3], nonce, n, life) or not current(KEYS[1], entry[4], nonce, n, life) then
      verdict = 's'
    end
  end
  verdicts[#verdicts + 1] = verdict
  if verdict == 'k' then
    served, value, card, marks = i - 6, entry[5], entry[6], entry[4]
    break
  end
end
local news, from = {}, '-inf'
if ARGV[4] == life then from = '(' .. ARGV[5] end
local most = tonumber(ARGV[6])
if most > 0 then
  local found = redis.call('ZRANGEBYSCORE', KEYS[2], from, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #found, 2 do
    local it = redis.pcall('HMGET', KEYS[3] .. found[i], 'c', 'v')
    news[#news + 1] = {string.format('%016.0f', found[i + 1]), found[i], it[1] or '', it[2] or ''}
  end
end
return {'ok', ME, life, at[3], served, value, card, marks, table.concat(verdicts), news}
