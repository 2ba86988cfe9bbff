-- What the scripts of a partition share, after ``identity.lua``.
--
-- versions  hash: 'v' the primary whose copy was verified, 'k' the nonce of this life,
--           'n' a counter, 'm'mark  what is known of a mark: n(16) change(16) version(16);
--           'b'token  somebody is writing versions anew
-- scope     zset: ids of entries by the counter at which they were stored
-- entry     hash: 's' scope, 't' tenant, 'f' nonce(16) n(16), 'm' marks, 'x' value,
--           'c' card, 'v' vector
--
-- Marks come packed: mark(16) version(16) each. A version of zeros is not known.
-- The nonce is a new one whenever versions were verified anew. Numbers of the counter
-- mean nothing under another one.

local UNKNOWN = string.rep('\0', 16)
local sub = string.sub

-- Whether what was made under a fence is still right by one mark, which has changed.
local function stands(known, version, nonce, n, life)
  local told = sub(known, 33, 48)
  if told ~= UNKNOWN and version ~= UNKNOWN then return told == version end
  return nonce == life and n >= sub(known, 1, 16)
end

-- Whether all of the packed marks stand.
local function current(versions, marks, nonce, n, life)
  local fields = {}
  for at = 1, #marks, 32 do fields[#fields + 1] = 'm' .. sub(marks, at, at + 15) end
  if #fields == 0 then return true end
  local known = redis.call('HMGET', versions, unpack(fields))
  for i = 1, #fields do
    local version = sub(marks, 32 * i - 15, 32 * i)
    if known[i] and not stands(known[i], version, nonce, n, life) then return false end
  end
  return true
end
