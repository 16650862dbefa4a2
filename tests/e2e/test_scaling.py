"""Replicas by a latency objective: a model whose requests take a wait, not a core, so that two cores can show queueing."""

from typing import Any

from tests.e2e.cluster import Namespace
from tests.e2e.installation import Operator
from tests.e2e.test_canary import misbehaving
from tests.e2e.traffic import Load, assert_none_failed
from tests.e2e.waiting import await_, stays

Object = dict[str, Any]
# One request at a time, 50 ms each: a pod answers 20 a second.
WAITS = "time.sleep(0.05)"


def objective(namespace: Namespace, maximum: int) -> Object:
    """Answer a spec that is to keep a p95 of 200 ms."""
    spec = misbehaving(namespace, "waits", WAITS)
    server = {**spec.get("server", {}), "batching": {"maxSize": 1}, "workers": 1}
    return {**spec, "server": server, "scaling": {"max": maximum, "objective": {"latency": "200ms"}}}


def test_replicas_follow_the_objective(namespace: Namespace, operator: Operator) -> None:
    churn = namespace.serve(spec=objective(namespace, 5))
    assert churn.status["stable"]["replicas"] == 1

    def load(rate: int, connections: int) -> Load:
        return namespace.load(rate=rate, connections=connections)

    def scaled(replicas: int) -> Object:
        await_(lambda: len(churn.pods(churn.revision)) >= replicas, f"{replicas} pods", 90)
        return await_(
            lambda: (churn.status.get("scaling") or {}).get("replicas", 0) >= replicas and churn.status["scaling"], "told"
        )

    stays(lambda: churn.status["stable"]["replicas"] == 1, "one is enough for nobody", 6)
    with load(60, 16) as busy:
        told = scaled(4)
        assert told["message"]
        assert churn.condition("ScalingActive")["status"] == "True"
        assert churn.await_event("Scaled", "from 1 to")["type"] == "Normal"
        assert churn.condition()["status"] == "True", "more pods on the way are no trouble"
        had = churn.status["stable"]["replicas"]
        operator.restart()
        stays(lambda: len(churn.pods(churn.revision)) >= had, "another operator begins with what there is", 8)
    with load(400, 64) as flood:
        scaled(5)
        limited = await_(
            lambda: churn.condition("ScalingLimited")["status"] == "True" and churn.condition("ScalingLimited"), "max"
        )
        assert "asks for" in limited["message"]
    assert_none_failed([busy, flood], 200)
