-- Read items and then change some, in one turn.
-- ARGV  1 entry(16) nonce(16) gen(16) newest stamp that the caller knows(16) the primary it
--         expects(40) for how long to remember what is gone, in ms(16)
--       2 what is read: '0' or, to put off its end, '1', length(6), name, and so on
--       3... operations, each of another item
-- Reply: the server's clock in ms; what was read, each an item or nil; of each operation
--        what became of it(1) stamp(16) born(16) created(16) deadline in ms(16):
--        's' stored, 't' it had been stored by this entry before, 'l' (alone) it comes late

local HEAD = ARGV[1]
local ENTRY, LATEST = sub(HEAD, 1, 16), tonumber(sub(HEAD, 49, 64))
if moved(sub(HEAD, 65, 104)) then return reply('moved', nothing(0)) end
local i = bucket()
if sub(HEAD, 33, 48) ~= NEVER then
  if not i or sub(HEAD, 17, 48) ~= sub(i, 1, 32) then return reply('resend', i or nothing(0)) end
  if LATEST > tonumber(sub(i, 33, 48)) then return reply('rewound', i) end
end

local wanted, ops, names = {}, {}, {} -- what is read; what is changed; both by their names
do
  local at, text = 1, ARGV[2]
  while at <= #text do
    local ends = at + 6 + tonumber(sub(text, at + 1, at + 6))
    names[#names + 1] = sub(text, at + 7, ends)
    wanted[#names] = sub(text, at, at)
    at = ends + 1
  end
  for n = 3, #ARGV do
    ops[n - 2] = parsed(ARGV[n])
    names[#names + 1] = ops[n - 2].name
  end
end
local items = find_all(names)

-- Graves of what is to be changed, by names.
local function graves_of()
  local fields, its, found = {}, {}, {}
  for n, op in ipairs(ops) do
    if not lasts(items[#wanted + n]) then
      fields[#fields + 1], its[#its + 1] = 'D' .. op.name, op.name
    end
  end
  if #fields == 0 then return found end
  for n, grave in ipairs(call('HMGET', STATE, unpack(fields))) do found[its[n]] = grave end
  return found
end

local function read()
  local found = {}
  for n, slides in ipairs(wanted) do
    local here = items[n]
    if here and slides == '1' and ttl_of(here) > 0 then put_off(names[n], NOW_MS + ttl_of(here)) end
    found[n] = here and as_told(names[n], here)
  end
  return found
end

local NOTHING = NEVER .. NEVER .. NEVER -- born, created and deadline of what was deleted

local function change(op, here, grave)
  local is_put = sub(op.text, 1, 1) == 'P'
  local before = seen(entries_of(here, grave), ENTRY)
  if before == 'same' and here and is_put then
    return 't' .. sub(here, 1, 48) .. deadline_of(op.name, here)
  elseif before == 'same' and not here and not is_put then
    return 't' .. sub(grave, 2, 17) .. NOTHING
  elseif before then
    return 'l'
  elseif not is_put then
    bury(op, here, grave, 'D', STAMP)
    return 's' .. STAMP .. NOTHING
  end
  local born, created = sub(op.text, 18, 33), STAMP
  if here then born, created = sub(here, 17, 32), sub(here, 33, 48) end
  local ttl, deadline = sub(op.text, 66, 81), 0
  if ttl ~= NEVER then deadline = NOW_MS + tonumber(ttl) end
  keep(op, here, grave, STAMP, born, created, deadline)
  return 's' .. STAMP .. born .. created .. (deadline > 0 and digits(deadline) or NEVER)
end

local found, graves = read(), graves_of()
if not i then i = begun(ENTRY, digits(math.max(NOW, LATEST + 1)), NEVER) end
STAMP = digits(math.max(NOW, LATEST + 1, tonumber(sub(i, 33, 48)) + 1))
local outcomes = {}
for n, op in ipairs(ops) do outcomes[n] = change(op, items[#wanted + n], graves[op.name]) end
settle()
if NOW % 4 == 0 then -- Now and then, as it takes as long as an item does.
  collect(50)
  level(tonumber(sub(HEAD, 105, 120)), 50)
end
stamp_names()
i = sub(i, 1, 32) .. STAMP .. sub(i, 49)
call('HSET', STATE, 'i', i)
return reply('ok', i, NOW_MS, found, outcomes)
