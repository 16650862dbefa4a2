"""The live figures of status: shown with whatever is written anyway, else only where they have moved, once a minute at most."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime

from slipway.api.base import duration_seconds
from slipway.api.status import RevisionStatus, RolloutStatus, Status
from slipway.core.clock import stamp, to_datetime
from slipway.core.figures import Figures

# So long a time of measuring makes a figure.
_LEAST_SECONDS = 10.0
WRITE_SECONDS = 60.0
# The figures of a rollout's checks are told more often: somebody watches.
CHECKS_SECONDS = 10.0
# What a figure must have moved by, and beyond the noise of its sample: a steady load is written of by nobody.
_MOVED = 0.1
_SIGMAS = 3.0
_PERCENTILE = 0.95


def with_figures(before: Status, status: Status, figures: Mapping[str, Figures], now: datetime) -> Status:
    """Answer the status with figures (by revision) in its roles, and the time of those of its checks.

    Where nothing else differs from `before`, they are as before unless one is overdue.
    """
    checked = status.rollout
    status = status.model_copy(update={"rollout": _with_checks_of(before.rollout, checked)})
    had = {role.revision: role for role in before.roles}

    still = _each(status, lambda role: _copied(role, had.get(role.revision, role)))
    if (
        still == before
        and not _checks_due(before.rollout, checked, now)
        and not any(overdue(role, figures.get(role.revision), now) for role in still.roles)
    ):
        return still
    shown = _each(still, lambda role: _measured(role, figures.get(role.revision), now))
    return shown.model_copy(update={"rollout": _checked(before.rollout, checked, now)})


def _each(status: Status, change: Callable[[RevisionStatus], RevisionStatus]) -> Status:
    """Answer the status with each of its roles changed."""
    changed = {
        name: None if role is None else change(role)
        for name, role in (("stable", status.stable), ("candidate", status.candidate))
    }
    return status.model_copy(update={**changed, "arms": [change(role) for role in status.arms]})


def _with_checks_of(before: RolloutStatus | None, rollout: RolloutStatus | None) -> RolloutStatus | None:
    """Answer the rollout with the checks as they were told last."""
    if rollout is None or before is None:
        return rollout
    return rollout.model_copy(update={"checks": before.checks, "trial": before.trial, "measured_at": before.measured_at})


def _checks_due(before: RolloutStatus | None, rollout: RolloutStatus | None, now: datetime) -> bool:
    if rollout is None or before is None or _measurements(rollout) == _measurements(before):
        return False
    if _unanswered(before) != _unanswered(rollout):
        return True  # who holds a rollout up, or does no more, is told at once
    return _aged(before.measured_at, CHECKS_SECONDS, now)


def _measurements(rollout: RolloutStatus) -> tuple[object, ...]:
    return rollout.checks, rollout.trial


def _unanswered(rollout: RolloutStatus) -> set[str]:
    return {check.name for check in rollout.checks if check.verdict == "Unanswered"}


def _checked(before: RolloutStatus | None, rollout: RolloutStatus | None, now: datetime) -> RolloutStatus | None:
    """Answer the rollout with the time of its checks; it stays where they do not differ."""
    if rollout is None or not (rollout.checks or rollout.trial):
        return rollout
    same = before is not None and _measurements(before) == _measurements(rollout)
    measured_at = before.measured_at if before is not None and same else stamp(now)
    return rollout.model_copy(update={"measured_at": measured_at})


def overdue(role: RevisionStatus, figures: Figures | None, now: datetime) -> bool:
    """Tell whether what a role shows is so far from its figures, and so old, that it is worth a write."""
    if figures is None or not _telling(figures) or not rested(role, now):
        return False
    try:
        return _rate_moved(role, figures) or _latency_moved(role, figures) or _errors_moved(role, figures)
    except ValueError:
        return True  # whoever wrote it, it was not us


def rested(role: RevisionStatus, now: datetime) -> bool:
    """Tell whether a role's figures were not written lately."""
    return _aged(role.measured_at, WRITE_SECONDS, now)


def _aged(measured_at: str | None, seconds: float, now: datetime) -> bool:
    return measured_at is None or (now - to_datetime(measured_at)).total_seconds() >= seconds


def _telling(figures: Figures) -> bool:
    return figures.reliable and figures.seconds >= _LEAST_SECONDS


def _copied(role: RevisionStatus, of: RevisionStatus) -> RevisionStatus:
    names = ("requests_per_second", "p95", "error_rate", "measured_at")
    return role.model_copy(update={name: getattr(of, name) for name in names})


def _measured(role: RevisionStatus, figures: Figures | None, now: datetime) -> RevisionStatus:
    """Answer the role with what was measured, if that tells anything; its time stays where nothing differs."""
    if figures is None or not _telling(figures) or not (figures.counts.requests or role.measured_at):
        return role
    latency = figures.latency.quantile(_PERCENTILE)
    rate = figures.error_rate
    shown = {
        "requests_per_second": float(f"{figures.requests_per_second:.3g}"),
        "p95": None if latency is None else latency_text(latency.estimate_ms),
        "error_rate": None if rate is None else percent_text(rate),
    }
    after = role.model_copy(update=shown)
    return role if after == role else after.model_copy(update={"measured_at": stamp(now)})


def latency_text(latency_ms: float) -> str:
    """Write a latency as a duration, rounded up to whole milliseconds, above a second to three digits."""
    whole = max(math.ceil(latency_ms), 1)
    return f"{whole}ms" if whole < 1000 else f"{latency_ms / 1000:.3g}s"


def percent_text(share: float) -> str:
    """Write a share (0 to 1) as a percentage of at most four decimals, never as 0% where it is more."""
    percent = max(100 * share, 0.0001) if share else 0.0
    return f"{percent:.4f}".rstrip("0").rstrip(".") + "%"


def _rate_moved(role: RevisionStatus, figures: Figures) -> bool:
    was = (role.requests_per_second or 0.0) * figures.seconds
    return _moved(was, figures.requests_per_second * figures.seconds)


def _errors_moved(role: RevisionStatus, figures: Figures) -> bool:
    if not figures.counts.requests:
        return False  # the rate tells it
    share = float((role.error_rate or "0%").rstrip("%")) / 100
    was = share * figures.counts.requests
    return _moved(was, figures.counts.errors)


def _moved(was: float, now: float) -> bool:
    """Tell whether a count is another one. The noise of counts is Poisson's; whether there is any at all is no noise."""
    if (was == 0) != (now == 0):
        return True
    return abs(now - was) > max(_MOVED * was, _SIGMAS * math.sqrt(now + was))


def _latency_moved(role: RevisionStatus, figures: Figures) -> bool:
    latency, between = figures.latency.quantile(_PERCENTILE), figures.latency.quantile_range(_PERCENTILE, _SIGMAS)
    if latency is None or between is None:
        return False  # the rate tells it
    if role.p95 is None:
        return True
    was = duration_seconds(role.p95) * 1000
    return abs(latency.estimate_ms - was) > _MOVED * was and not between[0] <= was <= between[1]
