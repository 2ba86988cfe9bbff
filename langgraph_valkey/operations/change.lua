-- What the scripts of an owner share: they change a thread as a whole.

local function thread()
  local m = whole(call('HGET', STATE, 'm'))
  if not m then return nil end
  return {
    text = m, born = sub(m, 1, 32), stamp = tonumber(sub(m, 33, 48)), rest = sub(m, 49, 70),
    scarred = sub(m, 71),
  }
end

local function save(t, scarred)
  t.text = t.born .. format('%016.0f', t.stamp) .. t.rest .. scarred
  call('HSET', STATE, 'm', t.text)
end

local function head_of(ns)
  local h = call('HGET', STATE, 'H' .. ns)
  if not h then return nil, '' end
  return sub(h, 1, 6), sub(h, 7)
end

-- Takes a checkpoint and its writes away. Gives the namespace's head.
local function take_away(ns, id, ordinal, head)
  local at = ns .. '\0' .. id
  local gone = writes_of(call('HGET', STATE, 'x' .. at) or '', {'r' .. at, 'x' .. at})
  for from = 1, #gone, MOST do
    call('HDEL', STATE, unpack(gone, from, math.min(from + MOST - 1, #gone)))
  end
  call('ZREM', INDEX, '=' .. ordinal .. id)
  if id ~= head then return head end
  local top = call('ZREVRANGEBYLEX', INDEX, '(=' .. ordinal .. '\255', '[=' .. ordinal, 'LIMIT', 0, 1)
  head = top[1] and sub(top[1], 8) or ''
  call('HSET', STATE, 'H' .. ns, ordinal .. head)
  return head
end

-- Remembers deletions for so long, from now on at least.
local function remember(ttl_ms)
  call('PEXPIRE', GRAVES, ttl_ms, 'NX')
  call('PEXPIRE', GRAVES, ttl_ms, 'GT')
end
