"""What one scrape of a real router costs the operator: the control benchmark's fake routers are not asked over the network."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

import aiohttp
from aiohttp import web
from tests.bench.table import Table

from slipway.core.latency import EDGES_MS
from slipway.manifests.envoy import ROUTES
from slipway.meter import scrape
from slipway.meter.history import History
from slipway.meter.meter import ROLLOUT_SECONDS, STEADY_SECONDS
from slipway.meter.statistics import Statistics

_SCRAPES = 40
_MODELS, _ROUTERS = 400, 2


async def run() -> Table:
    """Measure a namespace as full as one gets."""
    table = Table(f"meter: {_MODELS} models in a namespace with {_ROUTERS} routers")
    table.notes.append("CPU of the operator. A router of one core answers about 5,000 requests/s; latencies are log-normal.")
    for busy, rate in ((0, 0), (40, 125), (400, 12), (400, 50)):
        for pace, what in ((STEADY_SECONDS, "no rollout"), (ROLLOUT_SECONDS, "a rollout runs")):
            seconds = await measure(_MODELS, busy, round(rate * pace))
            share = f"{seconds * _ROUTERS / pace:.2%} of a core ({seconds * 1e3:.2f} ms a scrape)"
            table.add(f"{busy} models busy at {rate} requests/s in each router, {what}", share, "5%")
    return table


async def measure(models: int, busy: int = 0, requests: int = 1) -> float:
    """Answer the CPU seconds of one scrape of a router that knows so many models, its connection kept.

    Those that are busy have answered so many requests from one scrape to the next, the others have none now. What the meter
    remembers is brought up to date too.
    """
    port, stop = _serve(_answers(models, busy, requests))
    usual, scrape.STATS_PORT = scrape.STATS_PORT, port
    statistics, history, spent = Statistics(), History(lambda _: 30.0), 0.0
    try:
        async with aiohttp.ClientSession() as session:
            for number in range(_SCRAPES):
                begun = time.thread_time()
                seen, counted = await scrape.scrape(session, "router", "127.0.0.1", True, statistics)
                history.take("router", statistics, counted, float(number))
                if number:
                    spent += time.thread_time() - begun
                assert seen.answered and len(seen.healthy) == models, seen
                assert len(counted) == (busy if number else models)
    finally:
        scrape.STATS_PORT = usual
        stop()
    return spent / (_SCRAPES - 1)


def _answers(models: int, busy: int, requests: int) -> Iterator[str]:
    """Yield what the router says, one scrape after the other."""
    chance = random.Random(1)  # noqa: S311 - a benchmark's load
    weights = list(accumulate(chance.lognormvariate(0, 1) for _ in range(120)))
    first = [round(5 + 3 * chance.random()) for _ in range(models)]
    counts = [dict.fromkeys(range(begin, begin + 60), 3) for begin in first]
    uptime = 100
    while True:
        uptime += 1
        for model in range(busy):
            for bucket in chance.choices(range(120), cum_weights=weights, k=requests):
                counts[model][first[model] + bucket] = counts[model].get(first[model] + bucket, 0) + 1
        yield _text(counts, uptime)


def _text(counts: list[dict[int, int]], uptime: int) -> str:
    lines = [f'http.models.rds.{ROUTES}.version_text: "1700000000000"']
    histograms: list[str] = []
    for number, buckets in enumerate(counts):
        name, requests = f"cluster.m{number:04}-bcdfghjk", sum(buckets.values())
        lines += [
            f"{name}.membership_healthy: 1",
            f"{name}.upstream_rq_4xx: 2",
            f"{name}.upstream_rq_5xx: 1",
            f"{name}.upstream_rq_active: 0",
            f"{name}.upstream_rq_completed: {requests}",
        ]
        totals = ", ".join(f"{EDGES_MS[bucket]:g},1:{count}" for bucket, count in sorted(buckets.items()))
        histograms += [f"{name}.upstream_rq_time:", f"  totals={totals}", f"  intervals={totals}"]
        histograms.append("  summary=P0(6,6) P25(9,9) P50(12,12) P75(15,15) P90(20,20) P95(30,30) P99(50,50) P100(60,60)")
    return "\n".join([*lines, f"server.uptime: {uptime}", *histograms]) + "\n"


def _serve(answers: Iterator[str]) -> tuple[int, Callable[[], None]]:
    """Serve the texts, one a request, in a thread of its own. Answer the port and what ends it."""
    loop = asyncio.new_event_loop()
    runner: list[web.AppRunner] = []

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=next(answers))

    async def start() -> int:
        app = web.Application()
        app.router.add_get("/stats", answer)
        runner.append(web.AppRunner(app, access_log=None))
        await runner[0].setup()
        site = web.TCPSite(runner[0], "127.0.0.1", 0)
        await site.start()
        return runner[0].addresses[0][1]

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(runner[0].cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    return port, stop
