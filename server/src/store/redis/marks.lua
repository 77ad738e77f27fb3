-- When items were pushed, to the second or a tenth of their age: ids with the time from which on
-- items got them, in two fields beside the pages. Mirrors `marks.rs`.

do
local LAST, ALL = 'pushed', 'marks'
local MARK, MARK_BYTES = '>I6I6', 12
local STEP_MS, MARKS_MAX = 1000, 512

local function time_at(marks, nth)
  local _, time = parse(MARK, marks, nth * MARK_BYTES + 1)
  return time
end

-- Leaves out the mark that is missed least.
local function thinned(marks)
  local before, own, least, at = time_at(marks, 0), time_at(marks, 1), math.huge, 1
  for nth = 1, MARKS_MAX - 1 do
    local after = time_at(marks, nth + 1)
    local loss = floor((after - before) * 1000000 / (now_ms - before))
    if loss < least then least, at = loss, nth end
    before, own = own, after
  end
  return sub(marks, 1, at * MARK_BYTES) .. sub(marks, (at + 1) * MARK_BYTES + 1)
end

-- Notes that items are pushed, from this one on.
local function note(id)
  local last = call('HGET', K.pages, LAST)
  if last and now_ms < tonumber(last) + STEP_MS then return end
  local marks = (call('HGET', K.pages, ALL) or '') .. pack(MARK, id, now_ms)
  if #marks > MARKS_MAX * MARK_BYTES then marks = thinned(marks) end
  call('HSET', K.pages, LAST, digits(now_ms), ALL, marks)
end

-- When an item was pushed, or a little before; false for one that is older than all that is known.
local function pushed_at(id)
  local marks = call('HGET', K.pages, ALL) or ''
  local low, high = 0, #marks / MARK_BYTES
  while low < high do
    local middle = floor((low + high) / 2)
    if parse('>I6', marks, middle * MARK_BYTES + 1) <= id then low = middle + 1 else high = middle end
  end
  return low > 0 and time_at(marks, low - 1)
end

-- What the other files use.
Marks = { note = note, pushed_at = pushed_at }
end
