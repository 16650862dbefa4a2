"""What the routers of one namespace counted lately, by revision: resets of counters recognised, the past kept ever coarser."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from slipway.core.figures import NOTHING, Counters, Counts, Slice, merge
from slipway.core.latency import Histogram, bucket_of
from slipway.meter.statistics import Statistics, grown, parts

# Slices are at most so long (second), from that age (first) on, in seconds: two routers' scrapes of one round lie in one slice.
_GRAINS = ((60.0, 24.0), (15.0, 6.0), (0.0, 2.5))
HISTORY_SECONDS = 300.0
# The grains make some 30 slices of a busy revision's history.
_SLICES_MAX = 48
# A router tells its uptime in whole seconds, and as of its latest flush of statistics.
_UPTIME_ERROR_SECONDS = 2.5
_NOTHING = Counters()


@dataclass
class Router:
    """What one router had counted when it answered last, at `at` (seconds, monotonic): as told, and of admitted requests."""

    at: float
    uptime_seconds: int
    revisions: Collection[str] = ()
    counts: dict[str, Counters] = field(default_factory=dict[str, Counters])
    admitted: dict[str, Counters] = field(default_factory=dict[str, Counters])
    latency: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])


class Past:
    """One revision's past: all that was counted since `since`, and slices of the latest minutes."""

    def __init__(self, since: float) -> None:
        self.since = self._until = since
        self.slices: list[Slice] = []
        self._counts = NOTHING
        self._latency: dict[int, int] = {}

    def add(self, new: Slice) -> None:
        """Take what one router counted."""
        self._until = max(self._until, new.until)
        self._counts = self._counts.plus(new.counts)
        for bucket, count in new.latency.counts.items():
            self._latency[bucket] = self._latency.get(bucket, 0) + count
        self.slices.append(new)
        if len(self.slices) > _SLICES_MAX:
            self.slices = _coarser(self.slices, new.until)

    @property
    def total(self) -> Slice:
        """Answer all that was counted."""
        return Slice(self.since, self._until, self._counts, Histogram(dict(self._latency)))


class History:
    """The routers and revisions of one namespace. `timeout_seconds` answers how long a request to a revision may take."""

    def __init__(self, timeout_seconds: Callable[[str], float]) -> None:
        self._timeout_seconds = timeout_seconds
        self._began: float | None = None
        self._routers: dict[str, Router] = {}
        self._past: dict[str, Past] = {}

    def take(self, pod: str, statistics: Statistics, changed: Iterable[str], at: float) -> None:
        """Take a router's answer of `at`; `changed` are the revisions of which it counted something since its last one.

        A router not known yet began while we looked on, and then all that it counted is new; or it has counted things before
        anyone looked, and these are left out.
        """
        started = at - statistics.uptime_seconds
        was, self._began = self._routers.get(pod), at if self._began is None else self._began
        if was is not None and was.uptime_seconds + (at - was.at) - statistics.uptime_seconds > _UPTIME_ERROR_SECONDS:
            was = Router(max(was.at, started), 0)  # another process in the same pod
            changed = statistics.counts.keys() | statistics.latency.keys()
        elif was is None and started > self._began:
            was = Router(started, 0)
            changed = statistics.counts.keys() | statistics.latency.keys()
        now = Router(at, statistics.uptime_seconds, statistics.healthy.keys())
        if was is None:  # one that began before us
            now.counts.update(statistics.counts)
            now.admitted.update((revision, counts.admitted(_NOTHING)) for revision, counts in statistics.counts.items())
            now.latency.update((revision, parts(told)) for revision, told in statistics.latency.items())
        else:
            now.counts, now.admitted, now.latency = was.counts, was.admitted, was.latency
            for revision in changed:
                self._add(was.at, now, revision, statistics)
        self._routers[pod] = now
        for revision in statistics.healthy.keys() - self._past.keys():
            self._past[revision] = Past(at)

    def _add(self, since: float, now: Router, revision: str, statistics: Statistics) -> None:
        counters, latency = statistics.counts.get(revision, _NOTHING), parts(statistics.latency.get(revision, ""))
        anew = counters.began_anew(now.counts.get(revision, _NOTHING))
        before = _NOTHING if anew else now.admitted.get(revision, _NOTHING)
        admitted = counters.admitted(before)
        counted = admitted.since(before)
        try:
            took = grown(latency, now.latency.get(revision, frozenset()))
        except ValueError:
            took = grown(latency, frozenset())  # it began anew
        if any(counters) or latency:
            now.counts[revision], now.admitted[revision], now.latency[revision] = counters, admitted, latency
        else:
            for held in (now.counts, now.admitted, now.latency):
                held.pop(revision, None)
        if counted.timeouts:
            # A timeout has no latency in Envoy's histogram. Its timer is right to a few milliseconds.
            took += Histogram({bucket_of(self._timeout_seconds(revision) * 1000): counted.timeouts})
        if any(counted) or took.counts:
            self._past.setdefault(revision, Past(since)).add(Slice(since, now.at, Counts.of(counted), took))

    def forget(self, pods: Iterable[str], now: float) -> None:
        """Drop the routers that are not among these pods, and revisions of which long nothing was heard."""
        kept = set(pods)
        for gone in self._routers.keys() - kept:
            del self._routers[gone]
        known = {revision for router in self._routers.values() for revision in (*router.revisions, *router.counts)}
        for revision, past in list(self._past.items()):
            if revision not in known and (past.slices[-1].until if past.slices else past.since) < now - HISTORY_SECONDS:
                del self._past[revision]

    def past(self, revision: str) -> Past | None:
        """Answer what is known of a revision, None where no router has told of it."""
        return self._past.get(revision)


def _coarser(slices: list[Slice], now: float) -> list[Slice]:
    """Answer the slices, neighbours put together as their age allows, those beyond the history left out."""
    kept: list[Slice] = []
    run: list[Slice] = []
    for each in slices:
        if each.until < now - HISTORY_SECONDS:
            continue
        longest = next(length for age, length in _GRAINS if now - each.until >= age)
        if run and max(each.until, run[-1].until) - run[0].since > longest:
            kept.append(run[0] if len(run) == 1 else merge(run))
            run = []
        run.append(each)
    if run:
        kept.append(run[0] if len(run) == 1 else merge(run))
    return kept
