"""The oracle: the fewest replicas that keep the objective, ordered by one who knows the arrivals a start-up time ahead.

What a number of replicas can serve is found by simulation, not by the policy's formula: the largest steady rate at which the
percentile keeps the objective. The arrivals are those of the draw, averaged over 10 s. Replicas needed anywhere within the
next start-up time exist already: they are ready when they are needed.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from slipway.simulate.queueing import Balancing, Numbers, PodKind, pods
from slipway.simulate.replay import Goal, Meters, Traffic

_AVERAGED_SECONDS = 10
_REQUESTS = 24_000
_SETTLING = 2_000


class Oracle:
    """Orders what a plan says, by second."""

    name = "oracle"

    def __init__(self, plan: npt.NDArray[np.int64]) -> None:
        self._plan = plan

    @property
    def first(self) -> int:
        """Answer the replicas at the beginning."""
        return int(self._plan[0])

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer the replicas."""
        return int(self._plan[min(len(meters.arrived), len(self._plan) - 1)])


def plan(traffic: Traffic, kind: PodKind, goal: Goal, balancing: Balancing, maximum: int) -> Oracle:
    """Answer the oracle of a draw of traffic."""
    counts = np.bincount(traffic.arrivals.astype(np.int64), minlength=traffic.seconds).astype(float)
    half = _AVERAGED_SECONDS // 2
    total = np.concatenate(([0.0], np.cumsum(counts)))
    at = np.arange(traffic.seconds)
    low, high = np.maximum(at - half, 0), np.minimum(at + half, traffic.seconds)
    rates = (total[high] - total[low]) / (high - low)
    needed = np.searchsorted(capacities(kind, goal, balancing, float(rates.max()), maximum), rates) + 1
    # Of all averages over 10 s that a second lies in, the largest: a step is not smoothed away.
    needed = np.lib.stride_tricks.sliding_window_view(np.pad(np.minimum(needed, maximum), half, mode="edge"), 2 * half + 1).max(
        axis=1
    )
    ahead = math.ceil(kind.start_seconds) + 1
    padded = np.concatenate((needed, np.full(ahead, needed[-1])))
    return Oracle(np.lib.stride_tricks.sliding_window_view(padded, ahead + 1).max(axis=1))


def capacities(kind: PodKind, goal: Goal, balancing: Balancing, most: float, maximum: int) -> Numbers:
    """Answer the largest rates (requests a second) at which 1, 2, ... replicas keep the objective under Poisson arrivals.

    That is up to the first that reaches `most`, or to the maximum.
    """
    known = _known(replace(kind, start_seconds=1.0), goal, balancing)
    while len(known) < maximum and (not known or known[-1] < most):
        known.append(_capacity(len(known) + 1, known[-1] if known else 0.0, kind, goal, balancing))
    return np.array(known[:maximum])


@lru_cache(maxsize=16)
def _known(kind: PodKind, goal: Goal, balancing: Balancing) -> list[float]:
    """Answer where the capacities found so far are kept."""
    return []


def _capacity(count: int, of_one_fewer: float, kind: PodKind, goal: Goal, balancing: Balancing) -> float:
    draws = np.random.default_rng(1)
    gaps = np.cumsum(draws.exponential(1.0, _REQUESTS))
    services = kind.draw(_REQUESTS, draws).tolist()
    # One more replica adds no more than it can serve.
    low, high = of_one_fewer, of_one_fewer + kind.requests_per_second
    while high - low > 0.004 * count * kind.requests_per_second:
        rate = (low + high) / 2
        served_by = pods(kind, balancing)
        served_by.resize(count, 0.0)
        served = served_by.serve((gaps / rate).tolist(), services, math.inf)
        latency = np.array(served.ended[_SETTLING:]) - np.array(served.arrived[_SETTLING:])
        if float(np.mean(latency * 1000 > goal.latency_ms)) <= goal.allowed:
            low = rate
        else:
            high = rate
    return low
