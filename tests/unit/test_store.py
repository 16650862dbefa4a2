"""The store: the newer version wins, our own writes are never hidden, what we deleted stays hidden."""

from typing import Any

import pytest

from slipway.kube.kinds import DEPLOYMENT, POD
from slipway.kube.store import Store
from slipway.manifests.labels import MODEL_LABEL


def deployment(name: str = "a", version: int = 1, uid: str = "u1", model: str | None = "m", **fields: Any) -> dict[str, Any]:
    labels = {MODEL_LABEL: model} if model else {}
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, **fields}


def test_an_old_event_does_not_hide_our_own_write() -> None:
    store = Store()
    assert store.put(deployment(version=5, spec="written"))
    assert not store.put(deployment(version=4, spec="old event"))
    assert not store.put(deployment(version=5, spec="same"))
    assert store.get(DEPLOYMENT, "ns", "a")["spec"] == "written"  # pyright: ignore[reportOptionalSubscript]


def test_versions_are_compared_as_numbers() -> None:
    store = Store()
    store.put(deployment(version=99))
    assert store.put(deployment(version=100, spec="changed"))


def test_news_is_what_somebody_reads() -> None:
    store = Store()
    failed = {"type": "ReplicaFailure", "status": "True"}
    store.put(deployment(version=1, status={"replicas": 0}))
    assert not store.put(deployment(version=2, status={"replicas": 1})), "pods are watched themselves"
    assert store.put(deployment(version=3, status={"replicas": 1, "conditions": [failed]}))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": deployment("p", 1, "u2")["metadata"], "status": {"phase": "Pending"}}
    store.put(pod)
    others = {**pod["metadata"], "resourceVersion": "2", "annotations": {"theirs": "7"}}
    assert not store.put({**pod, "metadata": others})
    annotated = {**pod["metadata"], "resourceVersion": "3", "annotations": {"slipway.dev/config-version": "7"}}
    assert store.put({**pod, "metadata": annotated}), "our own: another leader may write it late"
    held = store.get(POD, "ns", "p")
    assert held is not None
    assert held["metadata"]["annotations"] == annotated["annotations"]
    assert store.put({**pod, "metadata": {**annotated, "resourceVersion": "4"}, "status": {"phase": "Running"}})


def test_what_we_deleted_stays_hidden() -> None:
    store = Store()
    store.put(deployment(version=1))
    store.drop(deployment(version=1), ours=True)
    assert not store.put(deployment(version=2)), "an event from before the deletion"
    assert store.get(DEPLOYMENT, "ns", "a") is None
    assert store.put(deployment(version=3, uid="u2")), "a new object of that name is another one"
    assert not store.drop(deployment(version=2, uid="u1")), "the confirmation leaves the new one alone"
    assert store.get(DEPLOYMENT, "ns", "a") is not None


def test_what_the_watch_saw_go_does_not_come_back_by_an_older_list() -> None:
    store = Store()
    store.put(deployment(version=1))
    store.drop(deployment(version=5))
    assert not store.put(deployment(version=1))
    assert store.prune(DEPLOYMENT, "ns", {"u1"}, 3) == []
    assert store.get(DEPLOYMENT, "ns", "a") is None


def test_what_only_lost_our_label_comes_back_with_it() -> None:
    store = Store()
    store.put(deployment(version=1))
    store.drop(deployment(version=5))
    assert store.put(deployment(version=6))


def test_a_list_shows_what_a_watch_missed() -> None:
    store = Store()
    for obj in (deployment("a", 1, "u1"), deployment("b", 1, "u2"), deployment("c", 1, "u3")):
        store.put(obj)
    assert not store.put(deployment("a", 1, "u1"))
    assert store.put(deployment("b", 2, "u2", spec="changed"))
    assert store.put(deployment("d", 2, "u4"))
    assert [obj["metadata"]["name"] for obj in store.prune(DEPLOYMENT, "ns", {"u1", "u2", "u4"}, 2)] == ["c"]
    assert store.get(DEPLOYMENT, "ns", "c") is None


def test_a_list_does_not_hide_what_is_newer_than_it() -> None:
    store = Store()
    store.put(deployment("made-meanwhile", 9))
    assert store.prune(DEPLOYMENT, "ns", set(), 7) == []
    assert store.get(DEPLOYMENT, "ns", "made-meanwhile") is not None


def test_children_follow_the_label() -> None:
    store = Store()
    store.put(deployment("a", 1, "u1", "m"))
    store.put(deployment("b", 1, "u2", None))
    assert [obj["metadata"]["name"] for obj in store.children("ns", "m", DEPLOYMENT)] == ["a"]
    store.put(deployment("a", 2, "u1", "other"))
    assert store.children("ns", "m") == []
    assert len(store.children("ns", "other")) == 1
    store.drop(deployment("a", 3, "u1", "other"))
    assert store.children("ns", "other") == []


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_what_nobody_reads_is_not_held(kind: str) -> None:
    store = Store()
    obj = deployment(spec={"containers": []}, status={"podIP": "10.0.0.1", "hostIPs": []})
    obj |= {"apiVersion": "v1", "kind": "Pod"} if kind == "Pod" else {}
    obj["metadata"]["managedFields"] = [{}]
    store.put(obj)
    (held,) = store.all(POD if kind == "Pod" else DEPLOYMENT)
    assert "managedFields" not in held["metadata"]
    assert ("spec" in held) == (kind == "Deployment")
