"""What keeps a need from being followed at once: hold, gradual scale-down, pace, bounds."""

import math
from collections.abc import Sequence

from slipway.core.scaling.arrivals import horizon

# A need is kept for so many start-up times, and for a minute at least; caution multiplies both. In so many parts.
_HOLD_TIMES, _HOLD_SECONDS = 2.5, 60.0
_PARTS = 12
# Then replicas go, so many of all at once and no sooner than this after the last ones.
_LOWER_SHARE, _LOWER_SECONDS = 0.1, 10.0
PACE_SECONDS = 60.0
# The largest rate of so many seconds is what variability may be expected to reach again.
_PEAK_SECONDS, _PEAK_PARTS = 900.0, 30

Marks = tuple[tuple[float, int], ...]


def hold_seconds(start_seconds: float | None, caution: float) -> float:
    """Answer for how long a need holds."""
    return max(_HOLD_TIMES * horizon(start_seconds), _HOLD_SECONDS) * caution


def marked(needs: Marks, need: int, now: float, seconds: float) -> Marks:
    """Answer the largest needs by part of the time they hold, the latest counted in and those that have lapsed left out."""
    kept = [(at, most) for at, most in needs if now - seconds <= at <= now]
    if kept and now - kept[-1][0] < seconds / _PARTS:
        kept[-1] = (kept[-1][0] if kept[-1][1] > need else now, max(kept[-1][1], need))
    else:
        kept.append((now, need))
    return tuple(kept)


def peaked(peaks: Sequence[tuple[float, float]], rate: float, now: float) -> tuple[tuple[float, float], ...]:
    """Answer the largest rates of the latest quarter of an hour, in parts."""
    kept = [(at, most) for at, most in peaks if now - _PEAK_SECONDS <= at <= now]
    if kept and now - kept[-1][0] < _PEAK_SECONDS / _PEAK_PARTS:
        kept[-1] = (kept[-1][0], max(kept[-1][1], rate))
    else:
        kept.append((now, rate))
    return tuple(kept)


def lowered(ordered: int, wanted: int, now: float, lowered_at: float | None) -> int:
    """Answer the next step down from what is ordered to what is wanted."""
    if lowered_at is not None and 0 <= now - lowered_at < _LOWER_SECONDS:
        return ordered
    return max(wanted, ordered - max(math.floor(ordered * _LOWER_SHARE), 1))


def changed(changes: Marks, ordered: int, now: float) -> Marks:
    """Answer what was ordered within the last minute, and at its beginning."""
    kept = [(at, replicas) for at, replicas in changes if at <= now]
    while len(kept) > 1 and kept[1][0] <= now - PACE_SECONDS:
        kept.pop(0)
    if not kept or kept[-1][1] != ordered:
        kept.append((now, ordered))
    return tuple(kept)


def paced(wanted: int, changes: Marks, up: int | None, down: int | None) -> int:
    """Answer what may be ordered, given the replicas that may come or go within a minute."""
    seen = [replicas for _, replicas in changes]
    if up is not None:
        wanted = min(wanted, max(min(seen) + up, seen[-1]))
    if down is not None:
        wanted = max(wanted, min(max(seen) - down, seen[-1]))
    return wanted
