"""The operator's own metrics: what callers get by revision and role, and nothing of models that are gone."""

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.test_history import router

from slipway.kube.store import Store
from slipway.meter.history import History
from slipway.meter.meter import Meter, RouterPod
from slipway.metrics import Metrics
from slipway.queue import WorkQueue


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

    def __init__(self, metrics: Metrics) -> None:
        families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
        super().__init__({(e.name, frozenset(e.labels.items())): e.value for family in families for e in family.samples})

    def of(self, metric: str, /, **labels: str) -> float | None:
        return self.get((metric, frozenset({"namespace": "ns", **labels}.items())))


def test_series_are_of_revisions_with_a_role_and_go_with_their_model() -> None:
    store, api = Store(), type("Api", (), {"requests": {}})()
    made = deployment("m", stable="a", candidate="b")
    store.put(made)
    metrics = Metrics(store, WorkQueue(), Counted("r", 40), api)
    found = Samples(metrics)
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
    assert not [labels for _, labels in Samples(metrics) if ("name", "m") in labels]
