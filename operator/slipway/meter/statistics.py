"""Reads one router's statistics: Envoy's text form, whose unchanged lines are recognised and not read again.

What callers get is read from the statistics of clusters, for there is one a revision. `upstream_rq_completed`, `_4xx`, `_5xx` and
the histogram `upstream_rq_time` are of requests, not of attempts: they cover what the router does for them, its waiting for a
connection and its retries included, from the request's last byte to the answer's. What has no answer is not in the histogram:
timeouts are put there (slipway.meter.history), and other failures are errors alone. The listener's `downstream_rq_time` adds
how long the caller takes to send, which no revision is to blame for, and knows no revision; statistics of routes and virtual
clusters are of what several revisions share; the stats access logger is marked as work in progress.

With HTTP/1 a reset by the server, and a request that nobody waits for any more, is the end of a connection in use. gRPC errors
are 200 to HTTP: the filter grpc_stats counts answers by their status, `grpc.N`.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import methodcaller

from slipway.core.figures import Counters
from slipway.core.latency import Histogram, bucket_of
from slipway.manifests.envoy import HOLD_CLUSTERS, ROUTES

# Which count each statistic of a cluster belongs to. `grpc.N` are those statuses that are the server's fault by OpenTelemetry's
# semantic conventions for RPC: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_COUNTED = {
    "upstream_rq_completed": "answered",
    "upstream_rq_4xx": "client_errors",
    "upstream_rq_5xx": "server_errors",
    "upstream_rq_timeout": "timeouts",
    "upstream_rq_rx_reset": "resets",
    "upstream_cx_destroy_remote_with_active_rq": "resets",
    "upstream_cx_connect_fail": "connect_failures",
    "upstream_rq_active_overflow": "overflows",
    "upstream_rq_pending_overflow": "overflows",
    "upstream_cx_none_healthy": "no_endpoint",
    "upstream_rq_retry": "retries",
    "upstream_rq_503": "unavailable",
    "upstream_rq_cancelled": "hung_up",
    "upstream_rq_tx_reset": "hung_up",
    "upstream_cx_destroy_local_with_active_rq": "hung_up",
    **{f"grpc.{code}": "grpc_errors" for code in (2, 4, 12, 13, 14, 15)},
}
# A column for each: first one a count, in the order of Counters, then what is added to a count.
_FIRST = [next(name for name, count in _COUNTED.items() if count == field) for field in Counters._fields]
_COLUMN = {name: column for column, name in enumerate([*_FIRST, *(name for name in _COUNTED if name not in _FIRST)])}
_ADDED = tuple((Counters._fields.index(_COUNTED[name]), _COLUMN[name]) for name in _COUNTED if name not in _FIRST)
_HEALTHY, _ACTIVE, _TIME = "membership_healthy", "upstream_rq_active", "upstream_rq_time"
_OWN = ("admin", *HOLD_CLUSTERS)  # the clusters that are no revision's

_names = "|".join(name.replace(".", r"\.") for name in (*_COUNTED, _HEALTHY, _ACTIVE, _TIME))
# A regular expression (RE2) of the statistics that are read.
FILTER = (
    rf"^(http\.models\.rds\.{ROUTES}\.(version_text|update_rejected)|cluster_manager\.cds\.update_rejected|server\.uptime"
    rf"|cluster\.[^.]+\.({_names}))$"
)
# What was never written since the router began is left out; histograms come as their buckets that are not empty.
QUERY = {"usedonly": "", "histogram_buckets": "detailed", "filter": FILTER}

_HISTOGRAM = ":\n  totals="
_split: Callable[[str], list[str]] = methodcaller("split", ":")


class Statistics:
    """What one router counts, kept up to date from its answers.

    `counts` and `latency` are by revision and since the router began; `latency` is as told: see `grown`. `healthy` and `active`
    are replaced where they change: whoever was given them keeps what was.
    """

    def __init__(self) -> None:
        self.route_version = 0
        self.rejected = 0
        self.uptime_seconds = 0
        self.healthy: dict[str, int] = {}
        self.active: dict[str, int] = {}
        self.counts: dict[str, Counters] = {}
        self.latency: dict[str, str] = {}
        self._lines: set[str] = set()
        self._columns: dict[str, list[int]] = {}
        self._rejected: dict[str, int] = {}

    def read(self, text: str) -> set[str]:
        """Take over an answer. Answer the revisions of which a count or a histogram is another than before, or gone."""
        first = text.find(_HISTOGRAM)
        cut = text.rfind("\n", 0, first) + 1 if first >= 0 else len(text)
        lines = set(text[:cut].split("\n"))
        came, went = lines - self._lines, self._lines - lines
        self._lines = lines
        values = {name: "" for name, _, _ in (line.partition(": ") for line in went)}
        values.update((name, value) for name, _, value in (line.partition(": ") for line in came))
        changed = self._take(values)
        for revision in changed:
            columns = self._columns.get(revision)
            if columns is None:
                self.counts.pop(revision, None)
            else:
                self.counts[revision] = _counters(columns)
        latency = _histograms(text[cut:])
        changed |= {revision for revision, told in latency.items() if self.latency.get(revision) != told}
        changed |= self.latency.keys() - latency.keys()
        self.latency = latency
        return changed

    def _take(self, values: dict[str, str]) -> set[str]:
        """Take over lines by name; an empty value is a line that went."""
        changed: set[str] = set()
        healthy, active = dict(self.healthy), dict(self.active)
        for name, value in values.items():
            if name.startswith("cluster."):
                revision, _, statistic = name[8:].partition(".")
                if revision in _OWN:
                    continue
                if statistic in _COLUMN:
                    columns = self._columns.setdefault(revision, [0] * len(_COLUMN))
                    columns[_COLUMN[statistic]] = int(value or 0)
                    changed.add(revision)
                elif statistic == _ACTIVE:
                    _put(active, revision, value)
                elif statistic == _HEALTHY:
                    _put(healthy, revision, value)
            elif name.endswith(".version_text"):
                digits = value.strip('"')
                self.route_version = int(digits) if digits.isdigit() else 0
            elif name.endswith(".update_rejected"):
                _put(self._rejected, name, value)
            elif name == "server.uptime":
                self.uptime_seconds = int(value or 0)
        self.rejected = sum(self._rejected.values())
        for revision in changed:
            if not any(self._columns[revision]):
                del self._columns[revision]
        if healthy != self.healthy:
            self.healthy = healthy
        if active != self.active:
            self.active = active
        return changed


def parts(told: str) -> frozenset[str]:
    """Split what a router told of a histogram: `6,0.1:2, 30,1:5` are 2 requests of 6 ms and 5 of 30 ms."""
    return frozenset(told.split(", ")) if told else frozenset()


def grown(told: frozenset[str], before: frozenset[str]) -> Histogram:
    """Answer what was counted since; only parts that differ are read.

    Latencies are whole milliseconds, rounded down: the second number, the width of a bucket, says less than that.
    Raises ValueError where the histogram began anew.
    """
    was = dict(map(_split, before - told))
    counts: dict[int, int] = {}
    for edges, count in map(_split, told - before):
        more = int(count) - int(was.pop(edges, 0))
        if more < 0:
            raise ValueError(f"{edges} has {count}, less than before")
        bucket = _bucket(edges)
        counts[bucket] = counts.get(bucket, 0) + more
    if was:
        raise ValueError(f"{was} is counted no more")
    return Histogram(counts)


@lru_cache(maxsize=4096)  # the same edges come again and again
def _bucket(edges: str) -> int:
    return bucket_of(float(edges.partition(",")[0]))


def _counters(columns: list[int]) -> Counters:
    values = columns[: len(_FIRST)]
    for field, column in _ADDED:
        values[field] += columns[column]
    return Counters(*values)


def _histograms(text: str) -> dict[str, str]:
    """Answer, by revision, the cumulative buckets as told."""
    found: dict[str, str] = {}
    for part in text.split("\ncluster."):
        name, _, rest = part.partition(_HISTOGRAM)
        revision = name.removeprefix("cluster.").partition(".")[0]
        if rest and revision not in _OWN:
            found[revision] = rest[: rest.find("\n")]
    return found


def _put(mapping: dict[str, int], revision: str, value: str) -> None:
    if value:
        mapping[revision] = int(value)
    else:
        mapping.pop(revision, None)
