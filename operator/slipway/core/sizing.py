"""The scaling policy's words in the API: settings from a spec, and in status what it decided."""

from datetime import UTC, datetime

from slipway.api.base import duration_seconds
from slipway.api.spec import Scaling
from slipway.api.status import HindranceStatus, LearnedStatus, ScalingStatus
from slipway.core.clock import stamp, to_datetime
from slipway.core.scaling.decide import Decision
from slipway.core.scaling.objective import Objective, Reason, Settings
from slipway.core.scaling.schedule import Floor

# What is told of a limit or of refusals must have moved by so much.
_MOVED = 0.2
# A decision for the same number of replicas is told anew so often at most: reasons come and go.
TOLD_SECONDS = 60.0
IDLE_AFTER = "5m"
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def settings(scaling: Scaling) -> Settings | None:
    """Answer what is asked of the policy; None where the number of replicas is fixed.

    With min 0 and no objective there is one replica or none. Raises ValueError where a schedule has no such time or time zone.
    """
    asked = scaling.objective
    idle_seconds = duration_seconds(scaling.idle_after or IDLE_AFTER) if scaling.min == 0 else None
    if asked is None or scaling.max is None:
        return None if scaling.fixed else Settings(Objective(), minimum=0, maximum=1, idle_seconds=idle_seconds)
    objective = Objective(
        latency_ms=duration_seconds(asked.latency) * 1000 if asked.latency is not None else None,
        percentile=float(asked.percentile),
        concurrency=asked.concurrency,
        requests_per_second=asked.requests_per_second,
        cpu=float(asked.cpu.rstrip("%")) / 100 if asked.cpu is not None else None,
    )
    floors = [
        Floor(window.start, duration_seconds(window.duration) / 3600, window.min, window.time_zone)
        for window in scaling.schedule or ()
    ]
    for floor in floors:
        floor.holds(_ANY_TIME)
    return Settings(
        objective,
        minimum=scaling.min,
        maximum=scaling.max,
        up_per_minute=scaling.increase_per_minute,
        down_per_minute=scaling.decrease_per_minute,
        floors=tuple(floors),
        idle_seconds=idle_seconds,
    )


def told(before: ScalingStatus | None, decision: Decision, now: datetime, activation: str = "") -> ScalingStatus:
    """Answer what status says of a decision: as before, where it would not be news. `activation` is what it has obeyed."""
    limit, hindrance = decision.concurrency_limit, decision.hindrance
    status = ScalingStatus(
        replicas=decision.replicas,
        wanted=decision.wanted,
        reason=decision.reason.value,
        message=decision.message,
        at=stamp(now),
        concurrency_limit=None if limit is None else float(f"{limit:.2g}"),
        refused_per_second=float(f"{decision.refused_per_second:.2g}") or None,
        hindrance=None if hindrance is None else HindranceStatus(reason=hindrance.reason, message=hindrance.message),
        learned=LearnedStatus.model_validate(decision.memory.learned.store()),
        activation=activation,
    )
    if before is None or before.at is None or _news(before) != _news(status):
        return status
    if _moved(before.concurrency_limit, status.concurrency_limit):  # routers are to know
        return status
    early = (now - to_datetime(before.at)).total_seconds() < TOLD_SECONDS and before.reason != Reason.STALE_FIGURES
    same = before.reason == status.reason and not _moved(before.refused_per_second, status.refused_per_second)
    return before if early or same else status


def _news(status: ScalingStatus) -> tuple[object, ...]:
    """Answer what is told at once.

    How many replicas, whether more are asked for than there may be, what was obeyed, what keeps pods from coming, whether
    requests are refused, and whether the use of the CPU is not known that is asked for.
    """
    hindrance = status.hindrance.reason if status.hindrance is not None else ""
    limited, unknown = status.wanted > status.replicas, status.reason == Reason.NO_CPU_FIGURES
    return status.replicas, limited, unknown, status.activation, hindrance, status.refused_per_second is None


def _moved(before: float | None, after: float | None) -> bool:
    return abs((before or 0.0) - (after or 0.0)) > _MOVED * (before or 0.0)
