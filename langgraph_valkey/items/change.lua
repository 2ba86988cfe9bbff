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
    ns = sub(text, 110, ns_end), key = sub(text, ns_end + 3, name_end), body_from = name_end + 1,
  }
end

-- Byte order. Lua's < on strings follows the server's locale.
local function above(a, b)
  for i = sub(a, 1, 6) == sub(b, 1, 6) and 7 or 1, 8 do
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
  if #entries <= 16 and sub(entries, 1, 8) == sub(entry, 1, 8) or entries == '' then
    return entry, 1
  end
  local found = {entry}
  for at = 1, #entries, 16 do
    if sub(entries, at, at + 7) ~= sub(entry, 1, 8) and #found < ENTRIES_MOST then
      found[#found + 1] = sub(entries, at, at + 15)
    end
  end
  return table.concat(found), #found
end

-- What is to be written, until `settle` does it: one command for many items takes little longer
-- than for one. So until then, what is written of an item must not be looked at.
local waiting = {} -- arguments by commands and keys
local joined, left = {}, {} -- by namespaces: stamps and keys of what is put there; keys of what goes
local births = {} -- of namespaces, where they turn out to be new

local function gather(lists, name, a, b)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = a
  list[#list + 1] = b
end

local function later(command, key, a, b)
  if not waiting[command] then waiting[command] = {} end
  gather(waiting[command], key, a, b)
end

-- Stores an item, in place of what stands for it.
local function keep(op, here, grave, stamp, born, created, deadline)
  local name, ns = op.name, op.ns
  local entries, many = with_entry(entries_of(here, grave), op.entry)
  local body = sub(op.text, op.body_from)
  local stored = stamp .. born .. created .. sub(op.text, 66, 81) .. string.char(many)
    .. entries .. body
  if deadline > 0 then
    call('SET', item(name), stored, 'PXAT', plain(deadline))
    later('ZADD', ENDS, plain(deadline), name)
    later('HSET', STATE, 'D' .. name, 'E' .. stamp .. entries)
  else
    later('MSET', '', item(name), stored)
    if grave then
      later('HDEL', STATE, 'D' .. name)
      later('ZREM', ENDS, name)
    end
  end
  drop_vectors(name, here)
  keep_vectors(op, body, deadline)
  if grave then later('ZREM', GRAVES, name) end
  gather(joined, ns, STAMP, op.key)
  births[ns] = births[ns] or born
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

-- Takes an item out of its namespace.
local function take_out(ns, key, name)
  later('ZADD', GRAVES, STAMP, name)
  gather(left, ns, key)
end

-- Removes an item, and remembers when.
local function bury(op, here, grave, why, stamp)
  local name = op.name
  later('UNLINK', '', item(name))
  drop_vectors(name, here)
  if not lasts(here) then later('ZREM', ENDS, name) end
  take_out(op.ns, op.key, name)
  later('HSET', STATE, 'D' .. name, why .. stamp .. with_entry(entries_of(here, grave), op.entry))
end

-- Writes what waits for it. A namespace is in the index while it has items.
local function settle()
  for command, keys in pairs(waiting) do
    for key, args in pairs(keys) do
      if key == '' then call(command, unpack(args)) else call(command, key, unpack(args)) end
    end
  end
  for ns, args in pairs(joined) do
    if call('ZADD', members(ns), unpack(args)) > 0 and not touched[ns] then
      if call('ZADD', INDEX, 0, ns) == 1 then
        call('HSETNX', STATE, 'b' .. ns, births[ns])
        call('ZREM', GRAVES, ns)
      end
    end
    touched[ns] = true
  end
  for ns, args in pairs(left) do
    if call('ZREM', members(ns), unpack(args)) > 0 and call('EXISTS', members(ns)) == 0 then
      call('ZREM', INDEX, ns)
      call('ZREM', NAMES, ns)
      call('ZADD', GRAVES, STAMP, ns)
      touched[ns] = false
    end
  end
  waiting, joined, left, births = {}, {}, {}, {}
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
      later('ZREM', ENDS, name)
      take_out(ns, key, name)
    end
  end
  settle()
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

-- A bucket that begins. Its state becomes a table at once, by a value of more than 64 bytes:
-- else it would be a list up to 512 fields, of which each look-up passes half.
local function begun(nonce, gen, dead)
  call('HSET', STATE, 'h', string.rep('-', 65))
  return nonce .. gen .. digits(0) .. dead
end
