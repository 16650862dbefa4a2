-- wrk: one infer request again and again; the figures as one line of JSON at the end.
-- usage: wrk ... -s infer.lua http://ADDRESS:PORT/PATH -- HOST BODY|@FILE [HEADER VALUE]...

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Host"] = arguments[1]
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = arguments[2]
  if wrk.body:sub(1, 1) == "@" then
    local file = assert(io.open(wrk.body:sub(2), "rb"))
    wrk.body = file:read("*a")
    file:close()
  end
  for at = 3, #arguments, 2 do
    wrk.headers[arguments[at]] = arguments[at + 1]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format(
    '{"requests": %d, "failed": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, failed, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
