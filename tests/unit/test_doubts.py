"""What may be gone without our having been told is left alone until that is known."""

from typing import Any, cast

import pytest

from slipway.kube.doubts import Doubts
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Object, Store


def model(name: str, version: int = 1) -> Object:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind, "metadata": metadata}


class World:
    """A store, and what an API server would list."""

    def __init__(self, *names: str) -> None:
        self.store, self.listed, self.lists, self.told = Store(), list(names), 0, list[str]()
        for name in names:
            self.store.put(model(name))
        self.doubts = Doubts(self.store, [cast("Any", self)], lambda obj: self.told.append(obj["metadata"]["name"]))

    async def sweep(self) -> str:
        """Stand for an informer's."""
        self.lists += 1
        for name in self.listed:
            self.store.put(model(name))
        self.store.prune(MODEL_DEPLOYMENT, None, {f"uid-{name}" for name in self.listed})
        return "1"

    def about(self, *names: str) -> list[bool]:
        return [self.doubts.about("ns", name) for name in names]


async def test_what_kopf_has_not_told_of_is_in_doubt() -> None:
    world = World("a", "b")
    assert world.about("a", "b", "", "other") == [True, True, False, False]
    assert world.doubts.heard(model("a"))
    assert not world.doubts.heard(model("a")), "once"
    assert world.about("a", "b") == [False, True]
    await world.doubts.settle()
    assert world.about("a", "b") == [False, True], "it is listed, and may go before kopf lists"
    world.listed.remove("b")
    await world.doubts.settle()
    assert world.store.get(MODEL_DEPLOYMENT, "ns", "b") is None
    world.store.put(model("new"))
    assert world.about("a", "new") == [False, False], "kopf watches by now"


async def test_what_comes_while_kopf_begins_is_in_doubt_too() -> None:
    world = World("a")
    world.listed.append("b")
    await world.doubts.settle()
    assert world.about("a", "b") == [True, True]
    for name in "ab":
        assert world.doubts.heard(model(name))
    assert world.about("a", "b") == [False, False]
    await world.doubts.settle()
    assert world.lists == 1


@pytest.mark.parametrize("gone", [True, False])
async def test_what_a_write_did_not_find(gone: bool) -> None:
    world = World("a", "b")
    for name in "ab":
        world.doubts.heard(model(name))
    await world.doubts.settle()
    assert world.lists == 0, "nothing is in doubt"
    world.doubts.missed("ns", "b")
    world.doubts.missed("ns", "unknown")
    assert world.about("a", "b") == [False, True]
    if gone:
        world.listed.remove("b")
    await world.doubts.settle()
    assert world.about("a", "b") == [False, False]
    assert (world.store.get(MODEL_DEPLOYMENT, "ns", "b") is None) == gone
    assert world.told == ([] if gone else ["b"]), "what is there after all is looked at again"
