"""kube/ against a real API server: create-only applies, foreign objects untouched, informers that lose nothing, one leader."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes.aio import client as aio
from kubernetes.aio import config
from tests.integration.client import Client

from slipway.kube import lease as leases
from slipway.kube.api import Api, ApiError
from slipway.kube.converge import Converger
from slipway.kube.informer import Informer
from slipway.kube.kinds import CONFIG_MAP, LEASE
from slipway.kube.lease import Lease
from slipway.kube.store import Store
from slipway.manifests import labels
from slipway.probe.synthetic import config_maps


@pytest.fixture
async def api(cluster: Client) -> AsyncIterator[Api]:
    configuration = aio.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    found = Api(aio.ApiClient(configuration))
    yield found
    await found.close()


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels.router_labels()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def eventually(what: str, holds: Callable[[], Any]) -> None:
    """Wait until the informer has seen it: it fills the store between two turns of the loop."""
    deadline = asyncio.get_running_loop().time() + 20
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)


async def test_a_create_only_apply_never_touches_what_is_there(api: Api, namespace: str) -> None:
    first = await api.apply(config_map(namespace, "create-only", a="1"), create=True)
    with pytest.raises(ApiError) as refused:
        await api.apply(config_map(namespace, "create-only", a="2"), create=True)
    assert refused.value.status == 409
    assert await api.get(CONFIG_MAP, namespace, "create-only") == first


async def test_one_object_is_read_by_a_list_of_its_name(api: Api, namespace: str) -> None:
    for name in ("one", "other"):
        await api.apply(config_map(namespace, name, a=name), create=True)
    read = config_maps(api)
    found = await read(namespace, "one")
    assert found is not None
    assert (found["metadata"]["name"], found["data"]) == ("one", {"a": "one"})
    assert await read(namespace, "none") is None


async def test_a_field_that_is_no_longer_wanted_is_removed(api: Api, namespace: str) -> None:
    await api.apply(config_map(namespace, "fields", a="1", b="2"), create=True)
    assert (await api.apply(config_map(namespace, "fields", b="2")))["data"] == {"b": "2"}


async def test_a_delete_of_another_object_of_that_name_does_nothing(api: Api, namespace: str) -> None:
    old = await api.apply(config_map(namespace, "deleted"), create=True)
    await api.delete(old)
    new = await api.apply(config_map(namespace, "deleted", a="new"), create=True)
    await api.delete(old)
    assert await api.get(CONFIG_MAP, namespace, "deleted") == new
    await api.delete(new)
    await api.delete(new)
    assert await api.get(CONFIG_MAP, namespace, "deleted") is None


async def test_what_is_as_wanted_costs_no_request(api: Api, namespace: str) -> None:
    store = Store()
    converger = Converger(api, store)
    wanted = config_map(namespace, "converged", a="1")
    assert await converger.apply(wanted) is None
    before = dict(api.requests)
    assert await converger.apply(wanted) is None
    assert api.requests == before
    drifted = await api.apply(config_map(namespace, "converged", a="drifted"))
    store.put(drifted)
    assert await converger.apply(wanted) is None
    stored = await api.get(CONFIG_MAP, namespace, "converged")
    assert stored is not None
    assert stored["data"] == {"a": "1"}


async def test_a_foreign_object_is_reported_and_left_alone(api: Api, cluster: Client, namespace: str) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign"}, "data": {"theirs": "1"}}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    stored = cluster.request("POST", path, foreign)
    clash = await Converger(api, Store()).apply(config_map(namespace, "foreign", ours="1"))
    assert clash is not None
    assert clash.reason == "NameClash"
    assert "ConfigMap foreign" in clash.message
    assert cluster.request("GET", f"{path}/foreign") == stored


@asynccontextmanager
async def informing(api: Api, namespace: str, store: Store, seen: list[str]) -> AsyncIterator[Informer]:
    informer = Informer(api, store, CONFIG_MAP, namespace, labels.SELECTOR, lambda obj: seen.append(obj["metadata"]["name"]))
    running = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(20):
            await informer.synced.wait()
        yield informer
    finally:
        running.cancel()


async def test_an_informer_follows_creation_change_and_deletion(api: Api, cluster: Client) -> None:
    namespace = cluster.make_namespace("informer-follows")
    store, seen = Store(), list[str]()
    await api.apply(config_map(namespace, "before"), create=True)
    async with informing(api, namespace, store, seen):
        assert seen == ["before"]
        made = await api.apply(config_map(namespace, "after"), create=True)
        await eventually("created", lambda: store.get(CONFIG_MAP, namespace, "after"))
        await api.apply(config_map(namespace, "after", a="1"))
        await eventually("changed", lambda: (store.get(CONFIG_MAP, namespace, "after") or {}).get("data") == {"a": "1"})
        await api.delete(made)
        await eventually("gone", lambda: store.get(CONFIG_MAP, namespace, "after") is None)
    cluster.delete(f"/api/v1/namespaces/{namespace}")


async def test_an_informer_relists_after_410_and_notices_what_went(
    api: Api, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = cluster.make_namespace("informer-relists")
    store, seen = Store(), list[str]()
    kept = await api.apply(config_map(namespace, "kept"), create=True)
    gone = await api.apply(config_map(namespace, "gone"), create=True)
    for obj in (kept, gone):
        store.put(obj)
    await api.delete(gone)
    real = api.watch

    def forgotten(*arguments: Any) -> Any:
        monkeypatch.setattr(api, "watch", real)
        return real(*arguments[:-1], "1")  # the first version of all: compacted, or at least long replaced

    monkeypatch.setattr(api, "watch", forgotten)
    async with informing(api, namespace, store, seen):
        assert store.get(CONFIG_MAP, namespace, "gone") is None
        assert "gone" in seen
        await api.apply(config_map(namespace, "later"), create=True)
        await eventually("follows on", lambda: store.get(CONFIG_MAP, namespace, "later"))
    cluster.delete(f"/api/v1/namespaces/{namespace}")


async def test_a_lease_that_is_given_back_is_taken_at_once(api: Api, cluster: Client) -> None:
    namespace = cluster.make_namespace("lease-given-back")
    first, second = Lease(api, namespace, "first"), Lease(api, namespace, "second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait({waiting}, timeout=2.5 * leases.RETRY_SECONDS)
    assert not done, "a Lease that is held is not taken"
    await first.release()
    async with asyncio.timeout(leases.DURATION_SECONDS - 1):
        await waiting
    holder = await api.get(LEASE, namespace, leases.NAME)
    assert holder is not None
    assert holder["spec"]["holderIdentity"] == "second"
    cluster.delete(f"/api/v1/namespaces/{namespace}")


async def test_who_lost_the_lease_stops_acting(api: Api, cluster: Client) -> None:
    namespace = cluster.make_namespace("lease-lost")
    first = Lease(api, namespace, "first")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    stolen = await api.get(LEASE, namespace, leases.NAME)
    assert stolen is not None
    await api.apply(
        {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": leases.NAME, "namespace": namespace},
            "spec": {**stolen["spec"], "holderIdentity": "second"},
        }
    )
    async with asyncio.timeout(leases.GIVE_UP_SECONDS):
        await holding
    cluster.delete(f"/api/v1/namespaces/{namespace}")


async def test_a_lease_not_renewed_expires(api: Api, cluster: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = cluster.make_namespace("lease-expires")
    monkeypatch.setattr(leases, "DURATION_SECONDS", 2)
    await Lease(api, namespace, "killed").acquire()
    async with asyncio.timeout(10):
        await Lease(api, namespace, "next").acquire()
    cluster.delete(f"/api/v1/namespaces/{namespace}")
