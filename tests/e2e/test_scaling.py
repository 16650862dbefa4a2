"""Replicas by a latency objective: a model whose requests take a wait, not a core, so that two cores can show queueing."""

import json
from typing import Any

import pytest
from tests.e2e import models
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


@pytest.mark.alone
def test_replicas_follow_the_objective(namespace: Namespace, operator: Operator) -> None:
    churn = namespace.serve(spec=objective(namespace, 5))
    assert churn.status["stable"]["replicas"] == 1

    def load(rate: int, connections: int) -> Load:
        return namespace.load(rate=rate, connections=connections)

    def scaled(replicas: int) -> Object:
        await_(lambda: len(churn.pods(churn.revision)) >= replicas, f"{replicas} pods")
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
    beside = namespace.serve("beside")
    with namespace.load("beside", 2, 10) as other, load(400, 64) as flood:
        scaled(5)

        def limited(*words: str) -> bool:
            condition = churn.condition("ScalingLimited")
            return condition["status"] == "True" and all(word in condition["message"] for word in words)

        await_(lambda: limited("asks for", "requests/s refused"), "what is beyond the objective at max is refused, and told")
        asked, caller = "http://churn/v2/models/churn/infer", namespace.caller()
        refused = await_(lambda: (said := caller.ask(asked, models.BODY))["status"] == 429 and said, "429")
        assert refused["headers"]["retry-after"] == "1"
        assert "as many requests under way" in json.loads(refused["body"])["error"]
        told = churn.status["scaling"]
        assert told["refusedPerSecond"] > 0
        assert told["concurrencyLimit"] < 64 / 5, "fewer than would come"
        shown = operator.metrics()
        who = ("namespace", namespace.name), ("name", "churn"), ("revision", churn.revision), ("role", "stable")
        refusals, errors = (shown[f"slipway_{kind}_total", frozenset(who)] for kind in ("requests_refused", "request_errors"))
        # Nobody's errors; but of refusals that happened while a router's statistics were read it may have told half, once.
        assert errors <= 4, f"{errors} errors, {refusals} refusals"
    for each in (busy, flood):
        assert {what[:3] for what in each.report.failures} <= {"429"}, each.report.failures
    assert flood.report.answers[f"200 {churn.revision}"] > 200
    assert_none_failed(other, 20)
    assert not beside.status.get("scaling")


@pytest.mark.alone
def test_pods_that_do_not_come_are_told(namespace: Namespace) -> None:
    """Neither a node nor a quota lets them; each is told while it lasts, and it is no capacity."""
    churn = namespace.serve(spec=objective(namespace, 1))

    def limited(reason: str) -> str:
        condition = churn.condition("ScalingLimited")
        return condition["message"] if condition["reason"] == reason else ""

    with namespace.load(rate=60, connections=16) as busy:
        pods = len(namespace.all("pods"))
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"pods": str(pods + 1)}},
        }
        namespace.apply("resourcequotas", quota)
        await_(lambda: namespace.get("resourcequotas", "few").get("status", {}).get("hard"), "the quota holds")
        nodes = namespace.cluster.nodes
        try:
            namespace.cluster.kubectl("cordon", *nodes)
            churn.apply(objective(namespace, 5))
            told = await_(lambda: limited("Unschedulable"), "no node takes the one that the quota allows")
            assert "nodes are available" in told
            await_(lambda: churn.status["scaling"].get("refusedPerSecond"), "the one pod refuses what it cannot answer in time")
        finally:
            namespace.cluster.kubectl("uncordon", *nodes)
        told = await_(lambda: limited("QuotaExceeded"), "the quota allows no more")
        assert "raise the quota" in told
        had = churn.status["scaling"]["replicas"]
        namespace.delete("resourcequotas", "few")
        await_(lambda: not churn.status["scaling"].get("hindrance"), "they come")
        await_(lambda: churn.status["stable"]["ready"] >= had, "all of them")
    assert {what[:3] for what in busy.report.failures} <= {"429"}, busy.report.failures
