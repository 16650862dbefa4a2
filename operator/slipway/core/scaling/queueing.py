"""The queue-tail model: how many requests are slow at a load, and the fewest replicas that keep them few.

N servers before one queue: that a request waits at all has the probability rho ** (sqrt(2 (N + 1)) - 1), and its wait is
exponential with rate N (1 - rho) / (V s), where rho is the utilisation, s the mean service time, and V = (ca2 + cs2) / 2 of the
squared coefficients of variation of arrivals and services. N need not be whole. Pods with queues of their own, filled by routers,
do as well as a smaller number of servers before one queue: `pool`, fitted to what is seen (docs/scaling.md).
Sources: H. Sakasegawa, "An approximation formula Lq = alpha rho^beta / (1 - rho)" (1977); the Allen-Cunneen approximation of
M/G/c and GI/G/c (A. Allen, "Probability, Statistics, and Queueing Theory", 1978); W. Whitt, "Approximations for the GI/G/m queue"
(1993), for the exponential tail. That replicas grow with the load plus a multiple of its root is Halfin and Whitt's (1981).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

# Tails matter most: there the parts are finest.
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998, 1.0)
WEIGHTS = tuple(high - low for low, high in pairwise(EDGES))
MIDDLES = tuple((high + low) / 2 for low, high in pairwise(EDGES))


@dataclass(frozen=True)
class Service:
    """How long requests take that do not wait: the median (ms) of each part of them that EDGES divide, ascending."""

    parts_ms: tuple[float, ...]

    @cached_property
    def mean_ms(self) -> float:
        """Answer the mean."""
        return sum(weight * part for weight, part in zip(WEIGHTS, self.parts_ms, strict=True))

    @cached_property
    def variability(self) -> float:
        """Answer V of this module's formula, for arrivals like Poisson's."""
        square = sum(weight * part * part for weight, part in zip(WEIGHTS, self.parts_ms, strict=True))
        return square / self.mean_ms**2 / 2

    def slower_than(self, latency_ms: float) -> float:
        """Answer the share of requests that are slower even if none waits."""
        return sum(weight for weight, part in zip(WEIGHTS, self.parts_ms, strict=True) if part > latency_ms)


@dataclass(frozen=True)
class Pod:
    """What one pod contributes: servers, and how well requests find a free one among all pods.

    `pooling` is 1 where one queue feeds every pod, 0 where each pod has requests of its own as by chance. A router that sends to
    the pod with the fewest requests is at about 0.7; two that do not know of each other's, and choose between two pods, at 0.2.
    """

    parallelism: float = 1.0
    pooling: float = 0.6

    def pool(self, replicas: int) -> float:
        """Answer how many servers one queue has that does as well."""
        return self.parallelism * replicas**self.pooling


def waits_longer(utilisation: float, pool: float, services: float, variability: float) -> float:
    """Answer the probability that a request waits longer than so many mean service times before `pool` servers."""
    if utilisation >= 1:
        return 1.0
    return utilisation ** (math.sqrt(2 * (pool + 1)) - 1) * math.exp(-services * pool * (1 - utilisation) / variability)


def mean_wait(utilisation: float, pool: float, variability: float) -> float:
    """Answer the mean wait in mean service times; infinite where the load is too high."""
    if utilisation >= 1:
        return math.inf
    return utilisation ** (math.sqrt(2 * (pool + 1)) - 1) * variability / (pool * (1 - utilisation))


def slow_share(load: float, replicas: int, pod: Pod, service: Service, latency_ms: float) -> float:
    """Answer the share of requests that take longer than a latency, waiting included. `load` is in busy servers."""
    utilisation, pool = load / (replicas * pod.parallelism), pod.pool(replicas)
    mean, slow = service.mean_ms, 0.0
    for weight, part in zip(WEIGHTS, service.parts_ms, strict=True):
        left = latency_ms - part
        slow += weight * (1.0 if left < 0 else waits_longer(utilisation, pool, left / mean, service.variability))
    return slow


def replicas_for(load: float, pod: Pod, service: Service, latency_ms: float, allowed: float, most: int) -> int:
    """Answer the fewest replicas that leave at most the allowed share slow; at most `most`."""

    def enough(replicas: int) -> bool:
        return slow_share(load, replicas, pod, service, latency_ms) <= allowed

    low = max(math.ceil(load / pod.parallelism), 1)  # below it the queue only grows
    high, stride = low, 1
    while high < most and not enough(high):
        low, high, stride = high + 1, min(high + stride, most), stride * 2
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return min(high, most)
