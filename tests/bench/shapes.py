"""Loads that change, on the real cluster: a step, a spike, a ramp, a day in ten minutes; Slipway beside an HPA."""

import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.arrivals import LATENCY_SECONDS, SERVICE_SECONDS, Answer, p95_ms, send, serve
from tests.bench.client import Object
from tests.bench.installed import LOCAL_ONLY, Installed, installed, model_path
from tests.bench.processes import load_average
from tests.bench.table import Sheet, say
from tests.e2e.cluster import Cluster
from tests.e2e.metrics_server import MetricsServer

_CLUSTER, _MAX = "slipway-bench-shapes", 8
# What a request burns of its service time, so that the CPU tells of requests; a pod at full load uses what it asks for.
_BURNS_SECONDS, _CPU_REQUEST, _CPU_PERCENT = 0.01, "60m", 60
# Before each load, so slow that no request waits for another: how long one takes is known then.
_LEAD_SECONDS, _LEAD_RATE = 40, 1.0
_WINDOW_SECONDS, _TOLD_SECONDS = 10, 30
SLIPWAY, HPA = "Slipway, p95", "HPA, CPU"


@dataclass(frozen=True)
class Shape:
    """Requests a second by the second, for so long; what changes at once does so at `change`."""

    seconds: int
    rate: Callable[[float], float]
    change: float | None = None


SHAPES = {
    "step": Shape(180, lambda at: 3 if at < 60 else 15, 60),
    "spike": Shape(180, lambda at: 20 if 60 <= at < 80 else 4, 60),
    "ramp": Shape(210, lambda at: 2 + 18 * min(max(at - 30, 0) / 150, 1)),
    "day": Shape(600, lambda at: 10 - 8 * math.cos(2 * math.pi * at / 600)),
}


@dataclass(frozen=True)
class Seen:
    """What callers of one model got, and its pods, each second: when (seconds since the load began), how many."""

    answers: Sequence[Answer]
    pods: Sequence[tuple[float, int]]

    def pods_on_average(self) -> float:
        """Answer the time-weighted mean."""
        spans = [(after - at) * count for (at, count), (after, _) in itertools.pairwise(self.pods)]
        return sum(spans) / (self.pods[-1][0] - self.pods[0][0])

    def within(self, begin: float, end: float) -> list[Answer]:
        """Answer what became of the requests that began then."""
        return [answer for answer in self.answers if begin <= answer.begun < end]

    def recovered(self, shape: Shape) -> str:
        """Answer after how many seconds the objective was kept for good, window by window."""
        if shape.change is None:
            return ""
        bad = 0.0
        for begin in range(int(shape.change), shape.seconds, _WINDOW_SECONDS):
            here = self.within(begin, begin + _WINDOW_SECONDS)
            if sum(not answer.good for answer in here) > 0.05 * len(here):
                bad = begin + _WINDOW_SECONDS - shape.change
        return f"{bad:.0f} s" if bad < shape.seconds - shape.change else "never"


async def run(names: Sequence[str]) -> list[Sheet]:
    """Send each shape to both at once."""
    notes = [
        f"Pods answer one request at a time: {SERVICE_SECONDS * 1000:.0f} ms, of which {_BURNS_SECONDS * 1000:.0f} are CPU; the "
        f"objective is a p95 of {LATENCY_SECONDS * 1000:.0f} ms on 1 to {_MAX} pods. The HPA keeps {_CPU_PERCENT}% of the "
        f"{_CPU_REQUEST} that a pod asks for, which is what it uses at its full 5 requests/s; all else is as Kubernetes has it, "
        f"its figures are metrics-server's. Both get the same arrivals at once, after {_LEAD_SECONDS} s of {_LEAD_RATE:g}/s.",
        f"Over: answered later than the objective, refused or failed. Recovered: since the load rose, until no window of "
        f"{_WINDOW_SECONDS} s had more than 5% over any more.",
        LOCAL_ONLY,
        f"Load average of the machine before the run: {load_average()}.",
    ]
    rows: list[Sequence[str]] = [("load", "replicas by", "over", "refused", "failed", "p95", "recovered", "pods: mean", "most")]
    times: list[Sequence[str]] = []
    async with installed(_CLUSTER) as slipway:
        with tempfile.TemporaryDirectory() as folder:
            MetricsServer(Cluster(_CLUSTER, slipway.images), Path(folder)).install()
        for name in names:
            shape = SHAPES[name]
            for by, seen in (await _both(slipway, name, shape)).items():
                rows.append(_row(name, by, shape, seen))
                say(" | ".join(rows[-1]))
                times += _over_time(name, by, shape, seen)
    longest = max(map(len, times))
    head = ("load", "replicas by", f"each {_TOLD_SECONDS} s", *(str(number * _TOLD_SECONDS) for number in range(longest - 3)))
    series: list[Sequence[str]] = [head, *((*row, *[""] * (longest - len(row))) for row in times)]
    return [Sheet("shapes: loads that change, on real pods", rows, notes), Sheet("shapes: over time", series, [])]


