"""How many requests come, and how many may come before a pod ordered now is ready."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slipway.core.scaling.memory import Tick

# A router's figures are some seconds old, and a decision takes effect at the next look.
REACTION_SECONDS = 4.0
START_SECONDS_UNKNOWN = 30.0
_HORIZON_MAX_SECONDS = 120.0
# Peaks are those of the rate over so many seconds: shorter ones are chance's.
PEAK_SECONDS = 30.0
HISTORY_SECONDS = 2 * _HORIZON_MAX_SECONDS
# Windows (s) that tell the present rate, and by how many standard deviations the shorter must exceed to be believed.
_LEVELS = ((30.0, 0.0), (10.0, 1.0), (4.0, 2.0))
# How far the variability measured so far counts, in seconds; what it is taken for before anything was measured.
_DEVIATION_SECONDS = 600.0
_DEVIATION_UNKNOWN = 0.1
_DEVIATIONS = 2.5
# A trend: two rates in a row that rise, by so many standard deviations. It ends, by this time constant, and adds at most so much
# of the rate; errors on the low side cost more, hence the factor.
_TREND_SIGMAS, _TREND_SECONDS, _TREND_TIMES, _TREND_MOST = 2.5, 40.0, 2.5, 0.75
# A backlog is to be gone within half the time that pods for it take, and this at least: they are wanted for no longer.
_DRAIN_SECONDS, _DRAIN_PART = 10.0, 0.5


@dataclass(frozen=True)
class Forecast:
    """Requests a second: the rate now, and what may come on top within a start-up time, by kind."""

    now: float
    variability: float = 0.0
    trend: float = 0.0

    @property
    def most(self) -> float:
        """Answer the rate to be ready for."""
        return self.now + self.variability + self.trend


def horizon(start_seconds: float | None) -> float:
    """Answer in how many seconds a pod ordered now serves."""
    return (START_SECONDS_UNKNOWN if start_seconds is None else start_seconds) + REACTION_SECONDS


def measured_over(start_seconds: float | None) -> float:
    """Answer over how many seconds variability is measured: the horizon, as far as history is kept."""
    return min(horizon(start_seconds), _HORIZON_MAX_SECONDS)


def rate(ticks: Sequence[Tick], seconds: float, ago: float = 0.0) -> tuple[float, float]:
    """Answer the arrivals a second of some time up to `ago` seconds before the latest tick, and how many seconds it is of."""
    if not ticks:
        return 0.0, 0.0
    until = ticks[-1].at - ago
    since, arrivals, lasted = until - seconds, 0.0, 0.0
    for tick in reversed(ticks):
        if tick.at - tick.seconds >= until - 1e-6:
            continue
        if tick.at <= since + 1e-6:
            break
        # A tick that an edge cuts counts by the part within.
        part = min((min(tick.at, until) - max(tick.at - tick.seconds, since)) / tick.seconds, 1.0)
        arrivals += tick.arrivals * part
        lasted += tick.seconds * part
    return (arrivals / lasted, lasted) if lasted > 0 else (0.0, 0.0)


def level(ticks: Sequence[Tick]) -> float:
    """Answer the present rate: that of half a minute, or of a shorter time where it is surely larger than by chance."""
    levels = [0.0]
    for seconds, sigmas in _LEVELS:
        found, lasted = rate(ticks, seconds)
        if lasted > 0:
            levels.append(found - sigmas * math.sqrt(found / lasted))
    return max(levels)


def deviation(ticks: Sequence[Tick], seconds: float, before: float | None) -> float | None:
    """Answer the standard deviation of the growth of arrivals over so many seconds, as a share of the rate, as of now.

    The variance is half the mean square of the difference between two neighbouring windows (the Allan variance), which no slow
    wave inflates; its square times the expected count is the index of dispersion of counts over that time (Cox and Lewis, "The
    Statistical Analysis of Series of Events", 1966; Sriram and Whitt, 1986), Poisson's own part included.
    """
    (late, lasted), (early, lasted_before) = rate(ticks, seconds), rate(ticks, seconds, seconds)
    if min(lasted, lasted_before) < 0.8 * seconds or late + early <= 0:
        return before
    square = 2 * ((late - early) / (late + early)) ** 2
    if before is None:
        return max(math.sqrt(square), _DEVIATION_UNKNOWN)
    gain = 1 - math.exp(-ticks[-1].seconds / _DEVIATION_SECONDS)
    return math.sqrt(before**2 + gain * (square - before**2))


def forecast(ticks: Sequence[Tick], start_seconds: float | None, spread: float | None, caution: float, peak: float) -> Forecast:
    """Answer the rate now and the head-room.

    `spread` is the deviation above, `peak` the largest rate of late: variability is no reason to expect more than that, but
    for chance itself.
    """
    now, ahead = level(ticks), horizon(start_seconds)
    deviations = _DEVIATIONS * caution
    chance = _DEVIATIONS * math.sqrt(now / measured_over(start_seconds))
    varies = deviations * (_DEVIATION_UNKNOWN if spread is None else spread) * now
    return Forecast(now, max(min(varies, peak - now), chance), _trend(ticks, now, ahead))


def _trend(ticks: Sequence[Tick], now: float, ahead: float) -> float:
    """Answer by how much a rise that has lasted 20 s goes on: damped, as the trends of Gardner and McKenzie (1985)."""
    (third, lasted), (second, _), (first, lasted_first) = (rate(ticks, 10.0, ago) for ago in (0.0, 10.0, 20.0))
    if min(lasted, lasted_first) < 8.0:
        return 0.0
    slope = (third - first) / 20
    sure = slope > _TREND_SIGMAS * math.sqrt(2 * now / 10) / 20
    if not sure or min(third - second, second - first) / 10 <= slope / 2:
        return 0.0
    return min(slope * _TREND_TIMES * _TREND_SECONDS * (1 - math.exp(-ahead / _TREND_SECONDS)), _TREND_MOST * now)


def draining(in_flight: float, expected: float, start_seconds: float | None) -> float:
    """Answer the requests a second that work off a backlog: what is in flight beyond thrice what belongs there."""
    return max(in_flight - 3 * expected - 5, 0.0) / max(_DRAIN_SECONDS, _DRAIN_PART * horizon(start_seconds))
