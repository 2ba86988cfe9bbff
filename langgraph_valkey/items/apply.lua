-- Bring a bucket what the primary store has: each item as its last change there left it.
--
-- The changes of a bucket are numbered, and the entry of an operation is its number, under the
-- name of one writer whom all processes share. So a change that is here, or that a later one of
-- the same item has come after, is left out, in whatever order they arrive. A write of another
-- writer that came after it stays, too, as long as the change is remembered beneath.
-- ARGV  1 expected primary(40) newest stamp that the caller knows(16) for how long to remember
--         what is gone, in ms(16) nonce of a bucket that begins(16) epoch(16) stamp(16): not
--         zeros if it goes on; then the epoch must be the bucket's, and its stamp not below
--         up to which number all is here now(16) a number that is here by this alone(16)
--       2... operations, each of another item
-- Reply: the server's clock in ms; nil; of each operation what became of it, as of ``turn``

local ABOVE_MOST = 64 -- numbers that are kept for themselves; whoever brings the others counts
local HEAD = ARGV[1]
if moved(sub(HEAD, 1, 40)) then return reply('moved', nothing(0)) end
local i, count = bucket(), KNOWN[2]
local EPOCH, SINCE = sub(HEAD, 89, 104), sub(HEAD, 105, 120)
if SINCE ~= NEVER then
  -- What was brought before may be gone.
  local is_here = i and count and sub(count, 17) == EPOCH
  if not is_here or tonumber(SINCE) > tonumber(sub(i, 33, 48)) then
    return reply('rewound', i or nothing(0))
  end
end

if not i then i = begun(sub(HEAD, 73, 88), digits(NOW), NEVER) end
STAMP = digits(math.max(NOW, tonumber(sub(HEAD, 41, 56)) + 1, tonumber(sub(i, 33, 48)) + 1))

local function change(op)
  local here, grave = find(op.name), call('HGET', STATE, 'D' .. op.name)
  if seen(entries_of(here, grave), op.entry) then return 'l' end
  if sub(op.text, 1, 1) == 'D' then
    bury(op, here, grave, 'D', STAMP)
    return 's' .. STAMP .. NEVER .. NEVER .. NEVER
  end
  local deadline = tonumber(sub(op.text, 50, 65)) -- If that is over, it has expired at once.
  local born, created = sub(op.text, 18, 33), sub(op.text, 34, 49)
  if tonumber(created) > tonumber(STAMP) then created = STAMP end
  if here then born, created = sub(here, 17, 32), sub(here, 33, 48) end
  keep(op, here, grave, STAMP, born, created, deadline)
  return 's' .. STAMP .. born .. created .. digits(deadline)
end

-- Counts what is here of the primary store's changes.
local function tally(upto, number)
  local upto_here = count and tonumber(sub(count, 1, 16)) or 0
  local above = {[number] = true}
  for each in string.gmatch(call('HGET', STATE, 'a') or '', string.rep('%d', 16)) do
    above[tonumber(each)] = true
  end
  upto = math.max(upto, upto_here)
  while above[upto + 1] do upto = upto + 1 end
  local left = {}
  for each in pairs(above) do
    if each > upto and #left < ABOVE_MOST then left[#left + 1] = digits(each) end
  end
  KNOWN[2] = digits(upto) .. (count and sub(count, 17) or EPOCH)
  call('HSET', STATE, 'c', KNOWN[2])
  if #left > 0 then
    call('HSET', STATE, 'a', table.concat(left))
  else
    call('HDEL', STATE, 'a')
  end
end

local outcomes = {}
for at = 2, #ARGV do outcomes[at - 1] = change(parsed(ARGV[at])) end
settle()
collect(20)
level(tonumber(sub(HEAD, 57, 72)), 20)
stamp_names()
i = sub(i, 1, 32) .. STAMP .. sub(i, 49)
call('HSET', STATE, 'i', i)
tally(tonumber(sub(HEAD, 121, 136)), tonumber(sub(HEAD, 137, 152)))
return reply('ok', i, NOW_MS, false, outcomes)
