-- Join what a journal holds of a thread into what is here: nothing that is here is
-- changed by what is older, so it may be done at any time, twice, in any order.
-- ARGV  1 expected primary(40) nonce(16) gen(16) dead(16) newest stamp that the
--         journal's process knows(16), deadline in ms of the server's clock(16, 0
--         for none), for how long to remember deletions, in ms(16)
--       2... in the order in which they were acknowledged, lengths being those of
--       namespace(6) and of id(6):
--         'D' stamp(16)                          the thread was deleted
--         'R' stamp(16) lengths namespace id     the checkpoint was removed
--         'C' digest(16) chunk
--         'P' stamp(16) lengths namespace id record
--         'W' stamp(16) entry(16) lengths namespace id writes
--         'S' lengths namespace id               a head that the process has seen
-- Reply: a letter for each D, R, P and W: 's' stored, 't' it was there, 'd' it was
--        deleted meanwhile, 'r' a checkpoint that was removed meanwhile, 'x' its thread
--        expired, 'm' its chunks are not there, or it was only asked for: sent
--        without record or writes;
--        {namespace, head, other branch} of each fork; when the thread was deleted last

local HEAD = ARGV[1]
local function number(from, to) return tonumber(sub(HEAD, from, to)) end
local GEN, NEWEST, DEADLINE, REMEMBER = sub(HEAD, 57, 72), number(89, 104), number(105, 120), number(121, 136)
if moved(sub(HEAD, 1, 40)) then return reply('moved', nothing(0)) end

local now = clock()
local t, dead = thread(), tonumber(call('ZSCORE', GRAVES, '') or 0)
local sent, seen, forks, verdicts, restored = {}, {}, {}, {}, {}
local tops, named, line = {}, {}, {}
local changed, made = false, false

-- Fields of the state that begin so.
local function each_field(kind, visit)
  local cursor = '0'
  repeat
    local page = call('HSCAN', STATE, cursor, 'MATCH', kind .. '*', 'COUNT', MOST, 'NOVALUES')
    cursor = page[1]
    for i = 1, #page[2] do visit(page[2][i]) end
  until cursor == '0'
end

-- What is left of an earlier life of the thread, by a deletion that ended that one.
local function bury_earlier()
  each_field('g', function(name)
    local at = string.find(name, '\0', 1, true)
    if at and tonumber(call('HGET', STATE, name)) <= dead then
      local ns = sub(name, 2, at - 1)
      take_away(ns, sub(name, at + 1), head_of(ns))
      call('HDEL', STATE, name)
      changed = true
    end
  end)
end

local function bury(stamp)
  if stamp > dead then
    dead = stamp
    call('ZADD', GRAVES, format('%.0f', dead), '')
    remember(REMEMBER)
  end
  if t and tonumber(sub(t.born, 17, 32)) <= dead then
    call('UNLINK', STATE, INDEX)
    t = nil
  elseif t and call('HEXISTS', STATE, 'g') == 1 then
    bury_earlier()
  end
end

-- Why nothing of this thread is wanted any more, if so.
local function refused()
  if GEN == NEVER then return dead > 0 and NEWEST <= dead and 'd' end
  if tonumber(GEN) <= dead then return 'd' end
  -- One that others have put off since is there, and has not expired; nor has what
  -- is of an earlier life of it, which had a nonce of its own, come back by that.
  local lives = t and t.born == sub(HEAD, 41, 72)
  if DEADLINE > 0 and DEADLINE * 1000 <= now and not lives then return 'x' end
end

