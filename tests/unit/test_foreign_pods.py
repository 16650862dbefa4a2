"""Pods that are not what their labels say: what the operator asks of them harms nobody else."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from slipway.core.observation import RouterSeen
from slipway.meter import scrape as scraping
from slipway.meter.meter import Meter, RouterPod
from slipway.meter.pods import open_session
from slipway.meter.scrape import scrape
from slipway.meter.statistics import Statistics
from slipway.probe import agreement

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve on loopback, and answer the port."""
    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port)
    await site.start()
    try:
        assert site._server is not None
        yield site._server.sockets[0].getsockname()[1]  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        await runner.cleanup()


async def scraped(monkeypatch: pytest.MonkeyPatch, port: int) -> RouterSeen:
    monkeypatch.setattr(scraping, "STATS_PORT", port)
    async with open_session() as session:
        return (await scrape(session, "r", "127.0.0.1", True, Statistics()))[0]


async def test_a_redirect_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever makes such a pod has the operator, and its place in the network, ask whom he will."""
    asked: list[str] = []

    async def inner(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="")

    async with answering(inner) as secret:

        async def redirect(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{secret}/latest/meta-data"})

        async with answering(redirect) as port:
            assert not (await scraped(monkeypatch, port)).answered
            monkeypatch.setattr(agreement, "METRICS_PORT", port)
            async with open_session() as session:
                assert await agreement._scrape(session, "127.0.0.1") is None
    assert asked == []


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, compressed: bool) -> None:
    sent = 0

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(headers={"Content-Encoding": "gzip"} if compressed else {})
        await answer.prepare(request)
        part = gzip.compress(b"x" * (64 << 20)) if compressed else b"x" * (1 << 20)
        try:
            while True:
                await answer.write(part)
                sent += len(part)
        except ConnectionError:
            return answer

    async with answering(flood) as port:
        assert not (await scraped(monkeypatch, port)).answered
    # What was on its way in sockets' buffers beside what was read.
    assert 0 < sent < 4 * scraping._ANSWER_MAX


@pytest.mark.parametrize(
    "says",
    [
        b"\xff\xfe",
        b"cluster.m-a.upstream_rq_completed: many\n",
        b"http.models.rds.models.update_rejected: -\n",
        b"cluster.m-a.membership_healthy: 1\ncluster.m-a.upstream_rq_time:\n  totals=1:\n",
        b"cluster.m-a.upstream_rq_time:\n  totals=x,1:5, 2\n",
    ],
)
async def test_what_no_router_says_is_silence(monkeypatch: pytest.MonkeyPatch, says: bytes) -> None:
    """Asked twice, for a router's first answer is only what later ones are compared with."""
    turns = iter((b"server.uptime: 5\n", says))

    async def speak(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=next(turns))

    def no_more(namespace: str | None) -> list[RouterPod]:
        return [RouterPod("ns", "r", "127.0.0.1", False)]

    meter = Meter(no_more, lambda *_: None, lambda _: False, lambda *_: 30.0)
    async with answering(speak) as port, open_session() as session:
        monkeypatch.setattr(scraping, "STATS_PORT", port)
        space = meter._space("ns")
        for answered in (True, False):
            await meter._scrape(session, space, RouterPod("ns", "r", "127.0.0.1", False))
            assert meter.routers("ns")[0].answered is answered


async def test_pods_that_hang_keep_no_other_namespace_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are more of them than any limit on connections that all would share."""
    held = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is None or request.transport.get_extra_info("sockname")[0] == "127.0.0.9":
            await held.wait()
        return web.Response(text="server.uptime: 5\n")

    hanging = [RouterPod("theirs", f"r{number}", "127.0.0.9", True) for number in range(150)]
    good = RouterPod("ours", "r", "127.0.0.1", True)
    changed = asyncio.Event()

    def told(namespace: str, *_: object) -> None:
        if namespace == "ours":
            changed.set()

    pods = [*hanging, good]
    meter = Meter(lambda ns: [pod for pod in pods if ns in (None, pod.namespace)], told, lambda _: False, lambda *_: 30.0)
    # A pod that hangs is given up long after this test has ended: only one that waits for none of them is in time.
    monkeypatch.setattr("slipway.meter.pods._TIMEOUT", aiohttp.ClientTimeout(total=120))
    async with answering(answer) as port, answering(answer, "127.0.0.9", port):
        monkeypatch.setattr(scraping, "STATS_PORT", port)
        running = asyncio.create_task(meter.run())
        async with asyncio.timeout(60):
            await changed.wait()
        running.cancel()
        held.set()
    assert meter.routers("ours")[0].answered
