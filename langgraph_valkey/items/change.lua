-- What the scripts share that change something.
--
-- An operation, as it is sent, journaled and replayed, is one argument:
--   kind(1) stamp(16) born(16) created(16) deadline in ms(16) ttl in ms(16) entry(16)
--   length of namespace(6) and of name(6) name body
-- Kind is 'P' for a put and 'D' for a deletion. Stamp, created and deadline are those of the
-- acknowledgement, and not known before that.

local ENTRIES_MOST = 4 -- writers that are remembered of an item
local STAMP -- of this change; digits
local touched = {} -- namespaces: true if changed, false if gone

local function parsed(text)
  local ns_end, name_end = 109 + tonumber(sub(text, 98, 103)), 109 + tonumber(sub(text, 104, 109))
  return {
    text = text, entry = sub(text, 82, 97), name = sub(text, 110, name_end),
    ns = sub(text, 110, ns_end), key = sub(text, ns_end + 3, name_end), body = sub(text, name_end + 1),
  }
end

-- Byte order. Lua's < on strings follows the server's locale.
local function above(a, b)
  for i = 1, 8 do
    local p, q = byte(a, i), byte(b, i)
    if p ~= q then return p > q end
  end
  return false
end

local function put_off(name, deadline)
  call('PEXPIREAT', item(name), plain(deadline))
  call('ZADD', ENDS, plain(deadline), name)
  put_off_vectors(name, deadline)
end

-- The entries of what stands for an item.
local function entries_of(here, grave)
  if here then return sub(here, 66, 65 + 16 * byte(here, 65)) end
  return grave and sub(grave, 18) or ''
end

-- What has become of an entry, by those: 'same' if it is the newest of all, 'late' if its
-- writer's later one is there, or others have come since; nil if it was never here.
local function seen(entries, entry)
  for at = 1, #entries, 16 do
    if sub(entries, at, at + 7) == sub(entry, 1, 8) then
      local seq = sub(entries, at + 8, at + 15)
      if above(sub(entry, 9), seq) then return nil end
      return at == 1 and seq == sub(entry, 9) and 'same' or 'late'
    end
  end
end

-- An entry, and before it those of other writers; how many that makes.
local function with_entry(entries, entry)
  if entries == '' then return entry, 1 end
  local found = {entry}
  for at = 1, #entries, 16 do
    if sub(entries, at, at + 7) ~= sub(entry, 1, 8) and #found < ENTRIES_MOST then
      found[#found + 1] = sub(entries, at, at + 15)
    end
  end
  return table.concat(found), #found
end

-- Stores an item, in place of what stands for it.
local function keep(op, here, grave, stamp, born, created, deadline)
  local name = op.name
  local entries, many = with_entry(entries_of(here, grave), op.entry)
  local stored = stamp .. born .. created .. sub(op.text, 66, 81) .. string.char(many)
    .. entries .. op.body
  if deadline > 0 then
    call('SET', item(name), stored, 'PXAT', plain(deadline))
    call('ZADD', ENDS, plain(deadline), name)
    call('HSET', STATE, 'D' .. name, 'E' .. stamp .. entries)
  else
    call('SET', item(name), stored)
    if grave then
      call('HDEL', STATE, 'D' .. name)
      call('ZREM', ENDS, name)
    end
  end
  drop_vectors(name, here)
  keep_vectors(op, deadline)
  if grave then call('ZREM', GRAVES, name) end
  local is_new = call('ZADD', members(op.ns), STAMP, op.key) == 1
  if is_new and not touched[op.ns] and call('ZADD', INDEX, 0, op.ns) == 1 then
    call('HSETNX', STATE, 'b' .. op.ns, born)
    call('ZREM', GRAVES, op.ns)
  end
  touched[op.ns] = true
end

-- Stores an item that is here with something of it changed; it ends at this time, if ever.
local function rewrite(op, stored, deadline)
  if deadline >= 0 then
    call('SET', item(op.name), stored, 'PXAT', plain(deadline))
  else
    call('SET', item(op.name), stored)
  end
  call('ZADD', members(op.ns), STAMP, op.key)
  touched[op.ns] = true
end

-- Takes an item out of its namespace, and that out of the index if it was the last one.
local function take_out(ns, key, name)
  call('ZREM', ENDS, name)
  if call('ZREM', members(ns), key) == 1 and call('EXISTS', members(ns)) == 0 then
    call('ZREM', INDEX, ns)
    call('ZREM', NAMES, ns)
    call('ZADD', GRAVES, STAMP, ns)
    touched[ns] = false
  end
end

-- Removes an item, and remembers when.
local function bury(op, here, grave, why, stamp)
  local name = op.name
  call('UNLINK', item(name))
  drop_vectors(name, here)
  take_out(op.ns, op.key, name)
  call('HSET', STATE, 'D' .. name, why .. stamp .. with_entry(entries_of(here, grave), op.entry))
  call('ZADD', GRAVES, STAMP, name)
end

-- Takes out some of what has expired; gives how many.
local function collect(most)
  local due = call('ZRANGEBYSCORE', ENDS, '-inf', '(' .. digits(NOW_MS), 'LIMIT', 0, most)
  for _, name in ipairs(due) do
    local at = call('PEXPIRETIME', item(name))
    if at >= 0 then
      call('ZADD', ENDS, plain(math.max(NOW_MS, at)), name)
    else
      local ns, key = split(name)
      take_out(ns, key, name)
      call('ZADD', GRAVES, STAMP, name)
    end
  end
  return #due
end

-- Levels some of the graves that nobody can need any more.
local function level(remember_ms, most)
  local old = digits(math.max(0, NOW - remember_ms * 1000))
  local found = call('ZRANGEBYSCORE', GRAVES, '-inf', old, 'LIMIT', 0, most)
  if #found == 0 then return end
  call('HSET', STATE, 'z', digits(call('ZSCORE', GRAVES, found[#found])))
  for _, name in ipairs(found) do
    if split(name) then
      call('HDEL', STATE, 'D' .. name)
    else
      call('HDEL', STATE, 'b' .. name)
    end
  end
  call('ZREM', GRAVES, unpack(found))
end

-- Stamps the namespaces that were changed.
local function stamp_names()
  for ns, is_there in pairs(touched) do
    if is_there then call('ZADD', NAMES, STAMP, ns) end
  end
end

-- A bucket that begins.
local function begun(nonce, gen, dead)
  return nonce .. gen .. digits(0) .. dead
end
