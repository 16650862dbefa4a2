"""The scaling policy's words in the API: settings from a spec, and in status what it decided."""

from datetime import UTC, datetime

from slipway.api.base import duration_seconds
from slipway.api.spec import Scaling
from slipway.api.status import LearnedStatus, ScalingStatus
from slipway.core.clock import stamp, to_datetime
from slipway.core.scaling.decide import Decision
from slipway.core.scaling.objective import Objective, Settings
from slipway.core.scaling.schedule import Floor

# A decision for the same number of replicas is told anew so often at most: reasons come and go.
TOLD_SECONDS = 60.0
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def settings(scaling: Scaling) -> Settings | None:
    """Answer what is asked of the policy; None without an objective.

    Raises ValueError where a schedule has no such time or time zone.
    """
    asked = scaling.objective
    if asked is None or scaling.max is None:
        return None
    objective = Objective(
        latency_ms=duration_seconds(asked.latency) * 1000 if asked.latency is not None else None,
        percentile=float(asked.percentile),
        concurrency=asked.concurrency,
        requests_per_second=asked.requests_per_second,
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
    )


def told(before: ScalingStatus | None, decision: Decision, now: datetime) -> ScalingStatus:
    """Answer what status says of a decision: as before, where it would not be news."""
    limit = decision.concurrency_limit
    status = ScalingStatus(
        replicas=decision.replicas,
        wanted=decision.wanted,
        reason=decision.reason.value,
        message=decision.message,
        at=stamp(now),
        concurrency_limit=None if limit is None else float(f"{limit:.2g}"),
        learned=LearnedStatus.model_validate(decision.memory.learned.store()),
    )
    if before is None or before.at is None or _news(before) != _news(status):
        return status
    same = before.reason == status.reason or (now - to_datetime(before.at)).total_seconds() < TOLD_SECONDS
    return before if same else status


def _news(status: ScalingStatus) -> tuple[int, bool]:
    """Answer what is told at once: how many replicas, and whether more are asked for than there may be."""
    return status.replicas, status.wanted > status.replicas
