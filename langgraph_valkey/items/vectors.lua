-- What scripts share that keep vectors where the server's search sees them.
--
-- The body of an item says by its format whether it has such vectors: '2', and then they stand
-- at its end, each as length of path(4, big-endian), length of vector(4), path, vector. Each
-- of them is also in a hash, which lives as long as the item:
--   <prefix>w:{bucket}:number(4) name   v the vector; s a tag for each prefix of the namespace
-- An item with vectors that the search must not see sets a mark on its bucket: field 'p' of
-- the state. What the search names of that bucket is then not all there is.

local BRACE = string.find(STATE, '{', 1, true)
local VECTORS = string.sub(STATE, 1, BRACE - 1) .. 'w:' .. string.sub(STEM, BRACE)

local function vector(name, number)
  return VECTORS .. string.format('%04d', number) .. name
end

-- The number of 4 bytes.
local function length(text, at)
  local a, b, c, d = string.byte(text, at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- A tag for each prefix of a namespace but the empty one, which everything has.
local function tags(ns)
  local found, from = {}, 1
  while true do
    local ends = string.find(ns, '\0', from, true)
    if not ends then return table.concat(found, ',') end
    found[#found + 1] = string.sub(redis.sha1hex(string.sub(ns, 1, ends)), 1, 16)
    from = ends + 1
  end
end

-- The format of an item that is here.
local function format_of(here)
  local at = 66 + 16 * string.byte(here, 65)
  return string.sub(here, at, at)
end

-- Takes away the vectors of an item that is here, or was.
local function drop_vectors(name, here)
  if not here or format_of(here) ~= '2' then return end
  local number = 0
  while redis.call('UNLINK', vector(name, number)) == 1 do number = number + 1 end
end

-- Keeps the vectors of an item that is put.
local function keep_vectors(op, body, deadline)
  local at = 14 + length(body, 10)
  if at > #body then return end
  if string.sub(body, 1, 1) ~= '2' then
    redis.call('HSET', STATE, 'p', 1)
    return
  end
  local its, number = tags(op.ns), 0
  while at < #body do
    local from = at + 8 + length(body, at)
    at = from + length(body, at + 4)
    local key = vector(op.name, number)
    redis.call('HSET', key, 's', its, 'v', string.sub(body, from, at - 1))
    if deadline > 0 then redis.call('PEXPIREAT', key, plain(deadline)) end
    number = number + 1
  end
end

-- Puts off the end of an item's vectors.
local function put_off_vectors(name, deadline)
  local number = 0
  while redis.call('PEXPIREAT', vector(name, number), plain(deadline)) == 1 do
    number = number + 1
  end
end
