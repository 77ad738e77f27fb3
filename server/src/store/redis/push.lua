-- Adds items; makes the queue if there is none.
--
-- ARGV after the common ones: uid for a new queue, whether one may be made, seal, the part under
-- an Idempotency-Key ('', 'whole' or 'chunk'), its hash, lines before, lines, last, then the
-- default settings, then the items. The last key is that of the Idempotency-Key.

do
local FIRST_ITEM = 14
local IDEMPOTENCY_MS = 24 * 3600 * 1000

local function push()
  local new_uid, may_create, seal, part, hash = ARGV[5], ARGV[6] == '1', ARGV[7] == '1', ARGV[8], ARGV[9]
  local lines_before, lines, last = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12] == '1'
  local batch_key = KEYS[#names + 11]

  local function refuse(tag, ...) return { -1, '0', {}, 0, tag, ... } end

  local before = nil
  if part ~= '' then
    local packed = call('GET', batch_key)
    local taken = packed and cmsgpack.unpack(packed)
    if taken and now_ms >= taken.at + IDEMPOTENCY_MS then taken = nil end
    if part == 'whole' and taken then
      if taken.kind ~= 'whole' then return refuse('mismatch', ': that was a stream') end
      if taken.hash ~= hash then return refuse('mismatch', '') end
      return refuse('pushed', taken.uid, taken.items, taken.added, taken.duplicates, taken.sealed)
    elseif part == 'chunk' and not taken then
      if lines_before > 0 then return refuse('conflict', 0) end
    elseif part == 'chunk' then
      if taken.kind == 'whole' then return refuse('mismatch', ': that was no stream') end
      local stop = lines_before + lines
      if stop == taken.lines and hash ~= taken.hash then
        return refuse('mismatch', ' within the first ' .. digits(stop) .. ' lines')
      end
      if taken.complete and stop > taken.lines then
        return refuse('mismatch', ', of ' .. digits(taken.lines) .. ' lines')
      end
      if (taken.complete or (stop == taken.lines and lines > 0)) and (taken.complete or not last) then
        return refuse('pushed', taken.uid, '', taken.added, taken.duplicates, taken.sealed)
      end
      if lines_before ~= taken.lines then return refuse('conflict', taken.lines) end
      before = taken
      -- The rest of a stream belongs to the queue that has its begin.
      if not q or q.uid ~= taken.uid then return refuse('over', taken.uid, tombstone(taken.uid)) end
    end
  end

  if not q then
    if not may_create then return refuse('too_many') end
    create(new_uid, settings_of(ARGV[13]))
  end
  begin()

  local pushed, fresh, duplicates, added = Adding.sort_out(FIRST_ITEM, #ARGV)
  if #fresh > 0 then
    if q.ended then return complete('over', q.uid, view(q)) end
    if q.sealed then return complete('sealed') end
    Adding.add(fresh)
  end
  if seal and not q.ended then q.sealed = true end
  local sealed = q.sealed and 1 or 0
  if part ~= '' then
    local taken = {
      kind = part, hash = hash, uid = q.uid, sealed = sealed, at = now_ms,
      added = added, duplicates = duplicates,
    }
    if part == 'whole' then
      taken.items = pushed
    else
      taken.lines, taken.complete = lines_before + lines, last
      taken.added = added + (before and before.added or 0)
      taken.duplicates = duplicates + (before and before.duplicates or 0)
      -- As in the answer to a repeat: a caller cannot know which of the two it is.
      added, duplicates = taken.added, taken.duplicates
    end
    call('SET', batch_key, cmsgpack.pack(taken), 'PX', IDEMPOTENCY_MS)
  end
  return complete('pushed', q.uid, pushed, added, duplicates, sealed)
end

register('push', push, {})
end
