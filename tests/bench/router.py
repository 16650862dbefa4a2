"""(b) What the router adds to a request: latency and CPU, against the model's own port."""

import asyncio
from collections import defaultdict
from pathlib import Path

from tests.bench.client import Object
from tests.bench.fleet import all_ready
from tests.bench.installed import INFER, LOCAL_ONLY, Installed, installed
from tests.bench.processes import cpu_seconds, load_average
from tests.bench.table import Table, median, say
from tests.bench.traffic import Figures, generator, load
from tests.e2e import models

_NAME = "churn"
_CONNECTIONS = (1, 8)


async def run(seconds: float, rounds: int) -> Table:
    """Measure with one router and with two."""
    table = Table("router: added to a request, against the model pod's own port")
    table.notes += [f"Load by {generator()}. {LOCAL_ONLY}", f"Load average of the machine before the run: {load_average()}."]
    async with installed("slipway-bench-router", routers=1) as slipway:
        namespace = await slipway.make_namespace("bench")
        await slipway.serve(namespace, _NAME)
        for routers in (1, 2):
            if routers > 1:
                slipway.install(routers)
                path = f"/api/v1/namespaces/{namespace}/pods"
                await all_ready(slipway.client, path, routers, selector="app.kubernetes.io/component=router")
                await asyncio.sleep(3)  # kube-proxy has the endpoint, the operator has seen it
            for connections in _CONNECTIONS:
                await _compare(table, slipway, namespace, routers, connections, seconds, rounds)
    return table


async def _compare(
    table: Table, slipway: Installed, namespace: str, routers: int, connections: int, seconds: float, rounds: int
) -> None:
    """Load the pod and the Service in turns: what the machine does beside meets both alike."""
    (pod,) = await slipway.items(namespace, "pods", f"slipway.dev/model-deployment={_NAME}")
    service = await slipway.client.get(f"/api/v1/namespaces/{namespace}/services/{_NAME}")
    targets = {"direct": (pod["status"]["podIP"], 8080), "router": (service["spec"]["clusterIP"], 80)}
    envoys = [_process(router, "envoy") for router in await slipway.routers(namespace)]
    found: dict[str, list[Figures]] = defaultdict(list)
    cpu: list[float] = []
    for _ in range(rounds):
        for name, (address, port) in targets.items():
            before = sum(map(cpu_seconds, envoys))
            figures = await load(
                address, port, f"{_NAME}.{namespace}", INFER.format(name=_NAME), models.BODY, connections, seconds
            )
            found[name].append(figures)
            if name == "router":
                cpu.append((sum(map(cpu_seconds, envoys)) - before) / figures.requests)
    what = f"{routers} router{'s' if routers > 1 else ''}, {connections} connection{'s' if connections > 1 else ''}"
    say(f"{what}: {rounds} rounds of {seconds:g} s each way")
    # Several connections, each with a request under way all the time, saturate the machine: no goal was set for that.
    for quantile, goal in (("p50_ms", "under 0.3 ms" if connections == 1 else ""), ("p99_ms", "")):
        direct, through = (median([getattr(figures, quantile) for figures in found[name]]) for name in targets)
        name = quantile.removesuffix("_ms")
        table.add(f"{what}: added {name}", f"{through - direct:.2f} ms", goal, f"direct {direct:.2f} ms, routed {through:.2f} ms")
    rates = [median([figures.requests / seconds for figures in found[name]]) for name in targets]
    rate = f"direct {rates[0]:.0f}/s, routed {rates[1]:.0f}/s"
    table.add(f"{what}: router CPU a request", f"{median(cpu) * 1e6:.0f} us", "", rate)
    table.add(f"{what}: failed", str(sum(figures.failed for each in found.values() for figures in each)), "0")


def _process(pod: Object, command: str) -> int:
    """Answer the id, on this host, of the process of that name in a pod."""
    uid = pod["metadata"]["uid"]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "comm").read_text().strip() == command and _holds((folder / "cgroup").read_text(), uid):
                    return int(folder.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
    raise RuntimeError(f"no process {command} of pod {pod['metadata']['name']} on this host")


def _holds(cgroup: str, uid: str) -> bool:
    return uid in cgroup or uid.replace("-", "_") in cgroup  # the systemd driver writes underscores
