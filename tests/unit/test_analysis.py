"""Verdicts on candidates, in simulated traffic: like stable, plainly bad, a little bad, unmeasured."""

import math
from dataclasses import replace

import numpy as np
import pytest

from slipway.core.analysis import ALPHA, Evidence, Got, judge
from slipway.core.figures import Counts, Slice
from slipway.core.latency import Histogram, bucket_of
from slipway.core.plan import Bound, Plan, Step, Verdict

ERRORS = Bound("errorRate", 0.01)
P95 = Bound("p95", 0.05, seconds=0.150)
RELATIVE = Bound("p95 to stable's", 0.05, ratio=1.25)
PLAN = Plan((Step(25, 60, judged=True), Step(100)), (ERRORS, P95, RELATIVE), min_requests=50)


class Traffic:
    """Totals of a candidate and of stable that grow second by second."""

    def __init__(self, seed: int, rate: float, weight: float) -> None:
        self.draws = np.random.default_rng(seed)
        self.rates = rate * weight, rate * (1 - weight)
        self.now = 0.0
        self.totals = Got(Slice(0, 0), Slice(0, 0))

    def second(self, errors: tuple[float, float], slowness: tuple[float, float]) -> Got:
        """Answer the totals a second later: shares of errors, and median latencies in milliseconds, of both."""
        self.now += 1
        one, other = (
            self._more(total, rate, share, median)
            for total, rate, share, median in zip(
                (self.totals.candidate, self.totals.stable), self.rates, errors, slowness, strict=True
            )
        )
        self.totals = Got(one, other)
        return self.totals

    def _more(self, total: Slice, rate: float, errors: float, median_ms: float) -> Slice:
        requests = int(self.draws.poisson(rate))
        failed = int(self.draws.binomial(requests, errors))
        counts: dict[int, int] = {}
        for latency in self.draws.lognormal(math.log(median_ms), 0.5, requests - failed):
            bucket = bucket_of(latency)
            counts[bucket] = counts.get(bucket, 0) + 1
        new = Slice(total.until, self.now, Counts(requests=requests, errors=failed), Histogram(counts))
        return total + new


def verdict(
    errors: tuple[float, float] = (0.0, 0.0),
    slowness: tuple[float, float] = (40.0, 40.0),
    *,
    seed: int = 1,
    seconds: int = 120,
    rate: float = 50,
    weight: float = 0.25,
    plan: Plan = PLAN,
) -> tuple[Verdict, str, int]:
    """Answer the verdict after so many seconds, or the failure and when it came."""
    traffic = Traffic(seed, rate, weight)
    evidence = Evidence.begin(plan, 1, traffic.totals)
    for second in range(1, seconds + 1):
        evidence = evidence.add(1, traffic.second(errors, slowness))
        told = judge(evidence, plan, reliable=True)
        if told.verdict == Verdict.FAIL:
            return told.verdict, told.reason, second
    told = judge(evidence, plan, reliable=True)
    return told.verdict, told.reason, seconds


def test_a_candidate_like_stable_passes() -> None:
    assert verdict() == (Verdict.PASS, "Passed", 120)


@pytest.mark.parametrize(
    ("errors", "slowness", "reason", "within"),
    [
        ((1.0, 0.0), (40, 40), "ErrorRateTooHigh", 5),
        ((0.5, 0.0), (40, 40), "ErrorRateTooHigh", 10),
        ((0.05, 0.0), (40, 40), "ErrorRateTooHigh", 60),
        ((0.0, 0.0), (400, 40), "LatencyTooHigh", 5),
        ((0.0, 0.0), (80, 40), "LatencyTooHigh", 60),
    ],
)
def test_a_bad_candidate_fails_in_time(
    errors: tuple[float, float], slowness: tuple[float, float], reason: str, within: int
) -> None:
    for seed in range(10):
        told, why, second = verdict(errors, slowness, seed=seed)
        assert (told, why) == (Verdict.FAIL, reason)
        assert second <= within


def test_few_candidates_like_stable_are_withdrawn_and_few_bad_ones_pass() -> None:
    """The figures of the design: at most 1% of the former; over 99% of 5% more errors, or twice the p95, at 50 requests/s."""

    def withdrawn(rollouts: int, seconds: int, errors: tuple[float, float], slowness: tuple[float, float]) -> int:
        return sum(verdict(errors, slowness, seed=seed, seconds=seconds)[0] == Verdict.FAIL for seed in range(rollouts))

    # Stable itself at its limits is the hardest case: what is like it must not be blamed.
    assert withdrawn(100, 100, (0.01, 0.01), (66, 66)) <= 1 + 3 * math.sqrt(100 * ALPHA)
    assert withdrawn(100, 300, (0.06, 0.01), (40, 40)) >= 99
    assert withdrawn(100, 300, (0.0, 0.0), (80, 40)) >= 99


def test_a_common_cause_is_not_blamed_on_the_candidate() -> None:
    told, why, _ = verdict((0.2, 0.2))
    assert (told, why) == (Verdict.WAIT, "CommonCause")


def test_a_marginal_candidate_waits() -> None:
    # 1.1% of errors where 1% is allowed, and as much as stable has less: nothing that a minute could tell.
    told, why, _ = verdict((0.02, 0.008), seconds=30, seed=3)
    assert (told, why) == (Verdict.WAIT, "Unclear")


@pytest.mark.parametrize(("seconds", "reason"), [(1, "InsufficientRequests"), (60, "Passed")])
def test_too_few_requests_pass_nothing(seconds: int, reason: str) -> None:
    assert verdict(seconds=seconds)[1] == reason


def test_each_step_counts_its_own_requests_and_keeps_the_evidence() -> None:
    traffic = Traffic(1, 50, 0.25)
    evidence = Evidence.begin(PLAN, 1, traffic.totals)
    for _ in range(60):
        evidence = evidence.add(1, traffic.second((0.0, 0.0), (40, 40)))
    assert judge(evidence, PLAN, reliable=True).verdict == Verdict.PASS
    next_step = evidence.add(2, traffic.second((0.0, 0.0), (40, 40)))
    assert judge(next_step, PLAN, reliable=True).reason == "InsufficientRequests"
    assert next_step.tests[0].worse.candidate.requests > 500


def test_stale_figures_pass_nothing_and_blame_nobody() -> None:
    traffic = Traffic(1, 50, 0.25)
    evidence = Evidence.begin(PLAN, 1, traffic.totals).add(1, traffic.second((0.0, 0.0), (40, 40)))
    assert judge(evidence, PLAN, reliable=False).reason == "MetricsStale"


def test_counters_that_began_anew_are_not_negative() -> None:
    traffic = Traffic(1, 50, 0.25)
    evidence = Evidence.begin(PLAN, 1, traffic.totals).add(1, traffic.second((0.0, 0.0), (40, 40)))
    anew = Traffic(2, 5, 0.25).second((0.0, 0.0), (40, 40))
    got = evidence.add(1, anew)
    assert all(test.worse.candidate.requests >= 0 for test in got.tests)


def test_without_checks_time_alone_decides() -> None:
    plan = replace(PLAN, bounds=())
    empty = Got(Slice(0, 0), Slice(0, 0))
    assert judge(Evidence.begin(plan, 1, empty), plan, reliable=False).verdict == Verdict.PASS
