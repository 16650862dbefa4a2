"""The figures of status and of the operator's own metrics are those that a load counted itself."""

import time

from tests.e2e import models
from tests.e2e.cluster import ROUTER, Model, Namespace
from tests.e2e.installation import Operator
from tests.e2e.waiting import await_, is_ready

from slipway.api.base import duration_seconds

RATE = 100
ROUTERS = f"app.kubernetes.io/name={ROUTER}"


class Shown:
    """What the operator's metrics say of a model's stable revision."""

    def __init__(self, operator: Operator, model: Model) -> None:
        self._operator, self._labels = operator, {"namespace": model.namespace.name, "name": model.name}
        self._revision = {"revision": model.revision, "role": "stable"}

    def get(self, name: str, **more: str) -> float:
        """Answer a sample, 0 where there is none."""
        return self._operator.metrics().get((name, frozenset({**self._labels, **self._revision, **more}.items())), 0.0)

    @property
    def requests(self) -> int:
        """Answer the requests counted."""
        return int(self.get("slipway_requests_total"))

    @property
    def series(self) -> int:
        """Answer how many series name the model."""
        return sum(self._labels.items() <= labels for _, labels in self._operator.metrics())


def test_figures_are_what_a_load_counted(namespace: Namespace, operator: Operator) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    shown = Shown(operator, churn)
    assert "measuredAt" not in churn.status["stable"], "nothing is told of a model that nobody asked yet"
    with namespace.load(rate=RATE) as load:
        stable = await_(lambda: churn.status["stable"] if "measuredAt" in churn.status["stable"] else {}, "figures in status")
        begun = time.monotonic()
        load.reach(RATE * 20)
        assert churn.status["stable"]["measuredAt"] == stable["measuredAt"] or time.monotonic() - begun > 40, "once a minute"
        metrics = {share: shown.get("slipway_request_latency_seconds", quantile=share) for share in ("0.5", "0.99")}
        p95 = await_(lambda: shown.get("slipway_request_latency_seconds", quantile="0.95"), "a latency")
    report = load.report
    assert report.failed == 0, report.failures
    await_(lambda: shown.requests == report.requests, f"{report.requests} requests in the metrics, like the load's")
    assert shown.get("slipway_request_errors_total") == 0
    assert shown.get("slipway_requests_in_flight") == 0
    assert report.p99_ms is not None
    assert report.max_ms is not None
    # The router's part of what the caller felt, to the width of a bucket.
    assert 0 < metrics["0.5"] <= p95 <= metrics["0.99"] <= report.max_ms * 1.1 / 1000 + 0.001
    assert metrics["0.5"] * 1000 <= report.p99_ms * 1.1 + 1
    assert stable["errorRate"] == "0%"
    assert 0.2 * RATE < stable["requestsPerSecond"] < 2 * RATE
    assert 0 < duration_seconds(stable["p95"]) <= report.max_ms * 1.1 / 1000 + 0.001
    table = namespace.kubectl("get", "md").split()
    assert "P95" in table
    churn.delete()
    await_(lambda: shown.series == 0, "the series of a model that is gone are gone")


def test_a_router_that_is_killed_makes_no_requests_up(namespace: Namespace, operator: Operator) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    shown, highest = Shown(operator, churn), 0
    with namespace.load(rate=RATE) as load:
        await_(lambda: shown.requests, "requests are counted")
        pod = min(namespace.names("pods", ROUTERS))
        namespace.delete("pods", pod, gracePeriodSeconds=0)

        def replaced() -> bool:
            nonlocal highest
            counted = shown.requests
            assert counted >= highest, "a counter only grows"
            highest = counted
            pods = namespace.all("pods", ROUTERS)
            return pod not in {each["metadata"]["name"] for each in pods} and [is_ready(each) for each in pods] == [True] * 2

        await_(replaced, "another router is ready")
        churn.await_ready()
        load.reach(load.now().requests + RATE * 5)
    answered = sum(load.report.answers.values())
    # What the killed router answered after it was asked last is lost, and nothing else: a scrape every 2 s, and its own time.
    await_(lambda: shown.requests >= answered - 4 * RATE, f"nearly all of {answered} requests are counted")
    assert shown.requests <= answered
