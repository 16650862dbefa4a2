"""The operator's own metrics, in the Prometheus format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipway.api.status import Phase
from slipway.kube.api import Api
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store
from slipway.queue import WorkQueue

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All of the operator's metrics. What the store and the queue know is read when asked for, not kept twice."""

    def __init__(self, store: Store, queue: WorkQueue, api: Api) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "slipway_reconcile_duration_seconds", "Time of one reconcile.", registry=self.registry, buckets=_BUCKETS
        )
        self.errors = Counter(
            "slipway_reconcile_errors_total",
            "Reconciles that failed and come again, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.registry.register(_Live(store, queue, api))


class _Live(Collector):
    def __init__(self, store: Store, queue: WorkQueue, api: Api) -> None:
        self._store, self._queue, self._api = store, queue, api

    def collect(self) -> Iterator[Metric]:
        """Yield what is known now."""
        yield GaugeMetricFamily("slipway_queue_depth", "Keys that wait for a reconcile.", value=len(self._queue))
        requests = CounterMetricFamily("slipway_api_requests", "Requests to the API server, by verb.", labels=["verb"])
        for verb, count in sorted(self._api.requests.items()):
            requests.add_metric([verb], count)
        yield requests
        phase = GaugeMetricFamily(
            "slipway_modeldeployment_phase", "1 for the phase it is in.", labels=["namespace", "name", "phase"]
        )
        weight = GaugeMetricFamily(
            "slipway_modeldeployment_weight",
            "Percent of requests.",
            labels=["namespace", "name", "revision", "version"],
        )
        ready = GaugeMetricFamily(
            "slipway_modeldeployment_ready_pods", "Ready pods.", labels=["namespace", "name", "revision", "version"]
        )
        for obj in self._store.all(MODEL_DEPLOYMENT):
            who = [obj["metadata"]["namespace"], obj["metadata"]["name"]]
            status = obj.get("status") or {}
            for each in Phase:
                phase.add_metric([*who, each.value], float(status.get("phase", Phase.PENDING) == each.value))
            for role in (status.get("stable"), status.get("candidate")):
                if role:
                    which = [*who, role["revision"], role.get("version", "")]
                    weight.add_metric(which, role.get("weight", 0))
                    ready.add_metric(which, role.get("ready", 0))
        yield from (phase, weight, ready)
