"""(c) How long a user waits: apply to the first good answer, and a weight written to the weight live in every router."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.bench.client import Object
from tests.bench.installed import INFER, LOCAL_ONLY, Installed, installed, model_path, serves
from tests.bench.processes import load_average
from tests.bench.table import Table, say, spread
from tests.e2e import models

from slipway.core import routing
from slipway.manifests.router import NAME, STATE_KEY
from slipway.meter import scrape
from slipway.meter.statistics import Statistics

_POLL_SECONDS = 0.02


async def run(applies: int, switches: int) -> Table:
    """Measure both."""
    table = Table("latency: what a user waits for")
    table.notes += [LOCAL_ONLY, f"Load average of the machine before the run: {load_average()}."]
    async with installed("slipway-bench-latency") as slipway:
        first: list[float] = []
        later: list[float] = []
        for number in range(applies):
            namespace = await slipway.make_namespace(f"bench-{number}")
            first.append(await _first_answer(slipway, namespace, "churn"))
            later.append(await _first_answer(slipway, namespace, "price"))
        table.add("apply -> first good answer, a namespace with routers", spread(later), "5 s")
        table.add("apply -> first good answer, a namespace's first model (its routers start too)", spread(first), "5 s")
        await _switches(table, slipway, "bench-0", "churn", switches)
    return table


async def _first_answer(slipway: Installed, namespace: str, name: str) -> float:
    """Apply a ModelDeployment and ask for it at the Service's address until an answer is good. Answer the seconds."""
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=1.0)
    headers = {"Host": f"{name}.{namespace}", "Content-Type": "application/json"}
    begun = loop.time()
    await slipway.apply(namespace, name)
    url = ""
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        while True:
            asked = loop.time()
            if not url:
                found = [obj for obj in await slipway.items(namespace, "services") if obj["metadata"]["name"] == name]
                url = f"http://{found[0]['spec']['clusterIP']}{INFER.format(name=name)}" if found else ""
            elif await _good(session, url):
                say(f"{namespace}/{name}: {loop.time() - begun:.1f} s")
                return loop.time() - begun
            await asyncio.sleep(max(0.0, _POLL_SECONDS - (loop.time() - asked)))


async def _good(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.post(url, data=models.BODY) as answer:
            return answer.status == 200 and (await answer.json())["outputs"][0]["data"] == models.answer(1)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


@dataclass
class Switch:
    """One change of version, as it is seen; times are the event loop's."""

    revision: str = ""
    version: int = 0
    written: float = 0.0
    live: float = 0.0
    told: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)


async def _switches(table: Table, slipway: Installed, namespace: str, name: str, count: int) -> None:
    live: list[float] = []
    told: list[float] = []
    for number in range(count):
        switch = Switch(revision=await slipway.serve(namespace, name, 1 + number % 2))
        watching = [
            asyncio.create_task(part)
            for part in (_routes(slipway, namespace, name, switch), _status(slipway, namespace, name, switch))
        ]
        await slipway.apply(namespace, name, 1 + (number + 1) % 2)
        async with asyncio.timeout(120):
            await switch.done.wait()
        for task in watching:
            task.cancel()
        live.append(switch.live - switch.written)
        told.append(switch.told - switch.written)
        say(f"switch {number + 1} of {count}: {live[-1]:.2f} s, in status after {told[-1]:.2f} s")
    table.add("weight written -> live in every router (asked of each, every 20 ms)", spread(live), "1 s")
    table.add("weight written -> RoutesLive in status", spread(told), "1 s")


async def _routes(slipway: Installed, namespace: str, name: str, switch: Switch) -> None:
    """See the new revision's weight in the ConfigMap, then ask the routers until all of them do it."""
    loop = asyncio.get_running_loop()
    async for _, obj in slipway.client.watch(f"/api/v1/namespaces/{namespace}/configmaps", initial=True):
        if obj["metadata"]["name"] != NAME:
            continue
        route = routing.load(obj["data"][STATE_KEY]).routes.get(name)
        if route is not None and route.wanted.positive and switch.revision not in route.wanted.positive:
            switch.written, switch.version = loop.time(), route.version
            break
    pods: list[Any] = [(pod["metadata"]["name"], pod["status"]["podIP"]) for pod in await slipway.routers(namespace)]
    async with aiohttp.ClientSession() as session:
        while True:
            seen = await asyncio.gather(*(scrape.scrape(session, pod, address, True, Statistics()) for pod, address in pods))
            if all(router.route_version >= switch.version for router, _ in seen):
                break
            await asyncio.sleep(_POLL_SECONDS)
    switch.live = loop.time()
    if switch.told:
        switch.done.set()


async def _status(slipway: Installed, namespace: str, name: str, switch: Switch) -> None:
    """See the status say that the new revision has all requests in every router."""
    async for _, obj in slipway.client.watch(model_path(namespace), initial=True):
        if obj["metadata"]["name"] == name and serves(obj) and _live(obj) and _serving(obj) != switch.revision:
            switch.told = asyncio.get_running_loop().time()
            break
    if switch.live:
        switch.done.set()


def _serving(obj: Object) -> str:
    return obj["status"]["stable"]["revision"]


def _live(obj: Object) -> bool:
    return any(c["type"] == "RoutesLive" and c["status"] == "True" for c in obj["status"]["conditions"])
