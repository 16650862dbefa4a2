"""The verdict on a candidate, from what callers got of it and of stable at the same time.

A bound is broken when two sequential tests say so: the candidate is beyond it, and it is worse than stable. So one that is like
stable is withdrawn in at most ALPHA of all rollouts, however long they take and whatever stable's own trouble; a plainly bad one
goes within seconds, and one that is neither takes the step's hold, and waits on until it is clear.

The evidence is the process's own: an operator that starts anew gathers it anew, and passes nothing before it has.
"""

import math
from dataclasses import dataclass

from slipway.api.status import CheckStatus
from slipway.core.evidence import BoundTest, Evidence, Got, failed
from slipway.core.live import latency_text, percent_text
from slipway.core.plan import UNJUDGED, Bound, Judgement, Plan, Verdict

ALPHA = 0.01
"""The share of rollouts in which a candidate that equals stable may be withdrawn, over all its bounds together."""


@dataclass(frozen=True)
class Measured:
    """One bound's figures: shares for errors, milliseconds for latencies; None without requests. `sample` is the candidate's.

    `kept` tells whether the candidate may be within the bound, as far as its figures and the buckets of latencies tell.
    """

    bound: Bound
    candidate: float | None
    stable: float | None
    limit: float | None
    sample: int
    kept: bool

    @property
    def common(self) -> bool:
        """Tell whether stable is beyond an absolute bound too."""
        return self.bound.ratio is None and self.stable is not None and self.limit is not None and self.stable > self.limit

    def __str__(self) -> str:
        """Say it in one phrase."""
        told = [self.told(value) or "unknown" for value in (self.candidate, self.limit, self.stable)]
        return f"{self.bound.name} {told[0]}, limit {told[1]} (stable {told[2]})"

    def told(self, value: float | None) -> str | None:
        """Write one of its figures."""
        if value is None:
            return None
        if not self.bound.is_latency:
            return percent_text(float(f"{value:.3g}"))
        return latency_text(value) if math.isfinite(value) else "over 60s"


def measure(bound: Bound, got: Got) -> Measured:
    """Answer one bound's figures."""
    if not bound.is_latency:
        mine, theirs = failed(got.candidate), failed(got.stable)
        candidate, stable = (each.share if each.requests else None for each in (mine, theirs))
        return Measured(bound, candidate, stable, bound.share, int(mine.requests), kept=mine.share <= bound.share)
    sample = got.candidate.latency.sample
    mine, theirs = (each.latency.quantile(1 - bound.share) for each in (got.candidate, got.stable))
    candidate, stable = (None if each is None else each.estimate_ms for each in (mine, theirs))
    if bound.seconds is not None:
        limit = most = bound.seconds * 1000
    elif bound.ratio is None or theirs is None:
        return Measured(bound, candidate, stable, None, sample, kept=True)
    else:
        limit, most = bound.ratio * theirs.estimate_ms, bound.ratio * theirs.high_ms
    return Measured(bound, candidate, stable, limit, sample, kept=mine is None or mine.low_ms < most)


_Check = tuple[CheckStatus, Verdict, str]
"""One check's figures, its verdict, and why in words."""


def judge(evidence: Evidence, plan: Plan, *, reliable: bool) -> Judgement:
    """Answer the verdict. `reliable` tells whether every router answered lately: what is not measured passes nothing."""
    if not plan.bounds:
        return UNJUDGED
    checks = [_check(test, evidence, plan) for test in evidence.tests]
    shown = tuple(check for check, _, _ in checks)
    for check, verdict, message in checks:
        if verdict == Verdict.FAIL:
            reason = "ErrorRateTooHigh" if check.name == "errorRate" else "LatencyTooHigh"
            return Judgement(verdict, reason, message, shown)
    if not reliable:
        return Judgement(Verdict.WAIT, "MetricsStale", "a router has not told its figures for some seconds", shown)
    for check, verdict, message in checks:
        if verdict == Verdict.WAIT:
            return Judgement(verdict, check.verdict, message, shown)
    return Judgement(Verdict.PASS, "Passed", "all checks pass", shown)


def _check(test: BoundTest, evidence: Evidence, plan: Plan) -> _Check:
    """Answer how a bound stands. A failure is told by the figures since the first step, on which the tests rest."""
    if test.broken_at >= math.log(len(evidence.tests) / ALPHA):
        measured = measure(test.bound, evidence.all)
        slow = test.slow[0].count
        more = f"; {slow} requests in flight take longer already" if slow else ""
        return _shown(measured, "Failed"), Verdict.FAIL, f"{measured}{more}"
    measured = measure(test.bound, evidence.got)
    name = test.bound.name
    if measured.sample < plan.min_requests:
        message = f"{name} rests on fewer than {plan.min_requests} requests at this step yet"
        return _shown(measured, "InsufficientRequests"), Verdict.WAIT, message
    if measured.limit is None:
        message = f"{name}: stable has had no request to be compared with"
        return _shown(measured, "InsufficientRequests"), Verdict.WAIT, message
    lately = measure(test.bound, evidence.lately)
    if lately.sample < plan.min_requests or lately.limit is None:
        lately = measured
    # What met both for a while is over once it is over; nor does a slow hour of stable's excuse a slow candidate.
    kept = measured.kept or (measured.common and lately.kept)
    if kept and (lately.kept or test.bound.ratio is None):
        return _shown(measured, "Passed"), Verdict.PASS, ""
    if lately.common:
        return _shown(measured, "CommonCause"), Verdict.WAIT, f"stable is as bad as the candidate: {name}"
    return _shown(measured, "Unclear"), Verdict.WAIT, f"beyond its limit, but not clearly: {name}"


def _shown(measured: Measured, verdict: str) -> CheckStatus:
    return CheckStatus.model_validate(
        {
            "name": measured.bound.name,
            "candidate": measured.told(measured.candidate),
            "stable": measured.told(measured.stable),
            "limit": measured.told(measured.limit),
            "sample": measured.sample,
            "verdict": verdict,
        }
    )
