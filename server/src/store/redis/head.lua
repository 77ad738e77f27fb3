-- The head of a queue: what every step reads first and writes last, and what it tells others.
--
-- Every step is `begin`, what was asked, `complete`. All that can fail (arguments, types, bounds)
-- fails while reading; sorted sets and records are written together in `complete`, the head last.
-- This is a library of functions: it is run once, and `run` sets all of its state anew for a call.
-- Mirrors `server/src/queue/queues.rs` and `phase.rs`; the layout is described in `keys.rs`.

local call, KEYS, ARGV -- of the call that is carried out
-- There are no libraries yet while this one is loaded.
local floor, min, max, byte, sub, pack, parse, format, rep, band

local names = {
  'meta', 'pages', 'blobs', 'ends', 'live', 'back', 'alone', 'delayed', 'dead', 'dedupe',
  'sessions', 'expires', 'workers', 'holds', 'answers', 'lost', 'revoked', 'limits', 'ended',
  'results', 'gone', 'remembered', 'leased', 'marks',
}
local K -- the keys by these names

local LAYOUT = 2
local READY, DELAYED, LEASED, DONE, DEAD, CANCELLED, ABANDONED = 1, 2, 3, 4, 5, 6, 7
-- Certificates of deleted queues of a name that are kept, and for how many seconds.
local TOMBSTONES = { max = 64, seconds = 7 * 24 * 3600 }
local FOREVER = 2 ^ 52
local LIMBS = '>I4I4I4I4I4I4I4I4'
-- What is kept between calls, each of so many queues: the names of their keys, what seldom changes,
-- and the heads that the last steps wrote, by their text: who finds that text need not read it.
local KEPT_MAX = 256
local kept = { keys = {}, keys_count = 0, cold = {}, cold_count = 0, heads = {}, heads_count = 0 }

local now_us, now_ms, epoch, queue_name, channel
local promise -- what an acknowledgement promises: 0 replicated, 1 synced, 2 logged, 3 memory
local seen -- when a step of this queue was last carried out, as far as the caller knows
local q -- the head; nil while there is no such queue
local S -- its settings as numbers
local leasable_before, over_before, created
local news -- sessions that want to know
local pending -- changes of sorted sets, the last one of a member counts
local resets = {} -- what the other files do before a call
-- What the other files give to each other: Lua takes no more than 200 locals in one function, and
-- the library is one, so a file has its own in a block.
local Keys, Marks, Items, Attempts, Lanes, Adding, Sessions, Progress

local function digits(number) return format('%d', number) end

