"""What an A/B test says of two arms: how far they differ, within bounds that hold at every look, and which one is better.

Errors, a quantile of latency, and a user's own metric. The p-value is 1 over an e-value and the bounds are what such tests do
not reject, so they agree: the bounds leave 0 out exactly when the p-value is 1 - confidence or less. By Ville's inequality the
bounds of all looks hold the truth together with that confidence, however often one looks and whenever one stops. Several
measures, or several arms, each want their share of 1 - confidence.

Requests are taken as independent of each other, given their arm. Where callers stay with an arm and few of them make most
requests, the arms differ by who is in them: then p-values are too small. A metric with one sample a caller is free of that.

Sources: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference" (2023); Lindon and Malek,
"Anytime-valid inference for multinomial count data" (2022) for errors; Howard and Ramdas, "Sequential estimation of quantiles
with applications to A/B testing and best-arm identification" (2022) for latencies; Waudby-Smith, Arbour, Sinha, Kennedy,
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (2024) for metrics.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.sequential import Tally

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Two arms by one measure, at one look.

    `candidate` and `stable` are the estimates: a share of errors (0 to 1) or milliseconds; None without samples, and of a metric,
    of which the differences alone are known here. `difference` is the candidate's less stable's, from `lower` to `upper` by the
    bounds (infinite where nothing bounds it); where it is `relative`, as a share of stable's.
    """

    measure: str
    candidate: float | None
    stable: float | None
    difference: float | None
    lower: float
    upper: float
    p_value: float
    confidence: float = CONFIDENCE
    relative: bool = True
    higher_is_better: bool = False

    @property
    def winner(self) -> Literal["stable", "candidate"] | None:
        """Answer the better arm, None where that is not shown."""
        if self.p_value > 1 - self.confidence or (self.lower < 0 < self.upper):
            return None
        return "candidate" if (self.lower >= 0) == self.higher_is_better else "stable"

    def __str__(self) -> str:
        """Say it in one phrase."""
        p_value = f"p {self.p_value:.2g} always valid"
        if self.difference is None:
            return f"{self.measure}: nothing to compare yet"
        if self.winner is None:
            low, middle, high = (self._told(value, "+") for value in (self.lower, self.difference, self.upper))
            return f"no winner yet: {self.measure} of candidate to stable {middle} [{low}, {high}], {p_value}"
        near, far = sorted((abs(self.lower), abs(self.upper)))
        more, fewer = ("more", "fewer") if self.measure == "errors" else ("higher", "lower")
        word = more if self.lower >= 0 else fewer
        told = f"{self._told(abs(self.difference))} [{self._told(near)}, {self._told(far)}]"
        if math.isinf(far):
            told = f"at least {self._told(near)}"
        return f"candidate {told} {word} {self.measure} than stable, {p_value}"

    def _told(self, value: float, sign: str = "") -> str:
        number = 100 * value if self.relative else value
        told = f"{number:{sign}.3g}" if abs(number) < 1000 or math.isinf(number) else f"{number:{sign},.0f}"
        return f"{told}%" if self.relative else told


# Ratios of error rates, each 2^(1/32) times the one before: bounds are told to 2%. The stake on one is the larger the closer it
# is to 1, heavy of tail: effects of some tens of percent are found soonest.
_STEPS, _OCTAVE = 192, 32
_LOG_RATIOS = tuple(math.log(2) * step / _OCTAVE for step in range(-_STEPS, _STEPS + 1))
_RATIOS = tuple(map(math.exp, _LOG_RATIOS))
_STAKES = tuple(1 / (0.1 + abs(each)) for each in _LOG_RATIOS)
_LOG_STAKES = tuple(math.log(each / sum(_STAKES)) for each in _STAKES)


