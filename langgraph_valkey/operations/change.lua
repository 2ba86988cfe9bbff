-- What the scripts of an owner share: they change a thread as a whole.

local function thread()
  local m = whole(call('HGET', STATE, 'm'))
  if not m then return nil end
  return {text = m, born = sub(m, 1, 32), stamp = tonumber(sub(m, 33, 48)), rest = sub(m, 49, 54)}
end

local function save(t, scarred)
  t.text = t.born .. format('%016.0f', t.stamp) .. t.rest .. scarred
  call('HSET', STATE, 'm', t.text)
end

local function head_of(ns)
  local h = call('HGET', STATE, 'H' .. ns)
  if not h then return nil, '' end
  return sub(h, 1, 6), sub(h, 7)
end
