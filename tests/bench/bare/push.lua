-- Packs each item with a number of its own, and appends all of them at once.
local last = redis.call('INCRBY', KEYS[2], #ARGV)
for i = 1, #ARGV do ARGV[i] = struct.pack('>I8', last - #ARGV + i) .. ARGV[i] end
redis.call('LPUSH', KEYS[1], unpack(ARGV))
return last
