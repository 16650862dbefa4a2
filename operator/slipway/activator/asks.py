"""What routers ask of the activator, over HTTP/1.1: where a held request may go."""

import logging
import time
from typing import Any

from aiohttp import web

from slipway.activator.metrics import Metrics
from slipway.activator.pods import Pods
from slipway.activator.waiting import LeavingError, RefusedError, Waiting
from slipway.activator.waker import Waker
from slipway.core import holding

# Of those who ask nothing is logged but what they wait for: their paths may carry secrets.
_quiet = logging.getLogger(f"{__name__}.http")
_quiet.disabled = True
_RETRY_AFTER_SECONDS = 5


class Asks:
    """Answers a router: the address of a ready pod at once or once there is one; or that the request is refused."""

    def __init__(self, pods: Pods, waiting: Waiting, waker: Waker, metrics: Metrics) -> None:
        self._pods, self._waiting, self._waker, self._metrics = pods, waiting, waker, metrics

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one question. A request of the status LEAVING is asked again by its router, of another activator."""
        try:
            held = holding.read(request.headers.get(holding.HELD, ""))
        except ValueError:
            return self._refusal("unknown", "the model has no ready pod: try again later")
        begun = time.monotonic()
        try:
            address = self._waiting.address((held.namespace, held.revision)) or await self._hold(held, request.remote or "")
        except LeavingError:
            self._metrics.left.inc()
            return web.Response(status=holding.LEAVING, headers={"Connection": "close"})
        except RefusedError as refused:
            return self._refusal(refused.kind, str(refused))
        self._metrics.seconds.observe(time.monotonic() - begun)
        host = f"[{address}]" if ":" in address else address
        return web.Response(headers={holding.ENDPOINT: f"{host}:{held.port}"})

    async def _hold(self, held: holding.Held, router: str) -> str:
        if not self._pods.starting(held.namespace, held.revision):
            self._waker.wake(held.namespace, held.name)
        return await self._waiting.wait(held, router)

    def _refusal(self, kind: str, message: str) -> web.Response:
        """Answer a refusal, and close: on a connection kept the router would ask here again, and another one may have room."""
        self._metrics.refused.labels(kind).inc()
        return web.Response(
            status=holding.REFUSED, text=message, headers={"Retry-After": str(_RETRY_AFTER_SECONDS), "Connection": "close"}
        )


async def serve(asks: Asks, port: int) -> web.ServerRunner:
    """Let routers ask, until the runner that is answered is cleaned up. Who hangs up waits no more."""
    options: dict[str, Any] = {"access_log": None, "logger": _quiet, "handler_cancellation": True, "keepalive_timeout": 600.0}
    runner = web.ServerRunner(web.Server(asks.answer, **options), shutdown_timeout=5.0)
    await runner.setup()
    await web.TCPSite(runner, port=port, backlog=4096).start()
    return runner
