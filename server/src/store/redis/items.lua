-- Items: immutable records in pages, ends in pages, and a record of their own for what is in
-- flight, delayed, dead or came back. Mirrors `items.rs`, `lanes.rs` and `state.rs`.

local PAGE = 32
local INLINE_MAX = 512
-- What begins an item without key and delay.
local PLAIN = '\0\0\0\0\0\0\0'
local OFFSETS = '>' .. 'I2I2I2I2I2I2I2I2' .. 'I2I2I2I2I2I2I2I2' .. 'I2I2I2I2I2I2I2I2' .. 'I2I2I2I2I2I2I2I2'
local ENDS = '>' .. 'I4I4I4I4I4I4I4I4' .. 'I4I4I4I4I4I4I4I4' .. 'I4I4I4I4I4I4I4I4' .. 'I4I4I4I4I4I4I4I4'
local END_CANCELLED = 4294967295
local LIVE = '>BBBI2I2I2I2I8I6I6I6I6I6c16'
local LIVE_BYTES = 11 + 8 + 30 + 16
local NOBODY = '0000000000000000'
local FRESH, CAME_BACK, ALONE, IS_DELAYED, IS_LEASED, IS_DEAD = 1, 2, 3, 4, 5, 6
local LANE = 2 ^ 44
-- The first byte of a record without time limit and `maxAttempts`, its trace context aside.
local PLAIN_BELOW = 32
-- Cancelled items that a step skips in the lanes, and bytes after which a lease is full.
local GHOSTS_A_STEP, LEASE_BYTES, LEASES_A_STEP = 16384, 8388608, 512
local SWEEP_SESSIONS, SWEEP_ITEMS = 8, 256

local pages, ends, ends_changed
local items, changed, gone_items