@dataclass(frozen=True)
class ErrorRatio:
    """The evidence on the ratio of the candidate's error rate to stable's.

    Each error in a block of requests is the candidate's with chance n_c r / (n_c r + n_s), where r is the ratio. A bet on that
    does not gain on average where r is the ratio, whatever the rates: they may change from block to block, and so may the
    shares of requests. `likelihoods` are the logarithms of the chance of all errors so far, by ratio, but for what is common to
    all. Requests of one arm wait until the other has some too.
    """

    candidate: Tally = field(default_factory=Tally)
    stable: Tally = field(default_factory=Tally)
    likelihoods: tuple[float, ...] = (0.0,) * len(_RATIOS)
    waiting: tuple[Tally, Tally] = field(default_factory=lambda: (Tally(), Tally()))

    def add(self, candidate: Tally, stable: Tally) -> "ErrorRatio":
        """Answer the evidence after more requests of both over the same time.

        The totals of an earlier process may be given as one block: while the shares of requests stay, that comes to the same.
        """
        candidate, stable = self.waiting[0] + candidate, self.waiting[1] + stable
        if not candidate.requests or not stable.requests:
            return replace(self, waiting=(candidate, stable))
        likelihoods, errors = self.likelihoods, candidate.bad + stable.bad
        if errors:
            odds = candidate.requests / stable.requests
            likelihoods = tuple(
                before + candidate.bad * log_ratio - errors * math.log1p(ratio * odds)
                for before, log_ratio, ratio in zip(likelihoods, _LOG_RATIOS, _RATIOS, strict=True)
            )
        return ErrorRatio(self.candidate + candidate, self.stable + stable, likelihoods)

    def log_evidence(self) -> tuple[float, ...]:
        """Answer the logarithm of the e-value against each ratio."""
        mixed = _log_sum(stake + each for stake, each in zip(_LOG_STAKES, self.likelihoods, strict=True))
        return tuple(mixed - each for each in self.likelihoods)

    def compare(self, confidence: float = CONFIDENCE) -> Comparison:
        """Answer what is known of the ratio. One beyond 1/64 or 64 is not told from those."""
        mine, theirs = (arm.share if arm.requests else None for arm in (self.candidate, self.stable))
        difference = None
        if mine is not None and theirs is not None and (mine or theirs):
            difference = mine / theirs - 1 if theirs else math.inf
        evidence = self.log_evidence()
        kept = [index for index, each in enumerate(evidence) if each < -math.log(1 - confidence)]
        # Ratios between two that were tried are not rejected where one of them is not.
        first, last = kept[0] - 1, kept[-1] + 1
        lower = _RATIOS[first] - 1 if first >= 0 else -1.0
        upper = _RATIOS[last] - 1 if last < len(_RATIOS) else math.inf
        return Comparison("errors", mine, theirs, difference, lower, upper, _p_value(evidence[_STEPS]), confidence)


# Alternatives to a share, as distances of its log odds: each 2^(1/2) times the one before, the same stake on all.
_LOG_ODDS = tuple(0.03 * 2 ** (step / 2) for step in range(17))


def compare_latency(candidate: Histogram, stable: Histogram, percentile: float, confidence: float = CONFIDENCE) -> Comparison:
    """Answer what is known of a percentile (0 to 100, exclusive) of both arms' latencies, from all requests so far.

    Each pair of buckets in which the quantiles may lie has the product of two e-values, one an arm's; the bounds hold every pair
    that is not rejected, and the p-value is that of the least rejected bucket which both might share. It rests on no more than
    the counts: nothing is kept from look to look.
    """
    share, measure = percentile / 100, f"p{percentile:g}"
    mine, theirs = candidate.quantile(share), stable.quantile(share)
    if mine is None or theirs is None:
        return Comparison(measure, _estimate(candidate, share), _estimate(stable, share), None, -1.0, math.inf, 1.0, confidence)
    of_candidate, of_stable = quantile_evidence(candidate, share), quantile_evidence(stable, share)
    most = -math.log(1 - confidence)
    lower, upper = math.inf, -1.0
    possible = [(bucket, each) for bucket, each in enumerate(of_stable) if each < most]
    for bucket, each in enumerate(of_candidate):
        pairs = [other for other, evidence in possible if each + evidence < most]
        if pairs:
            # The fastest that the one may be against the slowest that the other may be, and the reverse.
            lower = min(lower, EDGES_MS[bucket] / EDGES_MS[pairs[-1] + 1] - 1)
            upper = max(upper, EDGES_MS[bucket + 1] / EDGES_MS[pairs[0]] - 1 if EDGES_MS[pairs[0]] else math.inf)
    p_value = _p_value(min(a + b for a, b in zip(of_candidate, of_stable, strict=True)))
    difference = mine.estimate_ms / theirs.estimate_ms - 1
    return Comparison(measure, mine.estimate_ms, theirs.estimate_ms, difference, lower, upper, p_value, confidence)


