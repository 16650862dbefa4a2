"""The operator's own metrics: what callers get by revision and role, and nothing of models that are gone."""

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.test_history import router

from slipway.api.status import HistoryEntry, RolloutStatus, Status
from slipway.kube.store import Store
from slipway.meter.history import History
from slipway.meter.meter import Meter, RouterPod
from slipway.metrics import Metrics
from slipway.queue import WorkQueue
from slipway.rollout_metrics import RolloutMetrics
from slipway.scaling_metrics import ScalingMetrics


class Counted(Meter):
    """A meter that has seen one router answer, and knows nothing since."""

    def __init__(self, pod: str, requests: int) -> None:
        super().__init__(
            lambda _: [RouterPod("ns", pod, "", True)], lambda *_: None, lambda _: False, lambda *_: 30.0, lambda: 105.0
        )
        space = self._space("ns")
        space.history = History(lambda _: 30.0)
        space.history.take(pod, router(500, a=0), ["a"], 100.0)
        later = router(502, a=requests)
        later.counts["a"] = later.counts["a"]._replace(client_errors=3)
        space.history.take(pod, later, ["a"], 102.0)
        space.answered_at[pod] = 102.0


def deployment(name: str, **roles: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"}
    status = {role: {"revision": revision} for role, revision in roles.items()}
    return {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "status": status}


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """What the metrics say, by name and labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        families = text_string_to_metric_families(generate_latest(registry).decode())
        super().__init__({(e.name, frozenset(e.labels.items())): e.value for family in families for e in family.samples})

    def of(self, metric: str, /, **labels: str) -> float | None:
        return self.get((metric, frozenset({"namespace": "ns", **labels}.items())))


def test_series_are_of_revisions_with_a_role_and_go_with_their_model() -> None:
    store, api = Store(), type("Api", (), {"requests": {}})()
    made = deployment("m", stable="a", candidate="b")
    store.put(made)
    metrics = Metrics(store, WorkQueue(), Counted("r", 40), api)
    found = Samples(metrics.registry)
    stable, candidate = {"name": "m", "revision": "a", "role": "stable"}, {"name": "m", "revision": "b", "role": "candidate"}
    assert found.of("slipway_requests_total", **stable) == 40
    assert found.of("slipway_request_errors_total", **stable) == 0
    assert found.of("slipway_request_problems_total", **stable, kind="client_errors") == 3
    assert found.of("slipway_request_problems_total", **stable, kind="timeouts") is None, "it has not happened"
    assert found.of("slipway_request_latency_seconds", **stable, quantile="0.95") == 0.006
    assert found.of("slipway_requests_in_flight", **candidate) == 0
    assert found.of("slipway_requests_total", **candidate) is None, "no router has told of it"
    assert found.of("slipway_router_scrape_age_seconds", pod="r") == 3
    store.drop(made)
    assert not [labels for _, labels in Samples(metrics.registry) if ("name", "m") in labels]


def test_a_rollout_has_series_while_it_is_under_way() -> None:
    store, registry = Store(), CollectorRegistry()
    RolloutMetrics(store, registry)
    made = deployment("m", stable="a", candidate="b")
    made["status"]["candidate"]["weight"] = 25
    made["status"]["conditions"] = [{"type": "Ready", "reason": "Shifting"}, {"type": "Progressing", "reason": "Unclear"}]
    checks = [{"name": "errorRate", "verdict": "Passed"}, {"name": "p95", "verdict": "Unclear"}]
    made["status"]["rollout"] = {"revision": "b", "step": 2, "steps": 4, "liveWeight": 5, "checks": checks}
    store.put(made)
    found = Samples(registry)
    shown = {"step": 2, "steps": 4, "weight_asked": 25, "weight_live": 5}
    assert {name: found.of(f"slipway_rollout_{name}", name="m") for name in shown} == shown
    assert found.of("slipway_rollout_reason", name="m", reason="Unclear") == 1
    assert found.of("slipway_rollout_check", name="m", check="p95", verdict="Unclear") == 1
    assert found.of("slipway_rollout_check", name="m", check="errorRate", verdict="Passed") == 1
    store.put({**made, "metadata": {**made["metadata"], "resourceVersion": "2"}, "status": {"stable": {"revision": "b"}}})
    assert not [labels for _, labels in Samples(registry) if ("name", "m") in labels]


def test_an_objective_has_series() -> None:
    store, registry = Store(), CollectorRegistry()
    registry.register(ScalingMetrics(store))
    store.put(deployment("fixed", stable="a"))
    made = deployment("m", stable="a")
    hindrance = {"reason": "Unschedulable", "message": "no node"}
    made["status"]["scaling"] = {
        "replicas": 3,
        "wanted": 9,
        "reason": "AtMaximum",
        "concurrencyLimit": 2.5,
        "hindrance": hindrance,
    }
    store.put(made)
    found = Samples(registry)
    shown = {"replicas": 3, "replicas_wanted": 9, "concurrency_limit": 2.5}
    assert {name: found.of(f"slipway_scaling_{name}", name="m") for name in shown} == shown
    assert found.of("slipway_scaling_reason", name="m", reason="AtMaximum") == 1
    assert found.of("slipway_scaling_hindered", name="m", reason="Unschedulable") == 1
    assert not [labels for _, labels in found if ("name", "fixed") in labels]


def ended(outcome: str, reason: str | None = None) -> tuple[Status, Status]:
    """Answer a status before and after the end of a rollout of 90 s."""
    rolling = RolloutStatus(revision="b", since="2026-01-01T00:00:00Z")
    entry = HistoryEntry.model_validate({"revision": "b", "outcome": outcome, "at": "2026-01-01T00:01:30Z"})
    after = rolling.model_copy(update={"outcome": "Failed", "reason": reason}) if outcome == "Failed" else None
    return Status(rollout=rolling), Status(rollout=after, history=[entry])


def test_ends_are_counted_once_by_outcome_and_reason() -> None:
    registry = CollectorRegistry()
    metrics = RolloutMetrics(Store(), registry)
    for before, after in (ended("Served"), ended("Failed", "ErrorRateTooHigh"), ended("Superseded")):
        metrics.written(before, after)
        metrics.written(after, after)
    found = Samples(registry)

    def of(name: str, **labels: str) -> float | None:
        return found.get((f"slipway_rollout_{name}", frozenset(labels.items())))

    for outcome, reason in (("Served", ""), ("Failed", "ErrorRateTooHigh"), ("Superseded", "")):
        assert of("ends_total", outcome=outcome, reason=reason) == 1
        assert of("duration_seconds_sum", outcome=outcome) == 90
        assert of("duration_seconds_bucket", outcome=outcome, le="60.0") == 0


def test_reasons_that_others_make_up_are_bounded() -> None:
    registry = CollectorRegistry()
    metrics = RolloutMetrics(Store(), registry)
    for number in range(500):
        metrics.written(*ended("Failed", f"Reason{number}"))
    found = {labels: value for (name, labels), value in Samples(registry).items() if name == "slipway_rollout_ends_total"}
    assert len(found) == 65
    assert found[frozenset({"outcome": "Failed", "reason": "Other"}.items())] == 500 - 64
