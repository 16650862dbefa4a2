"""A revision for the tests of the scaling policy: looks made by hand, every two seconds."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from slipway.core.figures import Counts, Slice
from slipway.core.latency import Histogram, bucket_of
from slipway.core.scaling.decide import Decision, decide
from slipway.core.scaling.memory import Learned, Look, Memory
from slipway.core.scaling.objective import Objective, Settings
from slipway.core.scaling.queueing import MIDDLES, Pod, Service

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY = Settings(Objective(latency_ms=100), minimum=1, maximum=50)
# 40 ms each, all alike.
SERVICE = Service(tuple(40.0 for _ in MIDDLES))
KNOWN = Learned(service=SERVICE, light_ms=40.0, pod=Pod(1.0, 0.7), deviation=0.02)


@dataclass
class World:
    """One revision whose pods are ready as soon as they are ordered. `looked` makes one look and follows the decision."""

    settings: Settings = LATENCY
    memory: Memory = field(default_factory=lambda: Memory(KNOWN))
    replicas: int = 1
    seconds: float = 0.0
    last: Decision | None = None

    def look(self, arrivals: int, latency_ms: float = 40.0, in_flight: int = 0, every: float = 2.0) -> Look:
        took = Histogram({bucket_of(latency_ms): arrivals} if arrivals else {})
        got = Slice(self.seconds, self.seconds + every, Counts(requests=arrivals), took)
        return Look(got, in_flight, self.replicas, self.replicas, start_seconds=20)

    def looked(self, look: Look, every: float = 2.0) -> Decision:
        self.seconds += every
        self.last = decide(look, self.settings, self.memory, BEGIN + timedelta(seconds=self.seconds))
        self.memory, self.replicas = self.last.memory, self.last.replicas
        return self.last

    def run(self, seconds: float, per_second: float, latency_ms: float = 40.0, **changed: object) -> Decision:
        """Look for some time at a steady rate, and answer the last decision."""
        due, decision = 0.0, self.last
        for _ in range(max(int(seconds / 2), 1)):
            due += per_second * 2
            look = self.look(int(due), latency_ms, in_flight=round(per_second * latency_ms / 1000))
            due -= int(due)
            decision = self.looked(replace(look, **changed))  # pyright: ignore[reportArgumentType] - fields of it
        assert decision is not None
        return decision
