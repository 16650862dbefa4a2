"""Prometheus metrics. Plain numbers on the hot path, turned into the text format when somebody asks.

All numbers of all workers live in one piece of memory that they share, a row for each: whichever worker is asked adds
them up. A number in shared memory costs 20 ns more to count than one in a list.
"""

import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
PROTOCOLS = ("rest", "v1", "grpc")
ERRORS: Mapping[int, str] = {
    400: "invalid", 408: "slow_caller", 413: "too_large", 415: "unsupported", 429: "overload", 431: "head_too_large",
    500: "model", 501: "unsupported", 503: "unavailable", 504: "model_timeout",
}  # fmt: skip
"""Classes of errors by the HTTP status that says them; any other status is "other"."""
_CLASSES = (*dict.fromkeys(ERRORS.values()), "other")
REFUSALS = ("concurrency", "buffered", "loading", "connections")
"""Why a request was refused before it was read."""
_PREFIX = "slipway_server"

# Where a worker's row keeps what.
_REQUESTS = 0  # by protocol and first digit of the status
_ERRORS = _REQUESTS + 10 * len(PROTOCOLS)
_REFUSED = _ERRORS + len(PROTOCOLS) * len(_CLASSES)
_SECONDS = _REFUSED + len(REFUSALS)  # a histogram: buckets, then the sum
_SECONDS_SUM = _SECONDS + len(BUCKETS_SECONDS) + 1
_BATCH = _SECONDS_SUM + 1
_BATCH_SUM = _BATCH + len(BATCH_BUCKETS) + 1
_QUEUE = _BATCH_SUM + 1
_QUEUE_SUM = _QUEUE + len(BUCKETS_SECONDS) + 1
_ROWS, _ABANDONED, IN_FLIGHT, BUFFERED, _CONNECTIONS, _LOAD_SECONDS, _PID, _READY, _SAID = range(_QUEUE_SUM + 1, _QUEUE_SUM + 10)
_COLUMNS = _SAID + 1
_ERROR_AT = {status: _CLASSES.index(name) for status, name in ERRORS.items()}
_OTHER = len(_CLASSES) - 1


class Table:
    """The numbers of all workers, and what is the same for all. Made before the workers are forked."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._cells = memoryview(mmap.mmap(-1, workers * _COLUMNS * 8)).cast("d")
        self.info: Mapping[str, str] = {}
        self._shared = memoryview(mmap.mmap(-1, 16)).cast("q")  # see restarted, all_ready

    def row(self, worker: int) -> "memoryview[float]":
        """A worker's numbers."""
        return self._cells[worker * _COLUMNS : (worker + 1) * _COLUMNS]  # pyright: ignore[reportReturnType]

    def forget(self, worker: int) -> None:
        """A worker is gone, and with it what it held; what it has counted stays."""
        row = self.row(worker)
        for at in (IN_FLIGHT, BUFFERED, _CONNECTIONS, _PID, _READY):
            row[at] = 0

    def restarted(self) -> None:
        """Counts a worker that ended unasked and is started again."""
        self._shared[0] += 1

    def fewest_connections(self) -> int:
        """Of the workers that accept connections, the number of the one that has the fewest."""
        return int(min((count for count in self._cells[_CONNECTIONS::_COLUMNS] if count), default=1)) - 1

    def ready(self) -> int:
        """Workers that have loaded the model."""
        return int(self._sum(_READY))

    def is_ready(self, worker: int) -> bool:
        """Whether this one has."""
        return bool(self.row(worker)[_READY])

    def say_why(self, worker: int) -> None:
        """A worker has reported why it ends."""
        self.row(worker)[_SAID] = 1

    def has_said_why(self, worker: int) -> bool:
        """Whether it has, so that nobody else need do it."""
        return bool(self.row(worker)[_SAID])

    def all_ready(self) -> bool:
        """Whether all workers have once been ready: the others serve while one that ended is started again."""
        if not self._shared[1] and self.ready() == self.workers:
            self._shared[1] = 1
        return self._shared[1] == 1

    def _sum(self, at: int) -> float:
        return sum(self._cells[at::_COLUMNS])

    def _sums(self, at: int, count: int) -> list[float]:
        return [self._sum(i) for i in range(at, at + count)]

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str, prefix: str = f"{_PREFIX}_") -> str:
            full = prefix + name
            lines.extend((f"# HELP {full} {text}", f"# TYPE {full} {kind}"))
            return full

        def single(name: str, kind: str, text: str, value: float, prefix: str = f"{_PREFIX}_") -> None:
            lines.append(f"{family(name, kind, text, prefix)} {_number(value)}")

        def histogram(name: str, text: str, bounds: Sequence[float], at: int) -> None:
            full = family(name, "histogram", text)
            total = 0.0
            for bound, count in zip((*map(str, bounds), "+Inf"), self._sums(at, len(bounds) + 1), strict=True):
                total += count
                lines.append(f'{full}_bucket{{le="{bound}"}} {_number(total)}')
            lines.extend((f"{full}_sum {_number(self._sum(at + len(bounds) + 1))}", f"{full}_count {_number(total)}"))

        name = family("requests_total", "counter", "Inference requests answered, by protocol and class of status code.")
        for i, protocol in enumerate(PROTOCOLS):
            for code in (2, 4, 5):
                count = _number(self._sum(_REQUESTS + 10 * i + code))
                lines.append(f'{name}{{protocol="{protocol}",code="{code}xx"}} {count}')
        name = family("errors_total", "counter", "Errors answered, by protocol and class; malformed requests count as rest.")
        for i, protocol in enumerate(PROTOCOLS):
            for j, kind in enumerate(_CLASSES):
                count = _number(self._sum(_ERRORS + i * len(_CLASSES) + j))
                lines.append(f'{name}{{protocol="{protocol}",class="{kind}"}} {count}')
        name = family("requests_refused_total", "counter", "Requests refused before they were read, by reason.")
        for i, reason in enumerate(REFUSALS):
            lines.append(f'{name}{{reason="{reason}"}} {_number(self._sum(_REFUSED + i))}')
        text = "Inference requests whose caller left before the answer."
        single("requests_abandoned_total", "counter", text, self._sum(_ABANDONED))
        text = "Inference requests being read or answered."
        single("requests_in_flight", "gauge", text, self._sum(IN_FLIGHT))
        text = "Bytes of inference requests being read or answered."
        single("buffered_bytes", "gauge", text, self._sum(BUFFERED))
        text = "Time to read, run and answer an inference request; those refused unread are not in it."
        histogram("request_duration_seconds", text, BUCKETS_SECONDS, _SECONDS)
        histogram("batch_requests", "Inference requests that shared a run.", BATCH_BUCKETS, _BATCH)
        single("batch_rows_total", "counter", "Rows run.", self._sum(_ROWS))
        text = "Time an inference request waited for its run, from its body being read."
        histogram("queue_duration_seconds", text, BUCKETS_SECONDS, _QUEUE)
        text = "Time to load the model and run it once; the slowest worker's."
        single("model_load_seconds", "gauge", text, max(self._cells[_LOAD_SECONDS::_COLUMNS]))
        name = family("model_info", "gauge", "The model served; always 1.")
        labels = ",".join(f'{key}="{_escape(value)}"' for key, value in self.info.items())
        lines.append(f"{name}{{{labels}}} 1")
        single("workers", "gauge", "Worker processes that have loaded the model.", self.ready())
        single("worker_restarts_total", "counter", "Workers that ended unasked and were started again.", self._shared[0])
        text = "Resident memory of the workers together."
        pids = [int(pid) for pid in self._cells[_PID::_COLUMNS] if pid]
        single("process_resident_memory_bytes", "gauge", text, sum(map(_resident_bytes, pids)), "")
        text = "CPU time of the workers alive together."
        single("process_cpu_seconds_total", "counter", text, sum(map(_cpu_seconds, pids)), "")
        text = "When the first of the workers started, in seconds since 1970."
        single("process_start_time_seconds", "gauge", text, min(map(_start_seconds, pids), default=0.0), "")
        return ("\n".join(lines) + "\n").encode()


