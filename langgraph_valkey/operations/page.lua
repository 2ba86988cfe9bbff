-- Read a page of checkpoints, ordered by id within a namespace.
-- ARGV  1 what: 'all' records, chunks and writes, 'meta' metadata, 'refs'
--         digests of its chunks, 'ids'
--       2 '=' namespace, or '*' for each in the order of their creation
--       3 ordinal to go on from, 4 id to go on behind ('' for none)
--       5 'before' id ('' for none), 6 only this id ('' for all), 7 page size,
--       8 'up' oldest first, 'down' newest first, 9 bytes of a page
-- Reply: next ordinal ('' at the end), next id, {digests}, {chunks}, and for each
--        namespace, id; metadata, or digests; or record, entries, {writes}

local what, only, most, bytes_most = ARGV[1], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[9])
local m = whole(call('HGET', STATE, 'm'))
if not m then return absent() end
if not call('ZSCORE', INDEX, '!' .. sub(m, 1, 16)) then return reply('unordered', m) end

local out, digests, chunks, seen = {}, {}, {}, {}
local found, bytes = 0, 0

local function finish(ordinal, id)
  return reply('ok', m, ordinal, id, digests, chunks, out)
end

local function metadata_of(record)
  if #record <= HEADER then return '' end
  local p, q, a, b, c, d, e, f, g, h = byte(record, 18, 27)
  local at = 28 + p * 256 + q + 16 * (((a * 256 + b) * 256 + c) * 256 + d)
  return sub(record, at, at + ((e * 256 + f) * 256 + g) * 256 + h - 1)
end

local function add(ns, id)
  found = found + 1
  out[#out + 1] = ns
  out[#out + 1] = id
  if what == 'ids' then return end
  local at = ns .. '\0' .. id
  if what == 'meta' then
    local metadata = metadata_of(call('HGET', STATE, 'r' .. at) or '')
    bytes = bytes + #metadata
    out[#out + 1] = metadata
    return
  end
  if what == 'refs' then
    local refs = table.concat(digests_of(call('HGET', STATE, 'r' .. at) or '', '', {}))
    bytes = bytes + #refs
    out[#out + 1] = refs
    return
  end
  local here = call('HMGET', STATE, 'r' .. at, 'x' .. at)
  local record, entries = here[1] or '', here[2] or ''
  bytes = bytes + #record
  local names, fields, writes = digests_of(record, 'c', {}), {}, {}
  for i = 1, #names do
    if not seen[names[i]] then
      seen[names[i]] = true
      fields[#fields + 1] = names[i]
    end
  end
  local fresh = #fields
  local values = hmget(writes_of(entries, fields))
  for i = 1, #fields do
    bytes = bytes + #(values[i] or '')
    if i > fresh then
      writes[i - fresh] = values[i]
    else
      digests[#digests + 1] = sub(fields[i], 2)
      chunks[#chunks + 1] = values[i]
    end
  end
  out[#out + 1] = record
  out[#out + 1] = entries
  out[#out + 1] = writes
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

local from, to = tonumber(ARGV[3], 16), tonumber(sub(m, 65, 70), 16)
if ARGV[2] ~= '*' then
  local h = call('HGET', STATE, 'H' .. sub(ARGV[2], 2))
  if not h then return finish('', '') end
  from, to = tonumber(sub(h, 1, 6), 16), tonumber(sub(h, 1, 6), 16)
end

local behind, visited = ARGV[4], 0
for n = from, to do
  local ordinal = format('%06x', n)
  local ns = call('HGET', STATE, 'O' .. ordinal)
  visited = visited + 1
  if ns and only ~= '' then
    if call('HEXISTS', STATE, 'r' .. ns .. '\0' .. only) == 1 then add(ns, only) end
  elseif ns then
    local page = members(ordinal, behind, most - found)
    for i = 1, #page do
      local id = sub(page[i], 8)
      add(ns, id)
      if found >= most or bytes >= bytes_most then return finish(ordinal, id) end
    end
  end
  behind = ''
  if visited >= MOST and n < to then return finish(format('%06x', n + 1), '') end
end
return finish('', '')
