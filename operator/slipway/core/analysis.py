"""The verdict on a candidate, from what callers got of it and of stable at the same time.

A bound is broken when two sequential tests say so: the candidate is beyond it, and it is worse than stable. So one that is like
stable is withdrawn in at most ALPHA of all rollouts, however long they take and whatever stable's own trouble; a plainly bad one
goes within seconds, and one that is neither takes the step's hold, and waits on until it is clear.

The evidence is the process's own: an operator that starts anew gathers it anew, and passes nothing before it has.
"""

import math
from dataclasses import dataclass, field, replace

from slipway.core.figures import Slice
from slipway.core.latency import Histogram
from slipway.core.live import latency_text, percent_text
from slipway.core.plan import UNJUDGED, Bound, Judgement, Plan, Verdict
from slipway.core.sequential import OneSample, Tally, TwoSample

ALPHA = 0.01
"""The share of rollouts in which a candidate that equals stable may be withdrawn, over all its bounds together."""


@dataclass(frozen=True)
class Got:
    """What callers got of the candidate and of stable."""

    candidate: Slice
    stable: Slice

    def since(self, earlier: "Got") -> "Got":
        """Answer what came after an earlier state of the same totals."""
        return Got(_since(self.candidate, earlier.candidate), _since(self.stable, earlier.stable))


def _since(total: Slice, earlier: Slice) -> Slice:
    try:
        return Slice(earlier.until, total.until, total.counts.since(earlier.counts), total.latency - earlier.latency)
    except ValueError:  # counted anew
        return total


@dataclass(frozen=True)
class BoundTest:
    """One bound and the evidence against it."""

    bound: Bound
    beyond: OneSample | None
    worse: TwoSample = field(default_factory=TwoSample)

    def add(self, got: Got, stable_before: Histogram) -> "BoundTest":
        """Answer the test after more answers; `stable_before` holds stable's latencies until then.

        A relative bound compares the candidate's answers that are slower than the multiple of stable's quantile with stable's
        that are slower than the quantile itself. The quantile is of the answers before, so that it favours neither.
        """
        if self.bound.ratio is None:
            mine, theirs = _tally(self.bound, got.candidate), _tally(self.bound, got.stable)
            beyond = self.beyond.add(mine) if self.beyond is not None else None
            return replace(self, beyond=beyond, worse=self.worse.add(mine, theirs))
        quantile = stable_before.quantile(1 - self.bound.share)
        if quantile is None:
            return self
        mine = _slower(got.candidate, self.bound.ratio * quantile.high_ms)
        return replace(self, worse=self.worse.add(mine, _slower(got.stable, quantile.high_ms)))

    @property
    def broken_at(self) -> float:
        """Answer the logarithm of the evidence that the bound is broken: the weaker one of the two tests'."""
        return self.worse.log_evidence if self.beyond is None else min(self.beyond.log_evidence, self.worse.log_evidence)


def _tally(bound: Bound, got: Slice) -> Tally:
    if bound.seconds is None:
        return Tally(got.counts.requests, min(got.counts.errors, got.counts.requests))
    return _slower(got, bound.seconds * 1000)


def _slower(got: Slice, latency_ms: float) -> Tally:
    return Tally(got.latency.sample, got.latency.slower_than(latency_ms))


@dataclass(frozen=True)
class Evidence:
    """What was measured since the candidate's first request: `seen` are the totals so far, `begun` those when the step began."""

    start: Got
    seen: Got
    begun: Got
    step: int
    tests: tuple[BoundTest, ...]

    @classmethod
    def begin(cls, plan: Plan, step: int, totals: Got) -> "Evidence":
        """Answer the evidence before anything was measured."""
        tests = (BoundTest(each, None if each.ratio is not None else OneSample(each.share)) for each in plan.bounds)
        return cls(totals, totals, totals, step, tuple(tests))

    def add(self, step: int, totals: Got) -> "Evidence":
        """Answer the evidence once totals have grown; a new step counts its own requests."""
        new, before = totals.since(self.seen), _since(self.seen.stable, self.start.stable).latency
        tests = tuple(test.add(new, before) for test in self.tests)
        return replace(self, seen=totals, tests=tests, step=step, begun=self.begun if step == self.step else totals)

    @property
    def got(self) -> Got:
        """Answer what callers got since the step began."""
        return self.seen.since(self.begun)


@dataclass(frozen=True)
class Measured:
    """One bound's figures over the step, for status: shares for errors, milliseconds for latencies; None without requests."""

    bound: Bound
    candidate: float | None
    stable: float | None
    limit: float | None

    @property
    def kept(self) -> bool:
        """Tell whether the candidate is within the bound, as far as its figures go."""
        return self.candidate is None or self.limit is None or self.candidate <= self.limit

    @property
    def common(self) -> bool:
        """Tell whether stable is beyond an absolute bound too."""
        absolute = self.bound.ratio is None and self.limit is not None
        return absolute and self.stable is not None and self.limit is not None and self.stable > self.limit

    def __str__(self) -> str:
        """Say it in one phrase."""
        write = _latency if self.bound.is_latency else percent_text
        told = ["unknown" if value is None else write(value) for value in (self.candidate, self.limit, self.stable)]
        return f"{self.bound.name} {told[0]}, limit {told[1]} (stable {told[2]})"


def _latency(latency_ms: float) -> str:
    return latency_text(latency_ms) if math.isfinite(latency_ms) else "over 60s"


def measure(bound: Bound, got: Got) -> Measured:
    """Answer one bound's figures."""
    if not bound.is_latency:
        mine, theirs = (_tally(bound, each) for each in (got.candidate, got.stable))
        return Measured(bound, mine.share if mine.requests else None, theirs.share if theirs.requests else None, bound.share)
    mine, theirs = (each.latency.quantile(1 - bound.share) for each in (got.candidate, got.stable))
    stable = theirs.estimate_ms if theirs is not None else None
    if bound.seconds is not None:
        limit = bound.seconds * 1000
    else:
        limit = bound.ratio * stable if bound.ratio is not None and stable is not None else None
    return Measured(bound, mine.estimate_ms if mine is not None else None, stable, limit)


def judge(evidence: Evidence, plan: Plan, *, reliable: bool) -> Judgement:
    """Answer the verdict. `reliable` tells whether every router answered lately: what is not measured passes nothing."""
    if not plan.bounds:
        return UNJUDGED
    got = evidence.got
    for test in evidence.tests:
        if test.broken_at >= math.log(len(evidence.tests) / ALPHA):
            measured = measure(test.bound, evidence.seen.since(evidence.start))
            reason = "LatencyTooHigh" if test.bound.is_latency else "ErrorRateTooHigh"
            return Judgement(Verdict.FAIL, reason, str(measured))
    if not reliable:
        return Judgement(Verdict.WAIT, "MetricsStale", "a router has not told its figures for some seconds")
    if got.candidate.counts.requests < plan.min_requests:
        return Judgement(Verdict.WAIT, "InsufficientRequests", f"fewer than {plan.min_requests} requests at this step yet")
    for figures in (measure(bound, got) for bound in plan.bounds):
        if not figures.kept:
            if figures.common:
                return Judgement(Verdict.WAIT, "CommonCause", f"stable is as bad as the candidate: {figures.bound.name}")
            return Judgement(Verdict.WAIT, "Unclear", f"beyond its limit, but not clearly: {figures.bound.name}")
    return Judgement(Verdict.PASS, "Passed", "all checks pass")