-- The thread as it was, unless it is there. One that others made anew meanwhile is
-- joined: it is the newer life of the two, and what is of the earlier one is marked,
-- since a deletion may yet come that ended that alone. Gives the mark.
local function revive()
  changed = true
  if t then
    local gen = sub(t.born, 17, 32)
    if GEN == NEVER or GEN == gen then return end
    call('HSET', STATE, 'g', '')
    if tonumber(GEN) < tonumber(gen) then return GEN end
    each_field('r', function(name)
      local mark = 'g' .. sub(name, 2)
      if call('HEXISTS', STATE, mark) == 0 then call('HSET', STATE, mark, gen) end
    end)
    t.born = sub(t.born, 1, 16) .. GEN
    return
  end
  local nonce, gen = sub(HEAD, 41, 56), GEN
  if gen == NEVER then gen = format('%016.0f', math.max(dead, NEWEST) + 1) end
  call('DEL', INDEX)
  call('ZADD', INDEX, 0, '!' .. nonce)
  t = {born = nonce .. gen, stamp = tonumber(gen), rest = format('%016.0f000000', dead)}
  t.scarred = call('ZCARD', GRAVES) > 0 and '1' or '0'
  made = true
end

local function fork(ns, head, branch)
  local at = #forks
  forks[at + 1], forks[at + 2], forks[at + 3] = ns, head, branch
end

local function head_in(ns)
  local ordinal, head = head_of(ns)
  if ordinal then return ordinal, head end
  local many = tonumber(sub(t.rest, 17, 22), 16) + 1
  ordinal = format('%06x', many)
  t.rest = sub(t.rest, 1, 16) .. ordinal
  call('HSET', STATE, 'O' .. ordinal, ns, 'H' .. ns, ordinal)
  return ordinal, ''
end

-- Whether `id` is an ancestor of `from`; nil if the line breaks off before it. What
-- was sent tells of its parent also where it was removed since.
local function descends(ns, from, id)
  for _ = 1, MOST do
    local at = ns .. '\0' .. from
    from = line[at]
    if not from then
      local record = call('HGET', STATE, 'r' .. at)
      if not record then return nil end
      from = parent_of(record)
    end
    if from == id then return true end
    if from == '' or above(id, from) then return false end
  end
end

-- The head is stored, not derived. A replay moves it only from where its process
-- has been. What it may not move it to is kept beside it, and is the head once
-- another replay moves that: between those that replays restored the highest id is
-- it, whatever the order in which they come.
local function settle_head(ns, id)
  local ordinal, head = head_in(ns)
  if id == head then return end
  local up, kin = head == '' or above(id, head), true
  if head ~= '' then
    if up then kin = descends(ns, id, head) else kin = descends(ns, head, id) end
  end
  local known = up and seen[ns .. '\0' .. head]
  local wins = up and (kin or known or call('HGET', STATE, 'p' .. ns) == head)
  local kept = call('HGET', STATE, 'k' .. ns) or ''
  if restored[ns] and not kin and not known and (kin == false or up and not wins) then
    fork(ns, wins and id or head, wins and head or id)
  end
  if wins then
    if above(kept, id) and call('HEXISTS', STATE, 'r' .. ns .. '\0' .. kept) == 1 then
      if not descends(ns, kept, id) then fork(ns, kept, id) end
      id = kept
    end
    call('HSET', STATE, 'H' .. ns, ordinal .. id, 'p' .. ns, id)
    changed = true
  elseif up and above(id, kept) then
    call('HSET', STATE, 'k' .. ns, id)
  end
end

-- With the highest id that was put so far.
local function settle(ns)
  local top = tops[ns]
  tops[ns] = nil
  if t and top and call('HEXISTS', STATE, 'r' .. ns .. '\0' .. top) == 1 then settle_head(ns, top) end
end

local function lacks(record)
  local names = digests_of(record, '', {}) or {}
  for i = 1, #names do
    if not sent[names[i]] and call('HEXISTS', STATE, 'c' .. names[i]) == 0 then return true end
  end
  for i = 1, #names do
    if sent[names[i]] then call('HSET', STATE, 'c' .. names[i], sent[names[i]]) end
  end
  return false
end

local function removed(ns, id, stamp)
  return tonumber(call('ZSCORE', GRAVES, ns .. '\0' .. id) or 0) >= stamp
end

