"""`serve`: from a model file to a ready server, and to its end on SIGTERM."""

import argparse
import asyncio
import gc
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from slipway_server import formats, limits, logs, trial
from slipway_server.fetch import read_receipt
from slipway_server.formats import Model, onnx  # the runtime first: the trial begins while the rest is imported
from slipway_server.termination import Reason, TerminalError
from slipway_server.trial import Trial


def serve(options: argparse.Namespace) -> int:
    """Runs the command until SIGTERM or SIGINT; returns 0. Raises TerminalError."""
    logs.setup()
    # As process 1 of a container the kernel drops signals that have no handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    path = formats.find(options.model_dir, options.format)
    threads = options.threads or limits.cpu_count()
    memory_bytes = options.load_memory or limits.memory_headroom_bytes()
    attempt = trial.start(lambda: onnx.load(path, threads), path, options.load_timeout, memory_bytes)

    import uvloop

    return uvloop.run(_run(options, path, threads, attempt))


async def _run(options: argparse.Namespace, path: Path, threads: int, attempt: Trial) -> int:
    from slipway_server.app import Application, Limits, Ready
    from slipway_server.engine import Engine
    from slipway_server.http_server import HttpServer
    from slipway_server.metrics import Metrics
    from slipway_server.protocol.v2 import Codec

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    app = Application(
        options.name,
        options.version,
        options.revision,
        Limits(options.max_body, options.max_concurrency, options.request_timeout),
        metrics,
    )
    server = HttpServer(app, options.request_timeout)
    try:
        port = await server.start(options.host, options.port)
    except OSError as error:
        attempt.kill()
        message = f"port {options.port} cannot be bound ({os.strerror(error.errno or 0)}): free it, or choose another --port"
        raise TerminalError(Reason.PORT_UNAVAILABLE, message) from None
    logs.info("listening", port=port, model=options.name, version=options.version, revision=options.revision)

    stopping = loop.create_task(stop.wait())
    loading = loop.create_task(_load(path, threads, attempt, options.load_timeout))
    await asyncio.wait((stopping, loading), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        logs.info("stopped while the model was loading")
        return 0
    model, load_seconds = loading.result()
    receipt = read_receipt(options.model_dir)
    metrics.load_seconds = load_seconds
    metrics.info = {
        "model": options.name,
        "version": options.version,
        "revision": options.revision,
        "format": options.format,
        "sha256": receipt.sha256 if receipt else "",
    }
    codec = Codec(options.name, options.version, model.platform, model.inputs, model.outputs)
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again
    app.ready = Ready(codec, Engine(model, threads))
    logs.info("ready", port=port, threads=threads, load=f"{load_seconds:.3f}s")

    await stopping
    logs.info("draining", in_flight=metrics.in_flight)
    cut = await server.drain(options.drain_timeout)
    logs.info("stopped", requests_cut_off=cut)
    return 0


async def _load(path: Path, threads: int, attempt: Trial, timeout_seconds: float) -> tuple[Model, float]:
    """Waits for the trial, then loads the model here; returns it with the seconds that this second load took."""
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
    try:
        async with asyncio.timeout(timeout_seconds):
            # A thread of its own: the loop's end waits for those of its default executor.
            return await loop.run_in_executor(ThreadPoolExecutor(1), _load_here, path, threads)
    except TimeoutError:
        raise trial.load_timed_out(path, timeout_seconds) from None


def _load_here(path: Path, threads: int) -> tuple[Model, float]:
    started = time.monotonic()
    model = onnx.load(path, threads)
    if objection := trial.warm_up(model, path):
        logs.warning("the model could not be warmed up: its first request will be slower", cause=objection)
    return model, time.monotonic() - started


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    """Until the event loop takes the signals over there is nothing to finish."""
    os._exit(0)
