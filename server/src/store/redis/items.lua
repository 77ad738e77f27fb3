-- Items: immutable records in pages, ends in pages, and a record of their own for what is in
-- flight, delayed, dead or came back. Mirrors `items.rs`, `lanes.rs` and `state.rs`.

local PAGE = 32
-- A page: what its records have (`HAS`), 33 offsets, of which the first is 0, and the records.
local PAGE_HEAD = 1 + 2 * (PAGE + 1)
-- The low bits of a record's first byte are its priority; in a page they have another meaning.
local HAS = { blob = 1, key = 16, time_limit = 32, max_attempts = 64 }
local PLACE = { fresh = 1, came_back = 2, alone = 3, delayed = 4, leased = 5, dead = 6 }
-- Bounds: what one lease takes (bytes after which it is full, cancelled ones that it skips), what one
-- step ends by itself, what a session may hold, what is kept of those that have ended.
local MOST = {
  leased_bytes = 8388608, ghosts = 16384, swept_sessions = 8, swept_items = 256,
  leases = 1024, endings = 1024, remembered = 8192,
}

local pages, items, changed, shares, shares_changed, peeked -- of this call

do
local INLINE_MAX, LANE = 512, 2 ^ 44
local NO_END, CANCELLED_END, NO_ENDS = '\0\0\0\0', '\255\255\255\255', nil
-- The ends of done items have the highest bit set, so that no four bytes are nothing by chance.
local END_DONE, END_CANCELLED = 2147483648, 4294967295
local NOBODY = '0000000000000000'

local ends, ends_changed, gone_items -- of this call, too

