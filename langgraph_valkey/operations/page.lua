-- Read a page of checkpoints, ordered by id within a namespace.
-- ARGV  1 what: 'all' records, chunks and writes, 'meta' metadata, 'ids'
--       2 namespace, or '*' for each in the order of their creation
--       3 ordinal to go on from, 4 id to go on behind ('' for none)
--       5 'before' id ('' for none), 6 only this id ('' for all), 7 page size,
--       8 'up' oldest first, 'down' newest first
-- Reply: next ordinal ('' at the end), next id, {namespace, id, item...},
--        {digests, chunks}

local what, only, most = ARGV[1], ARGV[6], tonumber(ARGV[7])
local t = thread()
if not t then
  if call('EXISTS', INDEX) == 1 then return reply('torn', NOTHING) end
  return reply('none', NOTHING)
end
if not whole(t) then return reply('unordered', t) end

local from, to = tonumber(ARGV[3], 16), t.namespaces
if ARGV[2] ~= '*' then
  local ordinal = namespace(sub(ARGV[2], 2))
  if not ordinal then return reply('ok', t, '', '', {}, {{}, {}}) end
  from, to = tonumber(ordinal, 16), tonumber(ordinal, 16)
end

local out, digests, chunks, seen = {}, {}, {}, {}
local found, bytes = 0, 0

local function add(ns, ordinal, id)
  found = found + 1
  out[#out + 1] = ns
  out[#out + 1] = id
  if what == 'ids' then return end
  local record = call('HGET', STATE, 'r' .. ordinal .. id) or ''
  bytes = bytes + #record
  if what == 'meta' then
    out[#out + 1] = metadata_of(record)
    return
  end
  out[#out + 1] = record
  local fresh = digests_of(record, {}, seen)
  local values = hmget(fresh, 'c')
  for i = 1, #fresh do
    digests[#digests + 1] = fresh[i]
    chunks[#chunks + 1] = values[i]
    bytes = bytes + #(values[i] or '')
  end
  out[#out + 1] = writes_on(ordinal, id)
end

local function finish(ordinal, id)
  return reply('ok', t, ordinal, id, out, {digests, chunks})
end

local function members(ordinal, behind, many)
  local low, high = '[=' .. ordinal, '(=' .. ordinal .. '\255'
  if ARGV[8] == 'up' then
    if behind ~= '' then low = '(=' .. ordinal .. behind end
    return call('ZRANGEBYLEX', INDEX, low, high, 'LIMIT', 0, many)
  end
  if behind == '' then behind = ARGV[5] end
  if behind ~= '' then high = '(=' .. ordinal .. behind end
  return call('ZREVRANGEBYLEX', INDEX, high, low, 'LIMIT', 0, many)
end

local behind, visited = ARGV[4], 0
for n = from, to do
  local ordinal = ordinal_text(n)
  local ns = call('HGET', STATE, 'O' .. ordinal)
  visited = visited + 1
  if ns and only ~= '' then
    if call('HEXISTS', STATE, 'r' .. ordinal .. only) == 1 then add(ns, ordinal, only) end
  elseif ns then
    local page = members(ordinal, behind, most - found)
    for i = 1, #page do
      add(ns, ordinal, sub(page[i], 8))
      if found >= most or bytes >= BYTES_MOST then return finish(ordinal, sub(page[i], 8)) end
    end
  end
  behind = ''
  if visited >= MOST and n < to then return finish(ordinal_text(n + 1), '') end
end
return finish('', '')
