"""/healthz, /readyz and /metrics over HTTP."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest


async def serve(port: int, registry: CollectorRegistry, alive: Callable[[], bool], ready: Callable[[], bool]) -> web.AppRunner:
    """Serve until the runner that is answered is cleaned up.

    `alive` false makes the kubelet restart the pod; `ready` is true for the leader once its store is filled, and for a replica
    that waits for the Lease.
    """

    def probe(holds: Callable[[], bool]) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if holds() else web.Response(status=503, text="not yet\n")

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", probe(alive))  # pyright: ignore[reportArgumentType]
    app.router.add_get("/readyz", probe(ready))  # pyright: ignore[reportArgumentType]
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
