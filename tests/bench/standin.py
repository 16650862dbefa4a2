"""The operator as `python -m slipway` runs it, but for fake routers: no Envoy runs on fake nodes.

Only the scrape is replaced: it answers for a router pod what the store knows, as a router would that follows at once. Each
connection to 127.0.0.1:BENCH_PORT is answered with one line of JSON: how far this replica is.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import uvloop

from slipway import logs, settings
from slipway.app import App
from slipway.core import routing
from slipway.core.observation import RouterSeen
from slipway.core.symptoms import pod_ready
from slipway.kube.api import Api
from slipway.kube.kinds import CONFIG_MAP, POD
from slipway.kube.store import Store
from slipway.manifests import labels, router
from slipway.meter import meter
from slipway.meter.statistics import Statistics
from slipway.queue import Key, WorkQueue

_LOOK_SECONDS = 0.02


class FakeRouters:
    """What the routers would answer: every one has the newest routes, and sees every ready pod."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._namespaces: dict[str, str] = {}
        self._versions: dict[str, tuple[str, int]] = {}
        self.scrapes = 0

    async def scrape(
        self, session: aiohttp.ClientSession, pod: str, address: str, ready: bool, statistics: Statistics
    ) -> tuple[RouterSeen, set[str]]:
        """Stand in for slipway.meter.scrape.scrape."""
        self.scrapes += 1
        if pod not in self._namespaces:
            self._namespaces |= {obj["metadata"]["name"]: obj["metadata"]["namespace"] for obj in self._store.all(POD)}
        namespace = self._namespaces[pod]
        pods = self._store.all(POD, namespace)
        healthy = Counter(obj["metadata"]["labels"].get(labels.REVISION_LABEL, "") for obj in pods if pod_ready(obj))
        return RouterSeen(pod, ready, True, self._version(namespace), healthy), set()

    def _version(self, namespace: str) -> int:
        config = self._store.get(CONFIG_MAP, namespace, router.NAME)
        if config is None:
            return 0
        stored, version = self._versions.get(namespace, ("", 0))
        if stored != config["metadata"]["resourceVersion"]:
            stored, version = config["metadata"]["resourceVersion"], routing.load(config["data"][router.STATE_KEY]).version
            self._versions[namespace] = stored, version
        return version


class Progress:
    """How far the replica is, looked at from inside."""

    def __init__(self, app: App, routers: FakeRouters, queue: WorkQueue) -> None:
        self._app, self._routers, self._queue = app, routers, queue
        self._keys: set[Key] = set()
        self._reconciles = 0
        self._busy_at = time.time()
        self._done, queue.done = queue.done, self._count

    def _count(self, key: Key, *, failed: bool = False) -> None:
        self._done(key, failed=failed)
        self._reconciles += 1
        self._keys.add(key)

    async def serve(self, port: int) -> None:
        """Answer until cancelled."""
        async with await asyncio.start_server(self._answer, "127.0.0.1", port):
            while True:
                if len(self._queue) or self._queue._working or not self._app._synced:
                    self._busy_at = time.time()
                await asyncio.sleep(_LOOK_SECONDS)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = {
            "synced": self._app._synced,
            "keys": len(self._keys),
            "reconciles": self._reconciles,
            "scrapes": self._routers.scrapes,
            "now": time.time(),
            "busy_at": self._busy_at,  # the last moment that it had something to do
        }
        writer.write(json.dumps(state).encode() + b"\n")
        await writer.drain()
        writer.close()


async def _main(chosen: settings.Settings, port: int) -> int:
    app: Any = App(await Api.connect(), chosen)
    routers = FakeRouters(app._store)
    meter.scrape = routers.scrape
    looking = asyncio.create_task(Progress(app, routers, app._queue).serve(port))
    code: int = await app.run()
    looking.cancel()
    return code


if __name__ == "__main__":
    arguments = settings.parse()
    logs.configure(arguments.log_format, arguments.log_level)
    sys.exit(uvloop.run(_main(arguments, int(os.environ["BENCH_PORT"]))))
