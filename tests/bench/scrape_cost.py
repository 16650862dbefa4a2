"""What one scrape of a real router costs the operator: the control benchmark's fake routers are not asked over the network."""

import asyncio
import threading
import time
from collections.abc import Callable

import aiohttp
from aiohttp import web

from slipway.meter import scrape

_SCRAPES = 300


async def measure(models: int) -> float:
    """Answer the CPU seconds of one scrape of a router that knows that many models, its connection kept."""
    lines = [f'http.models.rds.{scrape.ROUTES}.version_text: "1700000000000"']
    for number in range(models):
        lines += [f"cluster.m{number:04}-bcdfghjk.membership_healthy: 1", f"cluster.m{number:04}-bcdfghjk.upstream_rq_active: 0"]
    port, stop = _serve("\n".join(lines) + "\n")
    usual, scrape.STATS_PORT = scrape.STATS_PORT, port
    try:
        async with aiohttp.ClientSession() as session:
            seen = await scrape.scrape(session, "router", "127.0.0.1", True)
            assert seen.answered and len(seen.healthy) == models, seen
            begun = time.thread_time()
            for _ in range(_SCRAPES):
                await scrape.scrape(session, "router", "127.0.0.1", True)
            return (time.thread_time() - begun) / _SCRAPES
    finally:
        scrape.STATS_PORT = usual
        stop()


def _serve(text: str) -> tuple[int, Callable[[], None]]:
    """Serve the text in a thread of its own. Answer the port and what ends it."""
    loop = asyncio.new_event_loop()
    runner: list[web.AppRunner] = []

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

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
