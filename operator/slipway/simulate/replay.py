"""One replay: arrivals through pods that an autoscaler orders and dismisses, second by second."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from slipway.simulate.queueing import Balancing, Numbers, PodKind, Pods, pods

# Scores leave out the beginning, in which every autoscaler finds its feet.
WARM_UP_SECONDS = 600
WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Goal:
    """What callers are promised: at most a share of 1 - percentile/100 of the requests is slower than that."""

    latency_ms: float = 100.0
    percentile: float = 95.0

    @property
    def allowed(self) -> float:
        """Answer the share of requests that may be slower."""
        return 1 - self.percentile / 100


@dataclass
class Meters:
    """What can be measured, a place for each second that is over.

    `arrived` and `ended` count requests; `concurrency` is the mean number of requests in the system, `busy` that of busy
    workers; `in_flight` is the number at the second's end. `latencies_ms` are those of requests that ended in the second.
    """

    arrived: list[int] = field(default_factory=list[int])
    ended: list[int] = field(default_factory=list[int])
    concurrency: list[float] = field(default_factory=list[float])
    busy: list[float] = field(default_factory=list[float])
    in_flight: list[int] = field(default_factory=list[int])
    latencies_ms: list[Numbers] = field(default_factory=list[Numbers])
    ready: list[int] = field(default_factory=list[int])
    ordered: list[int] = field(default_factory=list[int])


class Autoscaler(Protocol):
    """What decides on replicas; asked each second, after it."""

    name: str

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer how many replicas there shall be. `ordered` are all that exist, those that are starting included."""
        ...


@dataclass(frozen=True)
class Traffic:
    """One draw of a workload: when each request arrives, and how long it takes to serve (seconds, in order of arrival)."""

    seconds: int
    arrivals: Numbers
    services: Numbers

    @classmethod
    def draw(cls, counts: npt.NDArray[np.int64], kind: PodKind, draws: np.random.Generator) -> "Traffic":
        """Spread counts of requests evenly over each second."""
        within = draws.random(int(counts.sum()))
        arrivals = np.sort(np.repeat(np.arange(len(counts)), counts) + within)
        return cls(len(counts), arrivals, kind.draw(len(arrivals), draws))


@dataclass(frozen=True)
class Outcome:
    """What came of a replay, by second: replicas ordered and ready; requests that arrived, and those of them that were slow.

    `latency_ms` is the objective's percentile of the requests that arrived in each window of a minute (nan where none did).
    """

    name: str
    goal: Goal
    ordered: Numbers
    ready: Numbers
    arrived: Numbers
    slow: Numbers
    latency_ms: Numbers

    @property
    def slow_share(self) -> float:
        """Answer the share of requests over the objective, after the warm-up."""
        return float(self.slow[WARM_UP_SECONDS:].sum() / max(self.arrived[WARM_UP_SECONDS:].sum(), 1))

    @property
    def windows_violated(self) -> float:
        """Answer the share of the minutes after the warm-up in which the percentile is over the objective."""
        scored = self.latency_ms[WARM_UP_SECONDS // WINDOW_SECONDS :]
        scored = scored[~np.isnan(scored)]
        return float(np.mean(scored > self.goal.latency_ms)) if len(scored) else 0.0

    @property
    def replica_hours(self) -> float:
        """Answer the hours that replicas existed after the warm-up, those that were starting included."""
        return float(self.ordered[WARM_UP_SECONDS:].sum() / 3600)


def replay(
    traffic: Traffic,
    autoscaler: Autoscaler,
    kind: PodKind,
    goal: Goal,
    *,
    first: int,
    balancing: Balancing = Balancing.LEAST_REQUEST,
    seed: int = 0,
) -> Outcome:
    """Run the traffic against an autoscaler that begins with `first` ready replicas."""
    served_by: Pods = pods(kind, balancing, seed)
    served_by.resize(first, 0.0)
    meters, ready, starting = Meters(), first, list[float]()
    open_arrived, open_began, open_ended = np.empty(0), np.empty(0), np.empty(0)
    all_arrived: list[Numbers] = []
    all_ended: list[Numbers] = []
    edges = np.searchsorted(traffic.arrivals, np.arange(traffic.seconds + 1))
    arrivals, services = traffic.arrivals.tolist(), traffic.services.tolist()
    in_flight = 0
    for second in range(traffic.seconds):
        until = second + 1.0
        joined = [at for at in starting if at <= second]
        if joined:
            starting = [at for at in starting if at > second]
            ready += len(joined)
            served_by.resize(ready, float(second))
        low, high = int(edges[second]), int(edges[second + 1])
        served = served_by.serve(arrivals[low:high], services[low:high], until)
        new_arrived, new_ended = np.array(served.arrived), np.array(served.ended)
        all_arrived.append(new_arrived)
        all_ended.append(new_ended)
        open_arrived = np.concatenate((open_arrived, new_arrived))
        open_began = np.concatenate((open_began, served.began))
        open_ended = np.concatenate((open_ended, new_ended))
        over = open_ended <= until
        ended = int(over.sum())
        before, in_flight = in_flight, in_flight + high - low - ended
        waiting = in_flight - (len(open_ended) - ended)  # in a shared queue, not begun: taken as there for half the second
        meters.arrived.append(high - low)
        meters.ended.append(ended)
        meters.in_flight.append(in_flight)
        meters.busy.append(_overlap(open_began, open_ended, second))
        meters.concurrency.append(_overlap(open_arrived, open_ended, second) + (min(waiting, before) + waiting) / 2)
        meters.latencies_ms.append((open_ended[over] - open_arrived[over]) * 1000)
        meters.ready.append(ready)
        meters.ordered.append(ready + len(starting))
        if ended:
            open_arrived, open_began, open_ended = open_arrived[~over], open_began[~over], open_ended[~over]
        wanted = max(autoscaler.decide(meters, ready, ready + len(starting)), 1)
        if wanted > ready + len(starting):
            starting += [until + kind.start_seconds] * (wanted - ready - len(starting))
        elif wanted < ready + len(starting):
            # A ReplicaSet gives up those that are not ready first, the youngest before others.
            starting = sorted(starting)[: max(wanted - ready, 0)]
            if wanted < ready:
                ready = wanted
                served_by.resize(ready, until)
    return _outcome(autoscaler.name, goal, traffic, meters, np.concatenate(all_arrived), np.concatenate(all_ended))


def _overlap(began: Numbers, ended: Numbers, second: float) -> float:
    """Answer the time that intervals have in common with a second."""
    return float(np.clip(np.minimum(ended, second + 1) - np.maximum(began, second), 0, None).sum())


def _outcome(name: str, goal: Goal, traffic: Traffic, meters: Meters, arrived: Numbers, ended: Numbers) -> Outcome:
    latency = (ended - arrived) * 1000
    second = np.minimum(arrived.astype(np.int64), traffic.seconds - 1)
    slow = np.bincount(second[latency > goal.latency_ms], minlength=traffic.seconds)
    counts = np.array(meters.arrived)
    windows = second // WINDOW_SECONDS
    order = np.argsort(windows, kind="stable")
    edges = np.searchsorted(windows[order], np.arange(-(-traffic.seconds // WINDOW_SECONDS) + 1))
    tails = [
        float(np.percentile(latency[order[low:high]], goal.percentile)) if high > low else float("nan")
        for low, high in pairwise(edges)
    ]
    return Outcome(
        name,
        goal,
        np.array(meters.ordered, dtype=float),
        np.array(meters.ready, dtype=float),
        counts.astype(float),
        slow.astype(float),
        np.array(tails),
    )
