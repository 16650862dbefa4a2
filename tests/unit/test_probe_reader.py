"""What the operator reads of comparers: totals that only grow, whoever restarts, and their age."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import generate_latest
from tests.ports import free_port

from slipway.core.agreement import Comparison, Outcome
from slipway.core.sequential import Tally
from slipway.kube.store import Store
from slipway.manifests.comparer import comparer_labels
from slipway.manifests.labels import model_labels
from slipway.probe import agreement
from slipway.probe.agreement import ComparerPod, Comparers, comparer_pods
from slipway.probe.counts import Counts

GOOD, BAD = Comparison(Outcome.AGREED, difference=0.25), Comparison(Outcome.DISAGREED, "values", 0.5)
NOT = Comparison(Outcome.NOT_COMPARED, "failed")


@dataclass
class Comparer:
    """A comparer's pod: its counts, or another answer, or none until it may."""

    counts: Counts
    answer: bytes | None = None
    hangs: asyncio.Event | None = None
    asked: int = 0

    async def handle(self, _: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        if self.hangs is not None:
            await self.hangs.wait()
        return web.Response(body=generate_latest(self.counts.registry) if self.answer is None else self.answer)


class World:
    """Comparers on addresses of loopback, asked round by round on a clock that the test moves."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.pods: dict[str, tuple[str, Comparer]] = {}
        self.now = 1000.0
        self.session = session
        self.comparers = Comparers(
            lambda: [ComparerPod("ns", "m", name, address) for name, (address, _) in self.pods.items()], lambda: self.now
        )

    async def round(self) -> None:
        """Ask all once, and wait for those that answer."""
        self.now += 1
        await self.comparers._round(self.session)
        hanging = sum(comparer.hangs is not None for _, comparer in self.pods.values())
        async with asyncio.timeout(5):
            while len(self.comparers._under_way) > hanging:  # noqa: ASYNC110 - tasks that end tell nobody
                await asyncio.sleep(0.001)

    def pairs(self, candidate: str = "m-b") -> Tally:
        return self.comparers.compared("ns", "m", "m-a", candidate).pairs


def counted(*pairs: Comparison, started: float = 1.0, candidate: str = "m-b") -> Comparer:
    counts = Counts("m-a", candidate)
    counts.registry._names_to_collectors["slipway_compare_started_seconds"].set(started)  # pyright: ignore[reportAttributeAccessIssue]
    for pair in pairs:
        counts.add(pair)
    return Comparer(counts)


@asynccontextmanager
async def listening(address: str, port: int, comparer: Comparer) -> AsyncIterator[None]:
    runner = web.ServerRunner(web.Server(comparer.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


PORT = free_port()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(agreement, "METRICS_PORT", PORT)
    async with aiohttp.ClientSession() as session:
        yield World(session)


async def test_totals_grow_and_know_their_age(world: World) -> None:
    comparer = counted(GOOD, GOOD, BAD, NOT)
    assert world.comparers.compared("ns", "m", "m-a", "m-b").age_seconds > 1e9, "nothing is known yet"
    async with listening("127.0.0.7", PORT, comparer):
        world.pods["p"] = ("127.0.0.7", comparer)
        await world.round()
        found = world.comparers.compared("ns", "m", "m-a", "m-b")
        assert (found.pairs, found.age_seconds, found.largest_difference) == (Tally(3, 1), 0.0, 0.5)
        assert found.not_compared == {"failed": 1}
        comparer.counts.add(BAD)
        comparer.counts.drop("path")
        await world.round()
        assert world.pairs() == Tally(4, 2)
        assert world.comparers.compared("ns", "m", "m-a", "m-b").dropped == {"path": 1}
        comparer.answer = b"not for you"
        for _ in range(3):
            await world.round()
    await world.round()  # nobody listens any more
    found = world.comparers.compared("ns", "m", "m-a", "m-b")
    assert (found.pairs, found.age_seconds) == (Tally(4, 2), 4.0)
    assert world.comparers.compared("ns", "m", "m-a", "m-z").pairs == Tally()
    assert world.comparers.compared("ns", "other", "m-a", "m-b").pairs == Tally()


async def test_a_comparer_that_starts_anew_counts_on(world: World) -> None:
    comparer = counted(GOOD, BAD)
    world.pods["p"] = ("127.0.0.7", comparer)
    async with listening("127.0.0.7", PORT, comparer):
        await world.round()
        await world.round()
        assert world.pairs() == Tally(2, 1)
        # Another process in the pod, which has counted more than the one before already.
        comparer.counts = counted(GOOD, GOOD, BAD, started=2.0).counts
        await world.round()
        assert world.pairs() == Tally(5, 2)
        # Another pod, beside the one that leaves.
        other = counted(GOOD, started=3.0)
        async with listening("127.0.0.8", PORT, other):
            world.pods["q"] = ("127.0.0.8", other)
            await world.round()
            assert world.pairs() == Tally(6, 2)
            del world.pods["p"]
            other.counts.add(GOOD)
            await world.round()
            assert world.pairs() == Tally(7, 2)


async def test_each_pair_of_revisions_has_its_own_total(world: World) -> None:
    comparer = counted(BAD)
    world.pods["p"] = ("127.0.0.7", comparer)
    async with listening("127.0.0.7", PORT, comparer):
        await world.round()
        comparer.counts = counted(GOOD, started=2.0, candidate="m-c").counts
        await world.round()
        assert (world.pairs("m-b"), world.pairs("m-c")) == (Tally(1, 1), Tally(1, 0))
        for _ in range(2):
            world.now += 200
            await world.round()
        assert (world.pairs("m-b"), world.pairs("m-c")) == (Tally(), Tally(1, 0)), "what is long over is forgotten"


async def test_one_that_hangs_keeps_nobody_waiting_and_is_not_asked_twice(world: World) -> None:
    slow, quick = counted(GOOD), counted(GOOD)
    slow.hangs = asyncio.Event()
    world.pods = {"p": ("127.0.0.7", slow), "q": ("127.0.0.8", quick)}
    async with listening("127.0.0.7", PORT, slow), listening("127.0.0.8", PORT, quick):
        for _ in range(3):
            quick.counts.add(GOOD)
            await world.round()
        assert world.pairs() == Tally(4, 0)
        assert (slow.asked, quick.asked) == (1, 3)
        slow.hangs.set()
        slow.hangs = None
        await world.round()
        assert world.pairs() == Tally(5, 0)


async def test_it_runs_until_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "PACE_SECONDS", 0.01)
    comparer = counted(GOOD)
    world.pods["p"] = ("127.0.0.7", comparer)
    async with listening("127.0.0.7", PORT, comparer):
        running = asyncio.create_task(world.comparers.run())
        async with asyncio.timeout(5):
            while world.pairs() != Tally(1, 0):  # noqa: ASYNC110 - totals tell nobody
                await asyncio.sleep(0.01)
            comparer.counts.add(BAD)
            while world.pairs() != Tally(2, 1):  # noqa: ASYNC110 - totals tell nobody
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})


def test_comparers_are_found_among_pods() -> None:
    store = Store()

    def pod(name: str, labels: dict[str, str], address: str | None) -> None:
        metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "labels": labels}
        status = {"podIP": address} if address else {}
        store.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})

    pod("c-1", comparer_labels("m"), "192.0.2.1")
    pod("c-2", comparer_labels("n"), None)
    pod("m-a-1", model_labels("m", "m-a"), "192.0.2.2")
    assert comparer_pods(store) == [ComparerPod("ns", "m", "c-1", "192.0.2.1")]