class Metrics:
    """What one worker counts; it belongs to the event loop.

    Latency is from a request's head being read to its answer being made, in seconds. A request is counted before it is
    answered, so that whoever has the answer finds it counted.
    """

    def __init__(self, table: Table, worker: int = 0) -> None:
        self.table = table
        self.row = table.row(worker)
        """This worker's numbers; the application keeps those at IN_FLIGHT and BUFFERED."""
        self.row[_PID] = os.getpid()

    def observe(self, protocol: int, status: int, seconds: float) -> None:
        """Counts one answered inference request; `protocol` is a place in PROTOCOLS, `status` HTTP's."""
        row = self.row
        row[_REQUESTS + 10 * protocol + status // 100] += 1
        row[_SECONDS + bisect_left(BUCKETS_SECONDS, seconds)] += 1
        row[_SECONDS_SUM] += seconds
        if status >= 400:
            self.observe_error(protocol, status)

    def observe_error(self, protocol: int, status: int) -> None:
        """Counts one error by its class."""
        self.row[_ERRORS + protocol * len(_CLASSES) + _ERROR_AT.get(status, _OTHER)] += 1

    def refuse(self, protocol: int, status: int, reason: str) -> None:
        """Counts one inference request that was refused unread; `reason` is one of REFUSALS, or empty."""
        self.row[_REQUESTS + 10 * protocol + status // 100] += 1
        self.observe_error(protocol, status)
        if reason:
            self.row[_REFUSED + REFUSALS.index(reason)] += 1

    def observe_batch(self, requests: int, rows: int, queue_seconds: float) -> None:
        """Counts one run: the requests and rows that shared it, and the longest time that one of them had waited."""
        row = self.row
        row[_BATCH + bisect_left(BATCH_BUCKETS, requests)] += 1
        row[_BATCH_SUM] += requests
        row[_ROWS] += rows
        row[_QUEUE + bisect_left(BUCKETS_SECONDS, queue_seconds)] += 1
        row[_QUEUE_SUM] += queue_seconds

    def abandon(self) -> None:
        """Counts one request whose caller left."""
        self.row[_ABANDONED] += 1

    def publish(self, connections: int) -> None:
        """See wire.listener.Balance. Kept with 1 added: 0 is a worker that does not accept."""
        self.row[_CONNECTIONS] = connections + 1

    def fewest(self) -> int:
        """See wire.listener.Balance."""
        return self.table.fewest_connections()

    def loaded(self, seconds: float) -> None:
        """The model is loaded: this took so long."""
        self.row[_LOAD_SECONDS] = seconds
        self.row[_READY] = 1
        self.table.all_ready()  # remembered from now on, whatever becomes of this worker


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _stat(pid: int) -> Iterator[str]:
    """The fields of /proc/PID/stat from the third; none if the process is gone."""
    try:
        yield from Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return


def _resident_bytes(pid: int) -> int:
    return int(([*_stat(pid)] or [0] * 22)[21]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int) -> float:
    fields = [*_stat(pid)] or [0] * 13
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start_seconds(pid: int) -> float:
    fields = [*_stat(pid)]
    if not fields:
        return time.time()
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
