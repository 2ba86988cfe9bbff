-- A write that changes nothing: accepted, it tells that the shard's log keeps up.

call('HSET', KEYS[1], '', '')
call('PEXPIRE', KEYS[1], 60000)
return reply('ok', nothing(0))
