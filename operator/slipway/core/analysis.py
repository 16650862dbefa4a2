"""The verdict on a candidate, from what callers got of it and of stable at the same time.

A bound is broken when two sequential tests say so: the candidate is beyond it, and it is worse than stable. So one that is like
stable is withdrawn in at most ALPHA of all rollouts, however long they take and whatever stable's own trouble; a plainly bad one
goes within seconds, and one that is neither takes the step's hold, and waits on until it is clear.

Beside bounds there are checks that ask somebody else, whose answers are counted: slipway.core.polled.

The evidence is the process's own: an operator that starts anew gathers it anew, and passes nothing before it has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from slipway.api.status import CheckStatus
from slipway.core.evidence import BoundTest, Evidence, Got, failed
from slipway.core.live import latency_text, percent_text
from slipway.core.plan import UNJUDGED, Bound, Judgement, Plan, Verdict
from slipway.core.polled import NO_ANSWERS, Answers, Outcome, Polled, Query, Task

ALPHA = 0.01
"""The share of rollouts in which a candidate that equals stable may be withdrawn, over all bounds and candidates together."""


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


@dataclass(frozen=True)
class Checked:
    """One check as shown, its verdict, the reason where it is the one that decides, and why in words."""

    shown: CheckStatus
    verdict: Verdict
    reason: str
    message: str = ""


def judge(evidence: Evidence, plan: Plan, *, reliable: bool, answers: Mapping[str, Answers] | None = None) -> Judgement:
    """Answer the verdict. `reliable` tells whether every router answered lately: what is not measured passes nothing.

    `answers` are those of the step under way, by the name of the check that asked for them.
    """
    if not plan.bounds and not plan.polled:
        return UNJUDGED
    heard = answers or {}
    checks = [_check(test, evidence, plan) for test in evidence.tests]
    checks += [check_answers(each, heard.get(each.name, NO_ANSWERS)) for each in plan.polled]
    shown = tuple(check.shown for check in checks)
    for check in checks:
        if check.verdict == Verdict.FAIL:
            return Judgement(check.verdict, check.reason, check.message, shown)
    if plan.bounds and not reliable:
        return Judgement(Verdict.WAIT, "MetricsStale", "a router has not told its figures for some seconds", shown)
    for check in checks:
        if check.verdict == Verdict.WAIT:
            return Judgement(check.verdict, check.reason, check.message, shown)
    return Judgement(Verdict.PASS, "Passed", "all checks pass", shown)


def _check(test: BoundTest, evidence: Evidence, plan: Plan) -> Checked:
    """Answer how a bound stands. A failure is told by the figures since the first step, on which the tests rest."""
    if test.broken_at >= math.log(len(evidence.tests) * (1 + len(plan.arms)) / ALPHA):
        measured = measure(test.bound, evidence.all)
        slow = test.slow[0].count
        more = f"; {slow} requests in flight take longer already" if slow else ""
        reason = "LatencyTooHigh" if test.bound.is_latency else "ErrorRateTooHigh"
        return Checked(_shown(measured, "Failed"), Verdict.FAIL, reason, f"{measured}{more}")
    measured = measure(test.bound, evidence.got)
    name, least = test.bound.name, test.bound.min_requests or plan.min_requests
    if measured.sample < least:
        return _waits(measured, "InsufficientRequests", f"{name} rests on fewer than {least} requests at this step yet")
    if measured.limit is None:
        return _waits(measured, "InsufficientRequests", f"{name}: stable has had no request to be compared with")
    lately = measure(test.bound, evidence.lately)
    if lately.sample < least or lately.limit is None:
        lately = measured
    # What met both for a while is over once it is over; nor does a slow hour of stable's excuse a slow candidate.
    kept = measured.kept or (measured.common and lately.kept)
    if kept and (lately.kept or test.bound.ratio is None):
        return Checked(_shown(measured, "Passed"), Verdict.PASS, "Passed")
    if lately.common:
        return _waits(measured, "CommonCause", f"stable is as bad as the candidate: {name}")
    return _waits(measured, "Unclear", f"beyond its limit, but not clearly: {name}")


def _waits(measured: Measured, verdict: str, message: str) -> Checked:
    return Checked(_shown(measured, verdict), Verdict.WAIT, verdict, message)


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


def check_answers(check: Polled, answers: Answers) -> Checked:
    """Answer how a check stands that asks somebody else. No answer passes nothing, and blames nobody."""
    name, last = check.name, answers.last
    job = isinstance(check.ask, Task)

    def checked(verdict: Verdict, word: str, reason: str, message: str, told: str = "") -> Checked:
        shown = CheckStatus.model_validate(
            {
                "name": name,
                "candidate": None if answers.value is None else f"{answers.value:.4g}",
                "limit": check.ask.limit if isinstance(check.ask, Query) else None,
                "sample": answers.good + answers.bad,
                "verdict": word,
                "kind": check.ask.kind,
                "message": told or None,
            }
        )
        return Checked(shown, verdict, reason, message)

    if answers.bad >= check.failure_limit:
        told = answers.worst.phrase if answers.worst else ""
        count = "" if job or check.failure_limit == 1 else f" ({answers.bad} bad of {answers.good + answers.bad} answers)"
        return checked(Verdict.FAIL, "Failed", f"{check.ask.kind}CheckFailed", f"{name}: {told or 'failed'}{count}", told)
    if last is not None and last.outcome == Outcome.NONE:
        return checked(Verdict.WAIT, "Unanswered", "CheckUnanswered", f"{name}: {last.phrase}", last.phrase)
    if job and last is None:
        return checked(Verdict.WAIT, "Running", "CheckRunning", f"{name}: its Job has not ended yet")
    if last is not None and not job and answers.age_seconds > check.stale_seconds:
        told = f"no answer for {answers.age_seconds:.0f} s"
        return checked(Verdict.WAIT, "Unanswered", "CheckUnanswered", f"{name}: {told}", told)
    if last is not None and last.outcome == Outcome.BAD:
        count = f"{answers.bad} of {check.failure_limit} bad answers that withdraw the candidate"
        return checked(Verdict.WAIT, "Unclear", "Unclear", f"{name}: {last.phrase} ({count})", last.phrase)
    if answers.good < check.min_samples:
        message = f"{name} has had {answers.good} of {check.min_samples} good answers at this step yet"
        return checked(Verdict.WAIT, "InsufficientAnswers", "InsufficientAnswers", message)
    return checked(Verdict.PASS, "Passed", "Passed", "", last.phrase if last is not None else "")
