"""Writes that are under way while others decide, or that come late: what they are about to change counts as not settled."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from slipway.core.plan import IMMEDIATE
from slipway.core.routing import Route, RouterState, Wanted
from slipway.core.state import State
from slipway.kube.converge import Converger
from slipway.kube.store import Store
from slipway.manifests import children, labels, router
from slipway.meter.meter import Meter
from slipway.model import Identity
from slipway.queue import WorkQueue
from slipway.routers import Routers
from slipway.settings import Settings

Object = dict[str, Any]
SETTINGS = Settings(server_image="server", router_image="router")


class SlowApi:
    """Stores what is applied once it is let."""

    def __init__(self) -> None:
        self.sent: list[Object] = []
        self.go_on = asyncio.Event()

    async def apply(self, obj: Object, **_: Any) -> Object:
        self.sent.append(obj)
        await self.go_on.wait()
        return stored(obj, 9)


def stored(obj: Object, version: int) -> Object:
    return {
        **obj,
        "metadata": {**obj["metadata"], "uid": f"{obj['kind']}-{obj['metadata']['name']}", "resourceVersion": str(version)},
    }


def model(weight: int) -> Object:
    status = {"stable": {"revision": "m-a", "weight": 100 - weight}, "candidate": {"revision": "m-b", "weight": weight}}
    found = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "spec": {"model": {"uri": "http://x/m.onnx"}}}
    metadata = {"name": "m", "namespace": "ns", "uid": "u", "resourceVersion": "3", "generation": 1, "creationTimestamp": "x"}
    return {**found, "metadata": metadata, "status": status}


def written(**weights: int) -> Object:
    routes = {"m": Route(Wanted({name.replace("_", "-"): weight for name, weight in weights.items()}, {"m-a": 1, "m-b": 1}), 7)}
    return router.build_config("ns", RouterState(7, routes), SETTINGS)


async def test_routes_that_are_being_written_are_not_settled() -> None:
    """A candidate that is withdrawn meanwhile does not drain by the routes as they were: they are about to name it."""
    api, store, queue = SlowApi(), Store(), WorkQueue()
    store.put(stored(written(m_a=100), 5))
    store.put(model(20))
    meter = Meter(lambda _: [], lambda *_: None, lambda _: False, lambda *_: 30.0)
    routers = Routers(api, store, Converger(api, store), meter, queue, SETTINGS, lambda: datetime.now(UTC))
    assert routers.seen("ns", "m").settled
    work = asyncio.create_task(routers.reconcile("ns"))
    while not api.sent:  # noqa: ASYNC110 - no time passes
        await asyncio.sleep(0)
    assert not routers.seen("ns", "m").settled
    api.go_on.set()
    await work
    assert routers.seen("ns", "m").written == {"m-a": 80, "m-b": 20}
    assert routers.seen("ns", "m").settled, "as far as routers do it, of which there are none here"


async def test_a_late_write_of_the_routes_conflicts() -> None:
    """A leader that lost its Lease decided on routes that another has written since: the API server refuses what comes late."""
    api, store = SlowApi(), Store()
    api.go_on.set()
    store.put(stored(written(m_a=100), 5))
    converger = Converger(api, store)
    await converger.apply(written(m_a=80, m_b=20))
    assert api.sent[-1]["metadata"]["resourceVersion"] == "5"
    account = router.build_service_account("ns")
    store.put(stored({**account, "automountServiceAccountToken": True}, 6))
    await converger.apply(account)
    assert "resourceVersion" not in api.sent[-1]["metadata"], "of what others write to, no version is asked for"


def test_pods_go_before_their_service() -> None:
    """Whoever takes over in between finds no pods without a Service, which would get it back to drain."""
    found = [
        {"kind": kind, "metadata": {"name": "m-old", **labels.model_metadata("m-old", "ns", "m", "u")}}
        for kind in ("Service", "Deployment")
    ]
    going = children.unwanted(Identity("m", "ns", "u"), State(), IMMEDIATE, 1, 2, children.Stored({}, tuple(found)))
    assert [obj["kind"] for obj in going] == ["Deployment", "Service"]