resets[#resets + 1] = function()
  NO_ENDS = NO_ENDS or rep(NO_END, PAGE)
  pages, ends, ends_changed = {}, {}, {}
  items, changed, gone_items = {}, {}, {}
  shares, shares_changed, peeked = {}, {}, {}
end

local function page_of(id) return floor((id - 1) / PAGE) end

local function page(number)
  local text = pages[number]
  if not text then
    text = call('HGET', K.pages, number)
    pages[number] = text
  end
  return text
end

-- Where the records of some consecutive items of a page begin and end.
local function bounds(text, first_slot, last_slot)
  return PAGE_HEAD + 1 + parse('>I2', text, 2 * first_slot),
    PAGE_HEAD + parse('>I2', text, 2 * last_slot + 2)
end

-- The record of an item as it was pushed.
local function record(id)
  local text, slot = page(page_of(id)), (id - 1) % PAGE + 1
  local from, to = bounds(text, slot, slot)
  if from > to then return call('HGET', K.blobs, id) end
  return sub(text, from, to)
end

-- Reads the pages of many items at once.
local function prefetch_pages(first, last)
  local wanted = {}
  for number = page_of(first), page_of(last) do
    if not pages[number] then wanted[#wanted + 1] = number end
  end
  if #wanted < 2 then return end
  for at, text in ipairs(read_fields(K.pages, wanted)) do pages[wanted[at]] = text end
end

local function ends_of(number)
  local text = ends[number]
  if not text then
    text = call('HGET', K.ends, number) or NO_ENDS
    ends[number] = text
  end
  return text
end

-- 0 while the item is not settled for good, END_CANCELLED, or END_DONE and the row of its result.
local function end_of(id) return (parse('>I4', ends_of(page_of(id)), (id - 1) % PAGE * 4 + 1)) end

local function new_item(id, text)
  -- Its first byte is the priority and what follows (`encode.rs`).
  local first, at = byte(text), 2
  local has_limit, has_max = band(first, HAS.time_limit) > 0, band(first, HAS.max_attempts) > 0
  local item = {
    id = id, place = PLACE.fresh, priority = first % 16, attempts = 0, attempt = 0, lost_attempts = 0,
    max = 0, lease = 0, leased = 0, due = 0, deadline = 0, dead = 0, limit = 0, session = NOBODY,
    key = band(first, HAS.key) > 0,
  }
  if has_limit then item.limit, at = parse('>I6', text, at) end
  if has_max then item.max, at = parse('>I2', text, at) end
  return item
end

local unpack_item, pack_item
do
local LIVE = '>BBBI2I2I2I2I8I6I6I6I6I6c16'
local LIVE_BYTES = 11 + 8 + 30 + 16

unpack_item = function(id, packed)
  local place, priority, flags, attempts, attempt, lost_attempts, most, lease, leased, due,
    deadline, dead, limit, session = parse(LIVE, packed)
  return {
    id = id, stored = true, place = place, priority = priority, attempts = attempts,
    attempt = attempt, lost_attempts = lost_attempts, max = most, lease = lease, leased = leased,
    due = due, deadline = deadline, dead = dead, limit = limit, session = session,
    started = flags % 2 == 1, lost = flags % 4 > 1, key = flags % 8 > 3,
    error = flags % 16 > 7 and sub(packed, LIVE_BYTES + 1) or nil, tried = flags > 15,
  }
end

pack_item = function(item)
  local flags = (item.started and 1 or 0) + (item.lost and 2 or 0) + (item.key and 4 or 0)
    + (item.error and 8 or 0) + (item.tried and 16 or 0)
  return pack(LIVE, item.place, item.priority, flags, item.attempts, item.attempt,
    item.lost_attempts, item.max, item.lease, item.leased, item.due, item.deadline, item.dead,
    item.limit, item.session) .. (item.error or '')
end
end

-- Reads the records of many items at once.
local function prefetch(ids)
  for at, packed in ipairs(read_fields(K.live, ids)) do
    local id = ids[at]
    if packed and items[id] == nil and not gone_items[id] then items[id] = unpack_item(id, packed) end
  end
end

-- The set of these slots of a page, a bit each.
local function slots_set(first_slot, last_slot) return 2 ^ last_slot - 2 ^ (first_slot - 1) end

local unpack_shares, pack_shares
do
-- What items of a page have in common that were leased fresh, together: which (a bit each),
-- lease, when, priority and whether some have keys, whether they run, session.
local SHARE = '>I4I8I6BBc16'
local SHARE_BYTES = 4 + 8 + 6 + 2 + 16

-- The shares of a page: what its items that were leased fresh have in common.
unpack_shares = function(packed)
  local list = {}
  for at = 1, packed and #packed or 0, SHARE_BYTES do
    local set, lease, leased, kind, started, session = parse(SHARE, packed, at)
    list[#list + 1] = {
      set = set, lease = lease, leased = leased, kind = kind, started = started, session = session,
    }
  end
  return list
end

pack_shares = function(list)
  local texts = {}
  for at, share in ipairs(list) do
    texts[at] = pack(SHARE, share.set, share.lease, share.leased, share.kind, share.started,
      share.session)
  end
  return table.concat(texts)
end
end

local function shares_of(number)
  local list = shares[number]
  if not list then
    list = unpack_shares(call('HGET', K.leased, number))
    shares[number] = list
  end
  return list
end

-- Reads the shares of many pages at once.
local function prefetch_shares(numbers)
  local wanted = {}
  for _, number in ipairs(numbers) do
    if not shares[number] then wanted[#wanted + 1] = number end
  end
  for at, packed in ipairs(read_fields(K.leased, wanted)) do
    shares[wanted[at]] = unpack_shares(packed)
  end
end

-- The item that stands behind a bit of a share. The pages that were looked at like this are known,
-- since what was seen must not be changed otherwise.
local function shared_item(id, share)
  local item = {
    id = id, place = PLACE.leased, priority = share.kind % 16, attempts = 0, attempt = 1,
    lost_attempts = 0, max = 0, lease = share.lease, leased = share.leased, due = 0, deadline = 0,
    dead = 0, limit = 0, session = share.session, key = share.kind >= HAS.key,
    started = share.started == 1, lost = false, share = share,
  }
  items[id] = item
  peeked[page_of(id)] = true
  return item
end

local function find_shared(id)
  local bit = 2 ^ ((id - 1) % PAGE)
  for _, share in ipairs(shares_of(page_of(id))) do
    if band(share.set, bit) ~= 0 then return shared_item(id, share) end
  end
end

-- Returns an item that is not settled for good, or nil and what it is then.
local function find(id)
  local item = items[id]
  if item then return item end
  if id < 1 or id > q.len then return nil, 'unknown' end
  local ending = end_of(id)
  if ending == END_CANCELLED then return nil, 'cancelled' end
  if ending > 0 then return nil, 'done', ending - END_DONE - 1 end
  local packed = call('HGET', K.live, id)
  item = packed and unpack_item(id, packed) or find_shared(id) or new_item(id, record(id))
  items[id] = item
  return item
end

-- Notes how some items of a page ended.
local function set_ends(number, first_slot, last_slot, packed)
  if #packed < 4 * PAGE then
    local before = ends_of(number)
    packed = sub(before, 1, 4 * first_slot - 4) .. packed .. sub(before, 4 * last_slot + 1)
  end
  ends[number] = packed
  ends_changed[number] = true
end

-- Settles an item for good.
local function set_end(id, item, ending)
  local slot = (id - 1) % PAGE + 1
  set_ends(page_of(id), slot, slot, ending)
  items[id], changed[id] = nil, nil
  gone_items[id] = item
  if item.tried then Attempts.settle(id) end
end

local function attempts_max(item) return item.max > 0 and item.max or S.attempts end

-- Every attempt so far took its session along.
local function is_suspect(item)
  return item.attempts > 0 and item.lost_attempts == item.attempts
end

-- ... and only one is left: it must run alone, so that a poison item takes no neighbours along.
local function must_run_alone(item)
  return is_suspect(item) and item.attempts + 1 >= attempts_max(item)
end

local make_ready
do
-- Where an item stands among others: higher priority first, then by id.
local function rank(item) return (9 - item.priority) * LANE + item.id end

-- Puts an item that is nowhere among the ready ones that came back.
make_ready = function(item)
  if must_run_alone(item) then
    item.place = PLACE.alone
    later(K.alone, item.id, rank(item))
    q.alone = q.alone + 1
  else
    item.place = PLACE.came_back
    later(K.back, item.id, rank(item))
    q.back = q.back + 1
  end
  q.counts[READY] = q.counts[READY] + 1
  changed[item.id] = item
end
end

local function make_delayed(item, due)
  item.place, item.due = PLACE.delayed, due
  later(K.delayed, item.id, due)
  q.counts[DELAYED] = q.counts[DELAYED] + 1
  changed[item.id] = item
end

local function bury(item)
  item.place, item.dead = PLACE.dead, now_ms
  later(K.dead, item.id, item.id)
  q.counts[DEAD] = q.counts[DEAD] + 1
  changed[item.id] = item
end

-- Takes these slots out of a share of a page.
local function leave_share(number, share, set)
  share.set = share.set - set
  shares_changed[number] = true
  if share.set > 0 then return end
  local list, left, held = shares[number], {}, false
  for _, other in ipairs(list) do
    if other ~= share then
      left[#left + 1] = other
      held = held or other.session == share.session
    end
  end
  shares[number] = left
  if not held then Sessions.holds_no_more(number, share.session) end
end

-- Gives an item a record of its own; tells whether it had none.
local function unshare(item)
  local share, id = item.share, item.id
  if not share then return false end
  item.share = nil
  leave_share(page_of(id), share, 2 ^ ((id - 1) % PAGE))
  return true
end

-- Takes an unsettled item out of wherever it is, and out of the counts.
local function withdraw(item)
  local place, id, counts = item.place, item.id, q.counts
  changed[id] = item
  if place == PLACE.fresh then
    counts[READY] = counts[READY] - 1
  elseif place == PLACE.came_back then
    later(K.back, id, false)
    q.back = q.back - 1
    counts[READY] = counts[READY] - 1
  elseif place == PLACE.alone then
    later(K.alone, id, false)
    q.alone = q.alone - 1
    counts[READY] = counts[READY] - 1
  elseif place == PLACE.delayed then
    later(K.delayed, id, false)
    item.due = 0
    counts[DELAYED] = counts[DELAYED] - 1
  elseif place == PLACE.leased then
    if item.deadline > 0 then
      later(K.limits, id, false)
      q.limits = q.limits - 1
      item.deadline = 0
    end
    Sessions.dropped_by_holder(item, unshare(item))
    item.started = false
    counts[LEASED] = counts[LEASED] - 1
  else
    later(K.dead, id, false)
    counts[DEAD] = counts[DEAD] - 1
  end
end

-- Takes a lease from its holder without a settle; a counted one that was the last leaves it dead.
local function lose_lease(item, counted, text)
  withdraw(item)
  item.lost = true
  if counted then
    item.attempts = item.attempts + 1
    item.error = text
    if item.attempts >= attempts_max(item) then return bury(item) end
    q.retried = q.retried + 1
  end
  make_ready(item)
end

-- Notes that a shared item runs: it shares its lease with others that do.
local function start_shared(item)
  local share, number, bit = item.share, page_of(item.id), 2 ^ ((item.id - 1) % PAGE)
  local target
  for _, other in ipairs(shares[number]) do
    if other.started == 1 and other.lease == share.lease and other.kind == share.kind then
      target = other
    end
  end
  if not target then
    target = {
      set = 0, lease = share.lease, leased = share.leased, kind = share.kind, started = 1,
      session = share.session,
    }
    table.insert(shares[number], target)
  end
  target.set = target.set + bit
  item.share = target
  leave_share(number, share, bit)
end

local function write_live()
  local written, removed, settled = {}, {}, {}
  for id, item in pairs(changed) do
    written[#written + 1] = id
    written[#written + 1] = pack_item(item)
  end
  in_parts('HSET', K.live, written)
  for id, item in pairs(gone_items) do
    if item.stored then removed[#removed + 1] = id end
    if q.blobs > 0 then settled[#settled + 1] = id end
  end
  in_parts('HDEL', K.live, removed)
  for from = 1, #settled, 1000 do
    q.blobs = q.blobs - call('HDEL', K.blobs, unpack(settled, from, min(from + 999, #settled)))
  end
end

local function write_shares()
  local written, removed = {}, {}
  for number in pairs(shares_changed) do
    if #shares[number] > 0 then
      written[#written + 1] = number
      written[#written + 1] = pack_shares(shares[number])
    else
      removed[#removed + 1] = number
    end
  end
  in_parts('HSET', K.leased, written)
  in_parts('HDEL', K.leased, removed)
end

local function write_ends()
  local written, full = {}, {}
  for number in pairs(ends_changed) do
    written[#written + 1] = number
    written[#written + 1] = ends[number]
    -- Nobody asks for the records of a page whose items are all settled.
    if not string.find(ends[number], NO_END, 1, true) then full[#full + 1] = number end
  end
  in_parts('HSET', K.ends, written)
  in_parts('HDEL', K.pages, full)
end

local function complete()
  if next(changed) or next(gone_items) then write_live() end
  if next(shares_changed) then write_shares() end
  if next(ends_changed) then write_ends() end
  Attempts.complete()
end

-- A look at an item, as the service decodes it (`record.rs`); `worker_of` names the
-- worker of a session.
local function item_row(id, worker_of)
  local item, why, row_number = find(id)
  if not item then
    if why == 'unknown' then return nil end
    if why == 'cancelled' then return { id, 'cancelled', false, Attempts.of(id) } end
    return { id, 'done', call('LINDEX', K.results, row_number), Attempts.of(id) }
  end
  local state = 'dead'
  if item.place ~= PLACE.dead then
    if q.ended then
      state = 'abandoned'
    elseif item.place == PLACE.delayed then
      state = 'delayed'
    elseif item.place == PLACE.leased then
      state = 'leased'
    else
      state = 'ready'
    end
  end
  local row = {
    id, state, record(id), item.attempts, item.error or false, false, false, false, false,
    item.tried and Attempts.of(id) or false,
  }
  if state == 'delayed' then
    row[6] = item.due
  elseif state == 'dead' then
    row[6] = item.dead
  elseif state == 'leased' then
    row[6], row[7], row[8] = item.leased, item.lease, item.session
    row[9], row[11] = worker_of(item.session) or false, Progress.of(item)
  end
  return row
end

-- What the other files use.
Items = {
  INLINE_MAX = INLINE_MAX, CANCELLED_END = CANCELLED_END, END_DONE = END_DONE, LANE = LANE,
  page_of = page_of, page = page, bounds = bounds, record = record, prefetch_pages = prefetch_pages,
  end_of = end_of, new_item = new_item, prefetch = prefetch, slots_set = slots_set,
  shares_of = shares_of, prefetch_shares = prefetch_shares, shared_item = shared_item, find = find,
  set_ends = set_ends, set_end = set_end, attempts_max = attempts_max, is_suspect = is_suspect,
  must_run_alone = must_run_alone, make_ready = make_ready, make_delayed = make_delayed,
  bury = bury, leave_share = leave_share, unshare = unshare, withdraw = withdraw,
  lose_lease = lose_lease, start_shared = start_shared, item_row = item_row, complete = complete,
}
end
