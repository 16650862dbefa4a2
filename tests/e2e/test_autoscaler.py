"""Replicas by what pods use of the CPU, as a real metrics-server says: by a HorizontalPodAutoscaler, and by Slipway itself."""

from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import Cluster, Model, Namespace
from tests.e2e.installation import Operator
from tests.e2e.metrics_server import MetricsServer
from tests.e2e.test_canary import misbehaving
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, condition_of, stays

Object = dict[str, Any]
# 12 requests/s of 10 ms of CPU each are 120m, and a fifth of a pod's request is 20m: the most pods are needed, and two of them
# even where the machine has time for a quarter of the load. A pod without requests uses 1m.
BURNS = """end = time.process_time() + 0.01
            while time.process_time() < end:
                pass"""
SERVER = {"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}, "workers": 1, "batching": {"maxSize": 1}}
RATE, MOST = 12, 3
# Figures are some 30 s old, and an autoscaler looks every 15 s.
PATIENCE = 300.0


def burning(namespace: Namespace, scaling: Object | None) -> Object:
    """Answer a spec of a model that burns CPU."""
    spec = {**misbehaving(namespace, "burns", BURNS), "server": SERVER}
    return {key: value for key, value in {**spec, "scaling": scaling}.items() if value is not None}


def autoscaler(model: str) -> Object:
    """Answer an HPA of a ModelDeployment, that is not to wait before it scales down."""
    target = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": model}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 20}}}
    scaling = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": MOST, "metrics": [cpu]}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": model},
        "spec": {**scaling, "behavior": behavior},
    }


def least(model: Model) -> int:
    """Answer scaling.min, which is what the scale subresource sets."""
    return model.object["spec"]["scaling"]["min"]


def await_scaling(model: Model, reason: str, says: str = "") -> None:
    """Wait until the condition ScalingActive says so."""

    def said() -> bool:
        found = model.condition("ScalingActive")
        return found["reason"] == reason and says in found["message"]

    try:
        await_(said, f"ScalingActive is {reason}", PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{error}: {model.condition('ScalingActive')}") from None


@pytest.mark.alone
def test_cpu(cluster: Cluster, operator: Operator, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = namespace.serve("own", burning(namespace, {"max": MOST, "objective": {"cpu": "20%"}}))
    asked = burning(namespace, None)
    churn = namespace.serve("churn", asked)
    await_scaling(own, "NoCpuFigures", "serves no metrics.k8s.io")
    metrics = MetricsServer(cluster, tmp_path_factory.mktemp("metrics-server"))
    metrics.install()
    namespace.apply("horizontalpodautoscalers", autoscaler("churn"))

    with namespace.load("own", 4, RATE, 1) as first, namespace.load("churn", 4, RATE, 1) as second:
        await_(lambda: least(churn) >= 2, "the HPA asks for more", PATIENCE)
        await_(lambda: len(churn.pods()) == churn.status["stable"]["ready"] >= 2, "they are there", PATIENCE)
        await_(lambda: own.status["stable"]["ready"] >= 2, "Slipway makes more", PATIENCE)
        # Which rule binds is the machine's to say: at times so many requests need no third pod.
        await_(lambda: "cpu request" in own.condition("ScalingActive")["message"], "the CPU decides")

        # A manifest without the number leaves it to the HPA, and so do another operator and a rollout.
        churn.apply(asked)
        operator.restart()
        stays(lambda: least(churn) >= 2 and len(churn.pods()) >= 2, "nobody but the HPA scales", 5)
        churn.apply({**models.spec(1), "server": SERVER, "scaling": {}, "rollout": half()})
        await_(lambda: churn.status.get("rollout", {}).get("stepSince"), "half of the requests go to the candidate")
        roles = {churn.status[role]["revision"] for role in ("stable", "candidate")}
        scale = namespace.client.get(namespace.path("modeldeployments", "churn/scale"))
        pods = namespace.all("pods", scale["status"]["selector"])
        assert {pod["metadata"]["labels"]["slipway.dev/revision"] for pod in pods} == roles
        churn.apply(asked)
        churn.await_drained()

    await_(lambda: least(churn) == 1, "the HPA asks for fewer", PATIENCE)
    await_(lambda: len(churn.pods()) == 1, "they are gone")
    able = condition_of(namespace.get("horizontalpodautoscalers", "churn"), "AbleToScale")
    assert able["status"] == "True", able
    metrics.remove()
    await_scaling(own, "NoCpuFigures")
    assert_none_failed([first, second], 100)


def half() -> Object:
    """Answer a rollout that stays at one half."""
    return {"strategy": "Canary", "steps": [{"weight": 50, "hold": "1h"}]}
