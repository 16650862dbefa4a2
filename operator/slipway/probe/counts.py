"""What the comparer counts, as it tells it at /metrics, and as the operator reads it there."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from slipway.core.agreement import Comparison, Outcome

_PAIRS, _DROPPED, _LARGEST = "slipway_compare_pairs", "slipway_compare_dropped", "slipway_compare_largest_difference"
_SUBJECT, _STARTED = "slipway_compare_subject", "slipway_compare_started_seconds"
_BUCKETS = (0.0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, math.inf)


class Counts:
    """The counts of one comparer, which compares one candidate with one stable revision. Nothing of any request is in them."""

    def __init__(self, stable: str, candidate: str) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter("slipway_compare_received", "Requests that routers copied here.", registry=self.registry)
        self._dropped = Counter(_DROPPED, "Copies that were not sent on, by reason.", ["reason"], registry=self.registry)
        self._pairs = Counter(
            _PAIRS,
            "Requests sent to both revisions: agreed, disagreed, or not_compared, and why.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        self._difference = Histogram(
            "slipway_compare_difference",
            "Largest difference of a pair's answers: the tolerance within which they would agree.",
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._largest = Gauge(
            _LARGEST, "The largest difference of all pairs, those that none would do for left out.", registry=self.registry
        )
        subject = Gauge(_SUBJECT, "1 for the two revisions that are compared.", ["stable", "candidate"], registry=self.registry)
        subject.labels(stable, candidate).set(1)
        # Tells one process from the next, whose counts begin anew.
        Gauge(_STARTED, "When the comparer started, in seconds since 1970.", registry=self.registry).set(time.time())
        self._most = 0.0

    def drop(self, reason: str) -> None:
        """Count a copy that is not sent on."""
        self._dropped.labels(reason).inc()

    def add(self, pair: Comparison) -> None:
        """Count a pair."""
        self._pairs.labels(pair.outcome.value, pair.reason).inc()
        if pair.difference is not None:
            self._difference.observe(pair.difference)
            if self._most < pair.difference < math.inf:
                self._most = pair.difference
                self._largest.set(self._most)


@dataclass(frozen=True)
class Told:
    """What a comparer told: which revisions, when it started, and what it has counted since."""

    stable: str
    candidate: str
    started: float
    agreed: int = 0
    disagreed: int = 0
    largest_difference: float = 0.0
    not_compared: Mapping[str, int] = field(default_factory=dict[str, int])
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])


def read(text: str) -> Told:
    """Read a comparer's /metrics.

    Raises ValueError where the text is something else.
    """
    subject: Mapping[str, str] = {}
    started: float | None = None
    largest = 0.0
    by_outcome: dict[str, int] = {}
    not_compared: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{_PAIRS}_total":
                outcome, reason, count = sample.labels["outcome"], sample.labels["reason"], int(sample.value)
                by_outcome[outcome] = by_outcome.get(outcome, 0) + count
                if outcome == Outcome.NOT_COMPARED:
                    not_compared[reason] = count
            elif sample.name == f"{_DROPPED}_total":
                dropped[sample.labels["reason"]] = int(sample.value)
            elif sample.name == _SUBJECT:
                subject = sample.labels
            elif sample.name == _STARTED:
                started = sample.value
            elif sample.name == _LARGEST:
                largest = sample.value
    if started is None or not subject:
        raise ValueError("no comparer's metrics: they lack the revisions or the time of its start")
    agreed, disagreed = (by_outcome.get(outcome, 0) for outcome in (Outcome.AGREED, Outcome.DISAGREED))
    return Told(subject["stable"], subject["candidate"], started, agreed, disagreed, largest, not_compared, dropped)