local function put(stamp, ns, id, record)
  if removed(ns, id, stamp) then return 'r' end
  local this = 'r' .. ns .. '\0' .. id
  local here = t and call('HGET', STATE, this)
  if here and here ~= '' then
    local same, newer = sub(here, 2, 9) == sub(record, 2, 9), sub(record, 10, 17)
    if not same or not above(newer, sub(here, 10, 17)) then return 't' end
  end
  if record == '' or lacks(record) then return 'm' end
  local earlier = revive()
  local ordinal = head_in(ns)
  call('HSET', STATE, this, record)
  if earlier then call('HSET', STATE, 'g' .. ns .. '\0' .. id, earlier) end
  call('ZADD', INDEX, 0, '=' .. ordinal .. id)
  restored[ns] = true
  return 's'
end

local function write(stamp, entry, ns, id, writes)
  if removed(ns, id, stamp) then return 'd' end
  if t and call('HEXISTS', STATE, 'w' .. entry) == 1 then return 't' end
  if writes == '' then return 'm' end
  revive()
  head_in(ns)
  local list = 'x' .. ns .. '\0' .. id
  local entries = call('HGET', STATE, list) or ''
  call('HSET', STATE, list, entries .. entry, 'w' .. entry, format('%016.0f', stamp) .. writes)
  return 's'
end

local function remove(stamp, ns, id)
  if removed(ns, id, stamp) then return 't' end
  call('ZADD', GRAVES, format('%.0f', stamp), ns .. '\0' .. id)
  remember(REMEMBER)
  if t then
    local ordinal, head = head_of(ns)
    if ordinal then take_away(ns, id, ordinal, head) end
    t.scarred, changed = '1', true
  end
  return 's'
end

-- What follows the lengths at `at`: namespace, id, and the rest.
local function parts(item, at)
  local ns_end = at + 11 + tonumber(sub(item, at, at + 5))
  local id_end = ns_end + tonumber(sub(item, at + 6, at + 11))
  return sub(item, at + 12, ns_end), sub(item, ns_end + 1, id_end), sub(item, id_end + 1)
end

bury(number(73, 88))
for i = 2, #ARGV do
  local item, kind = ARGV[i], sub(ARGV[i], 1, 1)
  local stamp, verdict = tonumber(sub(item, 2, 17)), nil
  if kind == 'C' then
    sent[sub(item, 2, 17)] = sub(item, 18)
  elseif kind == 'S' then
    local ns, id = parts(item, 2)
    seen[ns .. '\0' .. id] = true
  elseif kind == 'D' then
    verdict = stamp > dead and 's' or 't'
    bury(stamp)
  else
    verdict = refused()
    if not verdict and kind == 'R' then
      local ns, id = parts(item, 18)
      settle(ns) -- what is removed may have been the head
      verdict = remove(stamp, ns, id)
    elseif not verdict and kind == 'W' then
      local ns, id, writes = parts(item, 34)
      verdict = write(stamp, sub(item, 18, 33), ns, id, writes)
    elseif not verdict then
      local ns, id, record = parts(item, 18)
      if record ~= '' then line[ns .. '\0' .. id] = parent_of(record) end
      verdict = put(stamp, ns, id, record)
      if verdict == 's' or verdict == 't' then
        if not tops[ns] then named[#named + 1] = ns end
        if not tops[ns] or above(id, tops[ns]) then tops[ns] = id end
      end
    end
  end
  if verdict then verdicts[#verdicts + 1] = verdict end
end
for i = 1, #named do settle(named[i]) end

if t and (changed or NEWEST > t.stamp) and not refused() then
  t.stamp = math.max(now, t.stamp + 1, NEWEST)
  save(t, t.scarred)
end
if t and DEADLINE > 0 and not refused() then
  local at = call('PEXPIRETIME', STATE)
  if made or at == -1 or DEADLINE > at then
    call('PEXPIREAT', STATE, format('%.0f', DEADLINE))
    call('PEXPIREAT', INDEX, format('%.0f', DEADLINE))
  end
end
return reply('ok', t and t.text or nothing(math.max(now, dead + 1)), table.concat(verdicts), forks, format('%016.0f', dead))
