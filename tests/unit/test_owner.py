"""Nothing is made for a ModelDeployment that may be gone, or that is not as we have it: it is read anew before."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from slipway.kube.converge import Converger
from slipway.kube.diff import mark
from slipway.kube.kinds import MODEL_DEPLOYMENT, SERVICE
from slipway.kube.owner import Owner, StaleError
from slipway.kube.store import Object, Store
from slipway.manifests import children, model
from slipway.model import Identity


def deployment(uid: str = "u", version: int = 5) -> Object:
    metadata = {"name": "m", "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    head = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind}
    return {**head, "metadata": metadata, "status": {"observedGeneration": 1}}


def child(name: str) -> Object:
    return model.build_endpoints_service("m", "ns", "u", name, 8080)


class Server:
    """What an API server has of one ModelDeployment, at the version of its list. It takes every apply."""

    def __init__(self, there: Object | None, version: int = 9) -> None:
        self.there, self.version, self.lists, self.applied = there, version, 0, list[Object]()

    async def list(self, kind: object, namespace: str, fields: str) -> AsyncIterator[tuple[list[Object], str]]:
        assert (kind, namespace, fields) == (MODEL_DEPLOYMENT, "ns", "metadata.name=m")
        self.lists += 1
        yield [self.there] if self.there is not None else [], str(self.version)

    async def apply(self, obj: Object, **_: object) -> Object:
        self.applied.append(obj)
        return {**obj, "metadata": {**obj["metadata"], "uid": obj["metadata"]["name"], "resourceVersion": str(self.version)}}


class World:
    """A store that holds a ModelDeployment, and the server."""

    def __init__(self, there: Object | None, version: int = 9) -> None:
        self.server, self.store = Server(there, version), Store()
        self.store.put(deployment())
        self.api: Any = self.server
        self.converger, self.owner = Converger(self.api, self.store), Owner(self.api, self.store, deployment())

    def held(self) -> Object | None:
        return self.store.get(MODEL_DEPLOYMENT, "ns", "m")


async def test_it_is_read_once_before_anything_is_made_and_not_for_what_is_there() -> None:
    world = World(deployment())
    for name in ("m-a", "m-b"):
        assert await world.converger.apply(child(name), world.owner) is None
    assert (world.server.lists, len(world.server.applied)) == (1, 2)
    later = Owner(world.api, world.store, deployment())
    assert await world.converger.apply(child("m-a"), later) is None
    assert (world.server.lists, len(world.server.applied)) == (1, 2)


async def test_for_what_has_neither_status_nor_children_nothing_is_read() -> None:
    world = World(None)
    new = {name: value for name, value in deployment().items() if name != "status"}
    owner = Owner(world.api, world.store, new)
    for name in ("m-a", "m-b"):
        assert await world.converger.apply(child(name), owner) is None
    assert (world.server.lists, len(world.server.applied)) == (0, 2)
    with pytest.raises(StaleError):
        await world.converger.apply(child("m-c"), Owner(world.api, world.store, new))


@pytest.mark.parametrize(
    "there", [None, deployment("another", 8), deployment(version=7)], ids=["gone", "gone and made anew", "changed"]
)
async def test_for_what_is_gone_or_has_changed_nothing_is_made(there: Object | None) -> None:
    world = World(there)
    with pytest.raises(StaleError):
        await world.converger.apply(child("m-a"), world.owner)
    assert world.server.applied == []
    assert world.held() == there
    assert not world.store.put(deployment()), "what its own watch still says of it is old"


async def test_what_changed_while_it_was_read_is_as_stale() -> None:
    world = World(deployment())
    world.store.put(deployment(version=6))
    with pytest.raises(StaleError):
        await world.converger.apply(child("m-a"), world.owner)


async def test_a_list_from_before_it_was_made_says_nothing_of_it() -> None:
    world = World(None, version=4)
    await world.owner.confirm()
    assert world.held() == deployment()


async def test_a_child_without_an_owner_gets_none_that_is_gone() -> None:
    world = World(None)
    made = mark(child("m-a"))
    orphan = {**made, "metadata": {**made["metadata"], "uid": "s", "resourceVersion": "6", "ownerReferences": []}}
    (owned,) = children.adopted(Identity("m", "ns", "u"), [orphan])
    world.store.put(orphan)
    with pytest.raises(StaleError):
        await world.converger.adopt([owned], world.owner)
    assert world.server.applied == []
    assert world.store.get(SERVICE, "ns", "m-a") == orphan
