"""Scrapes the routers of every namespace: often while something is awaited of them, else at leisure."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import aiohttp

from slipway.core.observation import RouterSeen
from slipway.meter.scrape import scrape

STEADY_SECONDS = 2.0
AWAITING_SECONDS = 0.1
# How long the fast pace goes on after it was last asked for.
_PATIENCE_SECONDS = 5.0
_PARALLEL = 64
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


class Meter:
    """What the routers of each namespace were seen doing at their latest scrape.

    `pods` answers the router pods that exist, of a namespace or of all; `changed` is told the namespace where something other
    than the count of requests in flight has changed, and what was seen before and is now.
    """

    def __init__(self, pods: Callable[[str | None], Iterable[RouterPod]], changed: Changed) -> None:
        self._pods, self._changed = pods, changed
        self._seen: dict[str, dict[str, RouterSeen]] = {}
        self._answered_at: dict[tuple[str, str], float] = {}
        self._awaiting: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def routers(self, namespace: str) -> tuple[RouterSeen, ...]:
        """Answer every router pod of the namespace; one not scraped yet has not answered."""
        seen = self._seen.get(namespace, {})
        return tuple(replace(seen.get(pod.name, RouterSeen(pod.name)), ready=pod.ready) for pod in self._pods(namespace))

    def fresh(self, namespace: str) -> bool:
        """Tell whether every router pod of the namespace was scraped as it is now: one that became ready since was not."""
        seen = self._seen.get(namespace, {})
        return all(pod.name in seen and (seen[pod.name].ready or not pod.ready) for pod in self._pods(namespace))

    def expect(self, namespace: str) -> None:
        """Look at this namespace's routers often for the next seconds: something is awaited of them."""
        self._awaiting[namespace] = time.monotonic() + _PATIENCE_SECONDS
        self._due.pop(namespace, None)
        self._wake.set()

    async def run(self) -> None:
        """Scrape until cancelled."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_PARALLEL)) as session:
            while True:
                pods: dict[str, list[RouterPod]] = {}
                for pod in self._pods(None):
                    pods.setdefault(pod.namespace, []).append(pod)
                now = time.monotonic()
                for namespace in pods:
                    # A router that does not answer keeps only its own namespace waiting.
                    if self._due.get(namespace, 0.0) <= now and namespace not in self._under_way:
                        task = asyncio.create_task(self._scrape(session, namespace, pods[namespace]))
                        self._under_way[namespace] = task
                        task.add_done_callback(lambda _, namespace=namespace: self._under_way.pop(namespace))
                for gone in self._seen.keys() - pods.keys():
                    for pod in self._seen.pop(gone):
                        self._answered_at.pop((gone, pod), None)
                    self._due.pop(gone, None)
                self._wake.clear()
                try:
                    async with asyncio.timeout(AWAITING_SECONDS if self._any_awaiting() else STEADY_SECONDS / 4):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _scrape(self, session: aiohttp.ClientSession, namespace: str, pods: list[RouterPod]) -> None:
        answers = await asyncio.gather(*(scrape(session, pod.name, pod.address, pod.ready) for pod in pods))
        now = time.monotonic()
        before = self._seen.get(namespace, {})
        after = {answer.pod: self._believed(namespace, before.get(answer.pod), answer, now) for answer in answers}
        self._seen[namespace] = after
        for gone in before.keys() - after.keys():
            self._answered_at.pop((namespace, gone), None)
        awaiting = self._awaiting.get(namespace, 0.0) > now
        self._due[namespace] = now + (AWAITING_SECONDS if awaiting else STEADY_SECONDS)
        if _still(before) != _still(after):
            self._changed(namespace, before.values(), after.values())

    def _believed(self, namespace: str, before: RouterSeen | None, answer: RouterSeen, now: float) -> RouterSeen:
        key = (namespace, answer.pod)
        if answer.answered:
            self._answered_at[key] = now
        elif before is not None and before.answered and before.ready and answer.ready:
            if now - self._answered_at.get(key, 0.0) < _BELIEVED_SECONDS:
                return replace(before, late=True)
        else:
            self._answered_at.pop(key, None)
        return answer

    def _any_awaiting(self) -> bool:
        now = time.monotonic()
        self._awaiting = {namespace: until for namespace, until in self._awaiting.items() if until > now}
        return bool(self._awaiting)


def _still(seen: dict[str, RouterSeen]) -> dict[str, RouterSeen]:
    return {pod: replace(router, active={}, late=False) for pod, router in seen.items()}
