"""Pods come and go under load: by scaling, by deletion, by a drain of their node. Callers notice nothing."""

import time

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Model, Namespace
from tests.e2e.traffic import assert_none_failed, assert_only_cut
from tests.e2e.waiting import await_, is_ready

ROUTERS = f"app.kubernetes.io/name={ROUTER}"


def await_replaced(namespace: Namespace, selector: str, gone: set[str], count: int) -> None:
    """Wait until the pods are gone and so many others are ready, and no more."""

    def replaced() -> bool:
        pods = namespace.all("pods", selector)
        return not gone & {pod["metadata"]["name"] for pod in pods} and [is_ready(pod) for pod in pods] == [True] * count

    await_(replaced, f"{count} other pods of {selector} are ready")


def model_pods(churn: Model) -> str:
    """Answer the selector of a model's pods."""
    return f"slipway.dev/model-deployment={churn.name}"


def test_kubectl_scale_up_and_down(namespace: Namespace) -> None:
    churn = namespace.serve()
    with namespace.load() as load:
        for replicas in (4, 2):
            namespace.kubectl("scale", "md/churn", f"--replicas={replicas}")
            churn.await_drained()
            await_replaced(namespace, model_pods(churn), set(), replicas)
            await_(lambda n=replicas: churn.status["replicas"] == churn.status["stable"]["ready"] == n, "status says so")
            scale = namespace.client.get(namespace.path("modeldeployments", "churn/scale"))
            assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (replicas, replicas)
            assert scale["status"]["selector"] == f"{model_pods(churn)},app.kubernetes.io/component=model"
        load.reach(10_000)
    assert_none_failed(load)
    assert len(churn.status["history"]) == 1  # no new revision


@pytest.mark.parametrize("how", ["deleted", "killed"])
def test_model_pods_are_lost(namespace: Namespace, how: str) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    now = {"gracePeriodSeconds": 0} if how == "killed" else {}
    with namespace.load() as load:
        for pod in sorted(namespace.names("pods", model_pods(churn))):
            namespace.delete("pods", pod, **now)
            await_replaced(namespace, model_pods(churn), {pod}, 2)
        churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)


def test_router_pods_are_deleted_and_restarted(namespace: Namespace) -> None:
    churn = namespace.serve()
    with namespace.load() as load:
        for pod in sorted(namespace.names("pods", ROUTERS)):
            namespace.delete("pods", pod)
            await_replaced(namespace, ROUTERS, {pod}, 2)
        before = namespace.names("pods", ROUTERS)
        namespace.kubectl("rollout", "restart", f"deployment/{ROUTER}")
        await_replaced(namespace, ROUTERS, before, 2)
        churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)


def test_a_router_pod_is_killed(namespace: Namespace) -> None:
    """What that pod was answering is lost, and nothing else: its connections are cut, once each."""
    churn = namespace.serve()
    with namespace.load(connections=8) as load:
        pod, died = min(namespace.names("pods", ROUTERS)), time.time()
        namespace.delete("pods", pod, gracePeriodSeconds=0)
        await_replaced(namespace, ROUTERS, {pod}, 2)
        replaced = time.time()
        churn.await_ready()
        load.reach(10_000)
    assert load.report.requests >= 10_000
    assert_only_cut(load.report, [(died, replaced)], 8)


@pytest.mark.alone
def test_a_node_is_drained(namespace: Namespace) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    stays, goes = namespace.cluster.nodes[:2]
    assert {pod["spec"]["nodeName"] for pod in churn.pods()} == {stays, goes}
    assert {pod["spec"]["nodeName"] for pod in namespace.all("pods", ROUTERS)} == {stays, goes}
    try:
        with namespace.load() as load:
            drain = ("drain", goes, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
            namespace.cluster.kubectl(*drain)
            await_replaced(namespace, model_pods(churn), set(), 2)
            await_replaced(namespace, ROUTERS, set(), 2)
            churn.await_ready()
            load.reach(10_000)
    finally:
        namespace.cluster.kubectl("uncordon", goes)
    assert {pod["spec"]["nodeName"] for pod in churn.pods()} == {stays}
    assert_none_failed(load)
