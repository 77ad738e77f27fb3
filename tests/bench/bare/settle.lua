-- Drops items, and counts them.
local count = redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('INCRBY', KEYS[2], count)
return count
