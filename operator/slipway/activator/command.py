"""`python -m slipway activator`: hold requests for models without pods."""

import argparse
import asyncio
from collections.abc import Sequence

import uvloop

from slipway import health, logs, process
from slipway.activator.asks import Asks, serve
from slipway.activator.metrics import Metrics
from slipway.activator.pods import MODEL_PODS, Pods
from slipway.activator.waiting import Waiting
from slipway.activator.waker import Waker
from slipway.kube.api import Api
from slipway.kube.informer import Informer
from slipway.kube.kinds import POD
from slipway.kube.store import Object, Store

# While it leaves, it sends whoever still comes to another one: Services take a moment to know.
_LEAVE_SECONDS = 5.0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m slipway activator",
        description="Holds requests for models that have no pod, wakes them, and tells routers of the first ready pod.",
    )
    parser.add_argument("--watch-namespaces", default="", help="comma-separated namespaces to serve; empty: all")
    parser.add_argument("--held-max", type=int, default=2000,
                        help="requests that may wait for one revision (default: %(default)s)")  # fmt: skip
    parser.add_argument("--held-mebibytes-max", type=int, default=128,
                        help="memory that those of one router may take there, in MiB (default: %(default)s)")  # fmt: skip
    parser.add_argument("--port", type=int, default=8080, help="port at which routers ask (default: %(default)s)")
    process.add_flags(parser, metrics_port=9901)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run until told to stop. Answers the exit code."""
    flags = parse(argv)
    logs.configure(flags.log_format, "info")
    uvloop.run(_run(flags))
    return 0


async def _run(flags: argparse.Namespace) -> None:
    stop = asyncio.Event()
    process.end_on_signals(stop)
    api, store = await Api.connect(), Store()
    pods = Pods(store)
    waiting, waker = Waiting(pods.ready, flags.held_max, flags.held_mebibytes_max * 1024 * 1024), Waker(api)
    metrics = Metrics(lambda: waiting.count, lambda: waker.count)

    def notice(obj: Object) -> None:
        revision = pods.notice(obj)
        if revision is not None:
            waiting.release(revision)

    spaces: list[str | None] = [name for name in flags.watch_namespaces.split(",") if name] or [None]
    informers = [Informer(api, store, POD, space, MODEL_PODS, notice) for space in spaces]
    synced = asyncio.Event()
    health_server = await health.serve(
        flags.metrics_port, metrics.registry, lambda: True, lambda: synced.is_set() and not stop.is_set()
    )
    watching = [asyncio.create_task(informer.run()) for informer in informers]
    for informer in informers:
        await informer.synced.wait()
    asks = await serve(Asks(pods, waiting, waker, metrics), flags.port)
    synced.set()
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopping, *watching}, return_when=asyncio.FIRST_COMPLETED)
    waiting.leave()
    if stopping in done:
        await asyncio.sleep(_LEAVE_SECONDS)
    for task in (stopping, *watching):
        task.cancel()
    await asks.cleanup()
    await health_server.cleanup()
    await api.close()
