"""What pods use of the CPU: read of the metrics API, of the pods that are ready, by what they request."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from slipway.core.scaling.memory import Cpu
from slipway.kube.api import ApiError
from slipway.kube.kinds import Kind
from slipway.kube.store import Store
from slipway.manifests import labels
from slipway.usage import STALE_SECONDS, Usage

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = ("ns", "m")


class Metrics:
    """The metrics API: pods' figures, or an error."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []
        self.answered = asyncio.Event()

    async def list(self, kind: Kind, namespace: str, selector: str) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        self.asked.append((kind.path(namespace), selector))
        self.answered.set()
        if self.error is not None:
            raise self.error
        yield self.items, ""

    def put(self, pod: str, millicores: int, ago: float = 5.0, **others: int) -> None:
        cores = {"server": millicores, **others}
        used = [{"name": name, "usage": {"cpu": f"{each * 1_000_000}n", "memory": "1Mi"}} for name, each in cores.items()]
        at = (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.items.append({"metadata": {"name": pod}, "timestamp": at, "window": "15.2s", "containers": used})


def stamp(ago: float) -> str:
    return (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


class World:
    """A store with one ModelDeployment, and its Usage."""

    def __init__(self, request: str = "200m") -> None:
        self.store, self.metrics = Store(), Metrics()
        spec: dict[str, Any] = {"scaling": {"objective": {"cpu": "70%"}}}
        self._put("slipway.dev/v1alpha1", "ModelDeployment", "m", spec=spec)
        server = {"name": "server", "resources": {"requests": {"cpu": request} if request else {}}}
        spec = {"replicas": 1, "template": {"spec": {"containers": [server]}}}
        self._put("apps/v1", "Deployment", "m-a", spec=spec)
        self.usage = Usage(cast("Any", self.metrics), self.store)

    def pod(self, name: str, ready: bool = True, ago: float = 600.0) -> None:
        condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": stamp(ago)}
        self._put("v1", "Pod", name, status={"conditions": [condition]})

    def _put(self, api_version: str, kind: str, name: str, **rest: Any) -> None:
        metadata = {"name": name, "namespace": "ns", "uid": f"{kind}-{name}", "resourceVersion": "1"}
        self.store.put(
            {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, "labels": labels.model_labels("m", "m-a")}, **rest}
        )

    def asked(self) -> Cpu:
        """Ask once, and answer what is known then."""

        async def once() -> None:
            task = asyncio.create_task(self.usage.run())
            await self.metrics.answered.wait()
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(once())
        return self.usage.of(KEY, NOW)


def test_use_is_in_requests_of_one_pod() -> None:
    world = World()
    for name, used in (("one", 300), ("two", 100)):
        world.pod(name)
        world.metrics.put(name, used, sidecar=500)
    found = world.asked()
    assert (found.used, found.unknown, found.missing) == (pytest.approx(2.0), 0, "")
    assert world.metrics.asked[0] == (
        "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods",
        "app.kubernetes.io/managed-by=slipway,app.kubernetes.io/component=model",
    )


def test_what_is_old_or_of_a_time_before_the_pod_was_ready_is_not_known() -> None:
    world = World()
    world.pod("old")
    world.metrics.put("old", 200, ago=STALE_SECONDS + 1)
    world.pod("loaded", ago=15)
    world.metrics.put("loaded", 200, ago=5)  # of 15 s, five of them before it was ready
    world.pod("new")
    world.pod("starting", ready=False)
    world.metrics.put("starting", 200)
    found = world.asked()
    assert (found.used, found.unknown) == (0.0, 3)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiError(404, "NotFound", "no such resource"), "install metrics-server"),
        (ApiError(403, "Forbidden", "cannot list"), "may not list pods.metrics.k8s.io"),
        (ApiError(503, "ServiceUnavailable", "no endpoints"), "does metrics-server run?"),
        (ApiError(500, "InternalError", "out of order"), "out of order"),
        (TimeoutError(), "does not answer"),
    ],
)
def test_without_the_metrics_api_it_says_why(error: Exception, says: str) -> None:
    world = World()
    world.pod("one")
    world.metrics.error = error
    assert says in world.asked().missing


def test_pods_that_request_no_cpu_have_no_share_of_it() -> None:
    world = World(request="")
    world.pod("one")
    world.metrics.put("one", 100)
    assert "server.resources.requests.cpu" in world.asked().missing
