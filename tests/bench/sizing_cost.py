"""What it costs the operator to decide on replicas every two seconds: no cluster, the real meter's history and the real sizer."""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.bench.table import Table

from slipway.core.figures import Counters
from slipway.core.latency import EDGES_MS
from slipway.core.observation import RouterSeen
from slipway.core.scaling.memory import Cpu
from slipway.kube.store import Object, Store
from slipway.manifests import labels
from slipway.meter.meter import Meter, RouterPod
from slipway.meter.statistics import Statistics
from slipway.sizer import LOOK_SECONDS, Sizer

_MODELS, _NAMESPACES, _ROUTERS, _PODS = 1000, 20, ("r1", "r2"), 2
# The first looks fill the history; then it has its usual length.
_LOOKS, _LEFT_OUT = 200, 150
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run() -> Table:
    """Measure a thousand models with objectives on latency."""
    table = Table(f"sizing: {_MODELS:,} models in {_NAMESPACES} namespaces, {_PODS} pods each, an objective on latency")
    table.notes.append("CPU of the operator beside that of its scrapes; routers' figures are taken in before the clock begins.")
    for per_second, what in ((0.0, "nobody asks"), (5.0, "5 requests/s each")):
        seconds = measure(per_second)
        table.add(what, f"{seconds / LOOK_SECONDS:.1%} of a core ({seconds * 1000:.0f} ms a look)", "50%")
    return table


def measure(per_second: float) -> float:
    """Answer the CPU seconds of one look at all of them, each getting so many requests a second."""
    names = [(f"ns-{number % _NAMESPACES}", f"m{number}") for number in range(_MODELS)]
    store, clock, chance = Store(), [0.0], random.Random(1)  # noqa: S311 - a benchmark's load
    for namespace, name in names:
        for obj in _objects(namespace, name):
            store.put(obj)
    spaces = [f"ns-{number}" for number in range(_NAMESPACES)]
    pods = [RouterPod(space, router, "127.0.0.1", ready=True) for space in spaces for router in _ROUTERS]
    meter = Meter(
        lambda space: [pod for pod in pods if space in (None, pod.namespace)],
        lambda *_: None,
        lambda _: False,
        lambda *_: 30.0,
        lambda: clock[0],
    )
    sizer = Sizer(store, meter, lambda *_: Cpu(), lambda _: None)
    told = {(pod.namespace, pod.name): _Router([name for space, name in names if space == pod.namespace]) for pod in pods}
    spent = 0.0
    for look in range(_LOOKS):
        clock[0] += LOOK_SECONDS
        for (namespace, router), each in told.items():
            each.pass_seconds(LOOK_SECONDS, per_second / len(_ROUTERS), chance)
            space = meter._space(namespace)  # pyright: ignore[reportPrivateUsage]
            space.history.take(router, each.statistics, each.statistics.healthy if per_second else (), clock[0])
            space.answered_at[router] = clock[0]
            healthy = each.statistics.healthy
            space.seen[router] = RouterSeen(router, ready=True, answered=True, healthy=healthy, active=dict.fromkeys(healthy, 1))
        begun = time.process_time()
        sizer.look(_NOW + timedelta(seconds=clock[0]))
        spent += time.process_time() - begun if look >= _LEFT_OUT else 0.0
    return spent / (_LOOKS - _LEFT_OUT)


class _Router:
    """A router that serves models, of which it counts more and more requests of some 40 ms."""

    def __init__(self, models: list[str]) -> None:
        self.statistics = Statistics()
        self.statistics.healthy = {f"{name}-a": _PODS for name in models}
        self._buckets = {revision: dict.fromkeys(range(200, 240), 0) for revision in self.statistics.healthy}
        self._due = dict.fromkeys(self._buckets, 0.0)

    def pass_seconds(self, seconds: float, per_second: float, chance: random.Random) -> None:
        self.statistics.uptime_seconds += int(seconds)
        for revision, buckets in self._buckets.items() if per_second else ():
            self._due[revision] += per_second * seconds
            for _ in range(int(self._due[revision])):
                buckets[200 + chance.randrange(40)] += 1
            self._due[revision] %= 1
            self.statistics.counts[revision] = Counters(answered=sum(buckets.values()))
            told = (f"{EDGES_MS[bucket]:g},1:{count}" for bucket, count in buckets.items() if count)
            self.statistics.latency[revision] = ", ".join(told)


def _objects(namespace: str, name: str) -> list[Object]:
    """Answer a ModelDeployment that serves, and its pods."""
    revision, since = f"{name}-a", "2026-01-01T00:00:07Z"
    stable: dict[str, Any] = {"revision": revision, "weight": 100, "ready": _PODS, "replicas": _PODS}
    where: dict[str, Any] = {"namespace": namespace, "uid": name, "resourceVersion": "1", "generation": 1}
    spec = {
        "model": {"uri": "configmap://a/b", "format": "ONNX"},
        "scaling": {"min": 1, "max": 20, "objective": {"latency": "200ms"}},
    }
    model: Object = {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {**where, "name": name},
        "spec": spec,
        "status": {"stable": stable},
    }
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}
    made = {**where, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels.model_labels(name, revision)}
    pods: list[Object] = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**made, "name": f"{revision}-{pod}"}, "status": ready}
        for pod in range(_PODS)
    ]
    return [model, *pods]
