"""Canaries: a good version comes step by step, a bad one is withdrawn in seconds, whoever dies meanwhile."""

import time
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_

Object = dict[str, Any]


def canary(spec: Object, *weights: int, hold: str = "3s", **more: Any) -> Object:
    """Answer the spec with steps of those weights, all checked."""
    checks = [{"errorRate": {"max": "1%"}}, {"latency": {"percentile": 95, "max": "300ms", "relativeToStable": 3}}]
    steps = [{"weight": weight, "hold": hold} for weight in weights]
    return {**spec, "rollout": {"strategy": "Canary", "steps": steps, "checks": checks, "minRequests": 50, **more}}


def python_model(body: str) -> str:
    """Answer a model in Python that does what version 2 does, after `body`."""
    return f"""import time


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def predict(self, inputs):
        x = inputs["x"]
        {body}
        return {{"y": 2 * x}}
"""


def step_of(model: Model) -> int:
    """Answer the step under way."""
    return model.status.get("rollout", {}).get("step", 0)


def test_a_good_version_is_promoted_step_by_step(namespace: Namespace) -> None:
    churn = namespace.serve(spec=canary(models.spec(1), 10, 50))
    with namespace.load(rate=400) as load:
        churn.apply(canary(models.spec(2), 10, 50))
        for step, weight in ((1, 10), (2, 50)):
            await_(lambda step=step: step_of(churn) == step, f"step {step} begins")
            assert churn.status["candidate"]["weight"] == weight
        churn.await_ready()
        load.reach(2_000)
    assert_none_failed(load, 2_000)
    assert churn.status["stable"]["version"] == "2"
    assert churn.status["history"][0]["outcome"] == "Served"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("if x.any(): raise RuntimeError", "ErrorRateTooHigh"),
        ("if x.any(): time.sleep(0.5)", "LatencyTooHigh"),
    ],
    ids=["errs", "slow"],
)
def test_a_bad_version_is_withdrawn(namespace: Namespace, body: str, reason: str) -> None:
    churn = namespace.serve(spec=canary(models.spec(1), 10, 50, hold="60s"))
    stable = churn.revision
    source = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "data": {"model.py": python_model(body)}}
    namespace.apply("configmaps", source)
    bad = models.spec(2)
    bad["model"] = {"uri": "configmap://bad/model.py", "format": "Python", "version": "2"}
    with namespace.load(rate=400) as load:
        churn.apply(canary(bad, 10, 50, hold="60s"))
        await_(lambda: step_of(churn) == 1, "the first step begins")
        began = time.time()
        withdrawn = await_(lambda: churn.status["history"][0]["outcome"] == "Failed" and churn.status, "it is withdrawn", 30)
        print(f"withdrawn after {time.time() - began:.1f} s: {withdrawn['history'][0]['message']}")
        load.reach(load.now().requests + 1_000)
    assert withdrawn["rollout"]["reason"] == reason
    assert churn.await_event("RolloutFailed", "limit")["type"] == "Warning"
    assert churn.revision == stable
    candidate = withdrawn["history"][0]["revision"]
    assert load.report.failed == load.report.answers.get(f"500 {candidate}", 0), load.report.failures
