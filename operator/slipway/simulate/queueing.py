"""The pods of one revision and the queues before them: exact, request by request.

Each pod has some workers and one queue, first come first served. A pod that leaves gets nothing new and finishes what it has.
"""

import heapq
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


class Balancing(StrEnum):
    """How requests find a pod."""

    LEAST_REQUEST = "least-request"
    TWO_CHOICES = "two-choices"
    SHARED = "shared"


@dataclass(frozen=True)
class PodKind:
    """What a pod is: parallel workers, time to serve a request that does not wait (log-normal), time from order to ready."""

    service_ms: float = 40.0
    service_cv: float = 0.3
    workers: int = 1
    start_seconds: float = 20.0

    @property
    def requests_per_second(self) -> float:
        """Answer what one pod can serve."""
        return self.workers * 1000 / self.service_ms

    def draw(self, count: int, draws: np.random.Generator) -> Numbers:
        """Draw service times in seconds."""
        mean = self.service_ms / 1000
        if not self.service_cv:
            return np.full(count, mean)
        variance = np.log1p(self.service_cv**2)
        return draws.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)


@dataclass
class Served:
    """Requests whose fate is known, one place each: when they arrived, began to be served, and ended (seconds)."""

    arrived: list[float]
    began: list[float]
    ended: list[float]


class Pods(ABC):
    """The ready pods. Requests are put in by order of arrival."""

    def __init__(self, workers: int) -> None:
        self.count = 0
        self._workers = workers

    @abstractmethod
    def resize(self, count: int, now: float) -> None:
        """Let pods join, or the youngest leave."""

    @abstractmethod
    def serve(self, arrivals: Sequence[float], services: Sequence[float], until: float) -> Served:
        """Take all arrivals up to a time, and answer the requests whose fate that settles."""


class OwnQueues(Pods):
    """Each pod with a queue of its own; the router chooses when a request arrives.

    Of `routers` each sees only what it sent itself, and takes the better of `choices` random pods; 0: the best of all.
    """

    def __init__(self, workers: int, routers: int = 1, choices: int = 0, seed: int = 0) -> None:
        super().__init__(workers)
        self._choices = choices
        self._random = random.Random(seed).random  # noqa: S311 - a simulation
        self._sent: list[list[int]] = [[] for _ in range(routers)]
        self._free: list[list[float]] = []  # by pod: when each worker is free, a heap
        self._ends: list[tuple[float, int, int]] = []  # end, pod, router: a heap
        self._turn = 0

    def resize(self, count: int, now: float) -> None:
        """Let pods join, or the youngest leave."""
        if count < self.count:
            self._free, self._sent = self._free[:count], [sent[:count] for sent in self._sent]
            self._ends = [end for end in self._ends if end[1] < count]
            heapq.heapify(self._ends)
        for _ in range(self.count, count):
            self._free.append([now] * self._workers)
            for sent in self._sent:
                sent.append(0)
        self.count = count

    def serve(self, arrivals: Sequence[float], services: Sequence[float], until: float) -> Served:
        """Take all arrivals; the fate of each is settled when it arrives."""
        if not self.count and arrivals:
            raise ValueError("there is no pod for the requests: simulate with at least one replica")
        ends, free, senders, choices, draw, count = self._ends, self._free, self._sent, self._choices, self._random, self.count
        push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
        routers, turn = len(senders), self._turn
        served = Served(list(arrivals), [], [])
        for now, service in zip(arrivals, services, strict=True):
            while ends and ends[0][0] <= now:
                _, pod, router = pop(ends)
                senders[router][pod] -= 1
            turn = (turn + 1) % routers
            sent = senders[turn]
            if choices:
                pod = int(draw() * count)
                for _ in range(1, choices):
                    other = int(draw() * count)
                    if sent[other] < sent[pod]:
                        pod = other
            else:
                pod = sent.index(min(sent))
            workers = free[pod]
            began = workers[0] if workers[0] > now else now
            ended = began + service
            replace(workers, ended)
            sent[pod] += 1
            push(ends, (ended, pod, turn))
            served.began.append(began)
            served.ended.append(ended)
        self._turn = turn
        return served


class OneQueue(Pods):
    """One queue for all pods: a request goes to the first worker that is free."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._free: list[float] = []
        self._waiting: deque[tuple[float, float]] = deque()

    def resize(self, count: int, now: float) -> None:
        """Let pods join, or some leave: those that are free last."""
        if count < self.count:
            self._free = sorted(self._free)[: count * self._workers]
        else:
            self._free += [now] * ((count - self.count) * self._workers)
        heapq.heapify(self._free)
        self.count = count

    def serve(self, arrivals: Sequence[float], services: Sequence[float], until: float) -> Served:
        """Take all arrivals, and answer those that began."""
        self._waiting.extend(zip(arrivals, services, strict=True))
        waiting, free, served = self._waiting, self._free, Served([], [], [])
        while waiting and free:
            arrived, service = waiting[0]
            began = max(free[0], arrived)
            if began > until:
                break
            waiting.popleft()
            heapq.heapreplace(free, began + service)
            served.arrived.append(arrived)
            served.began.append(began)
            served.ended.append(began + service)
        return served


def pods(kind: PodKind, balancing: Balancing, seed: int = 0) -> Pods:
    """Answer no pods yet, of that kind, and how they get their requests.

    `least-request`: the pod with the fewest requests among all. `two-choices`: two routers, each the better of two random pods
    by what it sent itself, as Envoy's LEAST_REQUEST does. `shared`: one queue, as an activator in the path keeps it.
    """
    match balancing:
        case Balancing.LEAST_REQUEST:
            return OwnQueues(kind.workers)
        case Balancing.TWO_CHOICES:
            return OwnQueues(kind.workers, routers=2, choices=2, seed=seed)
        case Balancing.SHARED:
            return OneQueue(kind.workers)
