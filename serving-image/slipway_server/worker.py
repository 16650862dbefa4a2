"""One worker's life: listens, loads the model, serves it until SIGTERM."""

import asyncio
import gc
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import uvloop

from slipway_server import limits, loading, logs
from slipway_server.app import Application, Limits
from slipway_server.batching import Batching
from slipway_server.dialects import Ready
from slipway_server.engine import Engine
from slipway_server.fetch import read_receipt
from slipway_server.formats import Model
from slipway_server.metrics import Metrics
from slipway_server.protocol import CodecLimits
from slipway_server.tensors import Signature
from slipway_server.wire import WireConfig
from slipway_server.wire.listener import Listener

if TYPE_CHECKING:
    from slipway_server.serve import Server

STREAMS, STREAMS_OF_A_WORKER = 128, 16
"""Requests at once on one HTTP/2 connection where there are several workers: a router that wants more opens more, and so
reaches more workers."""


def run(server: "Server", index: int, told: Callable[[], object], *, alone: bool) -> None:
    """Runs a worker until SIGTERM; `told` is called once it is ready. Raises TerminalError.

    One that is `alone` listens at once, and says that it is not ready yet; else it loads first: the others answer meanwhile.
    """
    uvloop.run(_Worker(server, index).run(told, alone))


class _Worker:
    def __init__(self, server: "Server", index: int) -> None:
        self._server = server
        options = server.options
        receipt = read_receipt(options.model_dir)
        server.table.info = {
            "model": options.name,
            "version": options.version,
            "revision": options.revision,
            "format": options.format,
            "sha256": (receipt and receipt.sha256) or "",
        }
        self._metrics = Metrics(server.table, index)
        own = Limits(
            options.max_body,
            server.share(options.max_concurrency),
            max(server.share(server.buffered_bytes), options.max_body),
            options.request_timeout,
        )
        self._app = Application(options.name, options.version, options.revision, own, self._metrics)
        config = WireConfig(
            request_seconds=options.request_timeout,
            head_bytes=options.max_header,
            connections=server.share(options.max_connections),
            streams=STREAMS if server.workers == 1 else STREAMS_OF_A_WORKER,
        )
        self._listener = Listener(self._app, config)
        self._app.unsent = lambda: self._listener.connections.unsent

    async def run(self, told: Callable[[], object], alone: bool) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if alone:
            await self._listen()
        started = time.monotonic()
        # A thread of its own: the loop's end waits for those of its default executor.
        model = await loop.run_in_executor(ThreadPoolExecutor(1), self._load)
        ready = self._ready(model)
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again
        self._app.ready = ready
        seconds = time.monotonic() - started
        if not alone:
            await self._listen()
        self._metrics.loaded(seconds)  # last: whoever hears "ready" may connect at once, and must find all workers accepting
        told()
        await stop.wait()
        logs.info("draining", in_flight=self._app.in_flight)
        cut = await self._listener.drain(self._server.options.drain_timeout)
        self._app.stop()
        await self._listener.cut()
        logs.info("stopped", requests_cut_off=cut)

    async def _listen(self) -> None:
        await self._listener.start(self._server.listening, self._metrics if self._server.workers > 1 else None)

    def _load(self) -> Model:
        server = self._server
        options = server.options
        memory_bytes = options.load_memory or limits.memory_headroom_bytes()
        return loading.load(server.path, options.format, server.threads, options.trust, memory_bytes)

    def _ready(self, model: Model) -> Ready:
        options = self._server.options
        signature = Signature(
            options.name,
            options.version,
            model.platform,
            tuple(model.inputs),
            tuple(model.outputs),
            tuple(model.default_outputs),
            model.any_name,
        )
        engine = Engine(model, Batching(options.batch_max_size, options.batch_max_delay), self._metrics)
        return Ready(signature, CodecLimits(options.max_depth, options.max_elements), engine, model.explains)
