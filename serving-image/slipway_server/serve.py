"""`serve`: from a model file to a ready server, and to its end on SIGTERM."""

import argparse
import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from slipway_server import formats, limits, logs, trial
from slipway_server.fetch import read_receipt
from slipway_server.formats import Model
from slipway_server.termination import Reason, TerminalError
from slipway_server.trial import Trial

if TYPE_CHECKING:
    import socket

    from slipway_server.metrics import Table

MIB = 1 << 20
STREAMS, STREAMS_OF_A_WORKER = 128, 16
"""Requests at once on one HTTP/2 connection where there are several workers: a router that wants more opens more, and so
reaches more workers."""
SPARE_FILES = 64
"""Open files beside the connections."""


@dataclass(frozen=True)
class Server:
    """What all workers have in common. Made before they are forked."""

    options: argparse.Namespace
    path: Path
    workers: int
    threads: int
    """Of the runtime, for each worker."""
    buffered_bytes: int
    """Of requests being read and answered, for all workers together."""
    listening: "socket.socket"
    table: "Table"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listening.getsockname()[1]

    def share(self, total: int) -> int:
        """A worker's part of what all may take together."""
        return max(1, total // self.workers)


def serve(options: argparse.Namespace) -> int:
    """Runs the command until SIGTERM or SIGINT; returns the exit code. Raises TerminalError."""
    logs.setup()
    # As process 1 of a container the kernel drops signals that have no handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, exit_at_once)
    path = formats.find(options.model_dir, options.format, options.trust)
    formats.prepare(options.format, path)  # the runtime first: the trial begins while the rest is imported
    headroom = limits.memory_headroom_bytes()
    workers = options.workers or _default_workers(path, headroom)
    threads = options.threads or max(1, limits.cpu_count() // workers)
    attempt = trial.start(
        lambda: formats.load(path, options.format, threads, options.trust),
        path,
        options.load_timeout,
        options.load_memory or headroom,
    )

    import uvloop

    import_module("slipway_server.app")  # before any fork, so that workers share its pages
    from slipway_server.metrics import Table
    from slipway_server.wire.listener import bind

    _allow_files(options.max_connections + SPARE_FILES)
    try:
        listening = bind(options.host, options.port)
    except OSError as error:
        attempt.kill()
        message = f"port {options.port} cannot be bound ({os.strerror(error.errno or 0)}): free it, or choose another --port"
        raise TerminalError(Reason.PORT_UNAVAILABLE, message) from None
    buffered = options.max_buffered or max(64 * MIB, (headroom or limits.physical_memory_bytes()) // 4)
    table = Table(workers)
    receipt = read_receipt(options.model_dir)
    table.info = {
        "model": options.name,
        "version": options.version,
        "revision": options.revision,
        "format": options.format,
        "sha256": (receipt and receipt.sha256) or "",
    }
    server = Server(options, path, workers, threads, buffered, listening, table)
    logs.info("listening", port=server.port, model=options.name, version=options.version, revision=options.revision)
    if workers == 1:
        return uvloop.run(work(server, 0, lambda: _trial_ends(attempt)))
    from slipway_server.workers import supervise

    return supervise(server, attempt)


async def work(server: Server, index: int, permission: Callable[[], Awaitable[None]], *, restarted: bool = False) -> int:
    """One worker: listens, loads the model once `permission` is given, serves until SIGTERM; returns 0.

    A worker that was started again loads first: the others answer meanwhile. Raises TerminalError.
    """
    from slipway_server.app import Application, Limits
    from slipway_server.batching import Batching
    from slipway_server.dialects import Ready
    from slipway_server.engine import Engine
    from slipway_server.metrics import Metrics
    from slipway_server.protocol import CodecLimits
    from slipway_server.tensors import Signature
    from slipway_server.wire import WireConfig
    from slipway_server.wire.listener import Listener

    options = server.options
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics(server.table, index)
    own = Limits(
        options.max_body,
        server.share(options.max_concurrency),
        max(server.share(server.buffered_bytes), options.max_body),
        options.request_timeout,
    )
    app = Application(options.name, options.version, options.revision, own, metrics)
    config = WireConfig(
        request_seconds=options.request_timeout,
        head_bytes=options.max_header,
        connections=server.share(options.max_connections),
        streams=STREAMS if server.workers == 1 else STREAMS_OF_A_WORKER,
    )
    listener = Listener(app, config)
    app.unsent = lambda: listener.connections.unsent
    balance = metrics if server.workers > 1 else None
    if not restarted:
        await listener.start(server.listening, balance)

    stopping = loop.create_task(stop.wait())
    loading = loop.create_task(_load(server, permission))
    await asyncio.wait((stopping, loading), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        logs.info("stopped while the model was loading")
        return 0
    model, load_seconds = loading.result()
    signature = Signature(
        options.name,
        options.version,
        model.platform,
        tuple(model.inputs),
        tuple(model.outputs),
        tuple(model.default_outputs),
        model.any_name,
    )
    engine = Engine(model, Batching(options.batch_max_size, options.batch_max_delay), metrics)
    ready = Ready(signature, CodecLimits(options.max_depth, options.max_elements), engine, model.explains)
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again
    app.ready = ready
    metrics.loaded(load_seconds)
    if restarted:
        await listener.start(server.listening, balance)
    if server.workers == 1:
        logs.info("ready", port=server.port, threads=server.threads, load=f"{load_seconds:.3f}s")

    await stopping
    logs.info("draining", in_flight=app.in_flight)
    cut = await listener.drain(options.drain_timeout)
    app.stop()
    await listener.cut()
    logs.info("stopped", requests_cut_off=cut)
    return 0


async def _load(server: Server, permission: Callable[[], Awaitable[None]]) -> tuple[Model, float]:
    """Loads the model here, when the trial has shown that it can be; returns it with the seconds that this load took."""
    await permission()
    loop = asyncio.get_running_loop()
    timeout_seconds = server.options.load_timeout
    try:
        async with asyncio.timeout(timeout_seconds):
            # A thread of its own: the loop's end waits for those of its default executor.
            return await loop.run_in_executor(ThreadPoolExecutor(1), _load_here, server)
    except TimeoutError:
        raise trial.load_timed_out(server.path, timeout_seconds) from None


def _load_here(server: Server) -> tuple[Model, float]:
    started = time.monotonic()
    model = formats.load(server.path, server.options.format, server.threads, server.options.trust)
    if objection := trial.warm_up(model, server.path):
        logs.warning("the model could not be warmed up: its first request will be slower", cause=objection)
    return model, time.monotonic() - started


async def _trial_ends(attempt: Trial) -> None:
    """Waits for the trial. Raises what it ended with."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(attempt.pipe, ended.set)
    try:
        async with asyncio.timeout(attempt.deadline - time.monotonic()):
            await ended.wait()
    except TimeoutError:
        raise attempt.timed_out() from None
    except asyncio.CancelledError:
        attempt.kill()
        raise
    finally:
        loop.remove_reader(attempt.pipe)
    attempt.finish()


def _default_workers(path: Path, headroom: int | None) -> int:
    """One for each whole CPU of the limit, as far as the memory limit allows for a copy of the model in each.

    Without a CPU limit one: a pod must not take a whole node unasked.
    """
    cpus = limits.cpu_limit()
    if cpus is None or cpus < 2:
        return 1
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else (path,)))
    return cpus if headroom is None else max(1, min(cpus, headroom // (2 * size + 64 * MIB)))


def _allow_files(count: int) -> None:
    """Raises the limit of open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))


def exit_at_once(number: int, frame: FrameType | None) -> None:
    """Until the event loop takes the signals over there is nothing to finish."""
    os._exit(0)
