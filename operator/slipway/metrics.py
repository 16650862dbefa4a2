"""The operator's own metrics, in the Prometheus format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipway.api.status import Phase
from slipway.core.figures import LIVE_SECONDS
from slipway.kube.api import Api
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store
from slipway.live import roles
from slipway.meter.meter import Meter
from slipway.queue import WorkQueue
from slipway.rollout_metrics import RolloutMetrics
from slipway.scaling_metrics import ScalingMetrics

# The counts that are shown one by one.
_KINDS = (
    "server_errors",
    "client_errors",
    "timeouts",
    "resets",
    "connect_failures",
    "no_endpoint",
    "grpc_errors",
    "retries",
    "abandoned",
)
_QUANTILES = (0.5, 0.95, 0.99)
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All of the operator's metrics. What store, queue and meter know is read when asked for, not kept twice."""

    def __init__(self, store: Store, queue: WorkQueue, meter: Meter, api: Api) -> None:
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
        self.rollouts = RolloutMetrics(store, self.registry)
        self.registry.register(ScalingMetrics(store))
        self.registry.register(_Live(store, queue, api))
        self.registry.register(_Callers(store, meter))


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
            for role in (status.get("stable"), status.get("candidate"), *status.get("arms", ())):
                if role:
                    which = [*who, role["revision"], role.get("version", "")]
                    weight.add_metric(which, role.get("weight", 0))
                    ready.add_metric(which, role.get("ready", 0))
        yield from (phase, weight, ready)


class _Callers(Collector):
    """What callers got, by revision in its role: a revision without one has no series, nor has a model that is gone."""

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store, self._meter = store, meter

    def collect(self) -> Iterator[Metric]:
        """Yield what is known now: counts since this process began to look, the rest as of the last minute."""
        labels = ["namespace", "name", "revision", "role"]
        requests = CounterMetricFamily("slipway_requests", "Requests that came to an end.", labels=labels)
        errors = CounterMetricFamily(
            "slipway_request_errors",
            "Requests that failed by no fault of their callers: the numerator of an error rate.",
            labels=labels,
        )
        refused = CounterMetricFamily(
            "slipway_requests_refused",
            "Requests that routers answered with 429: at max, as many were under way as the objective allows.",
            labels=labels,
        )
        kinds = CounterMetricFamily(
            "slipway_request_problems",
            "What routers met. Kinds overlap: a timeout is a server_error too, and what was retried is no error at all.",
            labels=[*labels, "kind"],
        )
        latency = GaugeMetricFamily(
            "slipway_request_latency_seconds",
            f"Quantiles over the last {LIVE_SECONDS:.0f} s: at most, as far as the histogram tells.",
            labels=[*labels, "quantile"],
        )
        in_flight = GaugeMetricFamily("slipway_requests_in_flight", "Requests under way.", labels=labels)
        for namespace, name, role, status in roles(self._store):
            who = [namespace, name, status["revision"], role]
            figures = self._meter.figures(namespace, status["revision"], LIVE_SECONDS)
            in_flight.add_metric(who, figures.in_flight)
            total = self._meter.total(namespace, status["revision"])
            if total is None:
                continue
            requests.add_metric(who, total.counts.requests)
            errors.add_metric(who, total.counts.errors)
            refused.add_metric(who, total.counts.refused)
            for kind in _KINDS:
                if count := getattr(total.counts, kind):  # most models never meet most of them
                    kinds.add_metric([*who, kind], count)
            for share in _QUANTILES:
                quantile = figures.latency.quantile(share)
                if quantile is not None:
                    latency.add_metric([*who, f"{share:g}"], quantile.high_ms / 1000)
        age = GaugeMetricFamily(
            "slipway_router_scrape_age_seconds", "Time since the router answered last.", labels=["namespace", "pod"]
        )
        for namespace, pod, seconds in self._meter.ages():
            age.add_metric([namespace, pod], seconds)
        yield from (requests, errors, refused, kinds, latency, in_flight, age)
