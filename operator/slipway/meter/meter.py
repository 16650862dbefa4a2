"""Scrapes the routers of every namespace, each for itself: often while something is awaited of them, else at leisure."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import aiohttp

from slipway.core.figures import Figures, Slice, over
from slipway.core.observation import RouterSeen
from slipway.meter.history import HISTORY_SECONDS, History
from slipway.meter.pods import open_session
from slipway.meter.scrape import scrape
from slipway.meter.statistics import Statistics

STEADY_SECONDS = 2.0
ROLLOUT_SECONDS = 1.0
AWAITING_SECONDS = 0.1
# How long the fast pace goes on after it was last asked for.
_PATIENCE_SECONDS = 5.0
# A ready router that misses a scrape is believed what it said last, this long: its versions only grow.
_BELIEVED_SECONDS = 10.0


@dataclass(frozen=True)
class RouterPod:
    """A router pod as the API server knows it."""

    namespace: str
    name: str
    address: str
    ready: bool


Changed = Callable[[str, Iterable[RouterSeen], Iterable[RouterSeen]], None]


@dataclass
class _Space:
    """One namespace: its routers as seen last, what they count, and when they are to be asked again."""

    history: History
    seen: dict[str, RouterSeen] = field(default_factory=dict[str, RouterSeen])
    statistics: dict[str, Statistics] = field(default_factory=dict[str, Statistics])
    answered_at: dict[str, float] = field(default_factory=dict[str, float])
    due: float = 0.0


class Meter:
    """What the routers of each namespace were seen doing at their latest scrape, and what they counted lately.

    `pods` answers the router pods that exist, of a namespace or of all; `changed` is told the namespace where something other
    than the counts of requests has changed, and what was seen before and is now; `rolling` tells whether a rollout runs in a
    namespace; `timeout_seconds` answers how long a request to a revision (namespace, name) may take.
    """

    def __init__(
        self,
        pods: Callable[[str | None], Iterable[RouterPod]],
        changed: Changed,
        rolling: Callable[[str], bool],
        timeout_seconds: Callable[[str, str], float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pods, self._changed, self._rolling, self._timeout_seconds = pods, changed, rolling, timeout_seconds
        self._now = now
        self._spaces: dict[str, _Space] = {}
        self._awaiting: dict[str, float] = {}
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def routers(self, namespace: str) -> tuple[RouterSeen, ...]:
        """Answer every router pod of the namespace; one not scraped yet has not answered."""
        seen = self._seen(namespace)
        return tuple(replace(seen.get(pod.name, RouterSeen(pod.name)), ready=pod.ready) for pod in self._pods(namespace))

    def fresh(self, namespace: str) -> bool:
        """Tell whether every router pod of the namespace was scraped as it is now: one that became ready since was not."""
        seen = self._seen(namespace)
        return all(pod.name in seen and (seen[pod.name].ready or not pod.ready) for pod in self._pods(namespace))

    def expect(self, namespace: str) -> None:
        """Look at this namespace's routers often for the next seconds: something is awaited of them."""
        self._awaiting[namespace] = self._now() + _PATIENCE_SECONDS
        if namespace in self._spaces:
            self._spaces[namespace].due = 0.0
        self._wake.set()

    def figures(self, namespace: str, revision: str, seconds: float) -> Figures:
        """Answer what callers of the revision got in the last seconds up to the routers' latest answers.

        At most HISTORY_SECONDS are remembered, and nothing of before this process began to look. Counts may take in some
        seconds more, the older the coarser: see slipway.meter.history.
        """
        routers = [router for router in self.routers(namespace) if router.counts]
        missing = sum(not router.answered or router.late for router in routers)
        in_flight = sum(router.active.get(revision, 0) for router in routers)
        space = self._spaces.get(namespace)
        past = space.history.past(revision) if space is not None else None
        latest = [space.answered_at.get(router.pod, -math.inf) for router in routers] if space is not None else []
        age = self._now() - min(latest, default=-math.inf)
        if past is None:
            return Figures(0.0, age, len(routers), missing, in_flight, 0.0)
        until = max(latest, default=self._now())
        since = max(until - min(seconds, HISTORY_SECONDS), past.since)
        total, per_second = over(past.slices, since, until)
        return Figures(max(until - since, 0.0), age, len(routers), missing, in_flight, per_second, total.counts, total.latency)

    def total(self, namespace: str, revision: str) -> Slice | None:
        """Answer all that was counted of the revision since this process began to look: it only grows. None where nothing was."""
        past = self._spaces[namespace].history.past(revision) if namespace in self._spaces else None
        return past.total if past is not None else None

    def ages(self) -> Iterator[tuple[str, str, float]]:
        """Yield namespace, name and the age of its latest answer (seconds) of every router pod that has ever answered."""
        now = self._now()
        for namespace, space in self._spaces.items():
            for pod, at in space.answered_at.items():
                yield namespace, pod, now - at

    async def run(self) -> None:
        """Scrape until cancelled."""
        async with open_session() as session:
            while True:
                pods: dict[str, list[RouterPod]] = {}
                for pod in self._pods(None):
                    pods.setdefault(pod.namespace, []).append(pod)
                now = self._now()
                for namespace, routers in pods.items():
                    space = self._space(namespace)
                    if space.due <= now:
                        pace = self._pace(namespace, now)
                        space.due = (now // pace + 1) * pace  # namespaces of one pace are due together
                        self._forget(namespace, space, routers, now)
                        for pod in routers:
                            self._begin(session, space, pod)
                for gone in self._spaces.keys() - pods.keys():
                    del self._spaces[gone]
                await self._until_due()

    def _space(self, namespace: str) -> _Space:
        space = self._spaces.get(namespace)
        if space is None:
            history = History(lambda revision: self._timeout_seconds(namespace, revision))
            space = self._spaces[namespace] = _Space(history)
        return space

    def _pace(self, namespace: str, now: float) -> float:
        if self._awaiting.get(namespace, 0.0) > now:
            return AWAITING_SECONDS
        self._awaiting.pop(namespace, None)
        return ROLLOUT_SECONDS if self._rolling(namespace) else STEADY_SECONDS

    async def _until_due(self) -> None:
        now = self._now()
        wait = min((space.due - now for space in self._spaces.values()), default=STEADY_SECONDS)
        self._wake.clear()
        try:
            async with asyncio.timeout(min(max(wait, 0.0), STEADY_SECONDS / 4)):  # new routers come unannounced
                await self._wake.wait()
        except TimeoutError:
            return

    def _begin(self, session: aiohttp.ClientSession, space: _Space, pod: RouterPod) -> None:
        """Scrape a router, unless it has yet to answer: one that does not keeps nobody else waiting."""
        key = pod.namespace, pod.name
        if key not in self._under_way:
            task = asyncio.create_task(self._scrape(session, space, pod))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))

    async def _scrape(self, session: aiohttp.ClientSession, space: _Space, pod: RouterPod) -> None:
        statistics = space.statistics.setdefault(pod.name, Statistics())
        try:
            answer, counted = await scrape(session, pod.name, pod.address, pod.ready, statistics)
            now = self._now()
            if answer.answered:
                space.history.take(pod.name, statistics, counted, now)
        except ValueError:  # whatever it is, it is no router
            answer, now = RouterSeen(pod.name, pod.ready), self._now()
        before = dict(space.seen)
        space.seen[pod.name] = self._believed(space, before.get(pod.name), answer, now)
        self._tell(pod.namespace, before, space.seen)

    def _forget(self, namespace: str, space: _Space, routers: list[RouterPod], now: float) -> None:
        """Drop the routers that are gone. What they counted stays in the history as long as it would have."""
        kept = {pod.name for pod in routers}
        space.history.forget(kept, now)
        before = dict(space.seen)
        for gone in (space.seen.keys() | space.statistics.keys()) - kept:
            for held in (space.seen, space.statistics, space.answered_at):
                held.pop(gone, None)
        self._tell(namespace, before, space.seen)

    def _tell(self, namespace: str, before: dict[str, RouterSeen], after: dict[str, RouterSeen]) -> None:
        if _still(before) != _still(after):
            self._changed(namespace, before.values(), tuple(after.values()))

    def _believed(self, space: _Space, before: RouterSeen | None, answer: RouterSeen, now: float) -> RouterSeen:
        if answer.answered:
            space.answered_at[answer.pod] = now
            return answer
        if before is None or not (before.answered and before.ready and answer.ready):
            return answer
        lately = now - space.answered_at.get(answer.pod, -math.inf) < _BELIEVED_SECONDS
        return replace(before, late=True) if lately else answer

    def _seen(self, namespace: str) -> dict[str, RouterSeen]:
        return self._spaces[namespace].seen if namespace in self._spaces else {}


def _still(seen: dict[str, RouterSeen]) -> dict[str, RouterSeen]:
    return {pod: replace(router, active={}, late=False) for pod, router in seen.items()}
