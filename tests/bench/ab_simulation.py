"""A/B tests by simulation: requests until a winner is named, by effect, and how often one is where there is no difference.

The real comparison (slipway.core.ab) at 95% on simulated counts, looked at 10 times in each doubling of the requests, half of
them the candidate's. Latencies are log-normal (sigma 0.5), a metric's samples exponential.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tests.bench.table import grid, median

from slipway.core.ab import CONFIDENCE, ErrorRatio, Moments, compare_latency, compare_metric
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.sequential import Tally

_FIRST, _LIMIT, _LOOKS = 200, 2_000_000, 10
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
    candidate, stable = Moments(), Moments()
    for size, requests in _blocks():
        candidate, stable = candidate + _drawn(draws, size, effect), stable + _drawn(draws, size, 1.0)
        yield requests, compare_metric("value", candidate, stable, higher_is_better=True).winner is not None


def _drawn(draws: np.random.Generator, samples: int, mean: float) -> Moments:
    drawn = draws.exponential(mean, samples)
    return Moments(samples, float(drawn.sum()), float((drawn**2).sum()))


_MEASURES = (
    _Measure("errors, stable 1%", (5.0, 2.0, 1.5, 1.2, 0.8, 0.5), _errors(0.01)),
    _Measure("errors, stable 0.1%", (10.0, 5.0, 2.0, 1.5, 0.5), _errors(0.001)),
    _Measure("errors, stable 20%", (1.5, 1.2, 1.1, 0.9), _errors(0.2)),
    _Measure("p95", (2.0, 1.5, 1.2, 1.1, 1.05), _latency(95)),
    _Measure("p50", (1.2, 1.1, 1.05), _latency(50)),
    _Measure("metric", (1.5, 1.2, 1.1, 1.05), _metric),
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
    """Yield both tables as Markdown."""
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
        named = sum(requests_to_winner(measure.test, 1.0, draws, 20_000) is not None for _ in range(equals))
        cells.append((measure.name, f"{named} ({named / equals:.1%}; at most {1 - CONFIDENCE:.0%} is promised)"))
    yield "\n".join(["### No difference, looked at all along up to 20,000 requests", "", *grid(cells)])


def _told(requests: float) -> str:
    return f"{requests:,.0f}" if requests < _LIMIT else f">{_LIMIT:,}"
