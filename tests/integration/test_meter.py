"""What the meter says of real routers is what happened: counts asked are counts shown, latencies lie within their bounds."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from tests.integration.routers import TIMEOUT_SECONDS, Router, started, upstream
from tests.ports import free_port

from slipway.core.figures import Counts, Figures
from slipway.core.latency import EDGES_MS, bucket_of
from slipway.meter import scrape
from slipway.meter.meter import Meter, RouterPod

NAMESPACE, MODEL = "ns", "m-bcdfghjk"


class Watched:
    """Routers with a meter that watches them."""

    def __init__(self, folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        port = free_port()
        monkeypatch.setattr(scrape, "STATS_PORT", port)
        self.routers = [Router(folder / str(number), f"127.0.0.{number + 1}", port) for number in range(count)]
        self.meter = Meter(self._pods, lambda *_: None, lambda _: True, lambda *_: TIMEOUT_SECONDS)

    def _pods(self, namespace: str | None) -> list[RouterPod]:
        return [RouterPod(NAMESPACE, router.address, router.address, True) for router in self.routers]

    @asynccontextmanager
    async def running(self, upstreams: dict[str, int]) -> AsyncIterator[None]:
        """Run routers and meter."""
        for router in self.routers:
            router.write(upstreams)
        async with started(self.routers):
            watching = asyncio.create_task(self.meter.run())
            try:
                await self.until(lambda: self.meter.fresh(NAMESPACE) and all(r.answered for r in self.meter.routers(NAMESPACE)))
                yield
            finally:
                watching.cancel()

    def figures(self, revision: str = MODEL, seconds: float = 60.0) -> Figures:
        return self.meter.figures(NAMESPACE, revision, seconds)

    def total(self, revision: str = MODEL) -> Counts:
        total = self.meter.total(NAMESPACE, revision)
        return total.counts if total is not None else Counts()

    async def until(self, holds: Callable[[], bool], seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{self.total()} {self.figures()}"
            await asyncio.sleep(0.02)

    async def counted(self, requests: int, revision: str = MODEL) -> Counts:
        """Wait until so many requests are counted. Their latencies come up to a second later."""
        await self.until(lambda: self.total(revision).requests >= requests)
        return self.total(revision)


async def ask(router: Router, path: str, host: str = MODEL, seconds: float = 10.0) -> str:
    """Send one request on a connection of its own; answer its status, or how it failed."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(seconds)) as session,
            session.get(f"http://{router.address}:{router.port}{path}", headers={"host": host}) as answer,
        ):
            await answer.read()
            return str(answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


async def test_latencies_lie_between_what_the_server_and_the_caller_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, felt = Watched(tmp_path, 1, monkeypatch), list[float]()
    delays = [0, 1, 3, 8, 12, 30, 75, 0, 130, 210] * 30

    async def call(session: aiohttp.ClientSession, delays: list[int]) -> None:
        for delay in delays:
            begun = time.perf_counter()
            url = f"http://{watched.routers[0].address}:{watched.routers[0].port}/ms={delay}"
            async with session.get(url, headers={"host": MODEL}) as answer:
                await answer.read()
            felt.append((time.perf_counter() - begun) * 1000)

    async with upstream() as (port, took), watched.running({MODEL: port}), aiohttp.ClientSession() as session:
        await asyncio.gather(*(call(session, delays[n::6]) for n in range(6)))
        await watched.until(lambda: watched.figures().latency.sample == 300)
        figures = watched.figures()
        assert (figures.counts.requests, figures.counts.errors, len(took)) == (300, 0, 300)
        for share in (0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0):
            found = figures.latency.quantile(share)
            assert found is not None
            # Each request took the router at least what it took the server, and at most what its caller felt.
            assert found.high_ms > quantile(took, share), share
            assert found.low_ms <= quantile(felt, share), share
            assert found.high_ms - found.low_ms <= max(1.0, 0.1 * found.low_ms)


async def test_every_way_to_fail_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, nobody = Watched(tmp_path, 1, monkeypatch), free_port()
    async with upstream() as (port, _), watched.running({MODEL: port, "n-bcdfghjk": nobody}):
        (router,) = watched.routers
        assert await ask(router, "/ms=300", seconds=0.1) == "TimeoutError"
        said = {"/close": "200", "/404": "404", "/500": "500", "/502": "502", "/reset": "503", "/cut": "ClientPayloadError"}
        for path in ("/close", "/404", "/500", "/502", "/reset", "/cut", "/cut", "/cut", "/ms=900", "/ms=900"):
            assert await ask(router, path) == said.get(path, "504"), path
            assert await ask(router, "/") == "200"  # else the router takes the endpoint out: two failures in a row
        counts = await watched.counted(21)
        assert (counts.requests, counts.errors, counts.client_errors, counts.server_errors) == (21, 8, 1, 5)
        assert (counts.timeouts, counts.resets, counts.abandoned) == (2, 4, 1)
        await watched.until(lambda: watched.figures().latency.sample == 16)
        # Answered: all but the reset, cut and abandoned ones. The timeouts are the slowest.
        assert watched.figures().latency.counts[bucket_of(TIMEOUT_SECONDS * 1000)] == 2

        assert await ask(router, "/", host="n-bcdfghjk") == "503"
        counts = await watched.counted(1, "n-bcdfghjk")
        assert (counts.requests, counts.errors) == (1, 1)
        assert counts.connect_failures >= 1
        assert watched.total().requests == 21, "nobody else's"


async def test_grpc_errors_are_errors_though_http_calls_them_200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, server = Watched(tmp_path, 1, monkeypatch), grpc.aio.server()

    async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        code = dict(context.invocation_metadata() or ()).get("code")
        if code == "hang":
            await asyncio.sleep(2)
        elif code:
            await context.abort(grpc.StatusCode[str(code)])
        return b"ok"

    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Ask": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with watched.running({MODEL: port}):
        (router,) = watched.routers
        options = [("grpc.default_authority", MODEL)]
        async with grpc.aio.insecure_channel(f"{router.address}:{router.port}", options=options) as channel:
            for code in ("", "", "NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "INTERNAL", "hang"):
                try:
                    await channel.unary_unary("/test/Ask")(b"", metadata=(("code", code),))
                except grpc.aio.AioRpcError as error:
                    assert code, error
        counts = await watched.counted(7)
        assert (counts.requests, counts.grpc_errors, counts.timeouts) == (7, 3, 1)
        assert counts.errors == 3, "the timeout is one error, by whichever protocol it is told"
    await server.stop(0)


async def test_a_router_that_is_killed_takes_nothing_back_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, 2, monkeypatch)
    async with upstream() as (port, _), watched.running({MODEL: port}):
        stays, dies = watched.routers
        for router in (stays, dies):
            for _ in range(30):
                assert await ask(router, "/") == "200"
        assert (await watched.counted(60)).requests == 60
        await watched.until(lambda: watched.figures().latency.sample == 60)
        await dies.kill()
        await watched.until(lambda: watched.figures().missing == 1)
        assert not watched.figures().reliable, "a total that lacks a router says so"
        for _ in range(5):
            await ask(stays, "/")
        assert (await watched.counted(65)).requests == 65
        await dies.start()  # the same pod, its counters at zero
        for _ in range(40):
            assert await ask(dies, "/") == "200"
        counts = await watched.counted(105)
        assert counts == Counts(requests=105)
        await watched.until(lambda: watched.figures().latency.sample == 105)
        assert watched.figures().reliable
        assert all(count > 0 and EDGES_MS[bucket] < 60_000 for bucket, count in watched.figures().latency.counts.items())
