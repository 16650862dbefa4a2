"""The comparer: takes the copies of live requests that routers send it, and has two revisions answer each in the background.

A router discards what it is answered, so it is answered at once. What cannot be taken is dropped and counted: neither memory nor
work grows with what comes.
"""

import asyncio
import logging
import re
from typing import Any

import aiohttp
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from slipway.core.agreement import Comparison, Outcome
from slipway.meter.pods import read_at_most
from slipway.probe.counts import Counts
from slipway.probe.pairs import BODY_MAX, OWN_HEADER, LiveRequest, Pairs

# Requests that by their protocols change nothing, for stable answers each of them once more than its caller asked. A path that
# names a version is none: only one of the two has it.
INFERENCE_PATHS = r"/v2/models/[^/]+/infer|/v1/models/[^/]+:predict"
PARALLEL = 8
_TAKEN_MAX = 256
_HELD_BYTES_MAX = 16 * 1024 * 1024
_READ_SECONDS = 10.0
log = logging.getLogger(__name__)
# What aiohttp says of a request that it cannot read quotes it.
_quiet = logging.getLogger(f"{__name__}.http")
_quiet.disabled = True


class Comparer:
    """Takes copies by `receive` and compares them while `run` runs. `paths` is a pattern of the paths that are compared."""

    def __init__(self, pairs: Pairs, counts: Counts, paths: str = INFERENCE_PATHS) -> None:
        self._pairs, self._counts, self._paths = pairs, counts, re.compile(paths)
        self._queue: asyncio.Queue[LiveRequest] = asyncio.Queue()
        self._taken = self._held_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def run(self) -> None:
        """Compare until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(self._compare_for_ever())

    async def drain(self, seconds: float) -> None:
        """Take no more, and wait so long at the most until all that was taken is compared."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests were left when time was up", self._taken)

    def request_of(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Answer a request of what aiohttp has read, and count what it could not read: HTTP/2, for example."""
        if message.method == "UNKNOWN":
            self._counts.received.inc()
            self._counts.drop("unreadable")
        return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def receive(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take a copy, or drop it. The answer is the same: nobody reads it."""
        self._counts.received.inc()
        reason = self._unwanted(request) or await self._take(request)
        if reason:
            self._counts.drop(reason)
        return web.Response(status=202)

    def _unwanted(self, request: web.BaseRequest) -> str:
        """Answer why a request is not to be compared; empty where it is."""
        if self._draining:
            return "draining"
        if OWN_HEADER in request.headers:
            return "own"
        if request.headers.get("content-type", "").lower().startswith("application/grpc"):
            return "grpc"
        if request.method != "POST":
            return "method"
        if self._paths.fullmatch(request.raw_path.partition("?")[0]) is None:
            return "path"
        return "too_large" if (request.content_length or 0) > BODY_MAX else ""

    async def _take(self, request: web.BaseRequest) -> str:
        """Read a copy and put it in the queue. Answer why not; empty where it is there."""
        reserved = BODY_MAX if request.content_length is None else request.content_length
        if self._taken >= _TAKEN_MAX or self._held_bytes + reserved > _HELD_BYTES_MAX:
            return "queue_full"
        self._hold(1, reserved)
        body: bytes | None = None
        try:
            async with asyncio.timeout(_READ_SECONDS):
                body = await read_at_most(request.content, BODY_MAX)
        except TimeoutError:
            return "slow"
        except (aiohttp.ClientError, web.RequestPayloadError, OSError):
            return "cut_off"
        finally:
            self._hold(*((-1, -reserved) if body is None else (0, len(body) - reserved)))
        if body is None:
            return "too_large"
        headers = tuple(request.headers.items())
        self._queue.put_nowait(LiveRequest(request.method, request.raw_path, headers, body))
        return ""

    def _hold(self, requests: int, size: int) -> None:
        self._taken += requests
        self._held_bytes += size
        if self._taken:
            self._idle.clear()
        else:
            self._idle.set()

    async def _compare_for_ever(self) -> None:
        while True:
            request = await self._queue.get()
            try:
                self._counts.add(await self._pairs.compare(request))
            except Exception as error:  # one request must not end the work; its text may hold what the caller sent
                log.error("a pair could not be compared: %s", type(error).__name__)
                self._counts.add(Comparison(Outcome.NOT_COMPARED, "error"))
            finally:
                self._hold(-1, -len(request.body))


async def serve(comparer: Comparer, port: int) -> web.ServerRunner:
    """Let routers reach the comparer by HTTP/1.1, until the runner that is answered is cleaned up."""
    # Bodies go on as they came, compressed ones too. Who sends one that nobody reads has a second to finish.
    options: dict[str, Any] = {"access_log": None, "logger": _quiet, "auto_decompress": False, "lingering_time": 1.0}
    runner = web.ServerRunner(web.Server(comparer.receive, request_factory=comparer.request_of, **options), shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
