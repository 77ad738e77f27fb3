-- Items: immutable records in pages, ends in pages, and a record of their own for what is in
-- flight, delayed, dead or came back. Mirrors `items.rs`, `lanes.rs` and `state.rs`.

local PAGE = 32
local INLINE_MAX = 512
-- A page: what its records have (`HAS`), 33 offsets, of which the first is 0, and the records.
local PAGE_HEAD = 1 + 2 * (PAGE + 1)
-- The low bits of a record's first byte are its priority; in a page they have another meaning.
local HAS = { blob = 1, key = 16, time_limit = 32, max_attempts = 64 }
local NO_END, CANCELLED_END, NO_ENDS = '\0\0\0\0', '\255\255\255\255', nil
-- The ends of done items have the highest bit set, so that no four bytes are nothing by chance.
local END_DONE, END_CANCELLED = 2147483648, 4294967295
local NOBODY = '0000000000000000'
local PLACE = { fresh = 1, came_back = 2, alone = 3, delayed = 4, leased = 5, dead = 6 }
local LANE = 2 ^ 44
-- Bounds: what one lease takes (items one by one, bytes after which it is full, cancelled ones that
-- it skips), what one step ends by itself, what a session may hold, what is kept of those that have ended.
local MOST = {
  leased_singly = 512, leased_bytes = 8388608, ghosts = 16384, swept_sessions = 8, swept_items = 256,
  leases = 1024, endings = 1024, remembered = 8192,
}

local pages, ends, ends_changed
local items, changed, gone_items
local shares, shares_changed, peeked

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
    error = flags > 7 and sub(packed, LIVE_BYTES + 1) or nil,
  }
end

pack_item = function(item)
  local flags = (item.started and 1 or 0) + (item.lost and 2 or 0) + (item.key and 4 or 0)
    + (item.error and 8 or 0)
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

-- Writes how some items of a page ended.
local function set_ends(number, first_slot, last_slot, packed)
  ends[number] = sub(ends_of(number), 1, 4 * first_slot - 4) .. packed
    .. sub(ends[number], 4 * last_slot + 1)
  ends_changed[number] = true
end

-- Settles an item for good.
local function set_end(id, item, ending)
  local slot = (id - 1) % PAGE + 1
  set_ends(page_of(id), slot, slot, ending)
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

local dropped_by_holder, holds_no_more -- in sessions.lua

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
  if not held then holds_no_more(number, share.session) end
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
    dropped_by_holder(item, unshare(item))
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

local take_fresh
-- A run of consecutive ids in a lane: `first` or `first:count`.
local function parse_run(text)
  local first, count = string.match(text, '^(%d+):(%d+)$')
  return tonumber(first or text), tonumber(count or 1)
end

local function run_text(first, count)
  return count == 1 and digits(first) or format('%d:%d', first, count)
end

do
local function is_left(budget)
  return budget.ghosts > 0 and budget.bytes > 0 and budget.singles > 0
end

