"""Requests are no longer held for a first pod once there has been one for a while, of a Deployment that is asked to have one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slipway.core.routing import Route, RouterState, Wanted, load
from slipway.kube.converge import Converger
from slipway.kube.kinds import CONFIG_MAP
from slipway.kube.store import Store
from slipway.manifests import labels, router
from slipway.meter.meter import Meter
from slipway.queue import WorkQueue
from slipway.routers import AWAKE_SECONDS, Routers
from slipway.settings import Settings

Object = dict[str, Any]
SETTINGS = Settings(server_image="server", router_image="router")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """The routers of a namespace that hold requests of a model, which is to have a pod for ever from now on."""

    def __init__(self) -> None:
        self.store, self.version, self.now = Store(), 0, BEGAN
        api: Any = self
        meter = Meter(lambda _: [], lambda *_: None, lambda _: False, lambda *_: 30.0)
        self.routers = Routers(api, self.store, Converger(api, self.store), meter, WorkQueue(), SETTINGS, lambda: self.now)
        wanted = Wanted({"m-a": 100}, {"m-a": 8080}, (), 30.0, hold=True)
        self.store.put(self.stored(router.build_config("ns", RouterState(7, {"m": Route(wanted, 7)}), SETTINGS)))
        spec = {"model": {"format": "ONNX", "uri": "http://x/m.onnx"}, "scaling": {"min": 1}}
        status = {"stable": {"revision": "m-a", "weight": 100, "ready": 1}}  # as it was while somebody led
        found = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "spec": spec, "status": status}
        self.put({**found, "metadata": {"name": "m", "generation": 1, "creationTimestamp": "x"}})

    async def apply(self, obj: Object, **_: object) -> Object:
        return self.stored(obj)

    def stored(self, obj: Object) -> Object:
        self.version += 1
        uid = f"{obj['kind']}-{obj['metadata']['name']}"
        return {**obj, "metadata": {**obj["metadata"], "namespace": "ns", "uid": uid, "resourceVersion": str(self.version)}}

    def put(self, obj: Object) -> None:
        self.store.put(self.stored(obj))

    def deployment(self, replicas: int) -> None:
        found = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": replicas}}
        self.put({**found, "metadata": {"name": "m-a", "labels": {labels.MODEL_LABEL: "m", labels.REVISION_LABEL: "m-a"}}})

    def pod(self, *, ready: bool) -> None:
        found = {"apiVersion": "v1", "kind": "Pod", "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}
        self.put({**found, "metadata": {"name": "m-a-1", "labels": {labels.MODEL_LABEL: "m", labels.REVISION_LABEL: "m-a"}}})

    async def holds(self, seconds: float = 0.0) -> bool:
        """Have the routers reconciled after so long. Answer whether they hold requests then."""
        self.now += timedelta(seconds=seconds)
        await self.routers.reconcile("ns")
        config = self.store.get(CONFIG_MAP, "ns", router.NAME)
        assert config is not None
        return load(config["data"][router.STATE_KEY]).routes["m"].wanted.hold


async def test_they_are_held_until_there_has_been_a_pod_for_a_while() -> None:
    world = World()
    world.deployment(1)
    world.pod(ready=False)
    assert await world.holds()
    assert await world.holds(60)
    world.pod(ready=True)
    assert await world.holds()
    assert await world.holds(AWAKE_SECONDS - 0.1)
    assert not await world.holds(0.1)
    world.pod(ready=False)
    assert not await world.holds(), "with a least number of pods nobody waits for a first one again"


async def test_a_pod_that_went_meanwhile_was_none() -> None:
    world = World()
    world.deployment(1)
    for ready in (True, False, True):
        world.pod(ready=ready)
        assert await world.holds(AWAKE_SECONDS - 0.1)
    assert not await world.holds(AWAKE_SECONDS)


@pytest.mark.parametrize("deployed", [True, False])
async def test_a_pod_that_its_deployment_no_longer_wants_is_none(deployed: bool) -> None:
    """The leader fell asleep for good amid it: status tells of a ready pod, and nobody has removed it yet."""
    world = World()
    if deployed:
        world.deployment(0)
    world.pod(ready=True)
    assert await world.holds()
    assert await world.holds(60)
    world.deployment(1)
    assert await world.holds()
    assert not await world.holds(AWAKE_SECONDS)
