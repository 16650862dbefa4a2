"""The meter: how often it asks, what it believes, and what it says of routers that do not answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from slipway.core.figures import Counters
from slipway.core.observation import RouterSeen
from slipway.meter import meter
from slipway.meter.meter import Meter, RouterPod
from slipway.meter.scrape import seen
from slipway.meter.statistics import Statistics


class World:
    """Routers that answer as told, on a clock that the test moves."""

    def __init__(self, *pods: str) -> None:
        self.pods, self.silent, self.hanging = list(pods), set[str](), dict[str, asyncio.Event]()
        self.now, self.rolling = 1000.0, False
        self.requests: Counter[str] = Counter()
        self.asked: list[tuple[float, str]] = []
        self.told: list[str] = []
        self.meter = Meter(self._pods, self._changed, lambda _: self.rolling, lambda *_: 30.0, lambda: self.now)

    def _pods(self, namespace: str | None) -> Iterator[RouterPod]:
        return (RouterPod("ns", pod, "192.0.2.1", True) for pod in self.pods)

    def _changed(self, namespace: str, *_: object) -> None:
        self.told.append(namespace)

    async def scrape(
        self, session: object, pod: str, address: str, ready: bool, statistics: Statistics
    ) -> tuple[RouterSeen, set[str]]:
        self.asked.append((self.now, pod))
        if pod in self.hanging:
            await self.hanging[pod].wait()
        if pod in self.silent:
            return RouterSeen(pod, ready), set()
        statistics.uptime_seconds = int(self.now)
        statistics.healthy = {"m-a": 1}
        statistics.counts = {"m-a": Counters(answered=self.requests[pod])}
        return seen(pod, ready, statistics), {"m-a"}

    async def advance(self, seconds: float) -> None:
        """Let time pass in steps of 0.1 s."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.meter._wake.set()
            for _ in range(4):
                await asyncio.sleep(0)

    def times(self, pod: str, since: float) -> int:
        return sum(at > since for at, who in self.asked if who == pod)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    found = World("r", "s")
    monkeypatch.setattr(meter, "scrape", found.scrape)
    running = asyncio.create_task(found.meter.run())
    await found.advance(0.2)
    yield found
    running.cancel()


async def test_the_pace_follows_what_goes_on(world: World) -> None:
    begun = world.now
    await world.advance(20)
    assert world.times("r", begun) == 10
    world.rolling = True
    await world.advance(2)
    begun = world.now
    await world.advance(20)
    assert world.times("r", begun) == 20
    begun = world.now
    world.meter.expect("ns")
    await world.advance(4)
    assert world.times("r", begun) >= 38


async def test_a_figure_knows_its_age_its_routers_and_its_sample(world: World) -> None:
    for _ in range(10):
        world.requests.update({"r": 20, "s": 40})
        await world.advance(2)
    found = world.meter.figures("ns", "m-a", 10)
    assert (found.routers, found.missing, found.reliable) == (2, 0, True)
    assert found.age_seconds <= 2.1
    assert found.requests_per_second == pytest.approx(30, rel=0.02)
    assert 300 <= found.counts.requests <= 400
    assert found.seconds == pytest.approx(10, abs=0.2)
    total = world.meter.total("ns", "m-a")
    assert total is not None
    assert total.counts.requests == 600


async def test_a_router_that_takes_its_time_keeps_nobody_waiting_and_is_not_asked_twice(world: World) -> None:
    world.hanging["s"] = asyncio.Event()
    begun = world.now
    await world.advance(10)
    assert (world.times("r", begun), world.times("s", begun)) == (5, 1)
    world.hanging.pop("s").set()
    await world.advance(4)
    assert world.times("s", begun) == 3


async def test_a_silent_router_is_told_of(world: World) -> None:
    await world.advance(4)
    world.silent.add("s")
    begun = world.now
    await world.advance(4)
    found = world.meter.figures("ns", "m-a", 10)
    assert (found.missing, found.reliable) == (1, False)
    assert {router.pod: router.late for router in world.meter.routers("ns")} == {"r": False, "s": True}
    assert world.times("r", begun) == 2
    await world.advance(10)
    assert not next(router for router in world.meter.routers("ns") if router.pod == "s").answered, "believed no longer"
    assert world.meter.figures("ns", "m-a", 10).age_seconds > 10
    world.silent.clear()
    world.requests["s"] += 7
    await world.advance(2.1)
    found = world.meter.figures("ns", "m-a", 60)
    assert (found.reliable, found.counts.requests) == (True, 7)


async def test_who_is_gone_is_forgotten_and_what_it_counted_is_not(world: World) -> None:
    world.requests["s"] += 7
    await world.advance(2.1)
    before = len(world.told)
    world.pods.remove("s")
    await world.advance(4)
    assert len(world.told) == before + 1
    found = world.meter.figures("ns", "m-a", 60)
    assert (found.routers, found.missing, found.counts.requests) == (1, 0, 7)
    assert {pod for _, pod, _ in world.meter.ages()} == {"r"}
    world.pods.clear()
    await world.advance(1)
    assert world.meter.total("ns", "m-a") is None
