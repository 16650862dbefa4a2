"""(e) A bad candidate: from the first bad answer to its weight 0 live in every router, and how many callers it hurt."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.client import Object
from tests.bench.installed import INFER, LOCAL_ONLY, Installed, installed, model_path
from tests.bench.processes import load_average
from tests.bench.table import Table, say, spread
from tests.e2e import models

from slipway.core import routing
from slipway.manifests.router import NAME, STATE_KEY
from slipway.meter import scrape
from slipway.meter.statistics import Statistics

WEIGHT = 25
RATES = [30, 100]
# A Python model answers one request at a time: two pods take the load of either rate with room to spare.
_STABLE_MS, _REPLICAS = 10, 2
_INTERVALS = (10, 60)
_POLL_SECONDS = 0.05
_NAMESPACE = "bench"
_SOURCE = """import random
import time


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]
    asked = False

    def predict(self, inputs):
        x = inputs["x"]
        time.sleep({seconds})
        if x.any() and random.random() < {errors}:
            raise RuntimeError
        return {{"y": 2 * x}}
"""
PEERS = "from a metric that is bad already: Argo Rollouts 1.4, 8, 46 s at intervals of 1, 10, 60 s; Flagger 10-50 s"


@dataclass(frozen=True)
class Bad:
    """What a candidate does to a share of its requests: fail, or take longer."""

    name: str
    share: float
    errors: float = 0.0
    seconds: float = _STABLE_MS / 1000


BAD = (
    Bad("100% errors", 1.0, errors=1.0),
    Bad("20% errors", 0.2, errors=0.2),
    Bad("5% errors", 0.05, errors=0.05),
    Bad("3x latency", 1.0, seconds=3 * _STABLE_MS / 1000),
)
KINDS = [bad.name for bad in BAD]


@dataclass
class Counted:
    """The answers that a load got: times are the event loop's. `mine` is the candidate under way."""

    slow_seconds: float
    bad: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    others_failed: int = 0

    def take(self, revision: str, status: int, took: float, at: float, candidate: str) -> None:
        """Count one answer; bad ones are the candidate's that fail, or take as long as only its do."""
        if revision == candidate and candidate and (status >= 500 or took >= self.slow_seconds):
            self.bad.setdefault(revision, []).append(at)
        elif status != 200:
            self.others_failed += 1


@dataclass(frozen=True)
class Round:
    """One withdrawal: how long it took, the candidate's bad answers, and what else failed meanwhile."""

    seconds: float
    bad: int
    others_failed: int


