"""(a) What the operator costs and how long it takes: many ModelDeployments on a real control plane with fake nodes."""

import asyncio
import signal
from pathlib import Path

from tests.bench import change, fleet, operators, restart, scrape_cost
from tests.bench.audit import AuditLog
from tests.bench.client import Client
from tests.bench.clusters import cluster, scratch
from tests.bench.processes import cpu_seconds, load_average, peak_megabytes
from tests.bench.table import Table, say

from slipway_dev import state

_SWEEP_SECONDS = 60
_OFTEN = ("--sweep-seconds", str(_SWEEP_SECONDS))


async def run(models: int, spaces: int, steady_seconds: int, controller_qps: int) -> Table:
    """Measure everything, the floor first."""
    table = Table(f"control: {models:,} ModelDeployments in {spaces} namespaces, fake nodes")
    table.notes.append(f"Load average of the machine before the run: {load_average()}.")
    names = fleet.namespaces(spaces)
    flags = ("--control-plane-only", "--audit-log")
    with cluster("slipway-bench-floor", *flags) as plane, scratch("floor") as folder:
        async with Client(plane.kubeconfig) as client, fleet.nodes(plane, client, folder, controller_qps):
            floor = await _floor(table, client, models, names)
    with cluster("slipway-bench-control", *flags) as plane, scratch("control") as folder:
        async with Client(plane.kubeconfig) as client, fleet.nodes(plane, client, folder, controller_qps):
            await fleet.make_namespaces(client, names)
            kubeconfig = await operators.prepare(client, folder)
            await _control(table, Bench(plane, client, kubeconfig, folder, models, names, steady_seconds), floor)
    table.notes.append(
        "Peers on the same machine, in the order KServe 0.20 (Standard), Argo Rollouts 1.10. The floor is the Deployments and "
        "Services of as many models, made by nobody. Its pods and ours come no faster than kube-controller-manager may ask: "
        f"{controller_qps} requests a second here, 20 as it is released."
    )
    return table


class Bench:
    """What the parts of this benchmark share."""

    def __init__(
        self,
        plane: state.Cluster,
        client: Client,
        kubeconfig: Path,
        folder: Path,
        models: int,
        names: list[str],
        steady_seconds: int,
    ) -> None:
        self.client, self.kubeconfig, self.folder = client, kubeconfig, folder
        self.models, self.names, self.steady_seconds = models, names, steady_seconds
        self.audit = AuditLog(plane.audit_log, operators.USER)

    @property
    def keys(self) -> int:
        """Answer how many keys the work queue knows: one a model, one a namespace's routers."""
        return self.models + len(self.names)

    async def start(self, name: str, *flags: str) -> operators.Replica:
        """Start an operator."""
        return await operators.start(name, self.kubeconfig, self.folder, *flags)


async def _floor(table: Table, client: Client, models: int, names: list[str]) -> float:
    await fleet.make_namespaces(client, names)
    say(f"the floor: {models} Deployments and {2 * models} Services")
    begun = asyncio.get_running_loop().time()
    making = asyncio.create_task(client.create_all(fleet.bare(models, names)))
    ready = await fleet.all_ready(client, "/api/v1/pods", models, selector=fleet.OF_MODELS) - begun
    await making
    table.add("floor: all pods Ready, no operator", f"{ready:.1f} s", "", "floor 50 s")
    return ready


async def _control(table: Table, bench: Bench, floor: float) -> None:
    leader = await bench.start("first")
    try:
        await leader.idle()
        await _create(table, bench, leader, floor)
        await change.measure(table, bench)
        await fleet.all_ready(bench.client, fleet.models_path(), bench.models, fleet.at_rest)
        await leader.idle()
        leader = await restart.succeed(table, bench, leader, "second", signal.SIGTERM, "2 s", _OFTEN)
        await _steady(table, bench, leader)
        leader = await restart.succeed(table, bench, leader, "third", signal.SIGKILL, "12 s")
    finally:
        leader.process.end()


async def _create(table: Table, bench: Bench, replica: operators.Replica, floor: float) -> None:
    say(f"{bench.models} ModelDeployments")
    bench.audit.skip()
    begun = asyncio.get_running_loop().time()
    making = asyncio.create_task(bench.client.create_all(fleet.models(bench.models, bench.names)))
    ready = await fleet.all_ready(bench.client, fleet.models_path(), bench.models) - begun
    await making
    await replica.idle()
    cpu, peak = cpu_seconds(replica.process.pid), peak_megabytes(replica.process.pid)
    counts, progress = bench.audit.read(), await replica.progress()
    scrape = await scrape_cost.measure(bench.models // len(bench.names))
    table.add("all Ready", f"{ready:.1f} s", f"{1.5 * floor:.0f} s (1.5x the floor)", "124 s, 123 s")
    table.add("all Ready / the floor", f"{ready / floor:.2f}", "1.5", "2.5, 2.5")
    table.add("operator CPU, from its start to rest", f"{cpu:.1f} s", "25 s", "55 s, 24 s")
    said = f"{progress['scrapes']} x {scrape * 1e6:.0f} us = {progress['scrapes'] * scrape:.1f} s"
    table.add("scrapes by then, and the CPU that they would add with real routers", said)
    table.add("operator peak memory", f"{peak:.0f} MB", "150 MB", "164 MB, 171 MB")
    table.add("requests a model", f"{counts.all() / bench.models:.2f}", "8", "38.1, 10.3")
    table.add("requests by verb", counts.by_verb())
    table.add("reconciles", f"{progress['reconciles']}")
    table.notes.append(f"Requests until all were Ready: {counts.by_request()}.")


async def _steady(table: Table, bench: Bench, replica: operators.Replica) -> None:
    say(f"steady state over {bench.steady_seconds} s, a sweep every {_SWEEP_SECONDS} s")
    bench.audit.read()
    before, begun = cpu_seconds(replica.process.pid), (await replica.progress())["reconciles"]
    await asyncio.sleep(bench.steady_seconds)
    counts, ended = bench.audit.read(), (await replica.progress())["reconciles"]
    cpu = (cpu_seconds(replica.process.pid) - before) / bench.steady_seconds
    what = f"steady, {bench.steady_seconds} s with a sweep every {_SWEEP_SECONDS} s"
    table.add(f"{what}: writes but the Lease; events", f"{counts.writes()}; {counts.events()}", "0; 0", "0, 0")
    table.add(f"{what}: reads", str(counts.reads()))
    table.add(f"{what}: operator CPU, reconciles", f"{cpu:.1%} of a core, {ended - begun}")
    table.add(f"{what}: operator peak memory", f"{peak_megabytes(replica.process.pid):.0f} MB", "150 MB", "164 MB, 171 MB")
    table.notes.append(f"Reads of the steady state: {counts.by_request()}.")
