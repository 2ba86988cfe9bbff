-- What every writing script shares.
--
-- ARGV  1 writer+seq, 2 nonce, 3 gen, 4 newest stamp the writer knows,
--       5 ttl in ms ('' for none), 6 namespace, 7 checkpoint id

-- Byte order. Lua's < on strings follows the server's locale.
local function above(a, b)
  local most = math.min(#a, #b)
  for i = 1, most do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- Make the index anew from the records, which name everything it holds.
local function mend(t)
  call('DEL', INDEX)
  call('ZADD', INDEX, 0, '!' .. t.nonce)
  local cursor = '0'
  repeat
    local page = call('HSCAN', STATE, cursor, 'MATCH', 'r*', 'COUNT', MOST, 'NOVALUES')
    cursor = page[1]
    for i = 1, #page[2] do call('ZADD', INDEX, 0, '=' .. sub(page[2][i], 2)) end
  until cursor == '0'
end

-- Is this write still wanted, and of which thread? Returns the thread, or nil
-- and the reply that says why not:
--   deleted  its thread was deleted: a late write must not bring it back
--   stale    something of this name was deleted after the writer last heard of
--            it; a live writer asks again with the stamp in the reply
--   resend   the server does not have what the writer relies on
local function admit(complete)
  local nonce, gen, newest = ARGV[2], tonumber(ARGV[3]) or 0, tonumber(ARGV[4]) or 0
  local now, t = clock(), thread()
  local graves = call('ZMSCORE', GRAVES, '', ARGV[6] .. '\0' .. ARGV[7])
  local dead, removed = tonumber(graves[1] or 0), tonumber(graves[2] or 0)
  if gen > 0 and gen <= dead then
    return nil, reply('deleted', {nonce = '', gen = 0, stamp = math.max(now, dead + 1)})
  end
  if (not t and gen == 0 and dead > 0 and newest <= dead) or (removed > 0 and newest <= removed) then
    return nil, reply('stale', {nonce = '', gen = 0, stamp = math.max(now, dead + 1, removed + 1)})
  end
  if t and not whole(t) then mend(t) end
  if nonce ~= '' and (not t or nonce ~= t.nonce) and not complete then
    return nil, reply('resend', t or NOTHING)
  end
  if t then
    t.stamp = math.max(now, t.stamp + 1)
    return t
  end
  call('DEL', INDEX, SWEEP)
  if gen == 0 then gen = math.max(now, dead + 1) end
  return {nonce = ARGV[1], gen = gen, stamp = math.max(now, gen), namespaces = 0, created = true}
end

local function save(t, fields)
  fields[#fields + 1] = 'm'
  fields[#fields + 1] = t.nonce .. digits(t.gen) .. digits(t.stamp)
    .. ordinal_text(t.namespaces)
  for from = 1, #fields, MOST do
    call('HSET', STATE, unpack(fields, from, math.min(from + MOST - 1, #fields)))
  end
  if t.created then call('ZADD', INDEX, 0, '!' .. t.nonce) end
end

local function ordinal_of(t, ns, fields)
  local ordinal, head = namespace(ns)
  if ordinal then return ordinal, head end
  t.namespaces = t.namespaces + 1
  ordinal = ordinal_text(t.namespaces)
  fields[#fields + 1] = 'H' .. ns
  fields[#fields + 1] = ordinal
  fields[#fields + 1] = 'O' .. ordinal
  fields[#fields + 1] = ns
  return ordinal, ''
end