def _estimate(arm: Histogram, share: float) -> float | None:
    quantile = arm.quantile(share)
    return None if quantile is None else quantile.estimate_ms


def quantile_evidence(arm: Histogram, share: float) -> list[float]:
    """Answer for each bucket the logarithm of the e-value against the quantile lying in it.

    Where it does, the chance of a latency in this bucket or below is `share` at least, and that of one below it `share` at most:
    half of the stake is on either being untrue.
    """
    sample, below, evidence = arm.sample, 0, list[float]()
    before = upto = 0.0
    for bucket in range(len(EDGES_MS) - 1):
        count = arm.counts.get(bucket, 0)
        # Both change where there are counts alone: most buckets are empty.
        if count or not bucket:
            before = _against(sample, below, share, 1)
            below += count
            upto = _against(sample, below, share, -1)
        elif arm.counts.get(bucket - 1, 0):
            before = _against(sample, below, share, 1)
        evidence.append(_log_sum((before, upto)) - math.log(2))
    return evidence


def _against(sample: int, below: int, share: float, sign: int) -> float:
    """Answer the logarithm of the e-value against the chance that gave `below` of a sample being `share`.

    sign 1: against its being `share` or less; -1: or more.
    """
    return _log_sum(below * step - sample * cost for step, cost in _alternatives(share, sign)) - math.log(len(_LOG_ODDS))


@lru_cache
def _alternatives(share: float, sign: int) -> tuple[tuple[float, float], ...]:
    """Answer the alternatives to a share: by how much the log odds differ, and the logarithm that a sample costs."""
    steps = (sign * distance for distance in _LOG_ODDS)
    return tuple((step, math.log1p(share * math.expm1(step))) for step in steps)


@dataclass(frozen=True)
class Moments:
    """Samples of a metric: their number, sum, and sum of squares."""

    samples: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        """Answer both together."""
        return Moments(self.samples + other.samples, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float | None:
        """Answer the mean, None without samples."""
        return self.total / self.samples if self.samples else None

    @property
    def variance_of_mean(self) -> float:
        """Answer the estimated variance of the mean; infinite below two samples."""
        if self.samples < 2:
            return math.inf
        squares = max(self.squares - self.total**2 / self.samples, 0.0)
        return squares / (self.samples - 1) / self.samples


# A metric's bounds are narrowest at so many intervals; fewer than these say nothing, for they hold in the long run only.
_PAIRS, _PAIRS_MIN = 200, 30


def compare_paired(measure: str, differences: Moments, *, higher_is_better: bool, confidence: float = CONFIDENCE) -> Comparison:
    """Answer what is known of a metric of which each arm's mean alone is told, by the candidate's less stable's of each interval.

    The intervals must not overlap (a rate over five minutes, read every five minutes), and are taken as alike. The bounds are
    those of a normal mixture: they hold asymptotically, for whatever distribution of finite variance.
    """
    difference, variance = differences.mean, differences.variance_of_mean
    told = Comparison(measure, None, None, difference, -math.inf, math.inf, 1.0, confidence, False, higher_is_better)
    if difference is None or differences.samples < _PAIRS_MIN:
        return told
    wanted = -math.log(1 - confidence)
    spread = differences.samples / _PAIRS * (2 * wanted + math.log(2 * wanted + 1))
    margin = math.sqrt(variance * 2 * (1 + spread) / spread * (wanted + math.log1p(spread) / 2))
    squares = difference**2 / variance if variance else (math.inf if difference else 0.0)
    p_value = _p_value(spread / (1 + spread) * squares / 2 - math.log1p(spread) / 2)
    return replace(told, lower=difference - margin, upper=difference + margin, p_value=p_value)


def _p_value(log_evidence: float) -> float:
    return min(math.exp(-log_evidence), 1.0) if log_evidence > 0 else 1.0


def _log_sum(logarithms: Iterable[float]) -> float:
    """Answer the logarithm of a sum whose parts' logarithms are given."""
    parts = tuple(logarithms)
    most = max(parts)
    return most + math.log(sum(math.exp(each - most) for each in parts))
