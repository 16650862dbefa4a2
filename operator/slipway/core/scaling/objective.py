"""What the scaling policy is asked to keep, and within which limits."""

from dataclasses import dataclass, field
from enum import StrEnum

from slipway.core.scaling.schedule import Floor


@dataclass(frozen=True)
class Objective:
    """What is kept: each that is set alone, of several the largest number of replicas.

    `latency_ms` at `percentile` (50 to 99) as callers feel it; `concurrency`, requests in flight, and `requests_per_second` for
    each replica; `cpu` as a share of the cpu request (0 to 1 and more).
    """

    latency_ms: float | None = None
    percentile: float = 95.0
    concurrency: float | None = None
    requests_per_second: float | None = None
    cpu: float | None = None

    @property
    def allowed(self) -> float:
        """Answer the share of requests that may be slower than the latency."""
        return 1 - self.percentile / 100


@dataclass(frozen=True)
class Settings:
    """The user's. `up_per_minute` and `down_per_minute` are replicas; after `idle_seconds` without a request min 0 means none."""

    objective: Objective
    minimum: int = 1
    maximum: int = 1
    up_per_minute: int | None = None
    down_per_minute: int | None = None
    floors: tuple[Floor, ...] = field(default=())
    idle_seconds: float | None = None


class Reason(StrEnum):
    """Which rule bound."""

    ARRIVALS = "Arrivals"
    VARIABILITY = "Variability"
    TREND = "Trend"
    BACKLOG = "Backlog"
    CONCURRENCY = "Concurrency"
    REQUESTS_PER_SECOND = "RequestsPerSecond"
    CPU = "Cpu"
    NO_CPU_FIGURES = "NoCpuFigures"
    TRYING_MORE = "TryingMore"
    MORE_REPLICAS_DO_NOT_HELP = "MoreReplicasDoNotHelp"
    SCHEDULE = "Schedule"
    HOLDING = "Holding"
    ROLLOUT = "Rollout"
    STALE_FIGURES = "StaleFigures"
    PACE = "Pace"
    AT_MINIMUM = "AtMinimum"
    AT_MAXIMUM = "AtMaximum"
    HINDERED = "Hindered"
    IDLE = "Idle"
    WOKEN = "Woken"
