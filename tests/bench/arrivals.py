"""Requests that come by chance, at a rate that may change, whether the ones before are answered or not; what became of them."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from tests.bench.client import Object
from tests.bench.installed import INFER, Installed, model_path
from tests.e2e import models

# One request at a time, a wait rather than CPU, and long beside what a busy machine adds: a few pods queue on any machine.
SERVICE_SECONDS = 0.2
LATENCY_SECONDS = 1.0
_TIMEOUT_SECONDS = 10
_SOURCE = """import time


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def predict(self, inputs):
        if inputs["x"].any():
            end = time.thread_time() + {burns}
            while time.thread_time() < end:
                pass
            time.sleep({waits})
        return {{"y": inputs["x"]}}
"""


@dataclass(frozen=True)
class Answer:
    """One request: when it began (seconds since the load did), how long it took, and its status, 0 where none came."""

    begun: float
    seconds: float
    status: int

    @property
    def good(self) -> bool:
        """Tell whether it was answered within the objective."""
        return self.status == 200 and self.seconds <= LATENCY_SECONDS


def p95_ms(answers: Sequence[Answer]) -> float:
    """Answer the 95th percentile of those that were answered, NaN without any."""
    took = sorted(answer.seconds * 1000 for answer in answers if answer.status == 200)
    return took[max(math.ceil(0.95 * len(took)) - 1, 0)] if took else math.nan


async def serve(
    slipway: Installed, namespace: str, name: str, scaling: dict[str, Any], burns: float = 0.0, cpu: str = "20m"
) -> None:
    """Apply a model whose requests are waits, but for the seconds of CPU that they burn, and wait until it is ready."""
    data = {"model.py": _SOURCE.format(burns=burns, waits=SERVICE_SECONDS - burns)}
    source: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "waits"}, "data": data}
    await slipway.client.apply(f"/api/v1/namespaces/{namespace}/configmaps/waits", source)
    spec = models.spec(1)
    spec |= {
        "model": {"uri": "configmap://waits/model.py", "format": "Python", "version": "1"},
        "server": {"resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}, "batching": {"maxSize": 1}, "workers": 1},
        "scaling": scaling,
        "routing": {"timeout": f"{_TIMEOUT_SECONDS}s"},
    }
    head: dict[str, Any] = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}}
    await slipway.client.apply(model_path(namespace, name), {**head, "spec": spec})
    async for _, obj in slipway.client.watch(model_path(namespace), initial=True):
        if obj["metadata"]["name"] == name and obj.get("status", {}).get("phase") == "Ready":
            return


async def send(
    slipway: Installed, namespace: str, name: str, rate: Callable[[float], float], seconds: float, seed: int
) -> list[Answer]:
    """Send requests for so long; `rate` answers how many a second, given the seconds since the beginning."""
    service = await slipway.client.get(f"/api/v1/namespaces/{namespace}/services/{name}")
    url = f"http://{service['spec']['clusterIP']}{INFER.format(name=name)}"
    headers = {"Host": f"{name}.{namespace}", "Content-Type": "application/json"}
    answers: list[Answer] = []
    chance, began = random.Random(seed), time.perf_counter()  # noqa: S311 - arrivals, not secrets

    async def ask(session: aiohttp.ClientSession) -> None:
        begun = time.perf_counter()
        try:
            async with session.post(url, data=models.BODY) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        answers.append(Answer(begun - began, time.perf_counter() - begun, status))

    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS + 5)
    async with (
        aiohttp.ClientSession(headers=headers, connector=connector, timeout=patience) as session,
        asyncio.TaskGroup() as group,
    ):
        due = 0.0
        while due < seconds:
            group.create_task(ask(session))
            due += chance.expovariate(max(rate(due), 0.01))
            await asyncio.sleep(max(began + due - time.perf_counter(), 0.0))
    return answers
