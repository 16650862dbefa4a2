"""(f) Aborted rollouts among many models: what they cost, and whether an unrelated change takes longer meanwhile."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from tests.bench import change, fleet, operators
from tests.bench.client import Client, Object
from tests.bench.clusters import cluster, scratch
from tests.bench.control import Bench
from tests.bench.processes import load_average
from tests.bench.table import Table, median, say

_ROLLOUTS = 10
_CHANGES_BEFORE = 200
_WEIGHT = 25


async def run(models: int, spaces: int, controller_qps: int, rounds: int) -> Table:
    """Measure changes alone, then so many times beside rollouts that are aborted all at once."""
    table = Table(f"aborts: {_ROLLOUTS} of {models:,} ModelDeployments in {spaces} namespaces aborted at {_WEIGHT}% of requests")
    table.notes.append(f"Load average of the machine before the run: {load_average()}.")
    names = fleet.namespaces(spaces)
    with cluster("slipway-bench-aborts", "--control-plane-only", "--audit-log") as plane, scratch("aborts") as folder:
        async with Client(plane.kubeconfig) as client, fleet.nodes(plane, client, folder, controller_qps):
            await fleet.make_namespaces(client, names)
            kubeconfig = await operators.prepare(client, folder)
            bench = Bench(plane, client, kubeconfig, folder, models, names, steady_seconds=0)
            replica = await bench.start("first")
            try:
                await replica.idle()
                await _Aborts(table, bench, replica).measure(rounds)
            finally:
                replica.process.end()
    table.notes.append(
        "An unrelated change is one of another model's replicas, until its Deployment has changed. Argo Rollouts 1.10 on the "
        "same machine: its abort of a routed canary flips a Service's selector for 30 s."
    )
    return table


class _Aborts:
    """The benchmark under way. Rollouts are of the first models, changes of the others, one after the other."""

    def __init__(self, table: Table, bench: Bench, replica: operators.Replica) -> None:
        self._table, self._bench, self._replica = table, bench, replica
        self._aborted = [self._path(number) for number in range(_ROLLOUTS)]
        self._changes = 0

    async def measure(self, rounds: int) -> None:
        """Make the models and measure."""
        bench = self._bench
        say(f"{bench.models} ModelDeployments")
        making = asyncio.create_task(bench.client.create_all(fleet.models(bench.models, bench.names)))
        await fleet.all_ready(bench.client, fleet.models_path(), bench.models)
        await making
        await self._replica.idle()

        before = [await self._change() for _ in range(_CHANGES_BEFORE)]
        self._tell("before", before)
        await self._quiet_round()
        during: list[float] = []
        seconds: list[float] = []
        for number in range(rounds):
            await self._roll_out(number + 3)
            over = asyncio.create_task(self._abort())
            while not over.done():
                during.append(await self._change())
            seconds.append(await over)
        self._tell("while they are aborted", during)
        said = f"{median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}, n={rounds})"
        self._table.add("abort asked of all -> no pod of theirs is left to drain", said)

    async def _quiet_round(self) -> None:
        """Abort with nothing beside, and count."""
        await self._roll_out(2)
        audit = self._bench.audit
        audit.skip()
        await self._abort()
        await self._replica.idle()
        counts = audit.read()
        said = f"{counts.writes() / _ROLLOUTS:.1f}; {counts.events() / _ROLLOUTS:.1f}"
        self._table.add("writes; events of an aborted rollout", said, "", "236 Service patches")
        self._table.notes.append(f"Requests of {_ROLLOUTS} aborts: {counts.by_request()}.")

    def _tell(self, when: str, times: list[float]) -> None:
        ordered = sorted(times)
        p50, p99, worst = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.99, 1))
        said = f"{p50:.0f}; {p99:.0f}; {worst:.0f} ms (n={len(ordered)})"
        argo = "16 ms" if when == "before" else "373 ms"
        self._table.add(f"an unrelated change {when}: p50; p99; worst", said, "" if when == "before" else "as before", argo)

    async def _change(self) -> float:
        """Change the next model's replicas, and answer how long until its Deployment has changed (seconds)."""
        lap, index = divmod(self._changes, self._bench.models - _ROLLOUTS)
        number, self._changes = _ROLLOUTS + index, self._changes + 1
        namespace = self._bench.names[number % len(self._bench.names)]
        return await change.child(self._bench.client, namespace, f"m{number:04}", fleet.spec(1, 2 + lap), change.scaled_up)

    def _path(self, number: int) -> str:
        return fleet.models_path(self._bench.names[number % len(self._bench.names)], f"m{number:04}")

    async def _roll_out(self, version: int) -> None:
        """Bring a canary of every model to its first step, which lasts, and wait until nothing else happens."""
        say(f"canaries of version {version}")
        rollout: dict[str, Any] = {"strategy": "Canary", "steps": [{"weight": _WEIGHT, "hold": "1h"}]}
        for path in self._aborted:
            await self._bench.client.merge(path, {"spec": {**fleet.spec(version), "rollout": rollout}})
        await self._all(lambda obj: _is_live(obj, str(version)))
        await self._replica.idle()

    async def _abort(self) -> float:
        """Ask for the abort of all at once, and answer how long until the last has drained (seconds)."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        asked = {"verb": "Abort", "at": datetime.now(UTC).isoformat(), "by": "bench"}
        body = {"status": {"request": asked}}
        await asyncio.gather(*(self._bench.client.merge(f"{path}/status", body) for path in self._aborted))
        await self._all(lambda obj: _is_aborted(obj, asked["at"]))
        return loop.time() - begun

    async def _all(self, condition: Any) -> None:
        """Wait until the condition holds for each of the models that are aborted."""
        names, met = {path.rpartition("/")[2] for path in self._aborted}, set[str]()
        async for _, obj in self._bench.client.watch(fleet.models_path(), initial=True):
            name = obj["metadata"]["name"]
            if name in names and condition(obj):
                met.add(name)
            else:
                met.discard(name)
            if met == names:
                return


def _is_live(obj: Object, version: str) -> bool:
    status = obj.get("status", {})
    candidate, rollout = status.get("candidate") or {}, status.get("rollout") or {}
    return candidate.get("version") == version and rollout.get("liveWeight") == _WEIGHT


def _is_aborted(obj: Object, asked_at: str) -> bool:
    status = obj.get("status", {})
    return status.get("handled") == asked_at and not status.get("candidate") and not status.get("draining")
