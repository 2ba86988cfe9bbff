-- What the scripts that store something begin with.
--
-- ARGV  1 entry(16) nonce(16) gen(16) newest stamp the writer knows(16) ttl in
--         ms(16, 0 for none) entry of the parent as the writer knows it(16)
--         complete(1) root(1) leans(1) the primary the writer expects(40) length
--         of namespace(6) and of id(6) namespace id payload: one argument, as each
--         costs the client more than its bytes do

local HEAD = ARGV[1]
local ENTRY, TRUSTED, COMPLETE = sub(HEAD, 1, 16), sub(HEAD, 81, 96), sub(HEAD, 97, 97) == '1'
local ROOT, LEANS = sub(HEAD, 98, 98) == '1', sub(HEAD, 99, 99) == '1'
local NS_END = 151 + tonumber(sub(HEAD, 140, 145))
local ID_END = NS_END + tonumber(sub(HEAD, 146, 151))
local NS, ID, PAYLOAD = sub(HEAD, 152, NS_END), sub(HEAD, NS_END + 1, ID_END), sub(HEAD, ID_END + 1)
local AT = NS .. '\0' .. ID

-- Why a write is not wanted any more, if it is not:
--   deleted  its thread was deleted: neither a late write nor a run that was in
--            the middle of it may bring it back; only a root begins it anew
--   stale    something of this name was deleted after the writer last heard of
--            it; a live writer asks again with the stamp in the reply
local function refusal(m, gen, now)
  local graves = call('ZMSCORE', GRAVES, '', AT)
  local dead, removed = tonumber(graves[1] or 0), tonumber(graves[2] or 0)
  if (gen ~= NEVER and tonumber(gen) <= dead) or (not m and not ROOT and dead > 0) then
    return reply('deleted', nothing(math.max(now, dead + 1)))
  end
  local newest = tonumber(sub(HEAD, 49, 64))
  if (gen == NEVER and dead > 0 and newest <= dead) or (removed > 0 and newest <= removed) then
    return reply('stale', nothing(math.max(now, dead + 1, removed + 1)))
  end
  return nil, dead
end

local function create(gen, now, dead)
  call('DEL', INDEX)
  call('ZADD', INDEX, 0, '!' .. ENTRY)
  local stamp = math.max(now, dead + 1, tonumber(sub(HEAD, 49, 64)) + 1)
  if gen == NEVER then gen = format('%016.0f', stamp) end
  return ENTRY .. gen .. format('%016.0f%016.0f0000000', math.max(stamp, tonumber(gen)), dead)
end

-- Lets a write in. Gives the thread's new identity, the fields to store besides,
-- the namespace's ordinal and head, and two stored fields asked for; or nil and
-- the reply that says why not:
--   moved    another primary answers than the writer expects
--   rewound  the thread is behind what the writer was told of it
--   resend   the server does not have what the writer relies on
local function admit(name1, name2)
  if moved(sub(HEAD, 100, 139)) then return nil, reply('moved', nothing(0)) end
  local now, gen = clock(), sub(HEAD, 33, 48)
  local found = call('HMGET', STATE, 'm', 'H' .. NS, name1, name2)
  local m, dead = whole(found[1]), 0
  if not m or sub(m, 71) == '1' or gen ~= sub(m, 17, 32) then
    local why
    why, dead = refusal(m, gen, now)
    if why then return nil, why end
  elseif tonumber(sub(HEAD, 49, 64)) > tonumber(sub(m, 33, 48)) then
    return nil, reply('rewound', m)
  end
  if not COMPLETE and not (m and sub(HEAD, 17, 32) == sub(m, 1, 16)) then
    return nil, reply('resend', m or nothing(0))
  end
  m = m or create(gen, now, dead)
  local fields, namespaces, h = {}, sub(m, 65, 70), found[2]
  if not h then
    namespaces = format('%06x', tonumber(namespaces, 16) + 1)
    fields, h = {'O' .. namespaces, NS, 'H' .. NS, namespaces}, namespaces
  end
  local stamp = format('%016.0f', math.max(now, tonumber(sub(m, 33, 48)) + 1))
  m = sub(m, 1, 32) .. stamp .. sub(m, 49, 64) .. namespaces .. sub(m, 71)
  return m, fields, sub(h, 1, 6), sub(h, 7), found[3], found[4]
end

-- Reply: the thread's deadline (not positive if it has none), and what else is given.
local function store(m, fields, ...)
  fields[#fields + 1] = 'm'
  fields[#fields + 1] = m
  for from = 1, #fields, MOST do
    call('HSET', STATE, unpack(fields, from, math.min(from + MOST - 1, #fields)))
  end
  local ttl_ms = tonumber(sub(HEAD, 65, 80))
  local at = ttl_ms > 0 and expire(ttl_ms) or call('PEXPIRETIME', STATE)
  return reply('ok', m, at, ...)
end
