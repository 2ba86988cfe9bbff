-- Join what a journal holds of a bucket into what is here: nothing that is here is changed by
-- what is older, so it may be done at any time, twice, in any order.
-- ARGV  1 expected primary(40) nonce(16) gen(16) dead(16) newest stamp that the journal's
--         process knows(16), for how long to remember what is gone, in ms(16)
--       2... operations; their stamps are those of their acknowledgements
-- Reply: a letter for each: 's' stored or deleted, 't' it was there, or something newer, 'd'
--        deleted meanwhile, 'x' expired, 'm' it was only asked for: sent without a body

local HEAD = ARGV[1]
if moved(sub(HEAD, 1, 40)) then return reply('moved', nothing(0)) end
local i, NEWEST = bucket(), tonumber(sub(HEAD, 89, 104))
local last = i and tonumber(sub(i, 33, 48)) or 0
STAMP = digits(math.max(NOW, last + 1, NEWEST))

local changed = false

-- The item that is here is the one that was put, and more may be known of it: that its end was
-- put off, and since when it has been there, if it came by a call that nobody heard the answer of.
local function learn(op, here)
  local at = call('PEXPIRETIME', item(op.name))
  if op.deadline > at and at >= 0 then
    put_off(op.name, op.deadline)
    at = op.deadline
  end
  if tonumber(op.created) < tonumber(sub(here, 33, 48)) then
    rewrite(op, sub(here, 1, 16) .. op.born .. op.created .. sub(here, 49), at)
    changed = true
  end
end

local function put(op)
  local here, grave = find(op.name), call('HGET', STATE, 'D' .. op.name)
  local has_expired = op.deadline > 0 and op.deadline <= NOW_MS
  if here and stamp_of(here) >= op.stamp then
    if stamp_of(here) == op.stamp and not has_expired then learn(op, here) end
    return 't'
  end
  local dead = grave and tonumber(sub(grave, 2, 17)) or 0
  local why = grave and sub(grave, 1, 1)
  -- Of what expired, one may know of a later end than this server does.
  if dead > op.stamp or dead == op.stamp and (why == 'D' or has_expired) then
    return why == 'D' and 'd' or 'x'
  end
  if has_expired then
    bury(op, here, grave, 'E', digits(op.stamp))
    return 'x'
  end
  if op.body_from > #op.text then return 'm' end
  keep(op, here, grave, digits(op.stamp), op.born, op.created, op.deadline)
  return 's'
end

local function delete(op)
  local here, grave = find(op.name), call('HGET', STATE, 'D' .. op.name)
  if here and stamp_of(here) >= op.stamp then return 't' end
  if grave and tonumber(sub(grave, 2, 17)) >= op.stamp then
    if sub(grave, 1, 1) == 'D' or tonumber(sub(grave, 2, 17)) > op.stamp then return 't' end
  end
  bury(op, here, grave, 'D', digits(op.stamp))
  return 's'
end

local verdicts = {}
for at = 2, #ARGV do
  local op = parsed(ARGV[at])
  op.stamp, op.deadline = tonumber(sub(op.text, 2, 17)), tonumber(sub(op.text, 50, 65))
  op.born, op.created = sub(op.text, 18, 33), sub(op.text, 34, 49)
  local verdict = sub(op.text, 1, 1) == 'P' and put(op) or delete(op)
  verdicts[at - 1] = verdict
  settle() -- The next one may be of the same item.
  changed = changed or verdict == 's' or verdict == 'x'
end
if changed or NEWEST > last then
  stamp_names()
  local gen = sub(HEAD, 57, 72)
  if gen == NEVER then gen = STAMP end
  if not i then i = begun(sub(HEAD, 41, 56), gen, sub(HEAD, 73, 88)) end
  i = sub(i, 1, 32) .. STAMP .. sub(i, 49)
  call('HSET', STATE, 'i', i)
end
return reply(i and 'ok' or 'none', i or nothing(NOW), table.concat(verdicts))
