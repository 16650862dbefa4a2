"""A/B tests by simulation: requests until a winner is named, by effect, and how often one is where there is no difference.

The real comparison (slipway.core.ab) at 95% on simulated counts, looked at 10 times in each doubling of the requests, half of
them the candidate's. Latencies are log-normal (sigma 0.5); a metric's samples are exponential, and the means of each 50 are told.
With several arms it is the whole test (slipway.core.trial), all arms with as many requests as stable, and the metric's means of
300 intervals.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from tests.bench.table import grid, median

from slipway.api.status import TrialStatus
from slipway.core.ab import CONFIDENCE, ErrorRatio, Moments, compare_latency, compare_paired
from slipway.core.figures import Counts, Slice
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.plan import Trial
from slipway.core.polled import METRIC, MetricQuery, Polled
from slipway.core.revision import Target
from slipway.core.sequential import Tally
from slipway.core.trial import enrolled, tell, with_means

_FIRST, _LIMIT, _LOOKS = 200, 2_000_000, 10
_EQUAL_LIMIT = 20_000
# Of each arm in one interval of a metric, of which the mean is told.
_INTERVAL_REQUESTS = 50
# Beside stable.
_ARMS = (2, 3)
_MEDIAN_MS, _SIGMA = 40.0, 0.5

_Arms = Iterator[tuple[int, bool]]
"""One test: after so many requests of both together, whether a winner was named, look by look."""
_Test = Callable[[float, np.random.Generator], _Arms]


@dataclass(frozen=True)
class _Measure:
    """A measure, what a candidate does to it in each row (times stable's), and the test."""

    name: str
    effects: tuple[float, ...]
    test: _Test


def _blocks() -> Iterator[tuple[int, int]]:
    """Yield the requests of each arm between two looks, and those of both so far."""
    before = 0
    for look in itertools.count():
        after = round(_FIRST * 2 ** (look / _LOOKS) / 2)
        if 2 * after > _LIMIT:
            return
        yield after - before, 2 * after
        before = after


def _errors(stable: float) -> _Test:
    def test(effect: float, draws: np.random.Generator) -> _Arms:
        ratio = ErrorRatio()
        for size, requests in _blocks():
            bad = draws.binomial(size, stable * effect), draws.binomial(size, stable)
            ratio = ratio.add(Tally(size, int(bad[0])), Tally(size, int(bad[1])))
            yield requests, ratio.compare().winner is not None

    return test


def _latency(percentile: float) -> _Test:
    def test(effect: float, draws: np.random.Generator) -> _Arms:
        edges = np.array(EDGES_MS)
        shares = [_shares(edges, _MEDIAN_MS * slower) for slower in (effect, 1.0)]
        totals = [np.zeros(len(edges) - 1, dtype=np.int64) for _ in shares]
        for size, requests in _blocks():
            for total, chances in zip(totals, shares, strict=True):
                total += draws.multinomial(size, chances)
            candidate, stable = (Histogram({int(b): int(total[b]) for b in np.flatnonzero(total)}) for total in totals)
            yield requests, compare_latency(candidate, stable, percentile).winner is not None

    return test


def _shares(edges: np.ndarray, median_ms: float) -> list[float]:
    """Answer the share of requests in each bucket of latency."""
    below = [0.0 if edge <= 0 else 0.5 * math.erfc(-math.log(edge / median_ms) / _SIGMA / math.sqrt(2)) for edge in edges]
    return [after - before for before, after in itertools.pairwise(below)]


def _metric(effect: float, draws: np.random.Generator) -> _Arms:
    differences, waiting = Moments(), 0
    for size, requests in _blocks():
        intervals, waiting = divmod(waiting + size, _INTERVAL_REQUESTS)
        candidate, stable = (draws.gamma(_INTERVAL_REQUESTS, mean / _INTERVAL_REQUESTS, intervals) for mean in (effect, 1.0))
        drawn = candidate - stable
        differences += Moments(intervals, float(drawn.sum()), float((drawn**2).sum()))
        yield requests, compare_paired("value", differences, higher_is_better=True).winner is not None


_MEASURES = (
    _Measure("errors, stable 1%", (5.0, 2.0, 1.5, 1.2, 0.8, 0.5), _errors(0.01)),
    _Measure("errors, stable 0.1%", (10.0, 5.0, 2.0, 1.5, 0.5), _errors(0.001)),
    _Measure("errors, stable 20%", (1.5, 1.2, 1.1, 0.9), _errors(0.2)),
    _Measure("p95", (2.0, 1.5, 1.2, 1.1, 1.05), _latency(95)),
    _Measure("p50", (1.2, 1.1, 1.05), _latency(50)),
    _Measure("metric", (1.5, 1.2, 1.1, 1.05), _metric),
)


_Draw = Callable[[int, np.random.Generator], Slice]


def _failing(share: float) -> _Draw:
    return lambda size, draws: Slice(0.0, 0.0, Counts(requests=size, errors=int(draws.binomial(size, share))))


def _answering(size: int, draws: np.random.Generator) -> Slice:
    counts = draws.multinomial(size, _ALIKE)
    return Slice(0.0, 0.0, Counts(requests=size), Histogram({int(b): int(counts[b]) for b in np.flatnonzero(counts)}))


_ALIKE = _shares(np.array(EDGES_MS), _MEDIAN_MS)
_ASKED = Polled(METRIC, 0, MetricQuery("value"), 60.0, 5.0)
_INTERVALS, _INTERVALS_A_LOOK = 300, 10


def told_apart(trial: Trial, draw: _Draw, arms: int, draws: np.random.Generator) -> bool:
    """Tell whether any of so many arms, which equal stable, is ever called better or worse."""
    test, stable, got = _begun(arms), Slice(0.0, 0.0), dict.fromkeys(_names(arms), Slice(0.0, 0.0))
    for size, requests in _blocks():
        if requests > _EQUAL_LIMIT:
            break
        stable, got = stable + draw(size, draws), {name: had + draw(size, draws) for name, had in got.items()}
        if any(arm.verdict for arm in tell(trial, test, stable, got).arms):
            return True
    return False


def means_told_apart(arms: int, draws: np.random.Generator) -> bool:
    """Tell the same of a metric, whose means are told for each interval: all arms' beside one and the same mean of stable's."""
    test, nothing = _begun(arms), dict.fromkeys(_names(arms), Slice(0.0, 0.0))
    for _ in range(_INTERVALS // _INTERVALS_A_LOOK):
        stable = draws.exponential(1.0, _INTERVALS_A_LOOK)
        means = [zip(draws.exponential(1.0, _INTERVALS_A_LOOK), stable, strict=True) for _ in range(arms)]
        told = [with_means(_ASKED, arm, pairs, 0.0) for arm, pairs in zip(test.arms, means, strict=True)]
        test = test.model_copy(update={"arms": told})
        if any(arm.verdict for arm in tell(Trial(metric=_ASKED), test, nothing["m-0"], nothing).arms):
            return True
    return False


def _names(arms: int) -> list[str]:
    return [f"m-{number}" for number in range(arms)]


def _begun(arms: int) -> TrialStatus:
    return enrolled((Target(name, "", None), 100 // (arms + 1)) for name in _names(arms))


_TOGETHER: tuple[tuple[str, Callable[[int, np.random.Generator], bool]], ...] = (
    ("errors, stable 1%", partial(told_apart, Trial(), _failing(0.01))),
    ("errors, stable 20%", partial(told_apart, Trial(), _failing(0.2))),
    ("p95", partial(told_apart, Trial(95), _answering)),
    ("metric", means_told_apart),
)


def requests_to_winner(test: _Test, effect: float, draws: np.random.Generator, limit: int = _LIMIT) -> int | None:
    """Answer after how many requests of both arms a winner is named, None where it is not within the limit."""
    for requests, named in test(effect, draws):
        if requests > limit:
            return None
        if named:
            return requests
    return None


def tables(tests: int, equals: int) -> Iterator[str]:
    """Yield the tables as Markdown."""
    draws = np.random.default_rng(1)
    cells: list[tuple[str, ...]] = [("measure", "candidate", "median", "worst")]
    for measure in _MEASURES:
        for effect in measure.effects:
            found = [requests_to_winner(measure.test, effect, draws) for _ in range(tests)]
            needed = [_LIMIT if each is None else each for each in found]
            cells.append((measure.name, f"{effect - 1:+.0%}", _told(median([*needed])), _told(max(needed))))
    yield "\n".join([f"### Requests of both arms until a winner is named at {CONFIDENCE:.0%}, of {tests}", "", *grid(cells)])
    cells = [("measure", f"winner named of {equals:,} A/A tests")]
    for measure in _MEASURES:
        named = sum(requests_to_winner(measure.test, 1.0, draws, _EQUAL_LIMIT) is not None for _ in range(equals))
        cells.append((measure.name, _promised(named, equals)))
    yield "\n".join([f"### No difference, looked at all along up to {_EQUAL_LIMIT:,} requests", "", *grid(cells)])
    cells = [("measure", *(f"of {equals:,} tests of {arms + 1} arms" for arms in _ARMS))]
    for name, apart in _TOGETHER:
        cells.append((name, *(_promised(sum(apart(arms, draws) for _ in range(equals)), equals) for arms in _ARMS)))
    yield "\n".join(["### No difference between several arms and stable: one told apart, better or worse", "", *grid(cells)])


def _promised(named: int, equals: int) -> str:
    return f"{named} ({named / equals:.1%}; at most {1 - CONFIDENCE:.0%} is promised)"


def _told(requests: float) -> str:
    return f"{requests:,.0f}" if requests < _LIMIT else f">{_LIMIT:,}"