class Results:
    """The rounds of each kind of bad candidate at each rate, those of an earlier run in the same file among them."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rounds: dict[tuple[str, int], list[Round]] = {}
        for line in file.read_text().splitlines() if file is not None and file.exists() else ():
            entry = json.loads(line)
            self.of(entry["kind"], entry["rate"]).append(Round(**entry["round"]))

    def of(self, kind: str, rate: int) -> list[Round]:
        """Answer the rounds so far."""
        return self._rounds.setdefault((kind, rate), [])

    def add(self, kind: str, rate: int, found: Round) -> None:
        """Keep one more round, whatever becomes of those that follow."""
        self.of(kind, rate).append(found)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps({"kind": kind, "rate": rate, "round": asdict(found)}) + "\n")


async def run(rounds: int, rates: Sequence[int], kinds: Sequence[str], file: Path | None) -> Table:
    """Measure the kinds of bad candidate, at each rate of requests: the kinds at the same time, each with a model of its own.

    What an earlier run has put into the file is not measured again.
    """
    table = Table(f"withdrawal: a bad candidate at {WEIGHT}% of requests, its first step held for 10 minutes")
    table.notes += [
        f"Checks: errorRate max 1%, p95 relativeToStable 1.5; stable takes {_STABLE_MS} ms. Counted from the first bad answer "
        "to a caller until no router gives it requests any more. Beside it, what an analysis that looks first after 10 s, or "
        "after 60 s, lets through at the same rate, were its verdict to take no time.",
        LOCAL_ONLY,
        f"Load average of the machine before the run: {load_average()}.",
    ]
    results, chosen = Results(file), [bad for bad in BAD if bad.name in kinds]
    async with installed("slipway-bench-withdrawal") as slipway:
        namespace = await slipway.make_namespace(_NAMESPACE)
        for rate in rates:
            await asyncio.gather(*(_withdrawals(slipway, namespace, bad, rate, rounds, results) for bad in chosen))
            for bad in chosen:
                _tell(table, bad, rate, results.of(bad.name, rate))
    return table


def _tell(table: Table, bad: Bad, rate: int, rounds: list[Round]) -> None:
    goal = "5 s" if bad.share == 1 else ""
    table.add(f"{bad.name}, {rate} requests/s", spread([each.seconds for each in rounds]), goal, PEERS)
    hurt = " and ".join(f"{rate * WEIGHT / 100 * bad.share * interval:.0f} at {interval} s" for interval in _INTERVALS)
    table.add(f"{bad.name}, {rate} requests/s: bad answers in all", spread([float(each.bad) for each in rounds], ""), "", hurt)
    failed = sum(each.others_failed for each in rounds)
    if failed:
        table.add(f"{bad.name}, {rate} requests/s: other failed answers", str(failed), "0")


async def _withdrawals(slipway: Installed, namespace: str, bad: Bad, rate: int, rounds: int, results: Results) -> None:
    """Withdraw candidates, one after the other, under one load, until there are so many results."""
    # One that errs little is watched for long.
    missing = range(len(results.of(bad.name, rate)), rounds if bad.share > 0.05 else max(rounds // 4, 2))
    if not missing:
        return
    name = f"bad-{bad.name.replace('%', '').replace(' ', '-')}-{rate}".lower()
    good = Bad("good", 0.0)
    for kind, source in ((good, f"{name}-good"), (bad, f"{name}-bad")):
        data = {"model.py": _SOURCE.format(seconds=kind.seconds, errors=kind.errors)}
        body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": source}, "data": data}
        await slipway.client.apply(f"/api/v1/namespaces/{namespace}/configmaps/{source}", body)
    await slipway.client.apply(model_path(namespace, name), _body(name, f"{name}-good", "good"))
    async for obj in _told(slipway, namespace, name):
        if obj["status"].get("phase") == "Ready":
            break
    counted = Counted(slow_seconds=2 * _STABLE_MS / 1000 if bad.errors == 0 else float("inf"))
    under_way = [""]
    load = asyncio.create_task(_load(slipway, namespace, name, rate, counted, under_way))
    for number in missing:
        before = counted.others_failed
        await slipway.client.apply(model_path(namespace, name), _body(name, f"{name}-bad", f"bad-{number}"))
        candidate = under_way[0] = await _candidate(slipway, namespace, name, f"bad-{number}")
        done = await _gone(slipway, namespace, name, candidate)
        await asyncio.sleep(0.5)  # answers that were under way
        times = counted.bad[candidate]
        found = Round(done - times[0], len(times), counted.others_failed - before)
        results.add(bad.name, rate, found)
        say(f"{bad.name} at {rate}/s, {number + 1}: {found.seconds:.1f} s, {found.bad} bad answers")
    load.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await load
    await slipway.client.delete(model_path(namespace, name))


def _body(name: str, source: str, version: str) -> Object:
    checks = [{"errorRate": {"max": "1%"}}, {"latency": {"percentile": 95, "relativeToStable": 1.5}}]
    rollout = {"strategy": "Canary", "steps": [{"weight": WEIGHT, "hold": "10m"}], "checks": checks}
    spec: dict[str, Any] = {
        **models.spec(1, _REPLICAS),
        "model": {"uri": f"configmap://{source}/model.py", "format": "Python", "version": version},
        "rollout": rollout,
    }
    return {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}


async def _told(slipway: Installed, namespace: str, name: str) -> AsyncIterator[Object]:
    """Yield the ModelDeployment whenever its status changes."""
    async for _, obj in slipway.client.watch(model_path(namespace), initial=True):
        if obj["metadata"]["name"] == name and "status" in obj:
            yield obj


async def _candidate(slipway: Installed, namespace: str, name: str, version: str) -> str:
    async for obj in _told(slipway, namespace, name):
        candidate = obj["status"].get("candidate")
        if candidate and candidate["version"] == version:
            return candidate["revision"]
    raise RuntimeError("the watch of ModelDeployments ended")


async def _gone(slipway: Installed, namespace: str, name: str, candidate: str) -> float:
    """Wait until the routes have named the candidate, and do so no more, in every router; answer when."""
    named, version = False, 0
    async for _, obj in slipway.client.watch(f"/api/v1/namespaces/{namespace}/configmaps", initial=True):
        if obj["metadata"]["name"] != NAME:
            continue
        route = routing.load(obj["data"][STATE_KEY]).routes[name]
        if candidate in route.wanted.positive:
            named = True
        elif named:
            version = route.version
            break
    pods = [(pod["metadata"]["name"], pod["status"]["podIP"]) for pod in await slipway.routers(namespace)]
    async with aiohttp.ClientSession() as session:
        while True:
            seen = await asyncio.gather(*(scrape.scrape(session, pod, address, True, Statistics()) for pod, address in pods))
            if all(router.route_version >= version for router, _ in seen):
                return asyncio.get_running_loop().time()
            await asyncio.sleep(_POLL_SECONDS)


async def _load(slipway: Installed, namespace: str, name: str, rate: int, counted: Counted, under_way: list[str]) -> None:
    """Send requests at a fixed rate, whether the ones before are answered or not, until cancelled."""
    loop = asyncio.get_running_loop()
    service = await slipway.client.get(f"/api/v1/namespaces/{namespace}/services/{name}")
    url = f"http://{service['spec']['clusterIP']}{INFER.format(name=name)}"
    headers = {"Host": f"{name}.{namespace}", "Content-Type": "application/json"}

    async def ask(session: aiohttp.ClientSession) -> None:
        begun = time.perf_counter()
        try:
            async with session.post(url, data=models.BODY) as answer:
                await answer.read()
                revision, status = answer.headers.get("x-slipway-revision", ""), answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            revision, status = "", 0
        counted.take(revision, status, time.perf_counter() - begun, loop.time(), under_way[0])

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session, asyncio.TaskGroup() as group:
        due = loop.time()
        while True:
            group.create_task(ask(session))
            due += 1 / rate
            await asyncio.sleep(max(due - loop.time(), 0.0))
