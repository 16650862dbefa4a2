"""The operator's metrics of rollouts: where each stands that is under way, and how those of this process ended."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipway.api.status import ConditionType, Status
from slipway.core.clock import to_datetime
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store

_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
# A server of somebody's own may end with a reason of its own: so many different ones are counted by name.
_REASONS_MAX = 64


class RolloutMetrics:
    """Gauges read from the store when asked for, and counts of what ended while this process wrote status."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._reasons: set[str] = set()
        self._ends = Counter(
            "slipway_rollout_ends_total",
            "Rollouts that ended, by outcome (Served, Failed, Superseded, Cancelled) and the reason of a failure.",
            ["outcome", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "slipway_rollout_duration_seconds",
            "From the candidate's making to the rollout's end, by outcome.",
            ["outcome"],
            registry=registry,
            buckets=_BUCKETS,
        )
        registry.register(_UnderWay(store))

    def written(self, before: Status, after: Status) -> None:
        """Count the rollouts that ended with this status."""
        for entry in after.history:
            if entry in before.history:
                continue
            failed = entry.outcome == "Failed" and after.rollout is not None and after.rollout.revision == entry.revision
            self._ends.labels(entry.outcome, self._bounded(after.rollout.reason if failed and after.rollout else None)).inc()
            if before.rollout is not None and before.rollout.revision == entry.revision:
                lasted = to_datetime(entry.at) - to_datetime(before.rollout.since)
                self._seconds.labels(entry.outcome).observe(max(lasted.total_seconds(), 0.0))

    def _bounded(self, reason: str | None) -> str:
        if reason is None:
            return ""
        if len(self._reasons) < _REASONS_MAX:
            self._reasons.add(reason)
        return reason if reason in self._reasons else "Other"


def _name(check: Mapping[str, Any]) -> str:
    """Name a check; where several candidates are tried, with whose it is."""
    return f"{check['name']} of {check['revision']}" if check.get("revision") else check["name"]


class _UnderWay(Collector):
    """A ModelDeployment without a candidate has no series."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield what status says now."""
        who = ["namespace", "name"]
        step = GaugeMetricFamily("slipway_rollout_step", "The step under way, from 1; 0 before the first.", labels=who)
        steps = GaugeMetricFamily("slipway_rollout_steps", "How many steps there are.", labels=who)
        asked = GaugeMetricFamily("slipway_rollout_weight_asked", "Percent of requests asked of the routers.", labels=who)
        live = GaugeMetricFamily("slipway_rollout_weight_live", "Percent of requests that every router gives.", labels=who)
        reason = GaugeMetricFamily(
            "slipway_rollout_reason", "1 for what the rollout waits for: the condition Progressing.", labels=[*who, "reason"]
        )
        check = GaugeMetricFamily(
            "slipway_rollout_check", "1 for the verdict of each check at this step.", labels=[*who, "check", "verdict"]
        )
        for obj in self._store.all(MODEL_DEPLOYMENT):
            status = obj.get("status") or {}
            rollout, candidate = status.get("rollout"), status.get("candidate")
            if not rollout or not candidate:
                continue
            which = [obj["metadata"]["namespace"], obj["metadata"]["name"]]
            step.add_metric(which, rollout.get("step", 0))
            steps.add_metric(which, rollout.get("steps", 0))
            asked.add_metric(which, sum(each.get("weight", 0) for each in (candidate, *status.get("arms", ()))))
            live.add_metric(which, rollout.get("liveWeight", 0))
            for condition in status.get("conditions", ()):
                if condition["type"] == ConditionType.PROGRESSING:
                    reason.add_metric([*which, condition["reason"]], 1)
            for name, verdict in {_name(each): each["verdict"] for each in rollout.get("checks", ())}.items():
                check.add_metric([*which, name, verdict], 1)
        yield from (step, steps, asked, live, reason, check)
