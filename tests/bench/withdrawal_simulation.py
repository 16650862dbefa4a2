"""Withdrawals by simulation alone: how long the verdict on a bad candidate takes, and how often one like stable is blamed.

The real verdict (slipway.core.analysis) on simulated counts, second by second: arrivals are Poisson's, latencies log-normal
(sigma 0.5, median 40 ms), every bound of the documentation's example at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tests.bench.table import grid, median

from slipway.core.analysis import judge
from slipway.core.evidence import Evidence, Got
from slipway.core.figures import Counts, Slice
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.plan import Bound, Plan, Step, Verdict

PLAN = Plan(
    (Step(10, 3600, judged=True), Step(100)),
    (Bound("errorRate", 0.01), Bound("p95", 0.05, seconds=0.150), Bound("p95 to stable's", 0.05, ratio=1.25)),
    min_requests=100,
)
_MEDIAN_MS, _SIGMA = 40.0, 0.5
_LIMIT_SECONDS = 900
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """What a candidate, and stable, do to a request: the share that fails, and how many times as slow the rest is."""

    name: str
    errors: float = 0.0
    slower: float = 1.0
    stable_errors: float = 0.0
    stable_slower: float = 1.0


EFFECTS = (
    Effect("100% errors", 1.0),
    Effect("20% errors", 0.2),
    Effect("5% errors", 0.05),
    Effect("2% errors", 0.02),
    Effect("3x latency", slower=3.0),
    Effect("2x latency", slower=2.0),
    Effect("1.5x latency", slower=1.5),
)
# Stable within its bounds; at them, where chance is worst; and beyond them itself.
EQUALS = (
    Effect("no errors, p95 91 ms"),
    Effect("1% errors, p95 150 ms: at both limits", 0.01, 1.648, 0.01, 1.648),
    Effect("5% errors, p95 300 ms: beyond both", 0.05, 3.3, 0.05, 3.3),
)
_RATES, _WEIGHTS = (10, 30, 100, 300), (5, 25)


def _shares(slower: float) -> Shares:
    """Answer the share of requests in each bucket of latency."""
    edges = np.array([max(edge, 1e-9) for edge in EDGES_MS])
    below = np.array([0.5 * (1 + math.erf(math.log(edge / (_MEDIAN_MS * slower)) / (_SIGMA * math.sqrt(2)))) for edge in edges])
    shares = np.diff(below)
    return shares / shares.sum()


class _Side:
    """One revision's totals."""

    def __init__(self, draws: np.random.Generator, rate: float, errors: float, slower: float) -> None:
        self._draws, self._rate, self._errors, self._shares = draws, rate, errors, _shares(slower)
        self._requests = self._failed = 0
        self._latency = np.zeros(len(self._shares), dtype=np.int64)

    def second(self, now: float) -> Slice:
        """Answer the totals a second later."""
        requests = int(self._draws.poisson(self._rate))
        failed = int(self._draws.binomial(requests, self._errors))
        self._requests, self._failed = self._requests + requests, self._failed + failed
        self._latency += self._draws.multinomial(requests - failed, self._shares)
        found = np.flatnonzero(self._latency)
        latency = dict(zip(found.tolist(), self._latency[found].tolist(), strict=True))
        return Slice(0.0, now, Counts(requests=self._requests, errors=self._failed), Histogram(latency))


def seconds_to_withdraw(effect: Effect, rate: float, weight: int, seconds: int, draws: np.random.Generator) -> int | None:
    """Answer after how many seconds the verdict is to withdraw, None where it is not within the limit."""
    candidate = _Side(draws, rate * weight / 100, effect.errors, effect.slower)
    stable = _Side(draws, rate * (1 - weight / 100), effect.stable_errors, effect.stable_slower)
    evidence = Evidence.begin(PLAN, 1, Got(Slice(0, 0), Slice(0, 0)))
    for second in range(1, seconds + 1):
        evidence = evidence.add(1, Got(candidate.second(second), stable.second(second), (0, 0), second))
        if judge(evidence, PLAN, reliable=True).verdict == Verdict.FAIL:
            return second
    return None


def tables(rollouts: int, equals: int) -> Iterator[str]:
    """Yield both tables as Markdown."""
    draws = np.random.default_rng(1)
    head = ("candidate", *(f"{rate}/s at {weight}%" for weight in _WEIGHTS for rate in _RATES))
    cells: list[tuple[str, ...]] = [head]
    for effect in EFFECTS:
        row = [effect.name]
        for weight in _WEIGHTS:
            for rate in _RATES:
                found = [seconds_to_withdraw(effect, rate, weight, _LIMIT_SECONDS, draws) for _ in range(rollouts)]
                times = [_LIMIT_SECONDS if each is None else each for each in found]
                row.append(f"{_told(median(times))}; {_told(max(times))}")
        cells.append(tuple(row))
    title = f"### Seconds to the verdict: median; worst of {rollouts}, simulated"
    yield "\n".join([title, "", *grid(cells)])
    cells = [("stable and candidate", f"withdrawn of {equals:,}, each looked at every second for 5 minutes")]
    for effect in EQUALS:
        blamed = sum(seconds_to_withdraw(effect, 50, 25, 300, draws) is not None for _ in range(equals))
        cells.append((effect.name, f"{blamed} ({blamed / equals:.1%}; at most 1% is promised)"))
    yield "\n".join(["### Candidates like stable, 50 requests/s at 25%, simulated", "", *grid(cells)])


def _told(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds < _LIMIT_SECONDS else f">{_LIMIT_SECONDS}"