async def _both(slipway: Installed, name: str, shape: Shape) -> dict[str, Seen]:
    namespace = await slipway.make_namespace(f"bench-{name}")
    objective = {"min": 1, "max": _MAX, "objective": {"latency": f"{LATENCY_SECONDS * 1000:.0f}ms"}}
    models = {SLIPWAY: ("own", objective), HPA: ("hpa", {})}
    for model, scaling in models.values():
        await serve(slipway, namespace, model, scaling, _BURNS_SECONDS, _CPU_REQUEST)
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/hpa"
    await slipway.client.apply(path, _autoscaler("hpa"))
    seen = await asyncio.gather(*(_watched(slipway, namespace, model, shape) for model, _ in models.values()))
    await slipway.client.delete(f"/api/v1/namespaces/{namespace}")
    return dict(zip(models, seen, strict=True))


async def _watched(slipway: Installed, namespace: str, model: str, shape: Shape) -> Seen:
    pods: list[tuple[float, int]] = []
    began = time.perf_counter()

    async def count() -> None:
        while True:
            obj = await slipway.client.get(model_path(namespace, model))
            pods.append((time.perf_counter() - began - _LEAD_SECONDS, obj["status"].get("replicas", 0)))
            await asyncio.sleep(1)

    counting = asyncio.create_task(count())

    def rate(at: float) -> float:
        return shape.rate(at - _LEAD_SECONDS) if at >= _LEAD_SECONDS else _LEAD_RATE

    answers = await send(slipway, namespace, model, rate, _LEAD_SECONDS + shape.seconds, seed=1)
    counting.cancel()
    shifted = [Answer(answer.begun - _LEAD_SECONDS, answer.seconds, answer.status) for answer in answers]
    return Seen([each for each in shifted if each.begun >= 0], [each for each in pods if each[0] >= 0])


def _autoscaler(model: str) -> Object:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_PERCENT}}}
    target = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": model}
    spec: dict[str, Any] = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": _MAX, "metrics": [cpu]}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": model}, "spec": spec}


def _row(name: str, by: str, shape: Shape, seen: Seen) -> Sequence[str]:
    def share(counts: Callable[[Answer], bool]) -> str:
        return f"{sum(map(counts, seen.answers)) / len(seen.answers):.1%}"

    return (
        name,
        by,
        share(lambda answer: not answer.good),
        share(lambda answer: answer.status == 429),
        share(lambda answer: answer.status not in (200, 429)),
        f"{p95_ms(seen.answers):,.0f} ms",
        seen.recovered(shape),
        f"{seen.pods_on_average():.1f}",
        str(max(count for _, count in seen.pods)),
    )


def _over_time(name: str, by: str, shape: Shape, seen: Seen) -> list[Sequence[str]]:
    begins = range(0, shape.seconds, _TOLD_SECONDS)
    pods = [str(next(count for at, count in reversed(seen.pods) if at <= begin + 1)) for begin in begins]
    p95 = [f"{p95_ms(seen.within(begin, begin + _TOLD_SECONDS)):,.0f}" for begin in begins]
    return [(name, by, "pods", *pods), (name, by, "p95, ms", *p95)]