-- Takes fresh items of a page one by one, up to this one; returns the first that was not taken.
local function take_each(id, last, taken, budget, wanted, lane)
  while id <= last and wanted > 0 and is_left(budget) do
    if q.ghosts[lane] > 0 and end_of(id) ~= 0 then
      q.ghosts[lane] = q.ghosts[lane] - 1
      budget.ghosts = budget.ghosts - 1
    else
      local text = record(id)
      items[id] = new_item(id, text)
      taken[#taken + 1] = { item = items[id], text = text }
      wanted, budget.bytes, budget.singles = wanted - 1, budget.bytes - #text, budget.singles - 1
    end
    id = id + 1
  end
  return id, wanted
end

-- Takes up to `wanted` fresh items of a priority; those cancelled meanwhile are skipped.
take_fresh = function(priority, wanted, taken, budget)
  local list, lane = K.fresh[priority], priority + 1
  while wanted > 0 and q.fresh[lane] > 0 and is_left(budget) do
    local first, count = parse_run(call('LINDEX', list, 0))
    local id, stop = first, first + count
    prefetch_pages(first, min(stop, first + wanted) - 1)
    while id < stop and wanted > 0 and is_left(budget) do
      local number = page_of(id)
      local text, last = page(number), min((number + 1) * PAGE, stop - 1)
      -- Without limits of their own, blobs and cancelled ones they are taken together.
      if q.ghosts[lane] == 0 and S.limit == 0
        and band(byte(text), HAS.blob + HAS.time_limit + HAS.max_attempts) == 0 then
        last = min(last, id + wanted - 1)
        local slot, last_slot = id - number * PAGE, last - number * PAGE
        local from, to = bounds(text, slot, last_slot)
        -- A copy takes longer than to send a few bytes more.
        local is_most = 2 * (to - from) > #text
        taken[#taken + 1] = {
          first = id, count = last - id + 1, number = number, slot = slot, last_slot = last_slot,
          kind = band(byte(text), HAS.key) + priority, skipped = is_most and from - 1 or 0,
          offsets = sub(text, 2 * slot, 2 * last_slot + 3),
          text = is_most and text or sub(text, from, to),
        }
        wanted, budget.bytes = wanted - (last - id + 1), budget.bytes - (to - from + 1)
        id = last + 1
      else
        id, wanted = take_each(id, last, taken, budget, wanted, lane)
      end
    end
    q.fresh[lane] = q.fresh[lane] - (id - first)
    if id == stop then
      call('LPOP', list)
    else
      call('LSET', list, 0, run_text(id, stop - id))
    end
  end
  return wanted
end
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
  return { { item = item, text = record(id) } }
end

-- Takes the first items that may run beside others: higher priority first, within one those that
-- came back, each kind by id. Returns items with their records, and parts of pages with fresh ones.
local function take_first(wanted)
  local taken, budget = {}, {
    ghosts = MOST.ghosts, bytes = MOST.leased_bytes, singles = MOST.leased_singly,
  }
  local back, at = {}, 1
  if q.back > 0 then
    write_pending(K.back)
    local found = call('ZRANGE', K.back, 0, min(wanted, budget.singles) - 1)
    for n = 1, #found do back[n] = tonumber(found[n]) end
    prefetch(back)
  end
  for priority = 9, 0, -1 do
    while back[at] and wanted > 0 and budget.bytes > 0 and items[back[at]].priority == priority do
      local item, text = items[back[at]], record(back[at])
      taken[#taken + 1] = { item = item, text = text }
      at, wanted, budget.bytes = at + 1, wanted - 1, budget.bytes - #text
      budget.singles = budget.singles - 1
    end
    if wanted == 0 or budget.bytes <= 0 or budget.singles == 0 then break end
    if q.fresh[priority + 1] > 0 then wanted = take_fresh(priority, wanted, taken, budget) end
  end
  return taken
end

local sort_out
do
-- What comes with a push. The first argument has two bytes for each group that follows: its form,
-- and how many items it has. TOGETHER: up to a page of those that have the same first byte, neither
-- key nor delay, as a page. KEYED: the same with keys, and one more argument with their hashes.
-- SINGLE: any item, as whether it has a key, the hash of it, delay, record.
local TOGETHER, KEYED, SINGLE = 0, 1, 2

local function single_at(text)
  local hash, from = nil, 2
  if byte(text) == 1 then hash, from = sub(text, 2, 17), 18 end
  local delay = parse('>I6', text, from)
  return {
    count = 1, record = sub(text, from + 6), hashes = hash and { hash },
    delay = delay > 0 and delay or nil,
  }
end

local function keyed_at(text, hashes, count)
  local group = { count = count, page = text, hashes = {} }
  for n = 1, count do group.hashes[n] = sub(hashes, 16 * n - 15, 16 * n) end
  return group
end

-- One of the items that come together.
local function one_of(group, n)
  local from, to = bounds(group.page, n, n)
  return { count = 1, record = sub(group.page, from, to), hashes = { group.hashes[n] } }
end

local function groups_at(first, last)
  local groups, at, shape = {}, first + 1, first <= last and ARGV[first] or ''
  for n = 1, #shape, 2 do
    local form, count = byte(shape, n, n + 1)
    if form == TOGETHER then
      groups[#groups + 1] = { count = count, page = ARGV[at] }
    elseif form == KEYED then
      groups[#groups + 1] = keyed_at(ARGV[at], ARGV[at + 1], count)
      at = at + 1
    else
      groups[#groups + 1] = single_at(ARGV[at])
    end
    at = at + 1
  end
  return groups
end

-- Reads what is pushed with some arguments. Returns what became of each, as packed runs
-- (duplicate?, first id, count), what is new, and how many items are duplicates and new ones.
sort_out = function(first, last)
  local groups, hashes, known = groups_at(first, last), {}, {}
  for _, group in ipairs(groups) do
    for _, hash in ipairs(group.hashes or {}) do hashes[#hashes + 1] = hash end
  end
  for at, id in ipairs(read_fields(K.dedupe, hashes)) do
    if id then known[hashes[at]] = tonumber(id) end
  end
  local pushed, fresh, next_id, duplicates = {}, {}, q.len + 1, 0
  local function take(group)
    for n, hash in ipairs(group.hashes or {}) do
      if known[hash] then
        -- What comes together is taken so only when none of it is known.
        pushed[#pushed + 1] = pack('>BI6I2', 1, known[hash], 1)
        duplicates = duplicates + 1
        return
      end
      known[hash] = next_id + n - 1
    end
    pushed[#pushed + 1] = pack('>BI6I2', 0, next_id, group.count)
    next_id = next_id + group.count
    fresh[#fresh + 1] = group
  end
  for _, group in ipairs(groups) do
    local is_known = false
    if group.count > 1 then
      for _, hash in ipairs(group.hashes or {}) do is_known = is_known or known[hash] end
    end
    if is_known then
      for n = 1, group.count do take(one_of(group, n)) end
    else
      take(group)
    end
  end
  return table.concat(pushed), fresh, duplicates, next_id - q.len - 1
end
end

local add
do
-- Writes the runs of new items to the ends of their lanes.
local function write_lanes(runs)
  for priority, list in pairs(runs) do
    local lane, from = K.fresh[priority], 1
    if q.fresh[priority + 1] > 0 then
      local first, count = parse_run(call('LINDEX', lane, -1))
      if first + count == list[1].first then
        call('LSET', lane, -1, run_text(first, count + list[1].count))
        from = 2
      end
    end
    local texts, total = {}, 0
    for at, found in ipairs(list) do
      total = total + found.count
      if at >= from then texts[#texts + 1] = run_text(found.first, found.count) end
    end
    in_parts('RPUSH', lane, texts)
    q.fresh[priority + 1] = q.fresh[priority + 1] + total
  end
end

-- Offsets with this number added to each.
local function shifted(offsets, by)
  if by == 0 then return offsets end
  local form = '>' .. rep('I2', #offsets / 2)
  local values = { parse(form, offsets) }
  values[#values] = nil
  for at = 1, #values do values[at] = values[at] + by end
  return pack(form, unpack(values))
end

-- The page that is written: as a whole, or in parts once something is added to it.
local filling

-- Begins the page of the item that comes next.
local function open_page(id)
  local number = page_of(id)
  local used = id - 1 - number * PAGE
  filling = { number = number, used = used, has = 0, offsets = { '\0\0' }, stop = 0, texts = {} }
  if used > 0 then filling.page = page(number) end
end

local function close_page(written)
  if not filling then return end
  local number, text = filling.number, filling.page
  if not text then
    local parts = { string.char(filling.has) }
    for _, offsets in ipairs(filling.offsets) do parts[#parts + 1] = offsets end
    parts[#parts + 1] = rep('\0\0', PAGE - filling.used)
    for _, records in ipairs(filling.texts) do parts[#parts + 1] = records end
    text = table.concat(parts)
  end
  pages[number] = text
  written[#written + 1], written[#written + 2] = number, text
  filling = nil
end

-- Adds records to the page: what they have, their offsets but for the first, records.
local function append(count, has, offsets, first, stop, records)
  local text, used = filling.page, filling.used
  if text then
    local last = 2 * used + 3
    filling.page, filling.has, filling.stop = nil, byte(text), parse('>I2', text, last - 1)
    filling.offsets, filling.texts = { sub(text, 2, last) }, { sub(text, PAGE_HEAD + 1) }
  end
  local by = filling.stop - first
  filling.offsets[#filling.offsets + 1] = shifted(offsets, by)
  filling.texts[#filling.texts + 1] = records
  filling.stop, filling.used, filling.has = stop + by, used + count, bit.bor(filling.has, has)
end

local function room_for(id, written)
  if filling and filling.used < PAGE then return end
  close_page(written)
  open_page(id)
end

-- Puts what comes as a page into pages.
local function fill(id, count, text, written)
  local done = 0
  while done < count do
    room_for(id + done, written)
    if filling.used == 0 and done == 0 then
      filling.page, filling.used = text, count
      return
    end
    local part = min(count - done, PAGE - filling.used)
    local first, stop = parse('>I2', text, 2 * done + 2), parse('>I2', text, 2 * (done + part) + 2)
    append(part, byte(text), sub(text, 2 * done + 4, 2 * (done + part) + 3), first, stop,
      sub(text, PAGE_HEAD + 1 + first, PAGE_HEAD + stop))
    done = done + part
  end
end

-- Adds items; their ids follow the last one.
add = function(groups)
  local runs, keys, blobs, written = {}, {}, {}, {}
  local id, last, last_priority, ready = q.len + 1, nil, nil, 0
  filling = nil
  for _, group in ipairs(groups) do
    local count, text = group.count, group.record
    local kind = text and byte(text) or byte(group.page, PAGE_HEAD + 1)
    if text then
      local has = kind - kind % 16
      room_for(id, written)
      if #text > INLINE_MAX then
        blobs[#blobs + 1], blobs[#blobs + 2] = id, text
        q.blobs = q.blobs + 1
        append(1, has + HAS.blob, '\0\0', 0, 0, '')
      else
        append(1, has, pack('>I2', #text), 0, #text, text)
      end
    else
      fill(id, count, group.page, written)
    end
    for n, hash in ipairs(group.hashes or {}) do
      keys[#keys + 1], keys[#keys + 2] = hash, id + n - 1
    end
    if group.delay then
      items[id] = new_item(id, text)
      make_delayed(items[id], now_ms + group.delay)
      last_priority = nil
    else
      local priority = kind % 16
      if priority == last_priority then
        last.count = last.count + count
      else
        last, last_priority = { first = id, count = count }, priority
        local list = runs[priority] or {}
        runs[priority] = list
        list[#list + 1] = last
      end
      ready = ready + count
    end
    id = id + count
  end
  close_page(written)
  q.len = id - 1
  q.counts[READY] = q.counts[READY] + ready
  in_parts('HSET', K.pages, written)
  in_parts('HSET', K.blobs, blobs)
  in_parts('HSET', K.dedupe, keys)
  write_lanes(runs)
end
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
  local shares_written, unshared = {}, {}
  for number in pairs(shares_changed) do
    if #shares[number] > 0 then
      shares_written[#shares_written + 1] = number
      shares_written[#shares_written + 1] = pack_shares(shares[number])
    else
      unshared[#unshared + 1] = number
    end
  end
  in_parts('HSET', K.leased, shares_written)
  in_parts('HDEL', K.leased, unshared)
  local ends_written, full = {}, {}
  for number in pairs(ends_changed) do
    ends_written[#ends_written + 1] = number
    ends_written[#ends_written + 1] = ends[number]
    -- Nobody asks for the records of a page whose items are all settled.
    if not string.find(ends[number], NO_END, 1, true) then full[#full + 1] = number end
  end
  in_parts('HSET', K.ends, ends_written)
  in_parts('HDEL', K.pages, full)
end

-- A look at an item, as the service decodes it (`record.rs`); `worker_of` names the
-- worker of a session.
local function item_row(id, worker_of)
  local item, why, row_number = find(id)
  if not item then
    if why == 'unknown' then return nil end
    if why == 'cancelled' then return { id, 'cancelled' } end
    return { id, 'done', call('LINDEX', K.results, row_number) }
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
