"""The operator's metrics of scaling: what status says of each ModelDeployment with an objective."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store


class ScalingMetrics(Collector):
    """Gauges read from the store when asked for; a ModelDeployment without an objective has no series."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield what status says now."""
        who = ["namespace", "name"]
        replicas = GaugeMetricFamily("slipway_scaling_replicas", "Replicas as decided.", labels=who)
        wanted = GaugeMetricFamily("slipway_scaling_replicas_wanted", "What the objective asks for, before limits.", labels=who)
        reason = GaugeMetricFamily("slipway_scaling_reason", "1 for the rule that decided.", labels=[*who, "reason"])
        limit = GaugeMetricFamily(
            "slipway_scaling_concurrency_limit", "Requests in flight for each replica that the objective allows.", labels=who
        )
        hindered = GaugeMetricFamily(
            "slipway_scaling_hindered", "1 for what keeps pods that were ordered from serving.", labels=[*who, "reason"]
        )
        for obj in self._store.all(MODEL_DEPLOYMENT):
            scaling = (obj.get("status") or {}).get("scaling")
            if not scaling:
                continue
            which = [obj["metadata"]["namespace"], obj["metadata"]["name"]]
            replicas.add_metric(which, scaling["replicas"])
            wanted.add_metric(which, scaling.get("wanted", 0))
            reason.add_metric([*which, scaling.get("reason", "")], 1)
            if "concurrencyLimit" in scaling:
                limit.add_metric(which, scaling["concurrencyLimit"])
            if "hindrance" in scaling:
                hindered.add_metric([*which, scaling["hindrance"]["reason"]], 1)
        yield from (replicas, wanted, reason, limit, hindered)
