-- wrk: one infer request again and again; the figures as one line of JSON at the end.
-- usage: wrk ... -s infer.lua http://ADDRESS:PORT/PATH -- HOST BODY

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Host"] = arguments[1]
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = arguments[2]
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format(
    '{"requests": %d, "failed": %d, "p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, failed, latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
