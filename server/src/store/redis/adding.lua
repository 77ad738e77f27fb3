-- New items: what comes with a push, and how it gets into pages. Mirrors `push.rs`.

do
local INLINE_MAX, page_of, page, bounds, new_item, make_delayed =
  Items.INLINE_MAX, Items.page_of, Items.page, Items.bounds, Items.new_item, Items.make_delayed

local sort_out
do
-- What comes with a push. The first argument tells of each group that follows: its form, how many
-- items it has, and in how many runs of one priority, then priority and length of each run.
-- TOGETHER: up to a page of items that have neither key nor delay, as a page. KEYED: the same with
-- keys, and one more argument with their hashes. SINGLE: any item, as whether it has a key, the hash
-- of it, delay, record; its runs are left out.
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

-- One of the items that come together.
local function one_of(group, n)
  local from, to = bounds(group.page, n, n)
  return { count = 1, record = sub(group.page, from, to), hashes = { group.hashes[n] } }
end

local function groups_at(first, last)
  local groups, at, shape, from = {}, first + 1, first <= last and ARGV[first] or '', 1
  while from < #shape do
    local form, count, runs = byte(shape, from, from + 2)
    local text = ARGV[at]
    from, at = from + 3 + 2 * runs, at + 1
    if form == SINGLE then
      groups[#groups + 1] = single_at(text)
    else
      local group = { count = count, page = text, runs = { byte(shape, from - 2 * runs, from - 1) } }
      if form == KEYED then
        group.hashes = {}
        for n = 1, count do group.hashes[n] = sub(ARGV[at], 16 * n - 15, 16 * n) end
        at = at + 1
      end
      groups[#groups + 1] = group
    end
  end
  return groups
end

-- Reads what is pushed with some arguments. Returns what became of each, as packed runs
-- (duplicate?, first id, count), what is new, and how many items are duplicates and new ones.
sort_out = function(first, last)
  local groups, hashes = groups_at(first, last), {}
  for _, group in ipairs(groups) do
    for _, hash in ipairs(group.hashes or {}) do hashes[#hashes + 1] = hash end
  end
  local known = Keys.known(hashes)
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
    local count, text, priority_runs = group.count, group.record, group.runs
    if text then
      local kind = byte(text)
      local has = kind - kind % 16
      priority_runs = { kind % 16, 1 }
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
      local first = id
      for at = 1, #priority_runs, 2 do
        local priority, length = priority_runs[at], priority_runs[at + 1]
        if priority == last_priority then
          last.count = last.count + length
        else
          last, last_priority = { first = first, count = length }, priority
          local list = runs[priority] or {}
          runs[priority] = list
          list[#list + 1] = last
        end
        first = first + length
      end
      ready = ready + count
    end
    id = id + count
  end
  close_page(written)
  if id > q.len + 1 then Marks.note(q.len + 1) end
  q.len = id - 1
  q.counts[READY] = q.counts[READY] + ready
  in_parts('HSET', K.pages, written)
  in_parts('HSET', K.blobs, blobs)
  Keys.add(keys)
  Lanes.write(runs)
end
end

-- What the other files use.
Adding = {
  sort_out = sort_out, add = add,
}
end
