-- Lanes: which ready item comes next. Fresh ones stand as runs of ids in a list a priority; those
-- that came back have sorted sets. Mirrors `lanes.rs`.

do
local LANE, page_of, page, bounds, record, prefetch_pages, end_of, new_item, prefetch, find =
  Items.LANE, Items.page_of, Items.page, Items.bounds, Items.record, Items.prefetch_pages,
  Items.end_of, Items.new_item, Items.prefetch, Items.find

-- A run of consecutive ids in a lane: `first` or `first:count`.
local function parse_run(text)
  local first, count = string.match(text, '^(%d+):(%d+)$')
  return tonumber(first or text), tonumber(count or 1)
end

local function run_text(first, count)
  return count == 1 and digits(first) or format('%d:%d', first, count)
end

local function is_left(budget)
  return budget.ghosts > 0 and budget.bytes > 0
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
      wanted, budget.bytes = wanted - 1, budget.bytes - #text
    end
    id = id + 1
  end
  return id, wanted
end

-- Takes up to `wanted` fresh items of a priority; those cancelled meanwhile are skipped.
local function take_fresh(priority, wanted, taken, budget)
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
  local taken, budget = {}, { ghosts = MOST.ghosts, bytes = MOST.leased_bytes }
  local back, at = {}, 1
  if q.back > 0 then
    write_pending(K.back)
    local found = call('ZRANGE', K.back, 0, wanted - 1)
    for n = 1, #found do back[n] = tonumber(found[n]) end
    prefetch(back)
  end
  for priority = 9, 0, -1 do
    while back[at] and wanted > 0 and budget.bytes > 0 and items[back[at]].priority == priority do
      local item, text = items[back[at]], record(back[at])
      taken[#taken + 1] = { item = item, text = text }
      at, wanted, budget.bytes = at + 1, wanted - 1, budget.bytes - #text
    end
    if wanted == 0 or budget.bytes <= 0 then break end
    if q.fresh[priority + 1] > 0 then wanted = take_fresh(priority, wanted, taken, budget) end
  end
  return taken
end

-- Writes the runs of new items to the ends of their lanes.
local function write(runs)
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

-- The first fresh item of a lane that is not cancelled, as far as that is looked for.
local function first_fresh(priority)
  local at, looks = 0, 0
  while true do
    local first, count = parse_run(call('LINDEX', K.fresh[priority], at))
    if q.ghosts[priority + 1] == 0 then return first end
    for id = first, first + count - 1 do
      looks = looks + 1
      if looks > MOST.ghosts or end_of(id) == 0 then return id end
    end
    at = at + 1
  end
end

-- The ready item that was pushed first, or nil.
local function oldest()
  if q.ended or q.counts[READY] == 0 then return nil end
  local least = math.huge
  for priority = 0, 9 do
    if q.fresh[priority + 1] > q.ghosts[priority + 1] then
      least = min(least, first_fresh(priority))
    end
    for key, count in pairs({ [K.back] = q.back, [K.alone] = q.alone }) do
      if count > 0 then
        local from = (9 - priority) * LANE
        local found = call('ZRANGEBYSCORE', key, from, from + LANE - 1, 'LIMIT', 0, 1)
        least = min(least, tonumber(found[1] or least))
      end
    end
  end
  return least
end

-- What the other files use.
Lanes = {
  next_alone = next_alone, take_first = take_first, write = write, oldest = oldest,
}
end
