"""Children that a backup restored without their owner become children again; what is another's, or nobody's, does not."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from slipway.kube.api import ApiError
from slipway.kube.converge import Converger
from slipway.kube.diff import mark
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.owner import Owner
from slipway.kube.store import Store
from slipway.manifests import children, labels, model
from slipway.model import Identity

Object = dict[str, Any]
OWNER = Identity("m", "ns", "new")
OBJECT = {
    "apiVersion": MODEL_DEPLOYMENT.api_version,
    "kind": MODEL_DEPLOYMENT.kind,
    "metadata": {"name": "m", "namespace": "ns", "uid": "new", "resourceVersion": "6"},
}


def child(*, owner: str | None = None, applied: bool = True) -> Object:
    found = model.build_endpoints_service("m", "ns", owner or "", "m-a", 8080)
    if owner is None:
        del found["metadata"]["ownerReferences"]
    found = mark(found) if applied else found
    return {**found, "metadata": {**found["metadata"], "uid": "s", "resourceVersion": "7"}}


def test_a_child_without_an_owner_gets_this_one_and_nothing_else_of_it_is_applied() -> None:
    (given,) = children.adopted(OWNER, [child()])
    assert given["metadata"] == {"name": "m-a", "namespace": "ns", "uid": "s", "ownerReferences": [labels.owner("m", "new")]}
    assert given.keys() == {"apiVersion", "kind", "metadata"}


@pytest.mark.parametrize(
    "obj",
    [child(owner="old"), child(owner="new"), child(applied=False)],
    ids=["another's", "its own already", "never applied by Slipway"],
)
def test_what_has_an_owner_or_was_not_made_by_slipway_is_left(obj: Object) -> None:
    assert not list(children.adopted(OWNER, [obj]))


class Answering:
    """Answers an apply as the API server would: with the whole object, or an error."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.error, self.managers = error, list[str]()

    async def list(self, *_: object, **__: object) -> AsyncIterator[tuple[list[Object], str]]:
        yield [OBJECT], "9"

    async def apply(self, obj: Object, *, manager: str) -> Object:
        self.managers.append(manager)
        if self.error is not None:
            raise self.error
        stored = child()
        return {**stored, "metadata": {**stored["metadata"], **obj["metadata"], "resourceVersion": "8"}}


def store_of(obj: Object) -> Store:
    store = Store()
    store.put(obj)
    return store


async def adopt(answering: Answering, store: Store) -> None:
    api, owner = cast("Any", answering), Owner(cast("Any", answering), store, OBJECT)
    await Converger(api, store).adopt(children.adopted(OWNER, store.children("ns", "m")), owner)


async def test_it_is_a_child_at_once_and_only_its_owner_is_applied_by_that_manager() -> None:
    store, api = store_of(child()), Answering()
    await adopt(api, store)
    assert all(children.owns(OWNER, obj) for obj in store.children("ns", "m"))
    await adopt(api, store)
    assert api.managers == ["slipway-owner"], "the manager of whole objects would remove all else; and once is enough"


@pytest.mark.parametrize(("status", "raises"), [(404, False), (409, False), (403, False), (500, True), (503, True)])
async def test_what_went_or_is_refused_stays_as_it_was(status: int, raises: bool) -> None:
    store = store_of(child())
    if raises:
        with pytest.raises(ApiError):
            await adopt(Answering(ApiError(status, "x", "x")), store)
    else:
        await adopt(Answering(ApiError(status, "x", "x")), store)
    assert not any(children.owns(OWNER, obj) for obj in store.children("ns", "m"))
