"""(f) What callers feel while everything around their model is restarted, drained, upgraded, scaled and rolled out."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.client import Object
from tests.bench.installed import INFER, LOCAL_ONLY, SYSTEM, Installed, installed, model_path, serves
from tests.bench.processes import load_average
from tests.bench.table import Table, grid, median, say
from tests.e2e import models
from tests.e2e.load import Load

from slipway_dev import tools

REQUESTS = 10_000
NONE = "none"
NAMES = ("restart", "drain", "operator-upgrade", "router-upgrade", "scale", "canary", "rollback")
_NAMESPACE, _NAME = "bench", "churn"
_REPLICAS = 2
_CONNECTIONS, _PER_SECOND = 16, 1000
_PATIENCE_SECONDS, _LOOK_SECONDS = 300.0, 0.2
_CANARY = {"strategy": "Canary", "steps": [{"weight": 5, "hold": "2s"}, {"weight": 50, "hold": "2s"}]}


@dataclass(frozen=True)
class Run:
    """What a load counted while one operation was made."""

    operation: str
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    seconds: float
    failures: dict[str, int]
    failed_at: list[Any]


class Bench:
    """The cluster, its one model, and the operations."""

    def __init__(self, slipway: Installed) -> None:
        self._slipway = slipway
        self._version = 1

    async def prepare(self) -> None:
        """Serve the model, and find its address."""
        await self._slipway.make_namespace(_NAMESPACE)
        await self._serve(1, _REPLICAS)
        services = await self._slipway.items(_NAMESPACE, "services")
        self._address = next(each["spec"]["clusterIP"] for each in services if each["metadata"]["name"] == _NAME)

    async def measure(self, name: str) -> Run:
        """Make an operation under load, and go on until enough was asked."""
        await self._rest()
        begun = asyncio.get_running_loop().time()
        async with self.load() as load:
            await self.operations[name]()
            await _asked(load, REQUESTS)
        return told(name, load, asyncio.get_running_loop().time() - begun)

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Ask the model, without retries, while the context lasts; it ends after the answers that are under way."""
        load = Load(f"http://{_NAME}.{_NAMESPACE}{INFER.format(name=_NAME)}", models.BODY.encode(), _CONNECTIONS, _PER_SECOND)
        load.host = self._address
        running = asyncio.create_task(load.run())
        try:
            await _asked(load, REQUESTS // 20)
            yield load
        finally:
            load.stopping.set()
            await running

    @property
    def operations(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Answer the operations, each of which ends where it began."""
        return {
            NONE: self._nothing,
            "restart": self.restart,
            "drain": self.drain,
            "operator-upgrade": self._upgrade_operator,
            "router-upgrade": self._upgrade_routers,
            "scale": self._scale,
            "canary": self._canary,
            "rollback": self._roll_back,
        }

    async def _nothing(self) -> None:
        """The load alone."""

    async def restart(self, *, operator: bool = True) -> None:
        """Restart the model's pods, the routers and the operator, all at once, pod by pod each."""
        revision = (await self._model())["status"]["stable"]["revision"]
        parts = [(_NAMESPACE, revision), (_NAMESPACE, "slipway-router"), *([(SYSTEM, "slipway")] if operator else [])]
        for namespace, name in parts:
            await self._kubectl("-n", namespace, "rollout", "restart", f"deployment/{name}")
        for namespace, name in parts:
            await self._kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=240s")
        await self._gone()

    async def drain(self) -> None:
        """Drain the node with most of the pods, wait until all is well on the other, and give the node back."""
        pods = await self._slipway.items(_NAMESPACE, "pods")
        node = max(self._slipway.nodes, key=[pod["spec"].get("nodeName") for pod in pods].count)
        try:
            await self._kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
            await self._all_ready()
        finally:
            await self._kubectl("uncordon", node)

    async def _upgrade_operator(self) -> None:
        self._version += 1
        level = "info" if self._version % 2 else "warning"
        await asyncio.to_thread(self._slipway.install, 2, {"logLevel": level})
        await self._rest()

    async def _upgrade_routers(self) -> None:
        self._version += 1
        resources = {"requests": {"cpu": "100m", "memory": f"{128 + self._version % 2}Mi"}, "limits": {"memory": "512Mi"}}
        await asyncio.to_thread(self._slipway.install, 2, {"router": {"replicas": 2, "resources": resources}})
        await self._kubectl("-n", _NAMESPACE, "rollout", "status", "deployment/slipway-router", "--timeout=240s")
        await self._gone()

    async def _scale(self) -> None:
        for replicas in (1, 10, 1, _REPLICAS):
            await self._slipway.client.merge(self._path, {"spec": {"scaling": {"min": replicas}}})
            await self._rest()

    async def _canary(self) -> None:
        serving = (await self._model())["status"]["stable"]["version"]
        await self._serve(2 if serving == "1" else 1, _REPLICAS)

    async def _roll_back(self) -> None:
        """Roll back to what served before; then the spec asks for just that, so that nothing is pinned any more."""
        before = (await self._model())["status"]["stable"]
        request = {"verb": "Rollback", "at": datetime.now(UTC).isoformat(), "by": "bench"}
        await self._slipway.client.merge(f"{self._path}/status", {"status": {"request": request}})
        await self._until(lambda obj: obj["status"]["stable"]["revision"] != before["revision"] and _at_rest(obj))
        await self._serve(2 if before["version"] == "1" else 1, _REPLICAS)

    async def _serve(self, version: int, replicas: int) -> None:
        head: Object = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": _NAME}}
        spec = {**models.spec(version, replicas), "rollout": _CANARY}
        await self._slipway.client.apply(self._path, {**head, "spec": spec})
        await self._until(lambda obj: serves(obj) and _at_rest(obj))
        await self._gone()

    async def _rest(self) -> None:
        """Wait until nothing moves any more."""
        await self._until(lambda obj: serves(obj) and _at_rest(obj))
        await self._gone()

    async def _all_ready(self) -> None:
        await self._until(lambda obj: serves(obj) and obj["status"]["stable"]["ready"] == obj["status"]["stable"]["replicas"])

    async def _gone(self) -> None:
        """Wait until no pod of the namespace is on its way out, or not ready yet."""

        async def all_stay() -> bool:
            return all(_is_ready(pod) for pod in await self._slipway.items(_NAMESPACE, "pods"))

        await _until(all_stay)

    async def _until(self, holds: Callable[[Object], bool]) -> None:
        async def held() -> bool:
            return holds(await self._model())

        await _until(held)

    async def _model(self) -> Object:
        return await self._slipway.client.get(self._path)

    async def _kubectl(self, *words: str) -> None:
        command = [tools.ensure(["kubectl"])["kubectl"], "--kubeconfig", self._slipway.kubeconfig, *words]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {ended.stderr}")

    async def away(self, minutes: float) -> Run:
        """Take the operator away, and restart pods, routers and drain the node again and again meanwhile."""
        await self._rest()
        begun = asyncio.get_running_loop().time()
        async with self.load() as load:
            await self._kubectl("-n", SYSTEM, "scale", "deployment/slipway", "--replicas=0")
            while asyncio.get_running_loop().time() - begun < 60 * minutes:
                await self.restart(operator=False)
                await self.drain()
                await self._gone()
                say(f"away: {load.report()['requests']} requests, {load.report()['failed']} failed")
            await self._kubectl("-n", SYSTEM, "scale", "deployment/slipway", "--replicas=2")
            await self._rest()
        return told(f"operator away for {minutes:g} minutes", load, asyncio.get_running_loop().time() - begun)

    @property
    def _path(self) -> str:
        return model_path(_NAMESPACE, _NAME)


async def _asked(load: Load, requests: int) -> None:
    """Wait until so much was asked."""

    async def enough() -> bool:
        return sum(load.answers.values()) >= requests

    await _until(enough)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(_LOOK_SECONDS)


def told(name: str, load: Load, seconds: float) -> Run:
    """Answer what a load counted."""
    counted: dict[str, Any] = load.report()
    return Run(
        name, counted["requests"], counted["failed"], counted["p50_ms"], counted["p99_ms"], round(seconds, 1),
        counted["failures"], counted["failed_at"],
    )  # fmt: skip


def _at_rest(obj: Object) -> bool:
    status = obj["status"]
    return (
        not status.get("candidate") and not status.get("draining") and status["stable"]["replicas"] == status["stable"]["ready"]
    )


def _is_ready(pod: Object) -> bool:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", ()))
    return ready and "deletionTimestamp" not in pod["metadata"]


async def run(rounds: int, names: Sequence[str], away_minutes: float, results: Path | None) -> Table:
    """Make every operation so many times, one of each after the other."""
    table = Table(f"operations under {_PER_SECOND} requests/s, {_CONNECTIONS} connections, no retries")
    table.notes += [LOCAL_ONLY, f"Load average of the machine before the run: {load_average()}."]
    found = _kept(results)
    async with installed("slipway-bench-operations") as slipway:
        bench = Bench(slipway)
        await bench.prepare()
        for number in range(rounds):
            for name in (NONE, *names):
                if sum(each.operation == name for each in found) <= number:
                    _keep(found, await bench.measure(name), results)
        if away_minutes:
            _keep(found, await bench.away(away_minutes), results)
    _tell(table, found)
    return table


def _kept(results: Path | None) -> list[Run]:
    if results is None or not results.exists():
        return []
    return [Run(**json.loads(line)) for line in results.read_text().splitlines()]


def _keep(found: list[Run], new: Run, results: Path | None) -> None:
    found.append(new)
    say(f"{new.operation}: {new.failed} of {new.requests} failed, p99 {new.p99_ms} ms, {new.seconds} s {new.failures or ''}")
    if results is not None:
        with results.open("a") as file:
            file.write(json.dumps(asdict(new)) + "\n")


def _tell(table: Table, found: list[Run]) -> None:
    rows = [("operation", "runs", "requests", "failures", "p50, p99 ms (median of the runs)", "worst p99 ms", "seconds a run")]
    for name in dict.fromkeys(run.operation for run in found):
        runs = [run for run in found if run.operation == name]
        p50, p99 = (median([getattr(run, field) for run in runs]) for field in ("p50_ms", "p99_ms"))
        rows.append(
            (
                name, str(len(runs)), f"{sum(run.requests for run in runs):,}", str(sum(run.failed for run in runs)),
                f"{p50:.1f}, {p99:.1f}", f"{max(run.p99_ms for run in runs):.0f}", f"{median([run.seconds for run in runs]):.0f}",
            )
        )  # fmt: skip
    table.notes[:0] = ["\n".join(grid(rows))]
