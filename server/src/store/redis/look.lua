-- Looks that change nothing: no time passes.
--
-- ARGV after the common ones: what to look at, then its arguments.

do
local record, prefetch, find, item_row = Items.record, Items.prefetch, Items.find, Items.item_row
local session_of, worker_of, session_of_worker, all_held =
  Sessions.session_of, Sessions.worker_of, Sessions.session_of_worker, Sessions.all_held

local COUNT_OF = {
  ready = READY, delayed = DELAYED, leased = LEASED, done = DONE, cancelled = CANCELLED,
  abandoned = ABANDONED,
}
-- Leased items that are sorted in one look.
local HELD_AT_ONCE = 2048
-- Rows of results that are read at once.
local ROWS_AT_ONCE = 32

local function session_row(session)
  return { session.worker, session.id, session.holds, session.done, session.opened, session.idle }
end

local function look()
  local what = ARGV[5]

  if what == 'stream' then
    local packed = call('GET', KEYS[#names + 11])
    local taken = packed and cmsgpack.unpack(packed)
    if not taken or taken.kind ~= 'chunk' or now_ms >= taken.at + 24 * 3600 * 1000 then
      return { 'stream', false }
    end
    return {
      'stream',
      { taken.uid, taken.lines, taken.hash, taken.added, taken.duplicates, taken.complete and 1 or 0 },
    }
  end

  if not q then return { 'not_found' } end

  if what == 'status' then
    local due = next_due(true)
    return { 'status', view(q), delay_of(due), digits(leasable()) }
  end

  if what == 'oldest' then
    local id = Lanes.oldest()
    return { 'oldest', id and Marks.pushed_at(id) or false }
  end

  if what == 'item' then
    local row = item_row(tonumber(ARGV[6]), worker_of)
    if not row then return { 'item_not_found' } end
    return { 'item', row }
  end

  -- Items of a range of ids, those in a state only.
  if what == 'items' then
    local after, wanted, state, looks = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
    local rows, id = {}, after
    if state == 'dead' then
      for _, found in ipairs(call('ZRANGEBYSCORE', K.dead, '(' .. digits(after), '+inf',
        'LIMIT', 0, min(wanted, looks))) do
        id = tonumber(found)
        rows[#rows + 1] = item_row(id, worker_of)
      end
      if #rows < min(wanted, looks) then id = q.len end
      return { 'items', rows, digits(id), id >= q.len and 1 or 0 }
    end
    local count = q.counts[COUNT_OF[state]]
    if count == 0 then return { 'items', rows, digits(q.len), 1 } end
    if state == 'leased' and count <= HELD_AT_ONCE then
      -- What is leased is held by a session; there is no need to look at the rest.
      local held = all_held(HELD_AT_ONCE)
      for _, found in ipairs(held) do
        if found > after then
          if #rows == min(wanted, looks) then return { 'items', rows, digits(id), 0 } end
          id = found
          rows[#rows + 1] = item_row(id, worker_of)
        end
      end
      return { 'items', rows, digits(q.len), 1 }
    end
    local last = min(after + looks, q.len)
    local ids = {}
    for n = after + 1, last do ids[#ids + 1] = n end
    prefetch(ids)
    while id < last and #rows < wanted do
      id = id + 1
      local row = item_row(id, worker_of)
      if state == '' or row[2] == state then rows[#rows + 1] = row end
    end
    return { 'items', rows, digits(id), id >= q.len and 1 or 0 }
  end

  if what == 'results' then
    local cursor, wanted = tonumber(ARGV[6]), tonumber(ARGV[7])
    if cursor >= q.results or wanted == 0 then return { 'results', {} } end
    -- From the last row of which it is known how many results come before it.
    local mark = call('ZREVRANGEBYSCORE', K.marks, ARGV[6], '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local row, before, rows = tonumber(mark[1] or 0), tonumber(mark[2] or 0), {}
    while before < cursor + wanted and row < q.rows do
      for _, text in ipairs(call('LRANGE', K.results, row, row + ROWS_AT_ONCE - 1)) do
        local stop = before + parse('>I2', text)
        if stop > cursor and before < cursor + wanted then
          rows[#rows + 1], rows[#rows + 2] = max(cursor - before, 0), text
        end
        before = stop
      end
      row = row + ROWS_AT_ONCE
    end
    return { 'results', rows }
  end

  if what == 'workers' then
    local part = call('HSCAN', K.sessions, ARGV[6], 'COUNT', 256)
    local rows = {}
    for at = 2, #part[2], 2 do
      local session = session_of(part[2][at - 1])
      if session then rows[#rows + 1] = session_row(session) end
    end
    return { 'workers', part[1], rows }
  end

  -- What items died of: id, error, since when.
  if what == 'dead' then
    local rows, ids = {}, {}
    for at, id in ipairs(call('ZRANGEBYSCORE', K.dead, '(' .. ARGV[6], '+inf', 'LIMIT', 0, ARGV[7])) do
      ids[at] = tonumber(id)
    end
    prefetch(ids)
    for at, id in ipairs(ids) do rows[at] = { id, items[id].error or false, items[id].dead } end
    return { 'dead', rows }
  end

  -- Dead items as they were pushed.
  if what == 'copies' then
    local rows, ids = {}, {}
    for at = 6, #ARGV do ids[at - 5] = tonumber(ARGV[at]) end
    prefetch(ids)
    for _, id in ipairs(ids) do
      local item = find(id)
      if item and item.place == PLACE.dead then
        rows[#rows + 1] = id
        rows[#rows + 1] = record(id)
      end
    end
    return { 'copies', rows }
  end

  if what == 'explain' then
    local due, held, rows, took = false, {}, {}, {}
    for at = 1, #q.took, 4 do took[#took + 1] = parse('>I4', q.took, at) end
    if q.counts[DELAYED] > 0 then
      due = tonumber(call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2])
    end
    if q.counts[LEASED] > 0 then
      held = all_held(tonumber(ARGV[7]))
      table.sort(held, function(one, other)
        local a, b = items[one].leased, items[other].leased
        return a < b or a == b and one < other
      end)
    end
    for at = 1, min(#held, tonumber(ARGV[6])) do
      local item = items[held[at]]
      -- Of the record only what stands before the payload is needed.
      rows[at] = { item.id, sub(record(item.id), 1, 640), digits(item.lease), item.attempt, item.session,
        worker_of(item.session), item.leased, Progress.of(item) }
    end
    local only_alone = q.alone > 0 and q.alone == q.counts[READY] and 1 or 0
    return { 'explain', now_ms, view(q), due, took, only_alone, q.bytes, rows }
  end

  -- One worker: whether it had a session, -1 when that is not known any more; and its session.
  if what == 'worker' then
    local session = session_of_worker(ARGV[6])
    if session then return { 'worker', 1, { session_row(session) } } end
    if call('ZSCORE', K.remembered, ARGV[6]) then return { 'worker', 1, {} } end
    return { 'worker', call('ZCARD', K.remembered) < MOST.remembered and 0 or -1, {} }
  end
end

register('look', look, { 'no-writes' })
end