resets[#resets + 1] = function()
  pages, ends, ends_changed = {}, {}, {}
  items, changed, gone_items = {}, {}, {}
end

local function page_of(id) return floor((id - 1) / PAGE) end

-- The record of an item as it was pushed.
local function record(id)
  local number, slot = page_of(id), (id - 1) % PAGE
  local page = pages[number]
  if not page then
    page = call('HGET', K.pages, number)
    pages[number] = page
  end
  local from, to = 0, nil
  if slot > 0 then
    from, to = parse('>I2I2', page, 2 * slot - 1)
  else
    to = parse('>I2', page)
  end
  if from == to then return call('HGET', K.blobs, id) end
  return sub(page, 2 * PAGE + from + 1, 2 * PAGE + to)
end

local function ends_of(number)
  local slots = ends[number]
  if not slots then
    local packed = call('HGET', K.ends, number)
    slots = packed and { parse(ENDS, packed) } or {}
    slots[PAGE + 1] = nil
    ends[number] = slots
  end
  return slots
end

-- 0 while the item is not settled for good, END_CANCELLED, or one more than its result's place.
local function end_of(id) return ends_of(page_of(id))[(id - 1) % PAGE + 1] or 0 end

local function new_item(id, text)
  -- Its first byte is the priority and what follows (`encode.rs`).
  local first, at = byte(text), 2
  local has_limit, has_max = floor(first / 32) % 2 == 1, floor(first / 64) % 2 == 1
  local item = {
    id = id, place = FRESH, priority = first % 16, attempts = 0, attempt = 0, lost_attempts = 0,
    max = 0, lease = 0, leased = 0, due = 0, deadline = 0, dead = 0, limit = 0, session = NOBODY,
    key = floor(first / 16) % 2 == 1,
  }
  if has_limit then item.limit, at = parse('>I6', text, at) end
  if has_max then item.max, at = parse('>I2', text, at) end
  return item
end

local function unpack_item(id, packed)
  local item = { id = id, stored = true }
  local flags
  item.place, item.priority, flags, item.attempts, item.attempt, item.lost_attempts, item.max,
    item.lease, item.leased, item.due, item.deadline, item.dead, item.limit, item.session =
    parse(LIVE, packed)
  item.started, item.lost = flags % 2 == 1, floor(flags / 2) % 2 == 1
  item.key = floor(flags / 4) % 2 == 1
  if floor(flags / 8) % 2 == 1 then item.error = sub(packed, LIVE_BYTES + 1) end
  return item
end

local function pack_item(item)
  local flags = (item.started and 1 or 0) + (item.lost and 2 or 0) + (item.key and 4 or 0)
    + (item.error and 8 or 0)
  return pack(LIVE, item.place, item.priority, flags, item.attempts, item.attempt,
    item.lost_attempts, item.max, item.lease, item.leased, item.due, item.deadline, item.dead,
    item.limit, item.session) .. (item.error or '')
end

-- Returns the stored records of many items, false for those that have none.
local function fetch(ids)
  return read_fields(K.live, ids)
end

-- Reads the records of many items at once.
local function prefetch(ids)
  for at, packed in ipairs(fetch(ids)) do
    local id = ids[at]
    if packed and items[id] == nil and not gone_items[id] then items[id] = unpack_item(id, packed) end
  end
end

-- Returns an item that is not settled for good, or nil and what it is then.
local function find(id)
  local item = items[id]
  if item then return item end
  if id < 1 or id > q.len then return nil, 'unknown' end
  local ending = end_of(id)
  if ending == END_CANCELLED then return nil, 'cancelled' end
  if ending > 0 then return nil, 'done', ending - 1 end
  local packed = call('HGET', K.live, id)
  item = packed and unpack_item(id, packed) or new_item(id, record(id))
  items[id] = item
  return item
end

-- Settles an item for good.
local function set_end(id, item, ending)
  local number = page_of(id)
  local slots = ends_of(number)
  slots[(id - 1) % PAGE + 1] = ending
  ends_changed[number] = true
  items[id], changed[id] = nil, nil
  gone_items[id] = item
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

-- Where an item stands among others: higher priority first, then by id.
local function rank(item) return (9 - item.priority) * LANE + item.id end

-- Puts an item that is nowhere among the ready ones that came back.
local function make_ready(item)
  if must_run_alone(item) then
    item.place = ALONE
    later(K.alone, item.id, rank(item))
    q.alone = q.alone + 1
  else
    item.place = CAME_BACK
    later(K.back, item.id, rank(item))
    q.back = q.back + 1
  end
  q.counts[READY] = q.counts[READY] + 1
  changed[item.id] = item
end

local function make_delayed(item, due)
  item.place, item.due = IS_DELAYED, due
  later(K.delayed, item.id, due)
  q.counts[DELAYED] = q.counts[DELAYED] + 1
  changed[item.id] = item
end

local function bury(item)
  item.place, item.dead = IS_DEAD, now_ms
  later(K.dead, item.id, item.id)
  q.counts[DEAD] = q.counts[DEAD] + 1
  changed[item.id] = item
end

local dropped_by_holder -- in sessions.lua

-- Takes an unsettled item out of wherever it is, and out of the counts.
local function withdraw(item)
  local place, id, counts = item.place, item.id, q.counts
  changed[id] = item
  if place == FRESH then
    counts[READY] = counts[READY] - 1
  elseif place == CAME_BACK then
    later(K.back, id, false)
    q.back = q.back - 1
    counts[READY] = counts[READY] - 1
  elseif place == ALONE then
    later(K.alone, id, false)
    q.alone = q.alone - 1
    counts[READY] = counts[READY] - 1
  elseif place == IS_DELAYED then
    later(K.delayed, id, false)
    item.due = 0
    counts[DELAYED] = counts[DELAYED] - 1
  elseif place == IS_LEASED then
    if item.deadline > 0 then
      later(K.limits, id, false)
      q.limits = q.limits - 1
      item.deadline = 0
    end
    dropped_by_holder(item)
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

-- A run of consecutive ids in a lane: `first` or `first:count`.
local function parse_run(text)
  local first, count = string.match(text, '^(%d+):(%d+)$')
  return tonumber(first or text), tonumber(count or 1)
end

local function run(first, count)
  return count == 1 and digits(first) or digits(first) .. ':' .. digits(count)
end

-- Takes up to `wanted` fresh items of a priority; those cancelled meanwhile are skipped.
local function take_fresh(priority, wanted, taken, budget)
  local lane = K.fresh[priority]
  while wanted > 0 and q.fresh[priority + 1] > 0 and budget.ghosts > 0 and budget.bytes > 0 do
    local first, count = parse_run(call('LINDEX', lane, 0))
    local next_id, stop = first, first + count
    while next_id < stop and wanted > 0 and budget.ghosts > 0 and budget.bytes > 0 do
      local id = next_id
      next_id = id + 1
      if q.ghosts[priority + 1] > 0 and end_of(id) ~= 0 then
        q.ghosts[priority + 1] = q.ghosts[priority + 1] - 1
        budget.ghosts = budget.ghosts - 1
      else
        local text = record(id)
        local at = #taken + 1
        -- One without limits of its own needs no more than its record to be leased.
        local special = S.limit > 0 or byte(text) % 128 >= PLAIN_BELOW
        local item = special and new_item(id, text) or false
        if item then items[id] = item end
        taken[at], taken.ids[at], taken.texts[at] = item, id, text
        wanted, budget.bytes = wanted - 1, budget.bytes - #text
      end
    end
    q.fresh[priority + 1] = q.fresh[priority + 1] - (next_id - first)
    if next_id == stop then
      call('LPOP', lane)
    else
      call('LSET', lane, 0, run(next_id, stop - next_id))
    end
  end
  return wanted
end

-- The item that must run alone, if it is the next of all: the first of its own priority, after
-- those of higher ones.
local function next_alone()
  if q.alone == 0 then return nil end
  write_pending(K.alone)
  local id = tonumber(call('ZRANGE', K.alone, 0, 0)[1])
  local item = find(id)
  for priority = item.priority + 1, 9 do
    if q.fresh[priority + 1] > q.ghosts[priority + 1] then return nil end
  end
  if q.back > 0 then
    write_pending(K.back)
    local first = call('ZRANGE', K.back, 0, 0, 'WITHSCORES')
    if tonumber(first[2]) < (9 - item.priority) * LANE then return nil end
  end
  return { item, ids = { id }, texts = { record(id) } }
end

-- Takes the first items that may run beside others: higher priority first, within one those that
-- came back, each kind by id. Returns the items, false for fresh ones without limits of their own,
-- with their ids and records.
local function take_first(wanted)
  local taken, budget = { ids = {}, texts = {} }, { ghosts = GHOSTS_A_STEP, bytes = LEASE_BYTES }
  local back, at = {}, 1
  if q.back > 0 then
    write_pending(K.back)
    local found = call('ZRANGE', K.back, 0, wanted - 1)
    for n = 1, #found do back[n] = tonumber(found[n]) end
    prefetch(back)
  end
  for priority = 9, 0, -1 do
    while back[at] and wanted > 0 and budget.bytes > 0 and items[back[at]].priority == priority do
      local item, text, next_at = items[back[at]], record(back[at]), #taken + 1
      taken[next_at], taken.ids[next_at], taken.texts[next_at] = item, item.id, text
      at, wanted, budget.bytes = at + 1, wanted - 1, budget.bytes - #text
    end
    if wanted == 0 or budget.bytes <= 0 then break end
    wanted = take_fresh(priority, wanted, taken, budget)
  end
  return taken
end

-- Pushes: every item comes as `key?, hash, delay, record`. Returns what became of each, as packed
-- runs (duplicate?, first id, count), and those that are new: their records, and the hashes of
-- keys and the delays of those that have one.
local function sort_out(packed_items)
  local count = #packed_items
  local fresh = { records = {}, hashes = {}, delays = {} }
  local hashes = {}
  local records, delays, all_hashes = fresh.records, {}, {}
  for at = 1, count do
    local packed = packed_items[at]
    if sub(packed, 1, 7) == PLAIN then
      records[at] = sub(packed, 8)
    else
      local from = 2
      if byte(packed) == 1 then
        all_hashes[at] = sub(packed, 2, 17)
        hashes[#hashes + 1] = all_hashes[at]
        from = 18
      end
      local delay
      delay, from = parse('>I6', packed, from)
      if delay > 0 then delays[at] = delay end
      records[at] = sub(packed, from)
    end
  end
  if #hashes == 0 then
    fresh.delays = delays
    return count > 0 and pack('>BI6I2', 0, q.len + 1, count) or '', fresh, 0
  end
  local known = {}
  for at, id in ipairs(read_fields(K.dedupe, hashes)) do
    if id then known[hashes[at]] = tonumber(id) end
  end
  local pushed, next_id, fresh_count = {}, q.len + 1, 0
  fresh.records = {}
  for at = 1, count do
    local hash = all_hashes[at]
    local id = hash and known[hash]
    if id then
      pushed[at] = pack('>BI6I2', 1, id, 1)
    else
      if hash then known[hash] = next_id end
      pushed[at] = pack('>BI6I2', 0, next_id, 1)
      fresh_count, next_id = fresh_count + 1, next_id + 1
      fresh.records[fresh_count], fresh.hashes[fresh_count] = records[at], hash
      fresh.delays[fresh_count] = delays[at]
    end
  end
  return table.concat(pushed), fresh, count - fresh_count
end

-- Writes the runs of new items to the ends of their lanes.
local function write_lanes(runs)
  for priority, list in pairs(runs) do
    local lane, from = K.fresh[priority], 1
    if q.fresh[priority + 1] > 0 then
      local first, count = parse_run(call('LINDEX', lane, -1))
      if first + count == list[1].first then
        call('LSET', lane, -1, run(first, count + list[1].count))
        from = 2
      end
    end
    local texts, total = {}, 0
    for at, found in ipairs(list) do
      total = total + found.count
      if at >= from then texts[#texts + 1] = run(found.first, found.count) end
    end
    in_parts('RPUSH', lane, texts)
    q.fresh[priority + 1] = q.fresh[priority + 1] + total
  end
end

-- Adds items; their ids follow the last one.
local function add(fresh)
  local runs, keys, blobs, written = {}, {}, {}, {}
  local records, hashes, delays = fresh.records, fresh.hashes, fresh.delays
  local number, sizes, body, size
  local function close()
    if not number then return end
    for slot = #sizes + 1, PAGE do sizes[slot] = 0 end
    pages[number] = pack(OFFSETS, unpack(sizes)) .. table.concat(body)
    written[#written + 1] = number
    written[#written + 1] = pages[number]
  end
  local function open(id)
    number, sizes, body, size = page_of(id), {}, {}, 0
    local used = (id - 1) % PAGE
    if used == 0 then return end
    local page = pages[number] or call('HGET', K.pages, number)
    for slot = 1, used do sizes[slot] = parse('>I2', page, 2 * slot - 1) end
    body[1] = sub(page, 2 * PAGE + 1)
    size = #body[1]
  end
  local len, stop, last, last_priority, ready = q.len, q.len, nil, nil, 0
  for n = 1, #records do
    local id, text = len + n, records[n]
    -- The next page begins.
    if id > stop then
      close()
      open(id)
      stop = (number + 1) * PAGE
    end
    if #text > INLINE_MAX then
      blobs[#blobs + 1] = id
      blobs[#blobs + 1] = text
      q.blobs = q.blobs + 1
    else
      body[#body + 1] = text
      size = size + #text
    end
    sizes[#sizes + 1] = size
    if hashes[n] then
      keys[#keys + 1] = hashes[n]
      keys[#keys + 1] = id
    end
    if delays[n] then
      items[id] = new_item(id, text)
      make_delayed(items[id], now_ms + delays[n])
      last_priority = nil
    else
      local priority = byte(text) % 16
      if priority == last_priority then
        last.count = last.count + 1
      else
        last, last_priority = { first = id, count = 1 }, priority
        local list = runs[priority] or {}
        runs[priority] = list
        list[#list + 1] = last
      end
      ready = ready + 1
    end
  end
  q.len = len + #records
  q.counts[READY] = q.counts[READY] + ready
  close()
  in_parts('HSET', K.pages, written)
  in_parts('HSET', K.blobs, blobs)
  in_parts('HSET', K.dedupe, keys)
  write_lanes(runs)
end

complete_items = function()
  local written, removed = {}, {}
  for id, item in pairs(changed) do
    written[#written + 1] = id
    written[#written + 1] = pack_item(item)
  end
  in_parts('HSET', K.live, written)
  local settled = {}
  for id, item in pairs(gone_items) do
    if item.stored then removed[#removed + 1] = id end
    if q.blobs > 0 then settled[#settled + 1] = id end
  end
  in_parts('HDEL', K.live, removed)
  for from = 1, #settled, 1000 do
    q.blobs = q.blobs - call('HDEL', K.blobs, unpack(settled, from, min(from + 999, #settled)))
  end
  local ends_written, full = {}, {}
  for number in pairs(ends_changed) do
    local slots, unsettled = ends[number], 0
    for slot = 1, PAGE do
      slots[slot] = slots[slot] or 0
      if slots[slot] == 0 then unsettled = unsettled + 1 end
    end
    ends_written[#ends_written + 1] = number
    ends_written[#ends_written + 1] = pack(ENDS, unpack(slots, 1, PAGE))
    -- Nobody asks for the records of a page whose items are all settled.
    if unsettled == 0 then full[#full + 1] = number end
  end
  in_parts('HSET', K.ends, ends_written)
  in_parts('HDEL', K.pages, full)
end

-- A look at an item, as the service decodes it (`record.rs`); `worker_of` names the
-- worker of a session.
local function item_row(id, worker_of)
  local item, why, place = find(id)
  if not item then
    if why == 'unknown' then return nil end
    if why == 'cancelled' then return { id, 'cancelled' } end
    return { id, 'done', call('LINDEX', K.results, place) }
  end
  local state = 'dead'
  if item.place ~= IS_DEAD then
    if q.ended then
      state = 'abandoned'
    elseif item.place == IS_DELAYED then
      state = 'delayed'
    elseif item.place == IS_LEASED then
      state = 'leased'
    else
      state = 'ready'
    end
  end
  local row = { id, state, record(id), item.attempts, item.error or false }
  if state == 'delayed' then
    row[6] = item.due
  elseif state == 'dead' then
    row[6] = item.dead
  elseif state == 'leased' then
    row[6], row[7], row[8] = item.leased, item.lease, item.session
    row[9] = worker_of(item.session) or false
  end
  return row
end
