"""A revision that cannot become ready never gets a request: the old one serves on, and the cause is told in plain words."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.traffic import Load, assert_none_failed
from tests.e2e.waiting import await_, condition_of, stays

Object = dict[str, Any]
_STARTING = {"PodInitializing", "ContainerCreating", ""}


@dataclass(frozen=True)
class Bad:
    """What is wrong with a version, and how the user is told."""

    name: str
    reason: str
    says: str
    model: Object = field(default_factory=dict)
    server: Object = field(default_factory=dict)
    image: str = ""


BAD = (
    Bad("wrong digest", "DigestMismatch", "sha256", model={"sha256": "0" * 64}),
    Bad(
        "corrupt file", "ModelCorrupt", "not a sound ONNX model", model={"uri": "configmap://models/corrupt.onnx", "sha256": None}
    ),
    Bad("no such ConfigMap", "ModelNotFound", "absent", model={"uri": "configmap://absent/v2.onnx"}),
    Bad("no such key", "ModelNotFound", "absent.onnx", model={"uri": "configmap://models/absent.onnx"}),
    Bad("no such claim", "Unschedulable", "absent", model={"uri": "pvc://absent/v2.onnx"}),
    Bad("no such image", "ErrImagePull|ImagePullBackOff", "absent:1", server={"image": "slipway.local/absent:1"}),
    Bad(
        "no such node",
        "Unschedulable",
        "node",
        server={"podTemplate": {"spec": {"nodeSelector": {"disk": "none"}}}},
    ),
    Bad(
        "too little memory",
        "OOMKilled|OutOfMemory",
        "memory",
        server={"resources": {"requests": {"memory": "24Mi"}, "limits": {"memory": "24Mi"}}},
    ),
    Bad(
        "server ends with an error",
        "CrashLoopBackOff",
        "code 1",
        model={"format": "Custom"},
        server={"podTemplate": {"spec": {"containers": [{"name": "server", "args": ["--no-such-flag"]}]}}},
        image="router",
    ),
    Bad(
        "server ends at once without one",
        "CrashLoopBackOff",
        "code 0",
        model={"format": "Custom"},
        server={"podTemplate": {"spec": {"containers": [{"name": "server", "args": ["--version"]}]}}},
        image="router",
    ),
)


def bad_spec(bad: Bad, namespace: Namespace, **more: Any) -> Object:
    """Answer a spec of version 2 that is wrong."""
    spec = models.spec(2)
    model = {key: value for key, value in {**spec["model"], **bad.model}.items() if value is not None}
    image = {"image": namespace.cluster.images[bad.image]} if bad.image else {}
    return {**spec, "model": model, "server": {**spec["server"], **bad.server, **image}, **more}


@pytest.fixture(scope="module")
def served(shared_namespace: Namespace) -> Iterator[tuple[Model, Load]]:
    """Answer a model that serves version 1, and the load on it: over all of this module not one request fails."""
    churn = shared_namespace.serve()
    serving = churn.revision
    with shared_namespace.load(rate=300) as load:
        yield churn, load
        load.reach(10_000)
    assert_none_failed(load)
    assert load.report.answers == {f"200 {serving}": load.report.requests}


def symptom_shows(model: Model, revision: str) -> bool:
    """Tell whether something is plainly wrong with a revision's pods, from what Kubernetes says of them."""
    for pod in model.pods(revision):
        if condition_of(pod, "PodScheduled").get("status") == "False":
            return True
        status = pod["status"]
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            if container["state"].get("waiting", {}).get("reason", "") not in _STARTING:
                return True
            ended = container["state"].get("terminated") or container["lastState"].get("terminated")
            if ended and not (ended["exitCode"] == 0 and container["name"] == "fetch"):
                return True
    deployment = model.namespace.find("deployments", revision)
    return condition_of(deployment, "ReplicaFailure").get("status") == "True"


def assert_refused(model: Model, reason: str, says: str) -> str:
    """Assert that the candidate gets no weight and that the cause is told. Answer the candidate."""
    await_(lambda: model.status["observedGeneration"] == model.object["metadata"]["generation"], "the spec is seen")
    revision = model.status["candidate"]["revision"]
    await_(lambda: symptom_shows(model, revision), "Kubernetes shows a symptom")
    condition = model.await_reason(reason)
    assert says in condition["message"]
    status = model.status
    assert status["phase"] == "Degraded"
    assert status["candidate"]["weight"] == 0
    assert status["rollout"]["liveWeight"] == 0
    assert (status["stable"]["version"], status["stable"]["weight"]) == ("1", 100)
    assert condition_of(model.object, "Available")["status"] == "True"
    assert model.await_event(condition["reason"], revision)["type"] == "Warning"
    return revision


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_version_gets_no_request_and_its_cause_is_told(
    served: tuple[Model, Load], shared_namespace: Namespace, bad: Bad
) -> None:
    churn, _ = served
    churn.apply(bad_spec(bad, shared_namespace))
    assert_refused(churn, bad.reason, bad.says)

    churn.apply(models.spec(1))
    churn.await_ready()
    assert churn.status["history"][0]["outcome"] == "Cancelled"


def test_pods_that_a_quota_refuses_are_told(served: tuple[Model, Load], shared_namespace: Namespace) -> None:
    churn, _ = served
    none_more = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none-more"}, "spec": {"hard": {"pods": "0"}}}
    shared_namespace.apply("resourcequotas", none_more)
    churn.apply({**models.spec(1), "model": {**models.spec(1)["model"], "version": "1b"}})
    assert_refused(churn, "QuotaExceeded", "exceeded quota: none-more")

    churn.apply(models.spec(1))
    churn.await_ready()
    shared_namespace.delete("resourcequotas", "none-more")


def test_a_version_that_misses_its_deadline_is_withdrawn_and_not_tried_again(
    served: tuple[Model, Load], shared_namespace: Namespace
) -> None:
    churn, _ = served
    failing = bad_spec(BAD[0], shared_namespace, rollout={"progressDeadline": "8s"})
    churn.apply(failing)
    revision = assert_refused(churn, BAD[0].reason, BAD[0].says)

    withdrawn = await_(lambda: churn.status["history"][0]["outcome"] == "Failed" and churn.status, "it is withdrawn")
    assert withdrawn["history"][0]["revision"] == revision
    assert "candidate" not in withdrawn
    progressing = churn.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "DigestMismatch")
    assert churn.await_event("RolloutFailed", revision)["type"] == "Warning"
    await_(lambda: not churn.pods(revision), "its pods are gone")
    stays(lambda: not shared_namespace.find("deployments", revision), "it is not tried again", 5)

    churn.apply(models.spec(1))
    churn.await_ready()


def test_a_version_whose_spec_is_put_right_serves(namespace: Namespace) -> None:
    churn = namespace.model("churn")
    churn.apply(bad_spec(BAD[0], namespace))  # the very first one, with nothing to fall back to
    churn.await_reason("DigestMismatch")
    assert churn.condition("Available")["status"] == "False"
    churn.apply(models.spec(2))
    churn.await_ready()
    assert churn.status["stable"]["version"] == "2"
    assert [entry["outcome"] for entry in churn.status["history"]] == ["Served", "Superseded"]
