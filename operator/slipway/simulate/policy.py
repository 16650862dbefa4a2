"""Slipway's own policy in a replay: the code that the operator runs, fed with what its meter would tell."""

from datetime import UTC, datetime, timedelta

import numpy as np

from slipway.core.figures import Counts, Slice
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.scaling.decide import Decision, decide
from slipway.core.scaling.memory import Look, Memory
from slipway.core.scaling.objective import Objective, Settings
from slipway.simulate.queueing import PodKind
from slipway.simulate.replay import Goal, Meters

_LOOK_SECONDS = 2
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_EDGES = np.array(EDGES_MS)


class Slipway:
    """The policy with the latency objective, and the latest decision."""

    name = "Slipway"

    def __init__(self, kind: PodKind, maximum: int, goal: Goal) -> None:
        self._settings = Settings(Objective(goal.latency_ms, goal.percentile), 1, maximum)
        self._start_seconds = kind.start_seconds
        self._memory = Memory()
        self.decision: Decision | None = None

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer the replicas."""
        now = len(meters.arrived)
        if now % _LOOK_SECONDS:
            return ordered
        latencies = np.concatenate(meters.latencies_ms[-_LOOK_SECONDS:])
        # Buckets take in their lower edge, as slipway.core.latency's.
        counts = np.bincount(np.searchsorted(_EDGES, latencies, side="right") - 1)
        found = np.flatnonzero(counts)
        latency = Histogram(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))
        got = Slice(now - _LOOK_SECONDS, now, Counts(requests=len(latencies)), latency)
        look = Look(got, meters.in_flight[-1], ready, ordered, start_seconds=self._start_seconds)
        self.decision = decide(look, self._settings, self._memory, _EPOCH + timedelta(seconds=now))
        self._memory = self.decision.memory
        return self.decision.replicas
