"""What a request for a model without pods waits for beside the pod's own start: the way there, the release, the way back."""

import asyncio
from dataclasses import dataclass

import aiohttp
from tests.bench.client import Object
from tests.bench.installed import INFER, LOCAL_ONLY, Installed, installed, model_path
from tests.bench.processes import load_average
from tests.bench.table import Table, say, spread
from tests.e2e import models
from tests.e2e.waiting import is_ready

_NAME, _IDLE_SECONDS = "churn", 5


@dataclass
class Wake:
    """One request and the pod that it woke; times are the event loop's."""

    asked: float = 0.0
    made: float = 0.0
    ready: float = 0.0
    answered: float = 0.0

    @property
    def added(self) -> float:
        """Answer the seconds beside the pod's own start."""
        return self.answered - self.asked - (self.ready - self.made)


async def run(rounds: int) -> Table:
    """Wake a model so often."""
    table = Table("zero: a request for a model without pods")
    table.notes += [LOCAL_ONLY, f"Load average of the machine before the run: {load_average()}."]
    table.notes.append("A pod is made and ready when a watch of pods tells so.")
    async with installed("slipway-bench-zero") as slipway:
        namespace = await slipway.make_namespace("bench")
        scaling = {"min": 0, "idleAfter": f"{_IDLE_SECONDS}s"}
        head: Object = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": _NAME}}
        await slipway.client.apply(model_path(namespace, _NAME), {**head, "spec": {**models.spec(), "scaling": scaling}})
        wakes: list[Wake] = []
        for number in range(rounds):
            await _asleep(slipway, namespace)
            wakes.append(await _wake(slipway, namespace))
            say(f"wake {number + 1} of {rounds}: {wakes[-1].added * 1000:.0f} ms beside the pod's own start")
        added = spread([wake.added for wake in wakes], "ms", 1000)
        table.add("request -> answer, less the pod's own time from made to ready", added, "300 ms")
        table.add("of that: request -> its pod is made", spread([wake.made - wake.asked for wake in wakes], "ms", 1000))
        table.add("of that: the pod is ready -> answer", spread([wake.answered - wake.ready for wake in wakes], "ms", 1000))
        table.add("the pod's own time from made to ready", spread([wake.ready - wake.made for wake in wakes]))
    return table


async def _asleep(slipway: Installed, namespace: str) -> None:
    """Wait until the model has been put to sleep and its last pod is gone."""
    async for _, obj in slipway.client.watch(model_path(namespace), initial=True):
        if obj["metadata"]["name"] == _NAME and obj.get("status", {}).get("phase") == "ScaledToZero":
            break
    selector = f"slipway.dev/model-deployment={_NAME}"
    if not await slipway.items(namespace, "pods", selector):
        return
    async for kind, _ in slipway.client.watch(f"/api/v1/namespaces/{namespace}/pods", selector, initial=True):
        if kind == "DELETED":
            return


async def _wake(slipway: Installed, namespace: str) -> Wake:
    """Ask, and see the pod come."""
    wake, loop = Wake(), asyncio.get_running_loop()
    service = await slipway.client.get(f"/api/v1/namespaces/{namespace}/services/{_NAME}")
    watching = asyncio.create_task(_watch(slipway, namespace, wake))
    headers = {"Host": f"{_NAME}.{namespace}", "Content-Type": "application/json"}
    url = f"http://{service['spec']['clusterIP']}{INFER.format(name=_NAME)}"
    async with aiohttp.ClientSession(headers=headers) as session:
        wake.asked = loop.time()
        async with session.post(url, data=models.BODY) as answer:
            said = await answer.json()
            wake.answered = loop.time()
    if said["outputs"][0]["data"] != models.answer(1):
        raise RuntimeError(f"a bad answer: {said}")
    await watching
    return wake


async def _watch(slipway: Installed, namespace: str, wake: Wake) -> None:
    loop, path = asyncio.get_running_loop(), f"/api/v1/namespaces/{namespace}/pods"
    async for _, pod in slipway.client.watch(path, f"slipway.dev/model-deployment={_NAME}", initial=True):
        wake.made = wake.made or loop.time()
        if is_ready(pod):
            wake.ready = loop.time()
            return
