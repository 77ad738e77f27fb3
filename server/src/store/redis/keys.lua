-- The keys of items: which item has the key with this hash. They lie in buckets, fields of one hash
-- table of Redis, each a text of hashes with ids, since a field takes as much as four of these.
-- The buckets are split one by one while keys come (linear hashing), so that they stay short.

do
local KEY, KEY_BYTES = 16, 16 + 6
-- Keys a bucket, on average.
local BUCKET = 12

local buckets -- those that were read in this call

resets[#resets + 1] = function() buckets = {} end

-- How many buckets so many keys have.
local function count_of(keys) return floor(keys / BUCKET) + 1 end

-- The greatest power of two that is not above a number.
local function power_below(number)
  local _, exponent = math.frexp(number)
  return 2 ^ (exponent - 1)
end

-- The bucket of a hash: as many low bits as there are buckets for.
local function bucket_of(hash, count, power)
  local number = parse('>I4', hash)
  local at = number % (2 * power)
  return at < count and at or number % power
end

local function read(numbers)
  local wanted = {}
  for _, number in ipairs(numbers) do
    if not buckets[number] then
      buckets[number] = ''
      wanted[#wanted + 1] = number
    end
  end
  for at, text in ipairs(read_fields(K.dedupe, wanted)) do buckets[wanted[at]] = text or '' end
end

-- The ids of the items that have keys with these hashes, by hash.
local function known(hashes)
  local ids, numbers = {}, {}
  if #hashes == 0 or q.keys == 0 then return ids end
  local count = count_of(q.keys)
  local power = power_below(count)
  for at, hash in ipairs(hashes) do numbers[at] = bucket_of(hash, count, power) end
  read(numbers)
  for at, hash in ipairs(hashes) do
    local text = buckets[numbers[at]]
    local found = string.find(text, hash, 1, true)
    -- Bytes of an id and of the next hash may look like it.
    while found and (found - 1) % KEY_BYTES ~= 0 do
      found = string.find(text, hash, found + 1, true)
    end
    if found then ids[hash] = parse('>I6', text, found + KEY) end
  end
  return ids
end

-- Adds keys that are new: hash, id and so on.
local function add(keys)
  if #keys == 0 then return end
  local before, changed_buckets, parents = count_of(q.keys), {}, {}
  q.keys = q.keys + #keys / 2
  local count = count_of(q.keys)
  for number = before, count - 1 do
    local parent = number - power_below(number)
    if parent < before then parents[#parents + 1] = parent end
  end
  read(parents)
  for number = before, count - 1 do
    local power = power_below(number)
    local parent, stay, move = number - power, {}, {}
    local text = buckets[parent] or ''
    for at = 1, #text, KEY_BYTES do
      local entry = sub(text, at, at + KEY_BYTES - 1)
      local list = parse('>I4', entry) % (2 * power) == number and move or stay
      list[#list + 1] = entry
    end
    if #move > 0 then
      buckets[parent], buckets[number] = table.concat(stay), table.concat(move)
      changed_buckets[parent], changed_buckets[number] = true, true
    end
  end
  local power, numbers, added = power_below(count), {}, {}
  for at = 1, #keys, 2 do
    local number = bucket_of(keys[at], count, power)
    local entry, others = keys[at] .. pack('>I6', keys[at + 1]), added[number]
    added[number] = others and others .. entry or entry
    if not others then numbers[#numbers + 1] = number end
  end
  read(numbers)
  for at = 1, #numbers do
    local number = numbers[at]
    buckets[number] = buckets[number] .. added[number]
    changed_buckets[number] = true
  end
  local written = {}
  for number in pairs(changed_buckets) do
    written[#written + 1], written[#written + 2] = number, buckets[number]
  end
  in_parts('HSET', K.dedupe, written)
end

-- What the other files use.
Keys = {
  known = known, add = add,
}
end