-- Settings as they stand in one argument: with a space behind each.
local function settings_of(text)
  local settings = {}
  for setting in string.gmatch(text, '([^ ]*) ') do settings[#settings + 1] = setting end
  return settings
end

local function numbers_of(s)
  return {
    attempts = tonumber(s[1]), session = tonumber(s[2]), heartbeat = tonumber(s[3]),
    base = tonumber(s[4]), cap = tonumber(s[5]), leased = tonumber(s[6]) or math.huge,
    retention = min(tonumber(s[7]), FOREVER),
    idle = tonumber(s[8]), limit = tonumber(s[9]) or 0, results = tonumber(s[10]) or math.huge,
  }
end

local function configure(settings)
  q.settings, q.numbers, q.cold = settings, numbers_of(settings), nil
  S = q.numbers
end

local unpack_head, pack_head
do
-- The head: layout, flags, rows of `took`, lanes that are not empty, numbers; then counts, these
-- lanes, the digest, `took`, and what seldom changes (`cold`).
local HEAD = '>BBBBI8I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6I6'
local HEAD_BYTES = 4 + 8 + 22 * 6
local COUNTS = '>I6I6I6I6I6I6I6'

-- Reads what seldom changes; what comes of a text is kept, and never changed.
local function thaw(cold)
  local found = kept.cold[cold]
  if not found then
    found = cmsgpack.unpack(cold)
    found.numbers = numbers_of(found.settings)
    if kept.cold_count == KEPT_MAX then kept.cold, kept.cold_count = {}, 0 end
    kept.cold[cold], kept.cold_count = found, kept.cold_count + 1
  end
  return found
end

unpack_head = function(packed)
  local _, flags, rows, lanes, lease, created, back, alone, blobs, len, results, bytes, result_rows,
    marked, marked_bytes, retried, time, stepped, limits, sessions, serial, endings, earliest,
    first_lease, last_done, idle, keys = parse(HEAD, packed)
  local at = HEAD_BYTES + 1
  local counts = { parse(COUNTS, packed, at) }
  counts[8], at = nil, at + 42
  local fresh, ghosts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  for from = at, at + 13 * lanes - 1, 13 do
    local lane = byte(packed, from)
    fresh[lane], ghosts[lane] = parse('>I6I6', packed, from + 1)
  end
  at = at + 13 * lanes
  local frozen = sub(packed, at + 32 + 4 * rows)
  local cold = thaw(frozen)
  return {
    lease = lease, created = created, back = back, alone = alone, blobs = blobs, len = len,
    results = results, bytes = bytes, rows = result_rows, marked = marked,
    marked_bytes = marked_bytes, retried = retried, time = time, stepped = stepped,
    limits = limits, sessions = sessions, serial = serial, endings = endings, earliest = earliest,
    first_lease = first_lease > 0 and first_lease or nil,
    last_done = last_done > 0 and last_done or nil, idle = idle > 0 and idle - 1 or nil,
    sealed = flags % 2 == 1, paused = flags % 4 > 1, uncertain = flags > 3,
    counts = counts, fresh = fresh, ghosts = ghosts,
    digest = sub(packed, at, at + 31), took = sub(packed, at + 32, at + 31 + 4 * rows),
    cold = frozen, uid = cold.uid, epoch = cold.epoch, settings = cold.settings,
    ended = cold.ended, numbers = cold.numbers, keys = keys, promise = cold.promise,
  }
end

pack_head = function(h)
  local flags = (h.sealed and 1 or 0) + (h.paused and 2 or 0) + (h.uncertain and 4 or 0)
  local lanes, fresh, ghosts = '', h.fresh, h.ghosts
  for lane = 1, 10 do
    if fresh[lane] > 0 then lanes = lanes .. pack('>BI6I6', lane, fresh[lane], ghosts[lane]) end
  end
  h.cold = h.cold or cmsgpack.pack{
    uid = h.uid, epoch = h.epoch, settings = h.settings, ended = h.ended, promise = h.promise,
  }
  return pack(HEAD, LAYOUT, flags, #h.took / 4, #lanes / 13, h.lease, h.created, h.back, h.alone,
    h.blobs, h.len, h.results, h.bytes, h.rows, h.marked, h.marked_bytes, h.retried, h.time,
    h.stepped, h.limits, h.sessions, h.serial, h.endings, h.earliest, h.first_lease or 0,
    h.last_done or 0, h.idle and h.idle + 1 or 0, h.keys)
    .. pack(COUNTS, unpack(h.counts)) .. lanes .. h.digest .. h.took .. h.cold
end
end

local register
do
-- The layout in which a head is, if it is another one. That of version 1 was a map of msgpack.
local function other_layout(packed)
  local layout = byte(packed)
  if layout and layout < 128 then return layout end
  local readable, head = pcall(cmsgpack.unpack, packed)
  return readable and type(head) == 'table' and head.layout
end

local function keys_by_name(keys)
  local found = { fresh = {} }
  for at, name in ipairs(names) do found[name] = keys[at] end
  for priority = 0, 9 do found.fresh[priority] = keys[#names + 1 + priority] end
  if kept.keys_count == KEPT_MAX then kept.keys, kept.keys_count = {}, 0 end
  kept.keys[keys[1]], kept.keys_count = found, kept.keys_count + 1
  return found
end

-- Carries out a call.
local function run(act, keys, arguments)
  call, KEYS, ARGV = redis.call, keys, arguments
  if not floor then
    floor, min, max, format, rep = math.floor, math.min, math.max, string.format, string.rep
    byte, sub, pack, parse, band = string.byte, string.sub, struct.pack, struct.unpack, bit.band
  end
  K = kept.keys[keys[1]] or keys_by_name(keys)
  -- Redis' clock, unless a test drives the time.
  now_us = tonumber(ARGV[1])
  if not now_us then
    local time = call('TIME')
    now_us = time[1] * 1000000 + time[2]
  end
  now_ms = floor(now_us / 1000)
  promise, seen, epoch = tonumber(sub(ARGV[2], 18, 18)), tonumber(sub(ARGV[2], 20, 35)), sub(ARGV[2], 37)
  queue_name, channel = ARGV[3], ARGV[4]
  q, created, news, pending = nil, false, {}, {}
  for at = 1, #resets do resets[at]() end
  local head = call('GET', K.meta)
  if head then
    if byte(head) ~= LAYOUT then
      return redis.error_reply('LAYOUT queue ' .. queue_name .. ' has stored layout '
        .. tostring(other_layout(head)) .. ', and this service knows ' .. LAYOUT)
    end
    q = kept.heads[head]
    if q then
      -- What fails half-way must not leave its changes to the next step.
      kept.heads[head], kept.heads_count = nil, kept.heads_count - 1
    else
      q = unpack_head(head)
    end
    S = q.numbers
  end
  return act()
end

register = function(name, act, flags)
  redis.register_function{
    function_name = LIBRARY .. '_' .. name,
    callback = function(keys, arguments) return run(act, keys, arguments) end,
    flags = flags,
  }
end
end

-- Calls a command with many arguments in parts that fit on Lua's stack.
local function in_parts(command, key, arguments)
  for from = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, from, min(from + 999, #arguments)))
  end
end

-- Reads many fields of a hash.
local function read_fields(key, fields)
  local values = {}
  for from = 1, #fields, 1000 do
    local part = call('HMGET', key, unpack(fields, from, min(from + 999, #fields)))
    for at = 1, #part do values[from + at - 1] = part[at] end
  end
  return values
end

-- Changes a sorted set; written at the end, or before the set is read.
local function later(key, member, score)
  local changes = pending[key]
  if not changes then
    changes = {}
    pending[key] = changes
  end
  changes[member] = score
end

local function write_pending(key)
  local changes = pending[key]
  if not changes then return end
  pending[key] = nil
  local first, value = next(changes)
  if next(changes, first) == nil then
    if value then call('ZADD', key, value, first) else call('ZREM', key, first) end
    return
  end
  local added, removed = {}, {}
  for member, score in pairs(changes) do
    if score then
      added[#added + 1] = score
      added[#added + 1] = member
    else
      removed[#removed + 1] = member
    end
  end
  in_parts('ZREM', key, removed)
  in_parts('ZADD', key, added)
end

-- The head as the service decodes it (`head.rs`).
local function view(of)
  local ended = of.ended
  return {
    of.uid, of.created, of.sealed and 1 or 0, of.paused and 1 or 0, of.counts, of.retried,
    of.sessions, of.first_lease or false, of.last_done or false, of.settings,
    format(rep('%08x', 8), parse(LIMBS, of.digest)), of.uncertain and 1 or 0,
    ended and {
      ended.phase, ended.cause, ended.outcome, ended.reason or false, ended.by or false, ended.at,
    } or false,
    of.promise or false,
  }
end

-- The certificate of a queue that is gone, if it is still known.
local function tombstone(uid)
  for _, packed in ipairs(call('LRANGE', K.gone, 0, -1)) do
    local found = byte(packed) == LAYOUT and unpack_head(packed)
    if found and found.uid == uid then return view(found) end
  end
  return false
end

-- Makes the queue.
local function create(uid, settings)
  local all = {}
  for at = 1, #names + 10 do
    if KEYS[at] ~= K.gone then all[#all + 1] = KEYS[at] end
  end
  if call('EXISTS', unpack(all)) > 0 then
    error('LAYOUT queue ' .. queue_name .. ' has no head, but other keys of it exist')
  end
  local before = call('LINDEX', K.gone, 0)
  q = {
    uid = uid, epoch = epoch, created = now_ms, sealed = false, paused = false, uncertain = false,
    counts = { 0, 0, 0, 0, 0, 0, 0 }, digest = rep('\0', 32),
    -- Entries of the lanes of fresh items, and how many of those are cancelled, a lane each.
    fresh = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, ghosts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
    back = 0, alone = 0, blobs = 0,
    len = 0, keys = 0, results = 0, rows = 0, marked = 0, marked_bytes = 0, retried = 0, time = 0, stepped = now_ms, limits = 0,
    sessions = 0, serial = 0, endings = 0,
    -- No session ends before this queue time.
    earliest = 0,
    -- How many results took so many binary digits of milliseconds, from none on, four bytes each.
    took = '',
    -- Bytes of all results.
    bytes = 0,
    -- The weakest promise under which a step of it was acknowledged; nil when a service that did
    -- not note it has changed the queue.
    promise = promise,
    -- No lease number of an older queue of this name may come again.
    lease = before and byte(before) == LAYOUT and unpack_head(before).lease or 0,
  }
  configure(settings)
  created = true
end

local function leasable()
  if q.paused or q.ended or q.bytes >= S.results then return 0 end
  return min(q.counts[READY], max(S.leased - q.counts[LEASED], 0))
end

local function left()
  return q.counts[READY] + q.counts[DELAYED] + q.counts[LEASED]
end

-- When time alone may change the queue, or nil. After a step a time that is too early will do:
-- whoever comes then asks for the exact one.
local function next_due(exact)
  local deadline, due
  if q.sessions > 0 then
    if exact or q.earliest <= q.time then
      write_pending(K.expires)
      q.earliest = tonumber(call('ZRANGE', K.expires, 0, 0, 'WITHSCORES')[2] or 0)
    end
    deadline = q.earliest
  end
  if q.limits > 0 then
    write_pending(K.limits)
    local first = call('ZRANGE', K.limits, 0, 0, 'WITHSCORES')
    if first[2] then deadline = min(deadline or FOREVER, tonumber(first[2])) end
  end
  if q.idle and S.idle then deadline = min(deadline or FOREVER, q.idle + S.idle) end
  if deadline then due = q.stepped + min(max(deadline - q.time, 0), S.heartbeat) end
  if q.counts[DELAYED] > 0 then
    write_pending(K.delayed)
    local first = call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')
    if first[2] then due = min(due or FOREVER, tonumber(first[2])) end
  end
  if q.ended then due = min(due or FOREVER, q.ended.at + S.retention) end
  return due
end

-- How long until then, in milliseconds; -1 for never.
local function delay_of(due) return due and max(due - now_ms, 0) or -1 end

-- Tells the other replicas.
local function publish(more, over)
  if more ~= '0' or over or #news > 0 then
    call('PUBLISH', channel, table.concat(
      { sub(ARGV[2], 1, 16), queue_name, more, over and '1' or '0', table.concat(news, ',') }, ' '))
  end
end

-- Tells whether Redis has forgotten a step that was acknowledged, as when an older log is put back.
local function is_behind() return not created and not q.ended and q.stepped < seen end

-- Lets time pass: queue time, by at most one heartbeat interval, then what it has ended.
local function begin()
  local behind = is_behind()
  q.time = q.time + min(max(now_ms - q.stepped, 0), S.heartbeat)
  q.stepped = max(q.stepped, now_ms)
  -- Redis has been restarted or replaced in a way that may have lost what was acknowledged.
  if not q.ended and (q.epoch ~= epoch or behind) then
    q.epoch, q.uncertain, q.cold = epoch, true, nil
  end
  if not q.ended and q.promise and q.promise < promise then q.promise, q.cold = promise, nil end
  leasable_before, over_before = leasable(), q.ended ~= nil
  Sessions.sweep()
end

-- Writes what has changed and returns the frame of the reply.
local function complete(tag, ...)
  if q.sealed and not q.ended and left() == 0 then
    Sessions.end_queue('drained', 'drained', 'success')
  end
  -- Since when there has been nothing to do, though items have come.
  if q.sealed or q.ended or q.len == 0 or left() > 0 then
    q.idle = nil
  else
    q.idle = q.idle or q.time
  end
  local more = leasable() - leasable_before
  more = created and '18446744073709551615' or more > 0 and digits(more) or '0'
  local over = q.ended ~= nil and not over_before
  Items.complete()
  Sessions.complete()
  local due = next_due()
  for key in pairs(pending) do write_pending(key) end
  local head = pack_head(q)
  call('SET', K.meta, head)
  if kept.heads_count >= KEPT_MAX then kept.heads, kept.heads_count = {}, 0 end
  kept.heads[head], kept.heads_count = q, kept.heads_count + 1
  publish(more, over)
  return { delay_of(due), more .. ' ' .. digits(q.stepped), news, over and 1 or 0, tag, ... }
end

-- Removes a queue that is over; its certificate stays for late workers.
local function remove()
  call('LPUSH', K.gone, pack_head(q))
  call('LTRIM', K.gone, 0, TOMBSTONES.max - 1)
  call('EXPIRE', K.gone, TOMBSTONES.seconds)
  for at = 1, #names + 10 do
    if KEYS[at] ~= K.gone then call('UNLINK', KEYS[at]) end
  end
end
