"""Routers that read the files which Slipway writes for Envoy, late and each in its time, and answer scrapes as Envoy does.

No Envoy runs here: thousands of runs would not fit. What Envoy itself does is tested with Envoy (tests/e2e, tests/integration).
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from tests.faults.history import Look, Lost
from tests.faults.pods import Pods, Truth

from slipway.core import holding
from slipway.core.routing import mirrored
from slipway.manifests.envoy import ROUTES, STATS_PORT

_TICK_SECONDS = 0.05
_REQUESTS_A_TICK = 8
# How often a mounted ConfigMap is looked at without a pod's change; a kubelet takes 60 s, this world is quicker.
_MOUNT_SECONDS = 2.0


class Router:
    """One router pod."""

    def __init__(self, pod: Truth, pods: Pods, config: Mapping[str, dict[str, str]], seed: int) -> None:
        self.pod, self._pods, self._config = pod, pods, config
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._began = time.monotonic()
        self.version = 0
        self.clusters: set[str] = set()
        self.weights: dict[str, dict[str, int]] = {}
        self.copies: set[str] = set()
        self._holds: set[str] = set()
        self._served: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self.ticks = 0
        self._seen: dict[str, int] = {}
        self._listed: dict[str, int] = {}
        self._loading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._last = Look(0.0, "", {})

    async def start(self) -> None:
        """Serve statistics and callers until stopped; return once it is warm."""
        self._server = await asyncio.start_server(self._answer, self.pod.address, STATS_PORT)
        while self.pod.namespace not in self._config:  # noqa: ASYNC110 - it is mounted late
            await asyncio.sleep(0.05)
        self._load_clusters(self._config[self.pod.namespace])
        self._load_routes(self._config[self.pod.namespace])
        for _ in range(2):  # it is ready once it knows the endpoints
            self._resolve()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._mounted())]

    async def stop(self) -> None:
        """Go."""
        for task in (*self._tasks, *([self._loading] if self._loading else [])):
            task.cancel()
        self._server.close()
        self._pods.tell(self.pod.namespace, Look(time.monotonic(), self.pod.name, {}, up=False))

    def changed(self) -> None:
        """Look at the mounted files soon: the pod has changed."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())

    async def _mounted(self) -> None:
        while True:
            await asyncio.sleep(_MOUNT_SECONDS * self._random.uniform(0.8, 1.2))
            self.changed()

    async def _load(self) -> None:
        await asyncio.sleep(self._random.uniform(0.01, 0.2))
        config = self._config.get(self.pod.namespace)
        if config is None:
            return
        parts = [self._load_clusters, self._load_routes]
        self._random.shuffle(parts)  # Envoy swaps them in no particular order
        for load in parts:
            load(config)
            await asyncio.sleep(0.01)

    def _load_clusters(self, config: dict[str, str]) -> None:
        self.clusters = {each["name"] for each in json.loads(config["clusters.json"])["resources"]}
        self._seen = {name: self._seen.get(name, 0) for name in self.clusters}

    def _load_routes(self, config: dict[str, str]) -> None:
        told = json.loads(config["routes.json"])
        self.version = int(told["version_info"])
        self.weights, self.copies, self._holds = {}, set(), set()
        for host in told["resources"][0]["virtual_hosts"]:
            if holding.HELD in json.dumps(host):
                self._holds.add(host["name"])
            split = [route["route"] for route in host["routes"] if "weighted_clusters" in route.get("route", {})]
            if split:
                self.weights[host["name"]] = {each["name"]: each["weight"] for each in split[-1]["weighted_clusters"]["clusters"]}
            for route in host["routes"]:
                policies = route.get("route", {}).get("request_mirror_policies", ())
                self.copies |= {policy["cluster"] for policy in policies}
        if self._last.router:
            self.tell()

    def tell(self) -> None:
        """Tell what it does, if that is news; from when it is ready, and callers may come."""
        look = Look(time.monotonic(), self.pod.name, self.weights)
        if look.weights != self._last.weights or not self._last.router:
            self._last = look
            self._pods.tell(self.pod.namespace, look)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._resolve()
            if self.pod.ready and self.pod.namespace not in self._pods.unasked:
                for model, weights in self.weights.items():
                    self._ask(model, weights)

    def _resolve(self) -> None:
        """See the endpoints by DNS, which tells what was so a tick ago."""
        self.ticks += 1
        self._seen = {name: self._listed.get(name, 0) for name in self.clusters}
        ready = self._pods.ready(self.pod.namespace)
        self._listed = {name: ready[mirrored(name)] for name in self.clusters}

    def _ask(self, model: str, weights: dict[str, int]) -> None:
        for revision in self._random.choices(list(weights), list(weights.values()), k=_REQUESTS_A_TICK):
            if revision not in self.clusters:
                why = "it does not know the cluster"
            elif not self._seen.get(revision):
                if model in self._holds:
                    continue  # it waits for a first pod
                why = "it sees no endpoint"
            else:
                why = self._pods.ask(self.pod.namespace, revision)
            if why == "erring":
                self._failed[revision] += 1
            elif why:
                self._failed[revision] += 1
                self._pods.tell(self.pod.namespace, Lost(time.monotonic(), self.pod.name, revision, why))
            self._served[revision] += 1
            for copy in self.copies:
                if copy.endswith("-mirror") and self._random.random() < 0.3:
                    self._served[copy] += 1
                    self._failed[copy] += self._pods.ask(self.pod.namespace, mirrored(copy)) == "erring"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                text = self._statistics().encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
                await writer.drain()
        writer.close()

    def _statistics(self) -> str:
        lines = [
            f'http.models.rds.{ROUTES}.version_text: "{self.version}"',
            f"server.uptime: {int(time.monotonic() - self._began)}",
        ]
        told: list[str] = []
        for name in sorted(self.clusters):
            lines.append(f"cluster.{name}.membership_healthy: {self._seen.get(name, 0)}")
            if self._served[name]:
                lines.append(f"cluster.{name}.upstream_rq_completed: {self._served[name]}")
                told.append(f"cluster.{name}.upstream_rq_time:\n  totals=5,0.1:{self._served[name]}\n  intervals=")
            if self._failed[name]:
                lines.append(f"cluster.{name}.upstream_rq_5xx: {self._failed[name]}")
        return "\n".join((*lines, *told)) + "\n"
