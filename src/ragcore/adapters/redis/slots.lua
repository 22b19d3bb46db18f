-- One visit to the slots of a resource: take note of what a process says, give free slots away, and
-- answer which of its tickets hold one.
--
-- KEYS: held (ticket → end of its lease, ms), waiting (ticket → place in the queue), alive (waiting
-- ticket → until when it counts, ms), arrivals (a counter).
-- ARGV: what is said, as JSON: lease_ms, most, released, held, waiting; then the prefix of the
-- channels. A ticket is `process/number/kind`, its kind `q` (question) or `d` (document).
local said = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease_end = now + said.lease_ms

local function is_question(ticket)
  return string.sub(ticket, -2) == '/q'
end

-- The dead: holders that stopped renewing, and those who wait no longer.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('ZREM', KEYS[2], ticket)
  redis.call('ZREM', KEYS[3], ticket)
end

for _, ticket in ipairs(said.released) do
  for key = 1, 3 do redis.call('ZREM', KEYS[key], ticket) end
end
-- What is held stays held, though its lease ran out or this server was emptied: the request runs.
for _, ticket in ipairs(said.held) do redis.call('ZADD', KEYS[1], lease_end, ticket) end
for _, ticket in ipairs(said.waiting) do
  if redis.call('ZSCORE', KEYS[1], ticket) then
    redis.call('ZADD', KEYS[1], lease_end, ticket)
  else
    if not redis.call('ZSCORE', KEYS[2], ticket) then
      -- Questions come before all documents.
      local place = redis.call('INCR', KEYS[4]) + (is_question(ticket) and 0 or 2 ^ 50)
      redis.call('ZADD', KEYS[2], place, ticket)
    end
    redis.call('ZADD', KEYS[3], lease_end, ticket)
  end
end

while true do
  local ticket = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not ticket then break end
  local most = said.most + (is_question(ticket) and 1 or 0)
  if redis.call('ZCARD', KEYS[1]) >= most then break end
  redis.call('ZREM', KEYS[2], ticket)
  redis.call('ZREM', KEYS[3], ticket)
  redis.call('ZADD', KEYS[1], lease_end, ticket)
  redis.call('PUBLISH', ARGV[2] .. string.match(ticket, '^[^/]+'), ticket)
end

-- Nothing of it outlives the processes by much.
for key = 1, 4 do redis.call('PEXPIRE', KEYS[key], 10 * said.lease_ms) end

local granted = {}
for _, ticket in ipairs(said.waiting) do
  if redis.call('ZSCORE', KEYS[1], ticket) then granted[#granted + 1] = ticket end
end
return granted
